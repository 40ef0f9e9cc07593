"""Hosts in network namespaces: each with an address of its own, joined by a bridge, so that a link can be cut.

All see one disk, as machines with a shared file system do. Nothing is added to the machine's own network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Host:
    """A namespace; `prefix` is what a command line starts with to run there."""

    name: str
    address: str
    namespace: str

    @property
    def prefix(self) -> list[str]:
        return ["ip", "netns", "exec", self.namespace]


class Network:
    """Namespaces joined by a bridge that lies in one more of them. A context manager; the first host is the head."""

    def __init__(self, names: Sequence[str]) -> None:
        mark = f"wf{os.getpid()}"
        self.switch = f"{mark}-switch"
        # Of this test run alone: `ray start` looks at the command lines of all processes for a Ray with its address.
        subnet = f"10.{64 + os.getpid() // 250 % 64}.{os.getpid() % 250}"
        self.hosts = [Host(name, f"{subnet}.{place}", f"{mark}-{name}") for place, name in enumerate(names, start=1)]

    def __enter__(self) -> Network:
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for namespace in (*(host.namespace for host in self.hosts), self.switch):
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)

    def cut(self, host: Host) -> None:
        """From now on nothing passes between the host and the others."""
        _ip("-n", self.switch, "link", "set", f"port-{host.name}", "down")

    def mend(self, host: Host) -> None:
        """Undo `cut`."""
        _ip("-n", self.switch, "link", "set", f"port-{host.name}", "up")

    def _build(self) -> None:
        _ip("netns", "add", self.switch)
        _ip("-n", self.switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self.switch, "link", "set", "bridge", "up")
        for host in self.hosts:
            port = f"port-{host.name}"
            _ip("netns", "add", host.namespace)
            _ip("link", "add", "eth0", "netns", host.namespace, "type", "veth", "peer", "name", port, "netns", self.switch)
            _ip("-n", self.switch, "link", "set", port, "master", "bridge")
            _ip("-n", self.switch, "link", "set", port, "up")
            _ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
            _ip("-n", host.namespace, "link", "set", "lo", "up")
            _ip("-n", host.namespace, "link", "set", "eth0", "up")


def why_not() -> str | None:
    """Why there can be no such hosts here; None if there can."""
    if shutil.which("ip") is None:
        return "there is no ip command (iproute2)"
    try:
        with Network(["probe"]) as network:
            _ip("netns", "exec", network.hosts[0].namespace, "true")
    except subprocess.CalledProcessError as error:
        return f"network namespaces are not permitted ({error.stderr.strip()}); run as root"
    return None


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
