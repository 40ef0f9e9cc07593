"""An S3 server of this machine."""

from __future__ import annotations

import logging
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def serving() -> Iterator[str]:
    """The address of an S3 server with an empty bucket `data`; credentials stand in the environment."""
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        request(f"{host}:{port}", "PUT", "/data")
        yield f"{host}:{port}"
        server.stop()


def request(endpoint: str, method: str, path: str, body: bytes | None = None) -> bytes:
    """The body of an answer."""
    asked = urllib.request.Request(f"http://{endpoint}{path}", body, {"Content-Type": "text/plain"}, method=method)
    with urllib.request.urlopen(asked) as answer:
        return bytes(answer.read())
