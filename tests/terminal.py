"""A command on a terminal, as a person uses it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import time
from contextlib import suppress


class OnTerminal:
    """A command on a terminal of its own."""

    def __init__(self, command, environment):
        self.seen = ""
        pid, self.terminal = pty.fork()
        if pid == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.execve(command[0], command, environment)
        self.pid = pid

    def type(self, text):
        os.write(self.terminal, text.encode())

    def read_until(self, pattern, seconds=240):
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < deadline, self.seen
            if select.select([self.terminal], [], [], 0.2)[0]:
                self.seen += os.read(self.terminal, 4096).decode(errors="replace")
        self.seen = self.seen[found.end() :]
        return found

    def end(self):
        """The exit code."""
        with suppress(OSError):  # what Linux says when the other end is closed
            while data := os.read(self.terminal, 4096):
                self.seen += data.decode(errors="replace")
        _, status = os.waitpid(self.pid, 0)
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(status)
