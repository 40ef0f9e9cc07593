"""Parse `--address`, and find the token that a cluster asks for. No Ray."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

_FORMS = "auto or HOST:PORT (this process drives the cluster), http://HEAD:8265 or https://... (Ray Jobs)"


class AddressError(ValueError):
    """An address that cannot be used, or not safely. The message is one line, ready to print."""


@dataclass(frozen=True)
class Address:
    """An address of a cluster.

    Attributes:
        kind: "jobs" for the URL of a job server, "driver" for a running cluster that this process joins as the driver.
        text: The address.
    """

    kind: Literal["jobs", "driver"]
    text: str

    @property
    def host(self) -> str:
        """Return the host's name or IP address."""
        return urlsplit(self.text if self.kind == "jobs" else f"//{self.text}").hostname or ""

    @property
    def is_loopback(self) -> bool:
        """Return True if the address names this machine, so that nothing crosses a network."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_clear(self) -> bool:
        """Return True if others can read what is sent, because it crosses a network without encryption."""
        return self.kind == "jobs" and self.text.startswith("http://") and not self.is_loopback


@dataclass(frozen=True)
class Access:
    """A job server, its token if there is one, and a warning that the user should see first."""

    url: str
    token: str | None = field(default=None, repr=False)
    warning: str | None = None


def parse_address(text: str) -> Address:
    """Parse an address.

    Raises:
        AddressError: if the address has none of the supported forms.

    Example:
        >>> parse_address("http://127.0.0.1:8265/").kind
        'jobs'
    """
    scheme, there, rest = text.partition("://")
    if not there:
        if text == "auto" or re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+):\d{1,5}", text):
            return Address("driver", text)
        raise AddressError(f"address {text!r}: give {_FORMS}")
    if scheme == "ray":
        raise AddressError(f"address {text}: Ray Client is not supported; give the job server, http://HEAD:8265, instead")
    if scheme not in ("http", "https"):
        raise AddressError(f"address {text}: give {_FORMS}")
    if "@" in rest.partition("/")[0]:
        raise AddressError(f"address {scheme}://...@...: leave user and password out; a token goes into RAY_AUTH_TOKEN_PATH")
    try:
        parts = urlsplit(text)
        known = bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known or parts.query or parts.fragment or re.search(r"\s", text):
        raise AddressError(f"address {text!r}: write it as {scheme}://HOST:PORT")
    return Address("jobs", text.rstrip("/"))


def job_server(text: str, environ: Mapping[str, str], *, home: Path) -> Access:
    """Return the job server at an `http(s)://` address, with its token.

    Args:
        text: The address.
        environ: The environment variables.
        home: The home folder, which may hold a token.

    Raises:
        AddressError: if the address or the token cannot be used, or if the address is another machine's, has no encryption, and
            there is no token: anyone who can reach such a port can run code as the cluster's user.
    """
    address = parse_address(text)
    if address.kind != "jobs":
        raise AddressError(f"address {text}: give the cluster's job server, such as http://HEAD:8265")
    token = find_token(address, environ, home=home)
    if not address.is_clear:
        return Access(address.text, token)
    if token is None:
        raise AddressError(
            f"address {address.text}: refused without a token, because anyone who can reach that port can run code there. "
            "Start the cluster with RAY_AUTH_MODE=token and give its token by RAY_AUTH_TOKEN_PATH, or open a tunnel "
            f"(ssh -L 8265:127.0.0.1:8265 {address.host}) and use http://127.0.0.1:8265"
        )
    return Access(
        address.text,
        token,
        warning=f"{address.text} is not encrypted: the token can be read on the way; use https or a tunnel "
        f"(ssh -L 8265:127.0.0.1:8265 {address.host})",
    )


def check_open(address: Address, *, seconds: float = 10.0) -> None:
    """Raise AddressError if nothing listens at a driver's HOST:PORT."""
    try:
        socket.create_connection((address.host, int(address.text.rpartition(":")[2])), timeout=seconds).close()
    except (OSError, OverflowError) as error:
        raise AddressError(f"address {address.text}: nothing answers there; a Ray cluster's port is 6379 by default") from error


def find_token(address: Address, environ: Mapping[str, str], *, home: Path) -> str | None:
    """Find the token that Ray itself would send: RAY_AUTH_TOKEN, the file of RAY_AUTH_TOKEN_PATH, or `~/.ray/auth_token`.

    RAY_AUTH_MODE=disabled turns tokens off. The file in the home folder belongs to the clusters of this machine. Another machine
    gets it only if RAY_AUTH_MODE=token asks for it.

    Args:
        address: The address.
        environ: The environment variables.
        home: The home folder.

    Returns:
        The token, or None.

    Raises:
        AddressError: if the file cannot be read, or holds no token.
    """
    mode = environ.get("RAY_AUTH_MODE", "").lower()
    if mode == "disabled":
        return None
    if token := environ.get("RAY_AUTH_TOKEN", "").strip():
        return _usable(token, "RAY_AUTH_TOKEN")
    if path := environ.get("RAY_AUTH_TOKEN_PATH"):
        token = _read(Path(path).expanduser(), "RAY_AUTH_TOKEN_PATH")
        if not token:
            raise AddressError(f"RAY_AUTH_TOKEN_PATH: {path} is empty; write the token into it")
        return _usable(token, "RAY_AUTH_TOKEN_PATH")
    default = home / ".ray" / "auth_token"
    if (mode == "token" or address.is_loopback) and default.is_file():
        token = _read(default, "the token's file")
        return _usable(token, str(default)) if token else None
    return None


def _read(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AddressError(f"{name}: {path} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}") from error


def _usable(token: str, name: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise AddressError(f"{name}: this is no token; expected one line of letters, digits and signs without spaces")
    return token


def join(address: Address) -> None:
    """Set RAY_ADDRESS to a running cluster that this process will drive.

    Args:
        address: An address of kind "driver".

    Raises:
        AddressError: if nothing answers there, or its token cannot be used.

    Example:
        >>> join(parse_address("10.0.0.1:6379"))
        >>> os.environ["RAY_ADDRESS"]
        '10.0.0.1:6379'
    """
    if address.text == "auto":
        os.environ.setdefault("RAY_ADDRESS", "auto")  # in a job, Ray has set it, and finds the token by itself
        return
    check_open(address)  # Ray itself would try for a quarter of an hour
    if find_token(address, os.environ, home=Path.home()):
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ["RAY_ADDRESS"] = address.text
