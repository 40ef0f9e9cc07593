"""Secrets from the environment: what is stored, shown or sent keeps `${NAME}`."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import Field, field_validator

from tests.local import run_plan
from tests.shapes import Shapes, tiny_job
from wsss_ray.cli import app
from wsss_ray.config.document import JobError
from wsss_ray.config.job import load_job, parse_job, read_job
from wsss_ray.config.paths import located
from wsss_ray.core.component import NotIdentity
from wsss_ray.core.environment import AsWritten, Filled, fill, restore
from wsss_ray.deploy.bundle import resolve
from wsss_ray.reporting.loggers.mlflow import Mlflow
from wsss_ray.runners.execute import begin_run, write_report
from wsss_ray.storage.store import RunStore

SECRET = "s3cr3t/t0k3n"  # with a character that addresses quote
ADDRESS = "https://${TRACKING_TOKEN}@host.invalid/mlflow"


class FromServer(Shapes):
    """A source that takes its pictures from a server."""

    server: Annotated[str, NotIdentity(), AsWritten] = ""
    folder: Annotated[str, NotIdentity()] = ""
    number: Annotated[int, NotIdentity()] = Field(default=0, lt=10)

    @field_validator("folder")
    @classmethod
    def _no_spaces(cls, value: str) -> str:
        if " " in value:
            raise ValueError(f"{value!r} holds a space. Remove it.")
        return value


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("TRACKING_TOKEN", SECRET)
    monkeypatch.setenv("HALF", "half")
    monkeypatch.setenv("NUMBER", "7")


@pytest.fixture
def job_file(tmp_path):
    """A job with a secret in the address of its tracker, in a field of its source, and in a text."""
    data = tiny_job()["data"] | {
        "kind": "from_server",
        "server": "https://me:${TRACKING_TOKEN}@pictures",
        "folder": "/${TRACKING_TOKEN}/${HALF}",
        "number": "${NUMBER}",
    }
    loggers = ["tensorboard", {"kind": "mlflow", "tracking_uri": ADDRESS}]
    job = tiny_job(data=data) | {"run": {"store": str(tmp_path / "runs"), "loggers": loggers}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    return tmp_path / "job.yaml"


def files_with(text: str, folder: Path) -> list[str]:
    return [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file() and text.encode() in file.read_bytes()]


def test_the_store_of_a_run_has_no_secret(job_file, tmp_path):
    job = located(load_job(job_file))
    assert job.data.folder == f"/{SECRET}/half"
    assert job.data.number == 7
    plan, store = job.plan(), RunStore(job.run.store)
    begin_run(job, plan, store)
    run_plan(store, plan)
    write_report(job, plan, store)
    assert files_with("s3cr3t", tmp_path) == []
    kept = files_with("${TRACKING_TOKEN}", tmp_path / "runs")
    attempt = next(path for path in kept if "/attempts/" in path)  # the history keeps the job as it was written too
    assert sorted(kept) == [attempt, f"runs/{job.name}/job.yaml", f"runs/{job.name}/report.html"]
    stored = yaml.safe_load(store.read(store.run_path(job.name, "job.yaml")))
    assert stored["run"]["loggers"][1]["tracking_uri"] == ADDRESS
    assert stored["data"]["folder"] == "/${TRACKING_TOKEN}/${HALF}"
    assert stored["data"]["number"] == 7


def test_what_is_stored_is_the_same_job(job_file):
    job = load_job(job_file)
    again = parse_job(yaml.safe_dump(job.spec()).encode(), "job.yaml").job
    assert again.spec() == job.spec()
    assert again.data == job.data
    assert [stage.id for stage in again.plan()] == [stage.id for stage in job.plan()]


def test_copies_of_a_job_keep_what_was_written(job_file):
    job = load_job(job_file)
    for other in (located(job), copy.deepcopy(job), pickle.loads(pickle.dumps(job))):
        assert "s3cr3t" not in json.dumps(other.spec())
        assert other.spec()["data"]["folder"] == "/${TRACKING_TOKEN}/${HALF}"
    assert b"https://s3cr3t" not in pickle.dumps(job.run), "the address has its token only where the tracker is called"


def test_a_printed_job_has_no_secret(job_file, capsys):
    app(["validate", str(job_file)], standalone_mode=False)
    printed = capsys.readouterr()
    assert "s3cr3t" not in printed.out + printed.err
    assert ADDRESS in printed.out


@pytest.mark.parametrize(
    "mistake",
    [
        "data.folder='a ${TRACKING_TOKEN}'",
        "data.number=${TRACKING_TOKEN}",
        "data.shard_size=${TRACKING_TOKEN}",
        "data.kind=${TRACKING_TOKEN}",
        "name='${TRACKING_TOKEN} x'",
        "run.loggers=[{kind: mlflow, tracking_uri: 'https://me:pass@${TRACKING_TOKEN}'}]",
        "run.loggers=[{kind: mlflow, tracking_uri: 'https://${TRACKING_TOKEN}@h', x: 1}]",
        "run.loggers=${TRACKING_TOKEN}",
        "run=${TRACKING_TOKEN}",
        "method.classifier.trunk=${TRACKING_TOKEN}",
        "method.classifier.precision=${TRACKING_TOKEN}",
        "run.store=s3://me:${TRACKING_TOKEN}@bucket/y",
    ],
)
def test_a_mistake_shows_what_was_written(job_file, mistake):
    with pytest.raises(JobError) as caught:
        load_job(job_file, [mistake])
    assert "s3cr3t" not in str(caught.value)
    assert str(caught.value).isprintable()
    assert caught.value.__cause__ is None, "pydantic's error shows its input"


def test_variants_of_a_sweep_keep_what_was_written(job_file):
    trials = [{"name": "one", "set": {"data.folder": "/${HALF}/${TRACKING_TOKEN}"}}]
    loaded = read_job(job_file, [f"sweep={json.dumps({'trials': trials})}"])
    (one,) = loaded.trials()
    assert one.job.data.folder == f"/half/{SECRET}"
    assert one.job.spec()["data"]["folder"] == "/${HALF}/${TRACKING_TOKEN}"
    assert "s3cr3t" not in json.dumps(one.job.spec()) + json.dumps(one.trial.set) + json.dumps(loaded.job.spec())
    space = "{data.folder: {choice: ['/${TRACKING_TOKEN}']}, data.number: {grid: ['${NUMBER}', 1]}}"
    drawn = read_job(job_file, [f"sweep={{space: {space}}}"])
    assert {(one.job.data.folder, one.job.data.number) for one in drawn.trials()} == {(f"/{SECRET}", 7), (f"/{SECRET}", 1)}
    assert "s3cr3t" not in repr([one.trial for one in drawn.trials()])


def test_a_shipped_job_has_its_paths_and_not_its_secrets(job_file):
    _, text = resolve(job_file, ["data.folder=/data/${HALF}", "data.server=https://me:${TRACKING_TOKEN}@pictures"])
    assert "s3cr3t" not in text
    shipped = yaml.safe_load(text)
    assert shipped["data"]["folder"] == "/data/half"
    assert shipped["data"]["server"] == "https://me:${TRACKING_TOKEN}@pictures"
    assert shipped["run"]["loggers"][1]["tracking_uri"] == ADDRESS


def test_the_tracker_gets_the_secret_and_its_errors_do_not_show_it(monkeypatch):
    asked = []

    def refuse(uri):
        asked.append(uri)
        raise ConnectionError(f"no answer from {uri} (https://s3cr3t%2Ft0k3n@host.invalid)")

    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setattr(mlflow, "MlflowClient", refuse)
    logger: Any = Mlflow(tracking_uri=fill(ADDRESS))
    assert logger.tracking_uri == ADDRESS
    logger.check()
    with pytest.raises(RuntimeError, match=r"ConnectionError: no answer from https://\$\{TRACKING_TOKEN\}@host") as caught:
        logger.open(None)
    assert asked == [f"https://{SECRET}@host.invalid/mlflow"]
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("uri", ["https://token@host", "https://me:${TRACKING_TOKEN}@host", "https://me:x${HALF}@host"])
def test_an_address_with_a_secret_of_its_own_is_refused(uri):
    with pytest.raises(ValueError, match="the URI holds credentials; take them out"):
        Mlflow(tracking_uri=uri)


@pytest.mark.parametrize("uri", ["https://${TRACKING_TOKEN}@host/x", "https://${HALF}:${TRACKING_TOKEN}@host", "http://host/a@b"])
def test_an_address_with_variables_is_taken(uri):
    assert Mlflow(tracking_uri=uri).tracking_uri == uri


def test_filling_and_restoring():
    filled = fill("a ${HALF} b ${NUMBER}")
    assert (filled, filled.written, type(fill("${no}"[1:]))) == ("a half b 7", "a ${HALF} b ${NUMBER}", str)
    assert isinstance(pickle.loads(pickle.dumps(filled)), Filled)
    assert copy.deepcopy(filled).written == filled.written
    with pytest.raises(ValueError, match="environment variable NO_SUCH is not set"):
        fill("${NO_SUCH}")
    assert restore("/x/half/y", "${HALF}/y") == "/x/${HALF}/y"
    assert restore({"kind": "timm", "name": "half", "n": 1}, "timm:${HALF}") == {"kind": "timm", "name": "${HALF}", "n": 1}
    assert restore(["half"], "${HALF}") == ["${HALF}"]
