"""Runs in MLflow, on a real server of this machine that is asked by plain HTTP."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from rich.console import Console

from tests.gate import gated
from tests.local import job_of, stage_named
from tests.masked import masked_job
from wsss_ray.engine.records import StageError
from wsss_ray.reporting.loggers import Mlflow
from wsss_ray.reporting.loggers.logger import Run, StepFigures
from wsss_ray.reporting.progress import Display
from wsss_ray.runners.follow import logged
from wsss_ray.storage.documents import LOGGER
from wsss_ray.storage.store import RunStore

pytest.importorskip("mlflow", reason="needs wsss-ray[mlflow]")
from mlflow.exceptions import MlflowException

for module in ("alembic", "flask", "flask_cors"):
    pytest.importorskip(module, reason=f"MLflow's server needs {module}")

ENVIRONMENT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def serving(folder: Path, port: int):
    """A server with its database and its files in a folder; it ends with the block."""
    command = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/runs.db", "--artifacts-destination", str(folder / "artifacts")]
    with open(folder / "server.log", "ab") as log:
        mlflow = [sys.executable, "-m", "mlflow", *command]
        process = subprocess.Popen(mlflow, cwd=folder, env=os.environ | ENVIRONMENT, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < deadline, (folder / "server.log").read_text()
            try:
                requests.get(f"http://127.0.0.1:{port}/health", timeout=5).raise_for_status()
                break
            except requests.RequestException:
                time.sleep(0.1)
        yield Server(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(30)


class Server:
    """What the server answers."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def ask(self, path, **parameters):
        answer = requests.get(f"{self.uri}/api/2.0/mlflow/{path}", params=parameters, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def runs(self, experiment):
        found = self.ask("experiments/get-by-name", experiment_name=experiment)["experiment"]["experiment_id"]
        body = {"experiment_ids": [found], "max_results": 100}
        answer = requests.post(f"{self.uri}/api/2.0/mlflow/runs/search", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json().get("runs", [])

    def history(self, run, key):
        found = self.ask("metrics/get-history", run_id=run["info"]["run_id"], metric_key=key)["metrics"]
        return [(metric["step"], metric["value"], metric["timestamp"]) for metric in found]

    def artifact(self, run, name):
        answer = requests.get(f"{self.uri}/get-artifact", params={"run_uuid": run["info"]["run_id"], "path": name}, timeout=30)
        answer.raise_for_status()
        return answer.text


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("mlflow"), free_port()) as found:
        yield found


@pytest.fixture
def copy(trained_run, tmp_path):
    shutil.copytree(trained_run[0].path(), tmp_path / "copy")
    return RunStore(str(tmp_path / "copy"))


def job_for(uri, experiment, **run):
    job = job_of(masked_job(run={"loggers": [{"kind": "mlflow", "tracking_uri": uri, "experiment": experiment}], **run}))
    return job, job.plan()


def display():
    return Display(Console(file=io.StringIO(), width=400))


def pairs(found):
    return {one["key"]: one["value"] for one in found}


def test_a_run_is_there_with_fields_figures_tags_and_report(copy, server):
    job, plan = job_for(server.uri, "whole")
    shown = display()
    with logged(job, plan, copy, shown):
        copy.write(copy.run_path("tiny", "report.html"), b"<html>the report")
    assert shown.console.file.getvalue() == ""
    (run,) = server.runs("whole")
    assert (run["info"]["run_name"], run["info"]["status"]) == ("tiny", "FINISHED")
    params, tags = pairs(run["data"]["params"]), pairs(run["data"]["tags"])
    assert params["method.retrain.optimizer.lr"] == "0.01"
    assert params["run.seed"] == "0"
    assert tags["stage.miou"] == stage_named(plan, "miou").id
    assert tags["wsss-ray"]
    training = stage_named(plan, "retrain")
    lines = [json.loads(line) for line in copy.read(copy.stage_path(training, "metrics.jsonl")).splitlines()]
    expected = [(line["step"], line["loss"], int(1000 * line["time"])) for line in lines]
    assert server.history(run, "retrain/loss") == expected
    metrics = copy.record(stage_named(plan, "miou"))["metrics"]
    assert [value for _, value, _ in server.history(run, "miou/miou")] == [metrics["miou"]]
    assert [value for _, value, _ in server.history(run, "miou/iou/disc")] == [metrics["iou"][2]]
    assert server.artifact(run, "report.html") == "<html>the report"


def test_a_run_that_failed_and_goes_on_is_the_same_run(copy, server):
    job, plan = job_for(server.uri, "resumed")
    training = stage_named(plan, "retrain")
    record, log = copy.record(training), copy.read(copy.stage_path(training, "metrics.jsonl"))
    copy.delete(copy.stage_path(training, "record.json"))
    copy.write(copy.stage_path(training, "metrics.jsonl"), b"".join(log.splitlines(keepends=True)[:25]))
    with pytest.raises(StageError), logged(job, plan, copy, display()):
        raise StageError("the machine is lost")
    (run,) = server.runs("resumed")
    assert run["info"]["status"] == "FAILED"
    assert [step for step, _, _ in server.history(run, "retrain/loss")] == list(range(1, 26))
    copy.write(copy.stage_path(training, "metrics.jsonl"), log)
    copy.write_json(copy.stage_path(training, "record.json"), record)
    wider, _ = job_for(server.uri, "resumed", workers=2)  # parameters of a run cannot be changed there
    with logged(wider, plan, copy, display()):
        pass
    (again,) = server.runs("resumed")
    assert (again["info"]["run_id"], again["info"]["status"]) == (run["info"]["run_id"], "FINISHED")
    assert [step for step, _, _ in server.history(again, "retrain/loss")] == list(range(1, 41))
    notes = copy.run_path("tiny", "loggers", "mlflow.json")
    killed = copy.read_json(notes, LOGGER) | {"steps": {}, "done": [], "state": "running"}  # before it was noted
    copy.write_json(notes, killed)
    with logged(job, plan, copy, display()):
        pass
    assert [step for step, _, _ in server.history(again, "retrain/loss")] == list(range(1, 41)), "none is there twice"


def test_a_run_that_the_server_has_not_is_begun_again(copy, server):
    job, plan = job_for(server.uri, "forgotten")
    with logged(job, plan, copy, display()):
        pass
    (run,) = server.runs("forgotten")
    deleted = {"run_id": run["info"]["run_id"]}
    requests.post(f"{server.uri}/api/2.0/mlflow/runs/delete", json=deleted, timeout=30).raise_for_status()
    notes = copy.run_path("tiny", "loggers", "mlflow.json")
    for known in (run["info"]["run_id"], "0" * 32):
        copy.write_json(notes, copy.read_json(notes, LOGGER) | {"id": known, "state": "running"})
        with logged(job, plan, copy, display()):
            pass
    assert len(server.runs("forgotten")) == 2
    for again in server.runs("forgotten"):
        assert len(server.history(again, "retrain/loss")) == 40


@pytest.mark.slow
def test_a_server_that_is_away_ends_nothing_and_gets_all_later(copy, tmp_path):
    port = free_port()
    job, plan = job_for(f"http://127.0.0.1:{port}", "away")
    shown = display()
    with logged(job, plan, copy, shown):
        pass
    (line,) = shown.console.file.getvalue().splitlines()
    assert line.startswith("warning: mlflow: ")
    assert f"port={port}" in line
    assert line.endswith("; the run goes on, and what is missing there follows later")
    with serving(tmp_path, port) as server:
        with logged(job, plan, copy, display()):
            pass
        (run,) = server.runs("away")
        assert len(server.history(run, "retrain/loss")) == 40


@pytest.fixture
def gate(server):
    with gated(server.uri.removeprefix("http://"), refuses=None) as found:
        yield found


def open_at(gate, copy, experiment, *, before=None):
    logger = Mlflow(tracking_uri=f"http://127.0.0.1:{gate.server_port}", experiment=experiment)
    return logger.open(Run(store=copy, name="tiny", job={"run": {"seed": 7}}, tags={}, before=before))


def test_parameters_that_are_not_taken_follow_in_the_same_run(copy, server, gate):
    gate.refuses = "log-batch"
    first = open_at(gate, copy, "later")
    rows = [StepFigures("train", "train-0", 1, 1.0, {"loss": 2.0})]
    with pytest.raises(MlflowException):
        first.write(rows)
    gate.refuses = None
    open_at(gate, copy, "later", before=first.id).write(rows)  # as after a kill
    open_at(gate, copy, "later", before=first.id).write(rows)
    (run,) = server.runs("later")
    assert pairs(run["data"]["params"]) == {"run.seed": "7"}
    assert server.history(run, "train/loss") == [(1, 2.0, 1000)]


def test_a_report_that_is_not_taken_leaves_the_run_ended(copy, server, gate):
    sink = open_at(gate, copy, "no-report")
    gate.refuses = "artifacts"
    with pytest.raises(requests.HTTPError):
        sink.close("finished", "<html>")
    (run,) = server.runs("no-report")
    assert run["info"]["status"] == "FINISHED"


def test_a_logger_without_a_server_is_refused(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ValueError, match=r"^run\.loggers: mlflow has no server\. Set its tracking_uri or MLFLOW_TRACKING_URI\.$"):
        Mlflow().check()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    Mlflow().check()
    assert os.environ["MLFLOW_TRACKING_URI"]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://me:secret@host", "MLFLOW_TRACKING_URI: the URI holds credentials; take them out: .*MLFLOW_TRACKING_USERNAME"),
        ("postgresql://me:secret@host/runs", "MLFLOW_TRACKING_URI: the URI holds credentials"),
        ("./mlruns", r"MLFLOW_TRACKING_URI: ./mlruns is a path from this folder, .*\. Write the whole path, such as sqlite:////"),
        ("file:mlruns", "is a path from this folder"),
        ("sqlite:///mlflow.db", "is a path from this folder"),
        ("sqlite:///:memory:", "is a path from this folder"),
        ("sqlite://", "is a path from this folder"),
        ("/home/me/mlruns", None),
        ("file:///home/me/mlruns", None),
        ("file:/home/me/mlruns", None),
        ("sqlite:////home/me/mlflow.db", None),
        ("databricks", None),
        ("databricks://profile", None),
        ("https://mlflow", None),
    ],
)
def test_where_the_environment_says(monkeypatch, uri, message):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    if message is None:
        Mlflow().check()
        return
    with pytest.raises(ValueError, match=rf"^run\.loggers: mlflow: .*{message}") as caught:
        Mlflow().check()
    assert "secret" not in str(caught.value)
    if "secret" not in uri:
        with pytest.raises(ValueError, match=r"^run\.loggers: mlflow: tracking_uri: "):
            Mlflow(tracking_uri=uri).check()
