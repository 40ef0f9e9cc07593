"""Where a store may lie: paths and URIs, and the file systems of pyarrow behind them.

Credentials come from the environment (AWS_ACCESS_KEY_ID, a profile, the machine's role, GOOGLE_APPLICATION_CREDENTIALS), never
from a URI, which stands in job files, reports and messages. An S3 URI may say where its server is and how patient to be:

    s3://bucket/folder?region=eu-west-1
    s3://bucket/folder?endpoint_override=minio:9000&scheme=http&request_timeout=30&attempts=3
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pyarrow.fs as pafs

CREDENTIALS = "the URI holds credentials; take them out: they come from the environment (AWS_ACCESS_KEY_ID, ...)"
_GS_PATIENCE = "retry_limit_seconds=60"  # the library's own is a quarter of an hour
_S3_PATIENCE = {"connect_timeout": 5.0, "request_timeout": 20.0}  # seconds; a request's without a byte, however large the file
_S3_ATTEMPTS = 3
_S3_OPTIONS: dict[str, Callable[[str], Any]] = {
    "region": str,
    "scheme": str,
    "endpoint_override": str,
    "tls_ca_file_path": str,
    "force_virtual_addressing": lambda text: text.lower() in ("1", "true"),
    "connect_timeout": float,
    "request_timeout": float,
    "attempts": int,
}


def open_uri(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a URI, and the path in it. Raises ValueError if it names no folder, OSError if no one answers."""
    if uri.startswith("s3://"):
        return _open_s3(uri)
    if uri.startswith(("gs://", "gcs://")) and "retry_limit_seconds=" not in uri:
        uri += ("&" if "?" in uri else "?") + _GS_PATIENCE
    fs, path = pafs.FileSystem.from_uri(uri)
    if not path.strip("/"):
        raise ValueError("names no folder; write it as gs://bucket/folder")
    return fs, path.rstrip("/")


def holds_credentials(uri: str) -> bool:
    """Whether a URI has a user or password in front of an S3 bucket, a password before another host, or a key in its query."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return False
    place, _, query = rest.partition("?")
    secret = any(word in key.lower() for key, _ in parse_qsl(query) for word in ("key", "secret", "token", "password"))
    user, at, _ = place.rpartition("@")
    if scheme.lower().startswith("s3"):
        return secret or ":" in place.partition("/")[0] or (bool(at) and "/" not in user)
    return secret or (bool(at) and ":" in user)


def shown(uri: str) -> str:
    """A URI as messages may show it: without user, password and query."""
    scheme, separator, rest = uri.partition("://")
    place = (rest.partition("?")[0].rpartition("@")[2] if separator else uri).rstrip("/")
    return f"{scheme}://{place}" if separator else place


def local_path(uri: str) -> str:
    """The path of a file:// URI."""
    host, _, path = uri.removeprefix("file:").removeprefix("//").partition("/")
    if host not in ("", "localhost") or not path:
        raise ValueError("names no folder of this machine; write it as file:///folder, or simply as /folder")
    return "/" + unquote(path).rstrip("/")


def _open_s3(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system and the path (bucket/folder) of an s3:// URI. Raises ValueError if there is no such bucket."""
    parts = urlsplit(uri)
    bucket, path = parts.netloc, unquote(parts.path).strip("/")
    if not bucket:
        raise ValueError("names no bucket; write it as s3://bucket/folder")
    options: dict[str, Any] = dict(_S3_PATIENCE)
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _S3_OPTIONS:
            raise ValueError(f"does not understand {name!r} after the ?; allowed: {', '.join(_S3_OPTIONS)}")
        try:
            options[name] = _S3_OPTIONS[name](text)
        except ValueError as error:
            raise ValueError(f"{name}={text} is no number") from error
    attempts = options.pop("attempts", _S3_ATTEMPTS)
    own = "endpoint_override" in options or any(os.environ.get(name) for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
    if "region" not in options and not own:
        options["region"] = pafs.resolve_s3_region(bucket)
    fs = pafs.S3FileSystem(retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=attempts), **options)
    try:
        missing = fs.get_file_info(bucket).type == pafs.FileType.NotFound
    except OSError as error:
        if "ACCESS_DENIED" not in str(error):  # one may be allowed to use a folder of it alone
            raise
        missing = False
    if missing:
        raise ValueError(f"there is no bucket {bucket!r}; make it first, or mend the name")
    return fs, f"{bucket}/{path}" if path else bucket
