"""Join a cluster by its address, and drive it from a child process, because Ray kills a process whose head node is gone."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import subprocess
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING

from wsss_ray.cli.console import fail
from wsss_ray.cli.signals import interrupt_once

if TYPE_CHECKING:
    from wsss_ray.deploy.address import Address

BY_MAIN: ContextVar[bool] = ContextVar("BY_MAIN", default=False)
"""True if this process is the command line itself. Only then can `guard` start the same command in a child."""

_GUARDED = "WSSS_RAY_GUARDED"  # in the child: the pipe by which it reports that it has ended by itself
_PR_SET_PDEATHSIG = 1


def parse_address_or_exit(address: str) -> Address:
    """Parse an address. Exit if it is not valid.

    Example:
        >>> parse_address_or_exit("http://head:8265").kind
        'jobs'
    """
    from wsss_ray.deploy.address import AddressError, parse_address

    try:
        return parse_address(address)
    except AddressError as error:
        fail(str(error))


def join(address: Address) -> None:
    """Set RAY_ADDRESS to a running cluster that this process will drive.

    Args:
        address: Address of kind "driver".

    Raises:
        SystemExit: if nothing answers there, or its token cannot be used.

    Example:
        >>> join(parse_address_or_exit("auto"))
        >>> os.environ["RAY_ADDRESS"]
        'auto'
    """
    from wsss_ray.deploy.address import AddressError
    from wsss_ray.deploy.address import join as join_cluster

    try:
        join_cluster(address)
    except AddressError as error:
        fail(str(error))


def guard() -> None:
    """Run the command in a child if this process is about to drive a cluster. Say how it ended, and exit with its code.

    When the head node is gone, Ray kills the process that drives the cluster at once and without a message. Call this after
    `join`, and before anything is done that must not be done twice. It returns at once in the child, and if RAY_ADDRESS is not
    set.

    Raises:
        SystemExit: in the parent, when the child has ended.

    Example:
        >>> join(address)
        >>> guard()  # from here on, this is the child
    """
    if _GUARDED in os.environ:
        atexit.register(os.write, int(os.environ.pop(_GUARDED)), b".")
        signal.signal(signal.SIGINT, interrupt_once())  # the terminal interrupts both, and the parent passes it on
        return
    if "RAY_ADDRESS" not in os.environ or not BY_MAIN.get():
        return
    read, write = os.pipe()
    environment = os.environ | {_GUARDED: str(write)}
    child = subprocess.Popen(sys.orig_argv, env=environment, pass_fds=[write], preexec_fn=_end_with_parent)
    os.close(write)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: child.send_signal(number))
    code = child.wait()
    if code > 0 and not os.read(read, 1):
        fail(f"the Ray cluster at {os.environ['RAY_ADDRESS']} is gone; what was done is kept, submit again to go on")
    raise SystemExit(code if code >= 0 else 128 - code)


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
