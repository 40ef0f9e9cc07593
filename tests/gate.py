"""A gate in front of a server that lets everything pass but requests of one kind, such as the second part of an upload to S3."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>not this part</Message></Error>"


class _Handler(BaseHTTPRequestHandler):
    """Passes requests on to the endpoint, but for those that the gate refuses."""

    protocol_version = "HTTP/1.1"

    def pass_on(self):
        body = self.body()
        if self.server.refuses and self.server.refuses in self.path:
            self.server.refused()
            status, headers, data = 403, [], DENIED
        else:
            behind = HTTPConnection(self.server.endpoint)
            hop = ("transfer-encoding", "content-length", "expect", "connection")
            behind.request(self.command, self.path, body, {k: v for k, v in self.headers.items() if k.lower() not in hop})
            answer = behind.getresponse()
            status, headers, data = answer.status, answer.getheaders(), answer.read()
            behind.close()
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = dict(headers).get("Content-Length", "0") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(data)

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = pass_on

    def log_message(self, *_):
        pass


class Gate(ThreadingHTTPServer):
    """A server in front of `endpoint` (host:port); `refused` is called when a request comes with `refuses` in its path."""

    daemon_threads = True

    def __init__(self, endpoint: str, refuses: str | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.endpoint = endpoint
        self.refuses = refuses
        self.refused: Callable[[], object] = lambda: None

    def handle_error(self, *_: object) -> None:
        """The other end was killed: that is the test."""


@contextmanager
def gated(endpoint: str, refuses: str | None = "partNumber=2") -> Iterator[Gate]:
    """A gate that is open until the block ends."""
    with Gate(endpoint, refuses) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
