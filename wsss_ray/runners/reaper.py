"""End the helpers of a private Ray when the process that started it is gone, even by SIGKILL.

Ray's own processes follow the driver, but the agents that its raylet starts look for it now and then, and live on for minutes.
A small process in a session of its own waits for the end of a pipe, which closes with the driver, and then kills what is left.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WATCH = """
import os, signal, sys
known = [line.split() for line in sys.stdin]
for pid, started in known:
    try:
        with open(f"/proc/{pid}/stat") as file:
            if file.read().rpartition(")")[2].split()[19] == started:
                os.kill(int(pid), signal.SIGKILL)
    except OSError:
        pass
"""


@contextmanager
def agents_end_with_us() -> Iterator[None]:
    """Kill the agents of this process's private Ray at the end of the block, or of this process. Linux only.

    Call it after `ray.init`, so that the agents are there, and shut Ray down inside the block.

    Example:
        >>> ray.init(address="local")
        >>> with agents_end_with_us():
        ...     work()
        ...     ray.shutdown()
    """
    agents = _agents()
    if not agents:
        yield
        return
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WATCH], stdin=subprocess.PIPE, start_new_session=True, text=True
    )
    assert watcher.stdin is not None
    watcher.stdin.write("".join(f"{pid} {started}\n" for pid, started in agents))
    watcher.stdin.flush()
    try:
        yield
    finally:
        watcher.stdin.close()
        watcher.wait()


def _agents() -> list[tuple[int, str]]:
    """Return the children of this process's raylet, with the times at which they started, in ticks since boot."""
    import ray

    node = ray._private.worker._global_node
    raylets = node.all_processes.get("raylet", []) if node is not None and sys.platform == "linux" else []
    parents = {str(one.process.pid) for one in raylets}
    found = []
    for pid in (name for name in os.listdir("/proc") if name.isdigit()) if parents else ():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if fields[1] in parents:
            found.append((int(pid), fields[19]))
    return found
