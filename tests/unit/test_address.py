"""Forms of addresses, and when a token is asked for, found and sent."""

from __future__ import annotations

import socket

import pytest

from wsss_ray.deploy.address import Access, AddressError, check_open, find_token, job_server, parse_address


@pytest.mark.parametrize(
    ("text", "kind", "host", "loopback", "clear"),
    [
        ("auto", "driver", "auto", False, False),
        ("head:6379", "driver", "head", False, False),
        ("[::1]:6379", "driver", "::1", True, False),
        ("http://localhost:8265/", "jobs", "localhost", True, False),
        ("http://127.8.9.1:8265", "jobs", "127.8.9.1", True, False),
        ("http://[::1]:8265", "jobs", "::1", True, False),
        ("http://head:8265", "jobs", "head", False, True),
        ("http://localhost.evil.org", "jobs", "localhost.evil.org", False, True),
        ("http://127.0.0.1.evil.org", "jobs", "127.0.0.1.evil.org", False, True),
        ("https://gate.org/ray", "jobs", "gate.org", False, False),
    ],
)
def test_forms(text, kind, host, loopback, clear):
    found = parse_address(text)
    assert (found.kind, found.host, found.is_loopback, found.is_clear) == (kind, host, loopback, clear)
    assert not found.text.endswith("/")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "give auto or HOST:PORT"),
        ("head", "give auto or HOST:PORT"),
        ("head:port", "give auto or HOST:PORT"),
        ("ray://head:10001", "Ray Client is not supported; give the job server, http://HEAD:8265, instead"),
        ("s3://bucket", "give auto or HOST:PORT"),
        ("http://", "write it as http://HOST:PORT"),
        ("http://head:99999", "write it as http://HOST:PORT"),
        ("http://head:8265?token=x", "write it as http://HOST:PORT"),
        ("http://head:8265 --store x", "write it as http://HOST:PORT"),
    ],
)
def test_other_forms_are_refused(text, message):
    with pytest.raises(AddressError, match=r"^address ") as raised:
        parse_address(text)
    assert message in str(raised.value)


def test_a_password_in_an_address_is_refused_and_not_repeated():
    with pytest.raises(AddressError) as raised:
        parse_address("http://me:secret@head:8265")
    assert "secret" not in str(raised.value)


HERE, THERE = parse_address("http://127.0.0.1:8265"), parse_address("http://head:8265")


def test_where_a_token_is_looked_for(tmp_path):
    file = tmp_path / "token"
    file.write_text("from-path\n")
    home = tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text("from-home")
    both = {"RAY_AUTH_TOKEN": " from-variable ", "RAY_AUTH_TOKEN_PATH": str(file)}
    assert find_token(THERE, both, home=home) == "from-variable"
    assert find_token(THERE, {"RAY_AUTH_TOKEN_PATH": str(file)}, home=home) == "from-path"
    assert find_token(THERE, both | {"RAY_AUTH_MODE": "Disabled"}, home=home) is None
    assert find_token(THERE, {"RAY_AUTH_MODE": "token"}, home=home) == "from-home"
    assert find_token(HERE, {}, home=home) == "from-home"
    assert find_token(THERE, {}, home=home) is None, "this machine's token is not for others"
    assert find_token(HERE, {}, home=tmp_path) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        ("", "is empty; write the token into it"),
        ("two words", "expected one line"),
        ("a\nb", "expected one line"),
    ],
)
def test_a_token_that_is_none(tmp_path, content, message):
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    with pytest.raises(AddressError, match=message) as raised:
        find_token(THERE, {"RAY_AUTH_TOKEN_PATH": str(file)}, home=tmp_path)
    assert content is None or not content.strip() or content not in str(raised.value)


def test_in_clear_to_another_machine_only_with_a_token_and_a_warning(tmp_path):
    with pytest.raises(AddressError, match=r"refused without a token, because anyone .*\(ssh -L 8265:127.0.0.1:8265 head\)"):
        job_server("http://head:8265", {}, home=tmp_path)
    found = job_server("http://head:8265", {"RAY_AUTH_TOKEN": "s3cret"}, home=tmp_path)
    assert found.token == "s3cret"
    assert found.warning is not None
    assert "not encrypted" in found.warning
    assert "s3cret" not in repr(found) + found.warning


@pytest.mark.parametrize("url", ["http://localhost:8265", "https://head:8265"])
def test_otherwise_a_token_is_no_must(tmp_path, url):
    assert job_server(url, {}, home=tmp_path) == Access(url)
    assert job_server(url, {"RAY_AUTH_TOKEN": "x"}, home=tmp_path) == Access(url, "x")


def test_a_driver_s_address_is_no_job_server(tmp_path):
    with pytest.raises(AddressError, match="give the cluster's job server"):
        job_server("head:6379", {}, home=tmp_path)


def test_a_port_that_nobody_listens_to():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        check_open(parse_address(f"127.0.0.1:{port}"))
    for closed in (port, 99999):
        with pytest.raises(AddressError, match="nothing answers there"):
            check_open(parse_address(f"127.0.0.1:{closed}"))
