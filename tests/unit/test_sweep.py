"""Job files that build on others, and sweeps of trials."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from tests.tiny import tiny_job_of
from wsss_ray.config.document import JobError, read_document
from wsss_ray.config.job import load_job, read_job
from wsss_ray.config.sweep import Sweep, Trial, result_table, slug, trial_name
from wsss_ray.runners.trial import scores

THETA = "method.seed_rule.theta"


def write(folder: Path, name: str, document: dict | str) -> Path:
    text = document if isinstance(document, str) else yaml.safe_dump(document, sort_keys=False)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


@pytest.fixture
def base(tmp_path):
    return write(tmp_path, "base.yaml", tiny_job_of("cam"))


def test_a_job_may_build_on_another(tmp_path, base):
    over = write(tmp_path, "tables/over.yaml", "base: ../base.yaml\nname: over\nmethod:\n  seed_rule: {theta: 0.7}\n")
    job, under = load_job(over), load_job(base)
    assert job.name == "over"
    assert job.method.seed_rule.theta == 0.7
    assert job.method.classifier == under.method.classifier
    assert job.method.seed_rule.background == under.method.seed_rule.background
    third = write(tmp_path, "tables/third.yaml", "base: over.yaml\nmethod:\n  seed_rule: {kind: crf_seeds}\n")
    assert load_job(third, ["method.seed_rule.background={kind: cam_background}"]).method.seed_rule.kind() == "crf_seeds"
    lists = write(tmp_path, "lists.yaml", "base: base.yaml\nmethod:\n  localizer: {scales: [2.0]}\n")
    assert load_job(lists).method.localizer.scales == (2.0,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: nowhere.yaml\nname: x\n", r"nowhere.yaml: cannot be read"),
        ("base: [a]\nname: x\n", r"job.yaml:1: base: must be the path of another job file"),
        ("base: job.yaml\nname: x\n", r"job.yaml:1: base: job.yaml leads back to this file"),
        ("base: base.yaml\nmethod:\n  seed_rule: {theta: 7}\n", r"job.yaml:3: method.seed_rule.theta: .* equal to 1"),
        ("base: base.yaml\nsweep: {trials: []}\n", r"job.yaml:2: sweep: give either trials \(at least one\) or a space"),
        ("base: base.yaml\nsweep: {trials: [{name: a}, {name: 'A'}]}\n", r"job.yaml:2: sweep: trials: two are called 'a'"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path, base, text, message):
    with pytest.raises(JobError, match=message):
        load_job(write(tmp_path, "job.yaml", text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "method: {name: multi_estimations, classifiers: [{kind: cam_classifier, epoch: 3}]}",
            "epoch: there is no such field; allowed: .*epochs",
        ),
        (
            "method: {name: multi_estimations, seed_rules: [{kind: crf_seeds, background: {kind: cam_background, treshold: 1}}]}",
            "treshold: there is no such field; allowed: threshold",
        ),
        ("sweep: {trials: [{name: a, publised: 3}]}", "publised: there is no such field; allowed: name, set, published"),
        ("sweep: {trials: [{name: a, set: {run.seed: 3}}]}", "run.seed cannot be set by a trial"),
        ("sweep: {trials: [{name: a, set: {name: b}}]}", "name cannot be set by a trial"),
        ("sweep: {seeds: [1, 1], trials: [{name: a}]}", "lists one twice"),
    ],
)
def test_mistakes_in_lists_and_sweeps(tmp_path, base, text, message):
    with pytest.raises(JobError, match=rf"job.yaml:2: .*{message}"):
        load_job(write(tmp_path, "job.yaml", f"base: base.yaml\n{text}\n"))


def test_seeds_of_the_command_line_do_not_vanish(tmp_path, base):
    file = write(tmp_path, "job.yaml", {"base": "base.yaml", "sweep": {"seeds": [1, 2], "trials": [{"name": "a"}]}})
    with pytest.raises(JobError, match=r"Set sweep.seeds="):
        read_job(file, ["run.seed=9"]).trials()
    assert [one.seed for one in read_job(file, ["sweep.seeds=[9]"]).trials()] == [9]


def test_long_names_stay_apart(tmp_path, base):
    trials = [{"name": "x" * 90 + end} for end in "ab"]
    file = write(tmp_path, "job.yaml", {"base": "base.yaml", "name": "j" * 70, "sweep": {"seeds": [1, 2], "trials": trials}})
    names = [one.job.name for one in read_job(file).trials()]
    assert len(set(names)) == 4
    assert max(map(len, names)) <= 100


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        ("{name: a, set: {method.seed_rule.theta: 3}}", r"trial 'a': method.seed_rule.theta: "),
        ("{name: a, set: {method.seed_rule.tehta: 1}}", r"trial 'a': method.seed_rule.tehta: there is no such field"),
        ("{name: a, set: {method.localizer.scales.5: 1}}", r"5 is no position in a list of 1"),
        ("{name: a, set: {method.localizer.scales.0.x: 1}}", r"method.localizer.scales.0 is 1.0, which has no fields"),
        ("{name: a, set: {method.localizer.scales.0.x.y: 1}}", r"method.localizer.scales.0 is 1.0, which has no fields"),
        ("{name: a, set: {name.x.y: 1}}", r"name.x.y cannot be set by a trial"),
    ],
)
def test_a_mistake_in_a_trial_names_it(tmp_path, trial, message):
    job = tiny_job_of("cam")
    job["method"]["localizer"]["scales"] = [1.0]
    write(tmp_path, "base.yaml", job)
    file = write(tmp_path, "job.yaml", f"base: base.yaml\nsweep:\n  trials:\n    - {trial}\n")
    with pytest.raises(JobError, match=message) as raised:
        read_job(file).trials()
    assert "\n" not in str(raised.value)


def test_trials_with_seeds(tmp_path, base):
    trials = [{"name": "as is"}, {"name": ".7 of it", "set": {THETA: 0.7}}]
    file = write(tmp_path, "job.yaml", {"base": "base.yaml", "sweep": {"seeds": [3, 4], "trials": trials}})
    found = read_job(file, [f"{THETA}=0.2", "name=t"]).trials()
    assert [(one.trial.name, one.seed, one.job.method.seed_rule.theta) for one in found] == [
        ("as is", 3, 0.2), ("as is", 4, 0.2), (".7 of it", 3, 0.7), (".7 of it", 4, 0.7)]  # fmt: skip
    assert [one.job.name for one in found] == ["t.as-is.3", "t.as-is.4", "t..7-of-it.3", "t..7-of-it.4"]
    assert [one.job.run.seed for one in found] == [3, 4, 3, 4]
    assert all(one.job.sweep is None for one in found)
    assert read_job(base).trials() == ()
    plans = [one.job.plan() for one in found]
    shared = {stage.id for stage in plans[0]} & {stage.id for stage in plans[2]}
    assert [stage.name for stage in plans[0] if stage.id in shared] == [
        "images-weak", "images-val", "classifier", "tag_quality", "maps",
    ]  # fmt: skip


def test_a_place_in_a_list_is_a_number(base):
    document = read_document(base).with_value("method.localizer.scales", [1.0, 0.5], where="here")
    assert document.with_override("method.localizer.scales.1=0.75").values["method"]["localizer"]["scales"] == [1.0, 0.75]
    assert document.values["method"]["localizer"]["scales"] == [1.0, 0.5], "the first document stays"


def test_names_of_runs():
    assert [slug(name) for name in ("d = 1", ".3, joint", "p=0.9", "  ")] == ["d-1", ".3-joint", "p-0.9", "trial"]


def test_the_table_has_means_deviations_and_the_published_figure():
    a, b, c = Trial(name="a", published=61.2), Trial(name="b"), Trial(name="c")
    sweep = Sweep(metrics=("seed_quality", "miou"), trials=(a, b, c))
    results = [(a, {"miou": 0.5}), (a, {"miou": 0.6}), (b, {"miou": 0.4, "seed_quality": 0.25})]
    header, rows = result_table(sweep, results)
    assert header == ["trial", "seed_quality", "miou", "published"]
    assert rows == [["a", "-", "55.0 ± 7.1", "61.2"], ["b", "25.0", "40.0", "-"], ["c", "-", "-", "-"]]
    assert result_table(Sweep(trials=(b,)), [])[0] == ["trial", "miou"]


def test_plan_lists_the_trials_and_what_they_share(tmp_path):
    images = tmp_path / "photos" / "dog"
    images.mkdir(parents=True)
    from PIL import Image

    Image.new("RGB", (40, 40), (90, 80, 70)).save(images / "a.png")
    job = tiny_job_of("cam") | {"data": {"kind": "folder", "root": str(tmp_path / "photos")}}
    job["sweep"] = {"trials": [{"name": "low"}, {"name": "high", "set": {THETA: 0.9}}]}
    file = write(tmp_path, "job.yaml", job)
    command = [sys.executable, "-m", "wsss_ray", "plan", str(file), "--store", str(tmp_path / "runs")]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert ["low", "0", "0/5", "5"] in lines
    assert ["high", "0", "0/5", "2"] in lines
    assert shown.stdout.splitlines()[-1] == "2 jobs, 10 stages, 7 of them distinct"


def test_the_data_of_all_trials_is_listed_once(tmp_path, base):
    from tests.shapes import Shapes
    from wsss_ray.config.job import plans_of

    class Counted(Shapes):
        def items(self, split):
            calls.append(split)
            return super().items(split)

    calls = []
    job = load_job(base)
    jobs = [job.model_copy(update={"data": Counted(train=16), "name": name}) for name in "abc"]
    plans = plans_of(jobs)
    once = list(calls)
    jobs[0].plan()
    assert calls == once * 2
    assert len({plan.targets[-1].id for plan in plans}) == 1


def test_scores_of_a_plan_by_name(tmp_path):
    from tests.local import job_of, run_plan
    from wsss_ray.storage.store import RunStore

    plan, store = job_of(tiny_job_of("cam")).plan(), RunStore(str(tmp_path))
    run_plan(store, plan, last="seed_quality")
    assert scores(plan, store).keys() == {"tag_quality", "seed_quality"}


def work_of(tmp_path, base, sweep, name="job.yaml", **changes):
    from wsss_ray.config.job import read_job
    from wsss_ray.runners.trial import SweepRun
    from wsss_ray.storage.store import RunStore

    file = write(tmp_path, name, {"base": "base.yaml", "sweep": sweep, **changes})
    found = read_job(file)
    trials = tuple((one, one.job.plan()) for one in found.trials())
    return SweepRun(sweep_job=found, trials=trials, store=RunStore(str(tmp_path / "runs")), data=None, attempt="here")


def test_a_row_of_an_edited_job_is_not_taken_for_this_ones(tmp_path, base):
    from wsss_ray.runners.sweep import _missing
    from wsss_ray.runners.trial import trial_row, write_row

    trials = {"trials": [{"name": "a"}]}
    before = work_of(tmp_path, base, trials)
    (one, plan) = before.trials[0]
    write_row(before, one, trial_row(before, one, plan, state="failed", error="then"))
    assert _missing(before, one, plan).error == "then"
    after = work_of(tmp_path, base, trials, method={"seed_rule": {"theta": 0.123}})
    assert _missing(after, *after.trials[0]).state == "missing"


def test_a_sweep_whose_stages_others_have_made_has_its_reports_and_best_job(tmp_path, base):
    import os

    from rich.console import Console

    from tests.local import run_plan
    from wsss_ray.reporting.progress import Display
    from wsss_ray.runners.sweep import run_sweep

    work = work_of(tmp_path, base, {"trials": [{"name": "a"}, {"name": "b", "set": {THETA: 0.6}}]}, run={"store": "elsewhere"})
    for _, plan in work.trials:
        run_plan(work.store, plan)
    with open(os.devnull, "w") as nowhere:
        rows = run_sweep(work, Display(Console(file=nowhere)))
    assert [row.state for row in rows] == ["done", "done"]
    for one, _ in work.trials:
        assert work.store.exists(work.store.run_path(one.job.name, "report.html"))
    best = load_job(work.store.run_path("tiny-cam", "best.yaml"))
    assert best.run.store == work.store.uri


def test_a_sweep_waits_once_for_a_logger_that_does_not_answer(tmp_path, base, monkeypatch):
    import io

    from rich.console import Console

    from tests import memory_logger
    from tests.local import run_plan
    from wsss_ray.reporting.progress import Display
    from wsss_ray.runners import follow
    from wsss_ray.runners.sweep import run_sweep

    memory_logger.forget()
    monkeypatch.setattr(follow, "_PATIENCE_S", 0.2)
    trials = {"trials": [{"name": name, "set": {THETA: theta}} for name, theta in (("a", 0.4), ("b", 0.5), ("c", 0.6))]}
    work = work_of(tmp_path, base, trials, run={"store": "elsewhere", "loggers": [{"kind": "memory", "hangs": True}]})
    for _, plan in work.trials:
        run_plan(work.store, plan)
    console = Console(file=io.StringIO(), width=400)
    assert [row.state for row in run_sweep(work, Display(console))] == ["done"] * 3
    lines = [line for line in console.file.getvalue().splitlines() if line.startswith("warning")]
    assert lines == ["warning: memory: does not answer; the run goes on, and what is missing there follows later"]
    assert len(memory_logger.RUNS) == 1
    memory_logger.GO_ON.set()
    for left in [one for one in threading.enumerate() if one.name == "logger memory"]:
        left.join(30)


def test_a_scheduler_that_watches_no_training_is_refused(tmp_path, base):
    from wsss_ray.config.sweep import check_scheduler

    sweep = {"space": {THETA: {"grid": [0.1]}}, "scheduler": {"kind": "asha", "stage": "segmentr"}}
    work = work_of(tmp_path, base, sweep)
    with pytest.raises(ValueError, match=r"sweep\.scheduler\.stage: segmentr is no training .*; there are classifier, segmenter"):
        check_scheduler(work.sweep_job.sweep, [plan for _, plan in work.trials])


def test_names_of_points_stay_apart():
    from wsss_ray.config.sweep import trials_of

    signs = trials_of(Sweep.model_validate({"space": {"m.x": {"grid": [-1, 1]}}}), 0)
    assert len({trial_name("j", trial, 0) for trial in signs}) == 2
    space = {"method.segmenter.optimizer.lr": {"grid": [1]}, "method.retrain.optimizer.lr": {"grid": [2]}}
    assert trials_of(Sweep.model_validate({"space": space}), 0)[0].name == "segmenter.optimizer.lr 1, retrain.optimizer.lr 2"


def test_a_search_knows_the_points_of_its_space(tmp_path, base):
    space = {THETA: {"uniform": [0.2, 0.6]}, "method.localizer.flip": {"choice": [True, False]}}
    work = work_of(tmp_path, base, {"space": space, "search": "optuna"})
    inside = {THETA: 0.3, "method.localizer.flip": False}
    assert work.is_in_space(inside)
    assert work.tune_config(inside) == {THETA: 0.3, "method.localizer.flip": 1}
    assert work.planned(work.tune_config(inside))[0].trial.set == inside
    assert not work.is_in_space(inside | {THETA: 0.7})
    assert not work.is_in_space({THETA: 0.3})
