"""What is said of a failure in a worker."""

from __future__ import annotations

import pytest

from wsss_ray.runners.causes import Cause, WorkerError, cause

DIED = """The actor died unexpectedly before finishing this task.
\tclass_name: MapWorker
\tactor_id: c0e9
\tpid: 7896
\tnamespace: ba98
\tip: 192.0.2.2
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: {}"""


class UserCodeException(Exception):
    """As Ray Data's: the message of what was raised stands in the traceback of the one around it."""


def test_an_error_of_our_own_says_where_it_was_and_names_its_log():
    said = "wsss_ray.runners.causes.WorkerError: stage maps, shard 3: OSError: [Errno 5] x [10.0.0.1:/l/w.err]"
    outer = RuntimeError(f"Traceback\n  File 'x', line 3\n{said}")
    outer.cause = UserCodeException("of a user")
    assert cause(outer) == Cause("stage maps, shard 3: OSError: [Errno 5] x", "10.0.0.1:/l/w.err", located=True)
    assert cause(WorkerError("stage a: E: x [h:/l]")) == Cause("stage a: E: x", "h:/l", located=True)


def test_any_other_is_its_innermost_message():
    outer = ValueError("outer")
    outer.__cause__ = KeyError("inner")
    assert cause(outer) == Cause("KeyError: 'inner'")


@pytest.mark.parametrize("advice", ["", " Some common causes include: (1) the process was killed"])
def test_of_a_process_that_died_the_number_machine_and_log_are_told(advice):
    found = cause(RuntimeError(DIED.format("End of file." + advice)))
    assert found.line.startswith("a worker died, process 7896 on 192.0.2.2: End of file. The kernel")
    assert found.log.startswith("192.0.2.2:")
    assert found.log.endswith("/worker-*-7896.err")
    assert not found.located
