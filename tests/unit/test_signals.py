"""Signals that end a command, started by shells that ignore them, lost in a library, and passed on by a guard."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.deaf import DEAF

SHOW = """
from signal import *
print(*(getattr(getsignal(number), "name", "handler") for number in (SIGINT, SIGTERM, SIGHUP)))
"""

HEARD = f"""
import subprocess, sys
from wsss_ray.cli.signals import heard

show = {SHOW!r}
exec(show)
with heard():
    exec(show)
    sys.stdout.flush()
    subprocess.run([sys.executable, "-c", show], check=True)
"""

LOST = """
import os, signal, sys, weakref
from wsss_ray.cli.signals import heard, unwound_by_sigterm

class Tensor:
    pass

def freed(_):
    os.kill(os.getpid(), signal.Signals(int(sys.argv[1])))
    for _ in range(1000):
        pass
    print("not reached")

with heard(), unwound_by_sigterm():
    try:
        tensor = Tensor()
        reference = weakref.ref(tensor, freed)
        del tensor
        while True:
            os.sched_yield()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        print("cleaned up")
"""

GUARDED = """
import os, signal, sys
from wsss_ray.cli import guard, signals

with signals.heard():
    guard.BY_MAIN.set(True)
    guard.guard()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
    try:
        print("driving", flush=True)
        while True:
            os.sched_yield()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        while True:
            os.sched_yield()
"""


def test_a_command_started_deaf_hears_and_so_do_its_children_but_a_hangup_stays_ignored():
    done = subprocess.run(
        ["nohup", *DEAF, sys.executable, "-c", HEARD], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    )
    before, heard, child = done.stdout.splitlines()
    assert before == "SIG_IGN SIG_IGN SIG_IGN"
    assert heard == child == "handler SIG_DFL SIG_IGN"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_a_callback_swallows_is_raised_again(number):
    """Python prints what is raised inside a weak reference's callback, and goes on."""
    command = [*DEAF, sys.executable, "-c", LOST, str(number.value)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "cleaned up\n", "")


@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["the guard alone", "its group, as a terminal does"])
def test_a_guard_passes_an_interrupt_on_and_its_child_hears_it_once(send):
    process = subprocess.Popen(
        [*DEAF, sys.executable, "-c", GUARDED],
        env=os.environ | {"RAY_ADDRESS": "127.0.0.1:1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == "driving\n"
        send(process.pid, signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, rest, errors) == (5, "", "")
