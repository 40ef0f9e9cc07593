"""Runs side by side, a model on new images, and runs and stages that are removed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import wsss_ray
from tests.local import run_plan, stage_named, whole_run
from tests.photos import call
from tests.pictures import unpack
from tests.shapes import tiny_job
from tests.unit.test_report import Page
from wsss_ray.data.codecs import decode_gray
from wsss_ray.inference.cleanup import free, unused
from wsss_ray.reporting.report.cards import image_iou
from wsss_ray.reporting.report.markup import number
from wsss_ray.runners.execute import begin_run
from wsss_ray.storage.claims import Claims
from wsss_ray.storage.shards import read_shard
from wsss_ray.storage.store import RunStore


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store with two runs that share all but the seeds and what follows from them."""
    folder = tmp_path_factory.mktemp("two")
    store, plan = whole_run(folder, tiny_job())
    other = wsss_ray.plan(tiny_job(name="other"), set={"method.seed_rule.theta": 0.7}, until="seed", store=folder)
    begin_run(other.job, other.plan, store)
    run_plan(store, other.plan)
    return store, plan, other.plan


@pytest.fixture
def own(whole, tmp_path):
    """A copy to break."""
    shutil.copytree(whole[0].uri, tmp_path / "runs")
    return RunStore(str(tmp_path / "runs"))


def stages_of(store):
    return set(store.names(store.path("stages")))


def test_runs_side_by_side(whole):
    store, plan, other = whole
    found = wsss_ray.compare("tiny", wsss_ray.open_run("other", store.uri), store=store.uri)
    assert found.runs == ("tiny", "other")
    assert found.fields == {"method.seed_rule.theta": (0.35, 0.7)}
    metrics = [store.record(stage_named(one, "seed_quality"))["metrics"] for one in (plan, other)]
    assert [score.miou for score in found.scores["seed_quality"]] == [one["miou"] for one in metrics]
    assert found.per_class("seed_quality")["disc"] == tuple(one["iou"][2] for one in metrics)
    assert found.scores["miou"][1] is None
    assert found.per_class("miou")["disc"][1] is None
    said = call("compare", "tiny", "other", "tiny@1", "--store", store.uri)
    row = [f"{one['miou']:.3f}" for one in metrics]
    assert re.search(rf"^seed_quality +mIoU +{row[0]} +{row[1]} +{row[0]}$", said, re.MULTILINE)
    assert re.search(r"^miou +mIoU +0\.\d{3} +- +0\.\d{3}$", said, re.MULTILINE)
    assert re.search(r"^method.seed_rule.theta +0.35 +0.7 +0.35$", said, re.MULTILINE)
    assert "the jobs are the same" in call("compare", "tiny", "tiny@1", "--store", store.uri)


def test_a_page_shows_runs_side_by_side(whole, tmp_path):
    store, plan, other = whole
    path = tmp_path / "both.html"
    said = call("compare", "tiny", "other", "--store", store.uri, "--report", path)
    assert said.endswith(f"report: {path}\n")
    found = wsss_ray.compare("tiny", "other", store=store.uri)
    html = path.read_bytes()
    assert html == found.report(), "the same runs, the same bytes"
    page = Page(html.decode())
    policy = next(attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert all(value.startswith("data:image/") for value in page.values("src"))
    assert not [value for value in page.values("href") if value[0] != "#"]
    for score in found.scores["seed_quality"]:
        assert f"{score.miou:.3f}" in page.texts
    for values in found.per_class("seed_quality").values():
        assert all(f"{value:.3f}" in page.texts for value in values)
    row = page.texts[page.texts.index("method.seed_rule.theta") :]
    assert [text for text in row if text.strip()][1:3] == ["0.35", "0.7"]
    cards = [attrs["id"] for name, attrs in page.tags if name == "article"]
    assert len(cards) == len(set(cards)) == 8 + 20, "validation images, then training images"
    relabel, seeds = stage_named(plan, "relabel"), stage_named(other, "seeds")
    for stage in (relabel, seeds):
        assert sum(attrs.get("data-stage") == stage.id for name, attrs in page.tags if name == "figure") == 20
    place = page.texts.index("tiny: Labels by the segmenter")
    label = {row["image_id"]: row["seed"] for row in read_shard(store, seeds, 0, "seeds")}
    images = {row["image_id"]: row for row in read_shard(store, stage_named(plan, "images-weak"), 0, "images")}
    assert page.texts[place + 1 : place + 8].count("other: Seeds") == 1, "beside each other"
    image_id = next(text for text in page.texts if text in label)
    card = page.texts[page.texts.index(image_id) :]
    iou = image_iou(decode_gray(images[image_id]["mask"]), decode_gray(label[image_id]))
    assert card[card.index("other: Seeds") + 1] == number(iou)
    assert any("No label maps yet: other." in text for text in page.texts), "of the validation images"


def test_runs_that_share_their_labels_show_them_once(whole):
    store = whole[0]
    page = Page(wsss_ray.compare("tiny", "tiny@1", store=store.uri).report(images=2).decode())
    assert page.texts.count("tiny, tiny@1: prediction") == 2
    assert page.texts.count("tiny, tiny@1: Labels by the segmenter") == 2
    assert "The jobs are the same." in page.texts


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("compare", "tiny", "other", "--report", "nowhere/x.html"),
            "--report nowhere/x.html: there is no folder nowhere. Make it",
        ),
        (("compare", "tiny"), "give at least two runs"),
        (("compare", "tiny", "nobody"), "no run 'nobody' in "),
        (("compare", "tiny", "tiny@b"), "write an attempt as tiny@2"),
        (("compare", "tiny", "tiny@9"), "has no attempt 9; it has 1 to 1"),
        (("rm", "nobody"), "no run 'nobody' in "),
        (("rm", ".."), "no run '..' in "),
        (("rm", "tiny"), "--yes: is needed where nobody can answer; nothing is deleted"),
        (("rm", "tiny", "--attempt", "1", "--yes"), "attempt 1 was submitted last; remove the run"),
        (("evaluate", "tiny", "photos", "--masks", "nowhere"), "--masks nowhere: is no folder"),
        (("evaluate", "nobody", "photos", "--masks", "nowhere"), "no run 'nobody' in "),
    ],
)
def test_a_mistake_is_one_line_and_deletes_nothing(whole, words, said):
    store = whole[0]
    before = sorted(str(path) for path in Path(store.uri).rglob("*"))
    message = call(*words, "--store", store.uri, code=2)
    assert said in message
    assert message.splitlines()[-1].startswith("error: ")
    assert sorted(str(path) for path in Path(store.uri).rglob("*")) == before


def test_a_model_is_scored_on_new_images(whole, tmp_path):
    store, plan, _ = whole
    unpack(store, plan, tmp_path / "photos")
    (tmp_path / "masks").mkdir()
    for row in read_shard(store, stage_named(plan, "images-val"), 0, "images"):
        (tmp_path / f"masks/{row['image_id'].removeprefix('val/')}.png").write_bytes(row["mask"])
    words = ("evaluate", "tiny", tmp_path / "photos/val", "--masks", tmp_path / "masks", "--store", store.uri)
    said = call(*words)
    score = wsss_ray.open_run("tiny", store.uri).scores["miou"]
    assert "run 'tiny': model 'retrain' (" in said
    assert re.search(rf"^8 +{score.miou:.3f} ", said, re.MULTILINE)
    assert re.search(rf"^disc +{score.iou['disc']:.3f}$", said, re.MULTILINE)
    (tmp_path / "photos/val/0000.png").write_text("no image")
    said = call(*words, code=1)
    assert "error: 1 of 8 images could not be scored; " in said
    assert re.search(r"^7 +0\.", said, re.MULTILINE)


def test_what_another_run_shares_is_not_freed(own, whole):
    _, plan, other = whole
    assert unused(own).stages == ()
    assert "there is nothing to free" in call("gc", "--store", own.uri)
    said = call("rm", "tiny", "--yes", "--store", own.uri)
    assert "tiny is removed" in said
    assert "9 stages belong to no run" in said
    assert own.names(own.path("runs")) == ["other"]
    assert stages_of(own) == {stage.id for stage in (*plan, *other)}, "rm leaves the stages"
    message = call("gc", "--store", own.uri, code=2)
    assert "--yes: is needed" in message
    assert "9 stages belong to no run: " in message, "it says first what it would free"
    assert stages_of(own) == {stage.id for stage in (*plan, *other)}
    size = unused(own).num_bytes
    assert size == sum(
        path.stat().st_size
        for stage in plan
        if stage.id not in {one.id for one in other}
        for path in Path(own.stage_path(stage)).rglob("*")
        if path.is_file()
    )
    assert "9 stages are deleted" in call("gc", "--yes", "--store", own.uri)
    assert stages_of(own) == {stage.id for stage in other}
    assert all(map(own.is_done, other))
    assert wsss_ray.open_run("other", own.uri).status().state == "done"


def test_links_and_strangers_are_left_alone(own, whole, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "record.json").write_text("precious")
    os.symlink(outside, own.path("stages", "seed-00000000000000aa"))
    os.makedirs(own.path("stages", "seed-00000000000000bb/shards"))
    os.symlink(outside, own.path("stages", "seed-00000000000000bb/inner"))
    os.makedirs(own.path("stages", "my notes"))
    assert unused(own).strangers == ("my notes", "seed-00000000000000aa")
    assert [stage_id for stage_id, _ in unused(own).stages] == ["seed-00000000000000bb"]
    assert "left alone: " in call("gc", "--yes", "--store", own.uri)
    assert (outside / "record.json").read_text() == "precious"
    assert {"my notes", "seed-00000000000000aa"} < stages_of(own)
    assert "seed-00000000000000bb" not in stages_of(own)
    os.symlink(outside, own.run_path("linked"))
    before = stages_of(own)
    assert "runs/linked: is a link, and a store follows none" in call_failing("gc", "--yes", "--store", own.uri)
    assert stages_of(own) == before, "nobody knows which stages such a run has"
    assert "is a link; delete the link yourself" in call("rm", "linked", "--yes", "--store", own.uri, code=2)
    assert (outside / "record.json").exists()


def test_what_is_being_made_is_kept(own, whole):
    _, plan, _ = whole
    miou = stage_named(plan, "miou")
    Path(own.stage_path(miou, "record.json")).unlink()
    with Claims(own, "process 7") as claims:
        assert claims.take(miou.id) is None
        assert "run 'tiny': process 7 is running it" in call("rm", "tiny", "--yes", "--store", own.uri, code=2)
        shutil.rmtree(own.run_path("tiny"))
        assert miou.id not in [stage_id for stage_id, _ in unused(own).stages]
    assert miou.id in [stage_id for stage_id, _ in unused(own).stages]


def test_a_run_that_is_submitted_meanwhile_keeps_its_stages(own, whole):
    _, plan, _ = whole
    about = own.run_path("tiny")
    kept = Path(own.uri) / "kept"
    shutil.move(about, kept)
    found = unused(own)
    assert len(found.stages) == 9
    shutil.move(kept, about)
    assert free(own, found).stages == ()
    assert all(map(own.is_done, plan))


def test_a_run_that_cannot_be_read_stops_gc_and_can_be_removed(own):
    Path(own.run_path("other", "run.json")).write_text("torn")
    before = stages_of(own)
    result = call_failing("gc", "--yes", "--store", own.uri)
    assert "run.json: is damaged" in result
    assert stages_of(own) == before
    assert "other is removed" in call("rm", "other", "--yes", "--store", own.uri)
    assert [stage_id.partition("-")[0] for stage_id, _ in unused(own).stages] == ["evaluate", "seed"]


def call_failing(*words):
    """The message of a command whose error `main` prints."""
    done = subprocess.run([sys.executable, "-m", "wsss_ray", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_sweep_is_removed_with_its_trials(own, whole):
    _, _, other = whole
    row = {"name": "theta 0.7", "run": "other", "seed": 0, "method": "tiny", "parameters": {}, "state": "done", "metrics": {}}
    row |= {"stages": [stage.id for stage in other], "seconds": 1.0}
    own.write_json(own.run_path("many", "sweep.json"), {"name": "many", "total": 1})
    own.write_json(own.run_path("many", "trials", "other.json"), row)
    shutil.rmtree(own.run_path("other"))
    assert unused(own).stages == (), "the row of a trial refers to its stages"
    own.write_json(own.run_path("other", "run.json"), {"name": "other", "stages": []})
    assert "many and 1 trial: " in call("rm", "many", "--yes", "--store", own.uri)
    assert own.names(own.path("runs")) == ["tiny"]
    assert len(unused(own).stages) == 2
