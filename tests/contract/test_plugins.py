"""Packages of others are found by their entry points; one that is broken stops nobody else."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import yaml

from tests.plugged import METHOD, ROOT, environment, otsu_job, write_distribution
from tests.shapes import Shapes
from wsss_ray.core.plugins import lacking, origin


@pytest.fixture
def job(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(otsu_job()))
    return path


def call(*arguments, sites, code=0):
    """What a command says, on both streams."""
    command = [sys.executable, "-m", "wsss_ray", *map(str, arguments)]
    done = subprocess.run(command, env=environment(*sites), capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def test_a_method_shows_where_it_comes_from(site):
    said, errors = call("methods", sites=[site])
    rows = {line.split()[0]: line for line in said.splitlines()}
    assert "  -  " in rows["otsu"]
    assert "wsss-ray-otsu 0.1" in rows["otsu"]
    assert "classifier, maps, flowed, seeds, segmenter" in rows["otsu"]
    assert "Otsu seeds: every localization map" in rows["otsu"]
    assert re.search("jobs/cam.yaml +wsss-ray  ", rows["cam"])
    assert errors == ""
    assert "otsu" not in call("methods", sites=[])[0]


def test_a_job_can_name_what_is_in_them(site, job):
    spec = yaml.safe_load(call("validate", job, sites=[site])[0])
    assert spec["method"]["seed_rule"] == {"kind": "otsu_seeds", "bins": 16}
    assert spec["method"]["classifier"]["trunk"]["widths"] == [4, 8]
    assert "otsu_seeds" in call("schema", sites=[site])[0]
    _, errors = call("validate", job, sites=[], code=2)
    assert "method: name is 'otsu', allowed: cam, " in errors


RUN = """
import json, sys
from tests.local import run_plan
from wsss_ray.config.job import load_job
from wsss_ray.core.plugins import behind, lacking
from wsss_ray.storage.store import RunStore
job = load_job(sys.argv[1])
plan, store = job.plan(), RunStore(sys.argv[2])
run_plan(store, plan)
print(json.dumps({
    "score": store.record(plan.targets[-1]),
    "behind": {name: [one.version, one.module] for name, one in behind(stage.component for stage in plan).items()},
    "lacking": [lacking({"wsss-ray-otsu": version, "toy-parts": "1.2"}) for version in ("0.1", "0.2")],
}))
"""


def test_a_job_runs_and_says_what_made_it(site, job, tmp_path):
    command = [sys.executable, "-c", RUN, str(job), str(tmp_path / "runs")]
    done = subprocess.run(command, env=environment(site), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["score"]["counts"] == {"images": 8, "errors": 0, "shards": 1}
    assert found["score"]["versions"]["wsss-ray-otsu"] == "0.1"
    assert found["behind"] == {"wsss-ray-otsu": ["0.1", "wsss_ray_otsu.otsu"], "toy-parts": ["1.2", "toy_parts"]}
    assert found["lacking"] == [None, "has wsss-ray-otsu 0.1, the job needs wsss-ray-otsu 0.2; install it on all machines"]
    assert lacking({"wsss-ray-otsu": "0.1"}) == "has no plug-in, the job needs wsss-ray-otsu 0.1; install it on all machines"
    assert origin(Shapes) == "tests.shapes", "of no package that is known"


REPORT = """
import json, sys
from pathlib import Path
from tests.local import run_plan
from wsss_ray.config.job import load_job
from wsss_ray.core.graph import Plan
from wsss_ray.data.codecs import decode_gray
from wsss_ray.reporting.report import build
from wsss_ray.storage.shards import read_all
from wsss_ray.storage.store import RunStore
(seeds,) = [stage for stage in load_job(sys.argv[1]).plan() if stage.kind == "seed"]
plan, store = Plan.of([seeds]), RunStore(sys.argv[2])
run_plan(store, plan)
(Path(sys.argv[2]) / "report.html").write_bytes(build(store, "toy", plan, Path(sys.argv[1]).read_text()))
rows = read_all(store, seeds, "seeds").to_pylist()
print(json.dumps({"id": seeds.id, "labels": sorted({int(k) for row in rows for k in decode_gray(row["seed"]).ravel()})}))
"""


def test_its_rule_has_the_slider_and_the_curve_of_the_report(site, job, tmp_path):
    method = otsu_job()["method"] | {"seed_rule": {"kind": "toy_seeds", "threshold": 0.4}}
    job.write_text(yaml.safe_dump(otsu_job(method=method)))
    command = [sys.executable, "-c", REPORT, str(job), str(tmp_path / "runs")]
    done = subprocess.run(command, env=environment(site), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seeds = json.loads(done.stdout)
    assert seeds["labels"] == [0, 1, 2]
    page = (tmp_path / "runs/report.html").read_text()
    data = json.loads(re.search('<script type="application/json" id="data">(.*?)</script>', page)[1])
    (rule,) = data["rules"]
    assert (rule["stage"], rule["theta"], rule["symbol"]) == (seeds["id"], 0.4, "θ")
    assert rule["recipe"] == {
        "source": "peak", "region": "of_maximum", "winner": "nobody", "conflict": "class", "unclaimed": "background"
    }  # fmt: skip
    assert len(rule["curve"]["miou"]) == 101
    assert len(set(rule["curve"]["miou"])) > 10
    assert len(data["images"]) == 8
    assert all(rule["maps"] in image["maps"] and seeds["id"] in image["cues"] for image in data["images"].values())
    assert 'id="theta"' in page


def test_a_broken_one_is_named_and_the_others_go_on(site, job, tmp_path):
    code = METHOD.format(paper="Half.", name="Halfway", rest="import no_such_module")
    broken = write_distribution(tmp_path / "broken", "half-way", "0.3", "half.halfway", code)
    said, errors = call("methods", sites=[site, broken])
    line = "plug-in half-way 0.3 is left out: importing half.halfway: ModuleNotFoundError: No module named 'no_such_module'"
    assert errors.splitlines() == [line]
    assert "wsss-ray-otsu 0.1" in said
    assert "halfway" not in said
    assert call("validate", job, sites=[site, broken])[1].splitlines() == [line]
    job.write_text(yaml.safe_dump(otsu_job(method={"name": "halfway"})))
    first, second = call("validate", job, sites=[site, broken], code=2)[1].splitlines()
    assert first == line
    assert "name is 'halfway', allowed: cam, " in second


def test_a_method_that_cannot_plan_does_not_hide_the_others(site, tmp_path):
    rest = "    def plan(self, data):\n        raise RuntimeError('a mistake')"
    odd = write_distribution(tmp_path / "odd", "odd-one", "1", "odd", METHOD.format(paper="Odd.", name="Odd", rest=rest))
    said, errors = call("methods", sites=[site, odd])
    assert any(line.split()[:3] == ["odd", "none:", "RuntimeError"] for line in said.splitlines())
    assert errors == ""


def test_a_name_that_two_have_is_one_clear_line(tmp_path):
    code = METHOD.format(paper="Another.", name="Cam", rest="")
    other = write_distribution(tmp_path / "other", "other-cam", "2", "other.cam", code)
    said, errors = call("methods", sites=[other])
    assert errors == (
        "2 components are called cam: in other.cam and wsss_ray.methods.cam; rename one, or uninstall its plug-in\n"
    )
    assert [line.split()[0] for line in said.splitlines()].count("cam") == 2
    assert call("validate", ROOT / "jobs/dsrg.yaml", sites=[other])[0]
    _, errors = call("validate", ROOT / "jobs/cam.yaml", sites=[other], code=2)
    assert "method: name is 'cam', but 2 components are called cam: in other.cam and" in errors.splitlines()[-1]


def test_a_module_that_is_named_by_hand_and_is_not_there_ends_the_command(monkeypatch, capsys):
    monkeypatch.setenv("WSSS_RAY_PLUGINS", "there_is_no_such_module")
    from wsss_ray.cli import app

    for command in ("methods", "schema"):
        with pytest.raises(SystemExit) as ended:
            app([command], standalone_mode=False)
        assert ended.value.code == 2
        assert "No module named 'there_is_no_such_module'; install it on this machine" in capsys.readouterr().err


def test_the_help_looks_no_plug_in_up(tmp_path):
    code = "import sys, wsss_ray.cli\nprint('importlib.metadata' in sys.modules, 'wsss_ray.core.plugins' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.split()[1] == "False"
