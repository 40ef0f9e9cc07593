"""Claims on S3: one of many gets a claim where the server compares, however slow the store is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.s3_server import serving
from wsss_ray.storage import claims as claims_module
from wsss_ray.storage.claims import Claims
from wsss_ray.storage.conditional import Conditional
from wsss_ray.storage.store import RunStore


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.fixture
def store(endpoint, request) -> RunStore:
    return RunStore(f"s3://data/{request.node.name}?endpoint_override={endpoint}&scheme=http")


@contextmanager
def answering(code: int) -> Iterator[str]:
    """A server that gives every PUT the same answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_object_is_created_once(store):
    bucket = Conditional.of(store.uri)
    assert bucket is not None
    assert bucket.is_heard("probe ü")
    assert bucket.is_heard("probe ü"), "the probe of an earlier process is there"
    name = store.path("claims", "a b+c.json").partition("/")[2]
    assert bucket.create(name, b"one") is True
    assert bucket.create(name, b"two") is False
    assert store.read(store.path("claims", "a b+c.json")) == b"one"


@pytest.mark.parametrize("code", [200, 403, 501])
def test_a_server_that_does_not_compare_is_known(code):
    with answering(code) as url:
        assert not Conditional(f"{url}/data", "us-east-1", "key", "secret").is_heard("probe")
    assert not Conditional("http://127.0.0.1:1/data", "us-east-1", "key", "secret").is_heard("probe")


def test_without_a_key_or_elsewhere_nothing_is_asked(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert Conditional.of("gs://bucket/runs") is None
    there = Conditional.of("s3://bucket/runs?region=eu-west-1")
    assert there is not None
    assert there.url == "https://bucket.s3.eu-west-1.amazonaws.com"
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert Conditional.of("s3://bucket/runs") is None


@pytest.mark.parametrize("token", [None, "session"])
def test_the_signature_is_botocores(token):
    bucket = Conditional("http://host:9000/data", "eu-west-1", "key", "secret", token)
    made = bucket._signed("http://host:9000/data/claims/a%20b%2Bc.json", b"{}")
    headers = {name.lower(): value for name, value in made.header_items()}
    signed = {name: headers[name] for name in ("host", "if-none-match", "x-amz-content-sha256", "x-amz-date")}
    if token:
        signed["x-amz-security-token"] = token
    request = AWSRequest("PUT", made.full_url, signed, b"{}")
    request.context["timestamp"] = headers["x-amz-date"]
    auth = S3SigV4Auth(Credentials("key", "secret", token), "s3", "eu-west-1")
    wanted = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    assert headers["authorization"].endswith(f"Signature={wanted}")


def test_one_of_many_gets_a_claim_of_a_slow_store(store, monkeypatch):
    """Each looks before any has written: without the comparison, all would hold it."""
    monkeypatch.setattr(claims_module, "_SETTLE_S", 0.0)
    looked = threading.Barrier(4)
    exists = RunStore.exists

    def all_at_once(self: RunStore, path: str) -> bool:
        found = exists(self, path)
        if path.endswith("train-0123456789abcdef.json"):
            looked.wait(timeout=20)
        return found

    monkeypatch.setattr(RunStore, "exists", all_at_once)
    several = [Claims(RunStore(store.uri), f"attempt {k}") for k in range(4)]
    with ThreadPoolExecutor(4) as pool:
        holders = list(pool.map(lambda one: one.take("train-0123456789abcdef"), several))
    assert sum(holder is None for holder in holders) == 1
    assert store.names(store.path("claims")) == ["train-0123456789abcdef.json"]
