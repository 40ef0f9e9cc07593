"""The page and the README on one's own images: every command, as it stands there, on a tiny folder."""

from __future__ import annotations

import re
import shlex

import pytest
import yaml
from typer.testing import CliRunner

from tests.contract.test_docs import ROOT, blocks
from tests.local import run_plan
from tests.photos import photo
from tests.shapes import tiny_job
from wsss_ray.cli import app
from wsss_ray.job import load_job
from wsss_ray.runners.execute import begin_run
from wsss_ray.store import RunStore

PAGE = "docs/own_data.md"


def commands(text):
    """What follows `wsss-ray` in a block, without comments."""
    return [shlex.split(line, comments=True)[1:] for line in text.splitlines() if line.strip().startswith("wsss-ray ")]


def indented(page, heading=""):
    """The first indented block of a page with commands, behind a heading."""
    text = (ROOT / page).read_text().partition(heading)[2] if heading else (ROOT / page).read_text()
    return next(block for block in re.findall(r"(?:^    .*\n)+", text, re.MULTILINE) if "wsss-ray init" in block)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder as the page has it: two photographs and a table beside it."""
    monkeypatch.chdir(tmp_path)
    (table,) = blocks(PAGE, "csv")
    (tmp_path / "tags.csv").write_text(table)
    for number in (1, 2):
        photo(tmp_path / "photos" / "holiday" / f"00{number}.jpg", "dog", number)
    return tmp_path


def shrink(path):
    """The same job with a network and a length that take a second."""
    job = yaml.safe_load(path.read_text()) | {"method": tiny_job()["method"]}
    path.write_text(yaml.safe_dump(job))


def run(args):
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, (args, result.output)
    return result.output


def submit(path):
    """What submit does, without Ray."""
    job = load_job(path)
    plan, store = job.plan(), RunStore(job.run.store)
    begin_run(job, plan, store)
    run_plan(store, plan)


def test_the_commands_of_the_page(photos):
    seen = []
    for args in commands("\n".join(blocks(PAGE, "sh"))):
        seen.append(args[0])
        if args[0] == "submit":
            submit(photos / args[1])
            continue
        said = run(args)
        if args[0] == "init":
            assert "2: person 2, dog 1" in said
            shrink(photos / "photos.yaml")
    assert seen == ["init", "plan", "check", "submit", "show", "export"]
    assert len(list(photos.glob("photos-*-voc/**/*.png"))) == 2


@pytest.mark.parametrize("page", [PAGE, "README.md"])
def test_the_short_way(photos, page):
    seen = []
    for args in commands(indented(page)):
        seen.append(args[0])
        if args[0] == "submit":
            submit(photos / args[1])
            continue
        run(args)
        if args[0] == "init":
            shrink(photos / "job.yaml")
    assert seen[:3] == ["init", "check", "submit"]
