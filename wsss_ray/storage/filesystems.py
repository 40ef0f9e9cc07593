"""Open the pyarrow file system behind the URI of a store.

Credentials come from the environment (AWS_ACCESS_KEY_ID, a profile, the machine's role, GOOGLE_APPLICATION_CREDENTIALS). A URI
never holds them, because it appears in job files, reports and messages. The options of an S3 URI set the server, timeouts and
retries:

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
_GS_PATIENCE = "retry_limit_seconds=60"  # the default is 15 minutes
_S3_PATIENCE = {"connect_timeout": 5.0, "request_timeout": 20.0}  # seconds; a request may take this long without a byte
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
    """Open the file system of a URI.

    Returns:
        The file system, and the path in it.

    Raises:
        ValueError: if the URI names no folder, holds a wrong option, or its bucket does not exist.
        OSError: if the server does not answer.

    Example:
        >>> fs, path = open_uri("s3://bucket/runs?region=eu-west-1")
        >>> path
        'bucket/runs'
    """
    if uri.startswith("s3://"):
        return _open_s3(uri)
    if uri.startswith(("gs://", "gcs://")) and "retry_limit_seconds=" not in uri:
        uri += ("&" if "?" in uri else "?") + _GS_PATIENCE
    fs, path = pafs.FileSystem.from_uri(uri)
    if not path.strip("/"):
        raise ValueError("names no folder; write it as gs://bucket/folder")
    return fs, path.rstrip("/")


def holds_credentials(uri: str) -> bool:
    """Return True if a URI has a user or password before an S3 bucket, a password before another host, or a key in its query."""
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
    """Return a URI for messages: without user, password and query."""
    scheme, separator, rest = uri.partition("://")
    place = (rest.partition("?")[0].rpartition("@")[2] if separator else uri).rstrip("/")
    return f"{scheme}://{place}" if separator else place


def local_path(uri: str) -> str:
    """Return the path of a file:// URI. Raises ValueError if it names no folder of this machine."""
    host, _, path = uri.removeprefix("file:").removeprefix("//").partition("/")
    if host not in ("", "localhost") or not path:
        raise ValueError("names no folder of this machine; write it as file:///folder, or simply as /folder")
    return "/" + unquote(path).rstrip("/")


def _open_s3(uri: str) -> tuple[pafs.FileSystem, str]:
    """Open an s3:// URI; return its file system and the path `bucket/folder`."""
    parts = urlsplit(uri)
    bucket, path = parts.netloc, unquote(parts.path).strip("/")
    if not bucket:
        raise ValueError("names no bucket; write it as s3://bucket/folder")
    options: dict[str, Any] = dict(_S3_PATIENCE)
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _S3_OPTIONS:
            raise ValueError(f"unknown option {name!r} after the ?; allowed: {', '.join(_S3_OPTIONS)}")
        try:
            options[name] = _S3_OPTIONS[name](text)
        except ValueError as error:
            raise ValueError(f"{name}={text} is not a number; give one") from error
    attempts = options.pop("attempts", _S3_ATTEMPTS)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    own_server = "endpoint_override" in options or bool(endpoint)
    if "region" not in options and not own_server:
        options["region"] = pafs.resolve_s3_region(bucket)
    fs = pafs.S3FileSystem(retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=attempts), **options)
    try:
        missing = fs.get_file_info(bucket).type == pafs.FileType.NotFound
    except OSError as error:
        if "ACCESS_DENIED" not in str(error):  # the credentials may allow only a folder of the bucket
            raise
        missing = False
    if missing:
        raise ValueError(f"there is no bucket {bucket!r}; create it, or correct the name")
    return fs, f"{bucket}/{path}" if path else bucket
