"""What is printed while a job runs, in a log without a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from wsss_ray import progress


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_now_and_then_with_rate_and_time_left(clock):
    out = io.StringIO()
    display = progress.Display(Console(file=out, width=120))
    with display.meters():
        meter = display.meter("classifier", 100, "steps", already=10)
        clock[0] += 30  # workers start
        meter.to(20)
        for _ in range(5):
            clock[0] += 6
            meter.add(10, "loss 0.5")
    lines = out.getvalue().splitlines()
    assert lines == [
        "classifier: 20/100 steps",
        "classifier: 60/100 steps, 1.7 steps/s loss 0.5, 24 s left",
    ]


def test_a_terminal_gets_bars():
    out = io.StringIO()
    display = progress.Display(Console(file=out, force_terminal=True, width=100))
    with display.meters():
        meter = display.meter("maps", 4, "images")
        meter.add(4)
        display.say("maps is done")
    text = out.getvalue()
    assert "4/4" in text
    assert "maps is done" in text
    assert display.bars is None
