"""What is printed while a job runs: bars on a terminal, lines in a log, and what they say of pace and time left."""

from __future__ import annotations

import io
import re
import threading
from itertools import pairwise

import pytest
from rich.console import Console

from wsss_ray.reporting import progress
from wsss_ray.reporting.progress import Pace
from wsss_ray.reporting.words import pace, span


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "_TICK_S", 1e6)  # its thread would speak between two looks at the clock
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
        "classifier: 30/100 steps, loss 0.5",
        "classifier: 40/100 steps, loss 0.5",
        "classifier: 50/100 steps, 1.7 steps/s, loss 0.5, 0:00:30 left",
        "classifier: 60/100 steps, 1.7 steps/s, loss 0.5, 0:00:24 left",
        "classifier: 70/100 steps, 1.7 steps/s, loss 0.5, 0:00:18 left",
    ]


def test_lines_are_close_at_first_and_rarer_later(clock):
    out = io.StringIO()
    display = progress.Display(Console(file=out, width=120))
    meter, said = display.meter("classifier", 10_000, "steps"), []
    for second in range(1, 400):
        clock[0] += 1
        before = out.tell()
        meter.tick() if second % 2 else meter.add(1)
        said += [second] if out.tell() > before else []
    gaps = [after - before for before, after in pairwise([0, *said])]
    assert gaps == sorted(gaps)
    assert gaps[:5] == [5, 5, 5, 5, 5]
    assert gaps[-1] == 21
    assert out.getvalue().splitlines()[0] == "classifier: 2/10000 steps, 0.5 steps/s, 5:33:16 left"
    meter.end()
    clock[0] += 100
    meter.tick()
    assert len(out.getvalue().splitlines()) == len(said), "a stage that is over is silent, also with failed images"


def test_work_without_progress_says_that_it_goes_on(monkeypatch):
    monkeypatch.setattr(progress, "_FIRST_S", 0.02)
    monkeypatch.setattr(progress, "_LATER", 1e9)
    monkeypatch.setattr(progress, "_TICK_S", 0.01)
    heard = threading.Event()

    class Listening(io.StringIO):
        def write(self, text):
            if "starting Ray: 0:00:00" in text:
                heard.set()
            return super().write(text)

    out = Listening()
    display = progress.Display(Console(file=out, width=120))
    with display.doing("starting Ray"):
        assert out.getvalue() == "starting Ray\n"
        assert heard.wait(30)
    before = out.getvalue()
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]
    assert before == out.getvalue()


def test_a_line_that_repeats_the_last_one_says_how_long_the_work_has_taken(clock):
    out = io.StringIO()
    meter = progress.Display(Console(file=out, width=120)).meter("trials", 3, "trials")
    for _ in range(3):
        clock[0] += 30
        meter.tick()
    meter.add(1)
    assert out.getvalue().splitlines() == [
        "trials: 0/3 trials",
        "trials: 0/3 trials, 0:01:00 so far",
        "trials: 0/3 trials, 0:01:30 so far",
    ]


def test_a_stage_that_stands_still_promises_no_time(clock):
    out = io.StringIO()
    meter = progress.Display(Console(file=out, width=120)).meter("trying", 8, "stages")
    for _ in range(3):
        clock[0] += 30
        meter.add(1, "classifier")
    for _ in range(2):
        clock[0] += 30
        meter.tick()
    assert "left" in out.getvalue().splitlines()[2]
    assert out.getvalue().splitlines()[3:] == [f"trying: 3/8 stages, classifier, 0:0{time} so far" for time in ("2:00", "2:30")]


def test_the_time_left_of_the_whole_job(clock):
    out = io.StringIO()
    display = progress.Display(Console(file=out, width=120))
    display.later_s = 300.0
    meter = display.meter("maps, saliency, seeds", 100, "images")
    for _ in range(3):
        clock[0] += 10
        meter.add(10)
    assert (
        out.getvalue().splitlines()[-1]
        == "maps, saliency, seeds: 30/100 images, 1.0 images/s, 0:01:10 left, whole job about 6 min"
    )


def test_several_meters_speak_side_by_side(clock):
    out = io.StringIO()
    display = progress.Display(Console(file=out, width=120))
    with display.meters():
        meters = [display.meter(name, 80, "images") for name in ("maps", "seeds")]
        for _ in range(4):
            clock[0] += 15
            for meter in meters:
                meter.add(20)
    assert out.getvalue().splitlines() == [
        f"{name}: {count}/80 images{rate}"
        for count, rate in (
            (20, ""),
            (40, ", 1.3 images/s, 0:00:30 left"),
            (60, ", 1.3 images/s, 0:00:15 left"),
            (80, ", 1.3 images/s"),
        )
        for name in ("maps", "seeds")
    ]


def test_a_terminal_gets_a_bar_for_each_stage_with_rate_and_time_left(clock):
    out = io.StringIO()
    display = progress.Display(Console(file=out, force_terminal=True, width=120))
    with display.meters():
        for name in ("maps", "seeds"):
            meter = display.meter(name, 4, "images")
            for _ in range(3):
                clock[0] += 2
                meter.add(1)
        display.bars.refresh()
        display.say("one is done")
    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", out.getvalue())
    for name in ("maps", "seeds"):
        assert re.search(rf"{name} .* 3/4 .* 0.5 images/s, 0:00:02 left", text), text
    assert "one is done" in text
    assert display.bars is None


def test_a_bar_whose_stage_is_over_stands_still(clock):
    display = progress.Display(Console(file=io.StringIO(), force_terminal=True))
    with display.meters():
        meter = display.meter("images", 10, "images")
        meter.add(9)  # one could not be read
        assert not display.bars.finished
        meter.end()
        assert display.bars.finished


def test_a_burst_of_workers_that_began_together_is_no_rate():
    heard = Pace(100.0)
    assert heard.rate is None
    for done, at in enumerate((160.0, 160.5, 161.0), start=1):  # three workers, their first shards after a minute
        heard.at(at, done)
        assert heard.rate is None
    for done, at in enumerate((220.0, 220.5, 221.0), start=4):
        heard.at(at, done)
    assert heard.rate == pytest.approx(3 / 60)


def test_what_was_done_before_counts_for_no_rate(clock):
    display = progress.Display(Console(file=io.StringIO()))
    meter = display.meter("classifier", 1000, "steps")
    for step in (100, 200, 300):  # the log of an earlier attempt, read at once
        meter.to(step)
    meter.begin()
    for _ in range(3):
        clock[0] += 10
        meter.add(10)
    assert meter._text("") == "1.0 steps/s, 0:11:10 left"


@pytest.mark.parametrize(
    ("rate", "text"), [(20, "20.0 x/s"), (0.1, "0.1 x/s"), (0.05, "3.0 x/min"), (1 / 3600, "1.0 x/h"), (1e-5, "0.0 x/h")]
)
def test_rates_have_a_unit_in_which_they_are_a_figure(rate, text):
    assert pace(rate, "x") == text


def test_spans():
    assert [span(seconds) for seconds in (-3, 0.4, 75, 3600)] == ["0:00:00", "0:00:00", "0:01:15", "1:00:00"]
    assert span(90061) == "1 day, 1:01:01"
