"""Runs in Weights & Biases, offline: the files that its own client writes, read back."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import subprocess
import sys

import pytest
import yaml
from rich.console import Console

from tests.local import job_of, stage_named
from tests.masked import masked_job
from wsss_ray.reporting.progress import Display
from wsss_ray.runners.follow import logged
from wsss_ray.storage.documents import LOGGER
from wsss_ray.storage.store import RunStore

pytest.importorskip("wandb", reason="needs wsss-ray[wandb]")


def records(path):
    """What an offline file holds: a head of 7 bytes, then a log in LevelDB's format: blocks of 32 KiB, records in parts."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, part, found = path.read_bytes(), 7, b"", []
    while place < len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, size, kind = struct.unpack("<IHB", data[place : place + 7])
        part += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            found.append(Record.FromString(part))
            part = b""
    return found


def test_an_offline_run_has_fields_and_figures_and_goes_on_under_its_id(trained_run, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    shutil.copytree(trained_run[0].path(), tmp_path / "copy")
    store = RunStore(str(tmp_path / "copy"))
    job = job_of(masked_job(run={"loggers": [{"kind": "wandb", "project": "tests"}]}))
    plan, shown = job.plan(), Display(Console(file=io.StringIO(), width=400))
    with logged(job, plan, store, shown):
        pass
    assert shown.console.file.getvalue() == ""
    (file,) = (tmp_path / "copy" / "runs" / "tiny" / "wandb").glob("offline-run-*/run-*.wandb")
    found = records(file)
    run = next(record.run for record in found if record.HasField("run"))
    notes = store.read_json(store.run_path("tiny", "loggers", "wandb.json"), LOGGER)
    assert (run.run_id, run.project, run.display_name) == (notes["id"], "tests", "tiny")
    config = {"/".join(one.nested_key) or one.key: json.loads(one.value_json) for one in run.config.update}
    assert config["method.retrain.optimizer.lr"] == 0.01
    rows = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in found
        if record.HasField("history")
    ]
    log = store.read(store.stage_path(stage_named(plan, "retrain"), "metrics.jsonl"))
    lines = [json.loads(line) for line in log.splitlines()]
    logged_rows = [(row["retrain/step"], row["retrain/loss"]) for row in rows if "retrain/loss" in row]
    assert logged_rows == [(line["step"], line["loss"]) for line in lines]
    store.write_json(store.run_path("tiny", "loggers", "wandb.json"), notes | {"state": "running"})
    with logged(job, plan, store, shown):
        pass
    again = (tmp_path / "copy" / "runs" / "tiny" / "wandb").glob("offline-run-*/run-*.wandb")
    assert {one.name for one in again} == {file.name}, "the same id"


def test_without_an_account_nothing_starts_and_nobody_is_asked(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(masked_job(run={"loggers": ["wandb"], "store": str(tmp_path / "runs")})))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "none"), "WANDB_BASE_URL": "http://127.0.0.1:9"}
    code = "import tests.masked; from wsss_ray.cli import main; main()"
    command = [sys.executable, "-c", code, "submit", str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    said = "error: run.loggers: wandb has no account. Run `wandb login`, or set WANDB_API_KEY or WANDB_MODE=offline.\n"
    assert (done.returncode, done.stderr) == (2, said)
    assert not (tmp_path / "runs").exists()
