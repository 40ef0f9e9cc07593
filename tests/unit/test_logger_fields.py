"""Loggers in job files: mistakes, the schema, and what is not installed."""

from __future__ import annotations

import subprocess
import sys

import jsonschema
import pytest
import yaml

from tests.masked import masked_job
from wsss_ray.config.document import JobError
from wsss_ray.config.job import load_job
from wsss_ray.config.schema import job_schema


@pytest.mark.parametrize(
    ("loggers", "message"),
    [
        ("[mlfow]", "run.loggers.0: kind is 'mlfow', allowed: "),
        ("[tensorboard, tensorboard]", "run.loggers: 'tensorboard' is listed twice. Remove one."),
        ("mlflow", r"run.loggers: write a list, such as \[mlflow\]"),
        ("[{kind: mlflow, experimant: x}]", "run.loggers.0.experimant: there is no such field; allowed: experiment, tracking"),
        ("[{kind: mlflow, tracking_uri: 'http://me:secret@host'}]", "run.loggers.0.tracking_uri: the URI holds credentials"),
    ],
)
def test_mistakes_in_a_job_file(tmp_path, loggers, message):
    path = tmp_path / "job.yaml"
    path.write_text(f"{yaml.safe_dump(masked_job())}run:\n  loggers: {loggers}\n")
    with pytest.raises(JobError, match=message) as caught:
        load_job(path)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith(f"{path}:")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("loggers", "fits"),
    [
        (["mlflow", "tensorboard"], True),
        ([{"kind": "mlflow", "experiment": "x"}], True),
        ([{"kind": "mlflow", "experimant": "x"}], False),
        ("mlflow", False),
    ],
)
def test_the_schema_for_editors_knows_loggers(loggers, fits):
    checker = jsonschema.Draft202012Validator(job_schema())
    assert checker.is_valid({"base": "job.yaml", "run": {"loggers": loggers, "workers": [1, 2], "gpu": None}}) == fits


@pytest.mark.parametrize("command", ["submit", "check"])
def test_a_logger_that_cannot_be_used_ends_the_command_before_anything_starts(tmp_path, command):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(masked_job(run={"loggers": ["absent"], "store": str(tmp_path / "runs")})))
    code = "import sys, tests.masked, tests.memory_logger; from wsss_ray.cli import main\ntry: main()\n"
    code += "finally: assert 'ray' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code, command, str(path)], capture_output=True, text=True, check=False)
    message = "run.loggers: absent is not installed; pip install 'wsss-ray[absent]'"
    assert (done.returncode, done.stderr) == (2, f"error: {message}\n")
    assert not (tmp_path / "runs").exists()
