"""Create an object on S3 only if there is none: PUT with `If-None-Match: *`, which pyarrow cannot send.

Amazon S3 and newer servers of others have it. Requests are signed with the key in the environment (AWS_ACCESS_KEY_ID and the
related variables). Without such a key, or on a server that ignores the header, the caller must do without.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import datetime, timezone
from urllib.parse import parse_qsl, quote, unquote, urlsplit

_ALGORITHM = "AWS4-HMAC-SHA256"
_EXISTS = (409, 412)  # another request created it at the same time, or before
_PATIENCE_S = 20.0


@dataclass(frozen=True)
class Conditional:
    """Conditional writes to a bucket.

    Attributes:
        url: Address of the bucket, without a slash at its end.
        region: Its region.
        key: Id of the access key.
        secret: The secret key.
        token: The session's token; None for a permanent key.
        ca_file: File with certificates to trust; None for the system's.

    Example:
        >>> bucket = Conditional.of("s3://bucket/runs?region=eu-west-1")
        >>> bucket is not None and bucket.create("runs/claims/a.json", b"{}")
        True
    """

    url: str
    region: str
    key: str
    secret: str
    token: str | None = None
    ca_file: str | None = None

    @classmethod
    def of(cls, uri: str) -> Conditional | None:
        """Return the bucket of a store's URI; None if it is not on S3, or the environment has no key."""
        key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
        if not uri.startswith("s3://") or not key or not secret:
            return None
        parts = urlsplit(uri)
        options = dict(parse_qsl(parts.query))
        region = options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        given = options.get("endpoint_override") or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if given:
            server = given if "://" in given else f"{options.get('scheme', 'https')}://{given}"
            url = f"{server.rstrip('/')}/{parts.netloc}"
        else:
            url = f"https://{parts.netloc}.s3.{region}.amazonaws.com"
        return cls(url, region, key, secret, os.environ.get("AWS_SESSION_TOKEN"), options.get("tls_ca_file_path"))

    def is_heard(self, probe: str) -> bool:
        """Return True if the server compares: a second creation of the object `probe` fails."""
        first = self.create(probe, b"")
        return first is False or (first is True and self.create(probe, b"") is False)

    def create(self, name: str, data: bytes) -> bool | None:
        """Create an object.

        Args:
            name: Its path in the bucket.
            data: Its content.

        Returns:
            True if it was created, False if it exists, None if the server cannot tell.
        """
        request = self._signed(f"{self.url}/{quote(name)}", data)
        trusted = ssl.create_default_context(cafile=self.ca_file) if self.url.startswith("https:") else None
        try:
            with urllib.request.urlopen(request, timeout=_PATIENCE_S, context=trusted):
                return True
        except urllib.error.HTTPError as error:
            return False if error.code in _EXISTS else None
        except OSError:
            return None

    def _signed(self, url: str, data: bytes) -> urllib.request.Request:
        """Return the request with its signature, version 4."""
        now, parts = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ"), urlsplit(url)
        digest = hashlib.sha256(data).hexdigest()
        headers = {"host": parts.netloc, "if-none-match": "*", "x-amz-content-sha256": digest, "x-amz-date": now}
        if self.token:
            headers["x-amz-security-token"] = self.token
        names, scope = ";".join(sorted(headers)), f"{now[:8]}/{self.region}/s3/aws4_request"
        lines = [f"{name}:{headers[name]}\n" for name in sorted(headers)]
        path = quote(unquote(parts.path))
        asked = hashlib.sha256("\n".join(["PUT", path, "", "".join(lines), names, digest]).encode()).hexdigest()
        key = f"AWS4{self.secret}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, "\n".join([_ALGORITHM, now, scope, asked]).encode(), "sha256").hex()
        headers["authorization"] = f"{_ALGORITHM} Credential={self.key}/{scope}, SignedHeaders={names}, Signature={signature}"
        return urllib.request.Request(url, data, headers | {"content-type": "application/octet-stream"}, method="PUT")
