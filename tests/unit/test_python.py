"""The package from Python: plans, runs and what they made as arrays, by the code of the command line."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.utils.data import DataLoader

import wsss_ray
from tests.local import job_of, recommit, run_plan, stage_named, whole_run
from tests.photos import call
from tests.pictures import unpack
from tests.shapes import Shapes, tiny_job
from wsss_ray.data.codecs import decode_gray, decode_maps, decode_rgb
from wsss_ray.inference.label_maps import find_labels
from wsss_ray.inference.labelled import LabelledImages
from wsss_ray.reporting.notebook import NotebookDisplay, report_html
from wsss_ray.runners.execute import begin_run
from wsss_ray.storage.shards import list_shards, read_shard, write_shard
from wsss_ray.storage.store import RunStore

ROOT = Path(__file__).parents[2]
THETAS = {"method.seed_rule.theta": {"grid": [0.2, 0.3]}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A whole run with seeds and maps, two of whose images cannot be read."""
    folder = tmp_path_factory.mktemp("python")
    spec = tiny_job(data={"kind": "shapes", "broken": [3, 11]}, run={"checkpoint_every": 4, "store": str(folder)})
    return whole_run(folder, spec)


@pytest.fixture
def run(made):
    return wsss_ray.open_run("tiny", made[0].uri)


def rows_of(store, stage, schema):
    return [row for shard in list_shards(store, stage) for row in read_shard(store, stage, shard, schema)]


def test_everything_is_there_without_ray_and_torch():
    code = """
        import sys, wsss_ray
        assert all(hasattr(wsss_ray, name) for name in wsss_ray.__all__)
        wsss_ray.plan("jobs/demo.yaml", store="/nowhere/runs")
        print(sorted({"ray", "torch"} & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_a_plan_is_that_of_the_command(made, tmp_path):
    store, plan = made
    spec = tiny_job(data={"kind": "shapes", "broken": [3, 11]})
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(spec))
    for job in (spec, file, str(file)):
        planned = wsss_ray.plan(job, store=store.uri)
        assert [stage.id for stage in planned.stages] == [stage.id for stage in plan]
        assert {stage.state for stage in planned.stages} == {"done"}
    assert planned.data[0].startswith("images-weak: 24 images, 24 with masks; ")
    theta = {"method.seed_rule.theta": 0.77}
    changed = wsss_ray.plan(spec, set=theta, store=store.uri, until="seed")
    assert changed.plan.until == "seed"
    assert [stage.name for stage in changed.stages if stage.state == "missing"] == ["seeds", "seed_quality"]
    assert changed.stages == wsss_ray.plan(file, set=["method.seed_rule.theta=0.77"], store=store.uri, until="seed").stages
    assert spec == tiny_job(data={"kind": "shapes", "broken": [3, 11]}), "the caller's dictionary stays as it was"


def test_inputs_that_nothing_reads_are_named(tmp_path):
    (tmp_path / "weak").mkdir()
    for item in Shapes().items("weak"):
        Image.fromarray(np.ones((32, 32), np.uint16)).save(tmp_path / f"{item.image_id}.png")
    parts = {"kind": "shapes", "extra": [{"name": "parts", "folder": str(tmp_path)}]}
    spec, store = tiny_job(data=parts), tmp_path / "runs"
    said = "data.extra: parts: no stage needs it. Remove it, or name a part that reads it"
    assert wsss_ray.plan(spec, store=store).data[-1] == said
    assert said in call("plan", plan_file(tmp_path, spec))
    votes = {"method.refine": [{"kind": "segment_voting", "segments": {"kind": "segment_files", "name": "parts"}}]}
    read = wsss_ray.plan(spec, set=votes, until="localize", store=store)
    assert read.unread == (), "a later stage reads it"
    assert len(read.data) == 1
    trials = {"metrics": ["miou"], "trials": [{"name": "plain"}, {"name": "voted", "set": votes}]}
    assert wsss_ray.plan(spec | {"sweep": trials}, store=store).unread == ()
    assert wsss_ray.plan(spec | {"sweep": trials | {"trials": trials["trials"][:1]}}, store=store).unread == (said,)


def plan_file(folder, spec):
    (folder / "job.yaml").write_text(yaml.safe_dump(spec))
    return folder / "job.yaml"


def test_saliency_that_no_rule_needs_is_named(tmp_path):
    spec, store = tiny_job(data={"kind": "shapes", "saliency": True}), tmp_path / "runs"
    (line,) = wsss_ray.plan(spec, until="localize", store=store).unread
    assert line == "data.saliency: no stage needs it. Remove it, or name a part that reads it"
    needs = {"method.seed_rule.background": {"kind": "saliency_background"}}
    assert wsss_ray.plan(spec, set=needs, until="localize", store=store).unread == (), "a later stage needs it"
    trials = {"metrics": ["miou"], "trials": [{"name": "plain"}, {"name": "salient", "set": needs}]}
    assert wsss_ray.plan(spec | {"sweep": trials}, store=store).unread == ()


@pytest.mark.parametrize(
    ("job", "changes", "said"),
    [
        ("nowhere.yaml", None, r"^nowhere.yaml: cannot be read"),
        (tiny_job(), {"run.sed": 1}, r"^set run.sed: run.sed: there is no such field; allowed: "),
        (tiny_job(), ["run.seed"], r"^--set run.seed: write it as"),
        (tiny_job(), {"run.seed": object()}, r"^run.seed: is object. Give text"),
        (tiny_job() | {"base": "demo.yaml"}, None, r"^job: base: is not allowed"),
        ({"name": "a b", "method": {"name": "cam"}, "data": {"kind": "shapes"}}, None, r"^job:1: name: 'a b' cannot name a run"),
    ],
)
def test_a_mistake_is_one_line(job, changes, said, tmp_path):
    with pytest.raises(wsss_ray.JobError, match=said) as raised:
        wsss_ray.plan(job, set=changes, store=tmp_path)
    assert "\n" not in str(raised.value)


def test_what_is_not_there_is_one_line(made, tmp_path):
    store, _ = made
    for opened, said in [
        (lambda: wsss_ray.open_run("nobody", store.uri), "no run 'nobody' in "),
        (lambda: wsss_ray.open_run("../tiny", store.uri), "no run '../tiny' in "),
        (lambda: wsss_ray.open_run("tiny", tmp_path / "none"), "there is no store there"),
        (lambda: wsss_ray.open_run("tiny", store.uri, attempt=2), "has no attempt 2"),
        (lambda: wsss_ray.open_sweep("tiny", store.uri), "no sweep 'tiny' in "),
        (lambda: wsss_ray.open_run("tiny", store.uri).seeds("sead"), "stage 'sead': the run has no such stage"),
        (lambda: wsss_ray.open_run("tiny", store.uri).maps("seeds"), "stage 'seeds': the run has no such stage; .*: maps"),
        (lambda: wsss_ray.submit(tiny_job(sweep={"space": THETAS}), store=tmp_path), "submit_sweep"),
        (lambda: wsss_ray.submit(tiny_job(), store=tmp_path, address="http://head:8265"), "Give auto or HOST:PORT"),
    ]:
        with pytest.raises(ValueError, match=said):
            opened()


def test_a_job_that_is_done_is_submitted_without_ray(made):
    store, _ = made
    code = f"""
        import sys, tests.shapes, wsss_ray
        from tests.shapes import tiny_job
        run = wsss_ray.submit(tiny_job(data={{"kind": "shapes", "broken": [3, 11]}}), store={store.uri!r})
        assert wsss_ray.resume("tiny", {store.uri!r}).attempt == run.attempt
        print(run.status().state, len(run.attempts), run.report, "ray" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == f"done 1 {store.run_path('tiny', 'report.html')} False", done.stderr
    assert "tiny: 12 stages, 12 done" in done.stdout


def test_status_and_scores(run, made):
    store, plan = made
    assert run.status().state == "done"
    assert list(run.stages) == [stage.name for stage in plan]
    assert run.stages["classifier"].made == 12
    assert run.job["method"]["name"] == "ficklenet"
    for name in ("seed_quality", "relabel_quality", "miou"):
        metrics = store.record(stage_named(plan, name))["metrics"]
        assert run.scores[name].miou == metrics["miou"]
        assert list(run.scores[name].iou.values()) == metrics["iou"]
    assert list(run.scores["miou"].iou) == ["background", "square", "disc", "bar"]
    assert run.scores["miou"].images == 8


def test_seeds_maps_and_predictions_are_those_of_the_store(run, made):
    store, plan = made
    for found, name, schema, column in [
        (run.seeds(), "relabel", "seeds", "seed"),
        (run.seeds("seeds"), "seeds", "seeds", "seed"),
        (run.predictions(), "miou", "scores", "prediction"),
    ]:
        rows = rows_of(store, stage_named(plan, name), schema)
        found = dict(found)
        assert list(found) == [row["image_id"] for row in rows]
        for row in rows:
            np.testing.assert_array_equal(found[row["image_id"]], decode_gray(row[column]))
    maps = dict(run.maps())
    rows = rows_of(store, stage_named(plan, "maps"), "maps")
    assert list(maps) == [row["image_id"] for row in rows]
    assert len(maps) == 22, "two images cannot be read"
    np.testing.assert_array_equal(maps[rows[0]["image_id"]].peak_CHW, decode_maps(rows[0]).peak_CHW)


def test_a_data_set_holds_the_images_with_their_labels(run, made):
    store, plan = made
    data = run.dataset()
    assert data.classes == ("background", "square", "disc", "bar")
    pixels = {row["image_id"]: decode_rgb(row["image"]) for row in rows_of(store, stage_named(plan, "images-weak"), "images")}
    labels = dict(run.seeds())
    assert data.ids == list(pixels)
    for image_id, (image_CHW, label_HW) in zip(data.ids, data, strict=True):
        np.testing.assert_array_equal(image_CHW.permute(1, 2, 0).numpy(), pixels[image_id])
        np.testing.assert_array_equal(label_HW.numpy(), labels[image_id])
        assert (image_CHW.dtype, label_HW.dtype) == (torch.uint8, torch.int64)
    seeds = run.dataset("seeds", transform=lambda image, label: (image.float() / 255, label[::2]))
    image, label = next(iter(DataLoader(seeds, batch_size=4, num_workers=1, multiprocessing_context="fork")))
    assert (image.shape, label.shape) == ((4, 3, 32, 32), (4, 16, 32))
    assert image.max() <= 1
    np.testing.assert_array_equal(label[0].numpy(), dict(run.seeds("seeds"))[data.ids[0]][::2])


def test_an_image_without_labels_is_left_out_of_the_data_set(made, tmp_path):
    store, plan = made
    seeds = stage_named(plan, "relabel")
    own = RunStore(str(tmp_path))
    for stage in (seeds, stage_named(plan, "images-weak")):
        for path in Path(store.stage_path(stage)).rglob("*"):
            if path.is_file():
                own.write(own.stage_path(stage, str(path.relative_to(store.stage_path(stage)))), path.read_bytes())
    rows = read_shard(own, seeds, 0, "seeds")
    lost = rows[2]["image_id"]
    write_shard(own, seeds, 0, "seeds", [row | ({"seed": None} if row["image_id"] == lost else {}) for row in rows])
    write_shard(own, seeds, 0, "errors", [{"image_id": lost, "path": None, "reason": "no room"}], folder="errors")
    recommit(own, seeds)
    about = {"name": "tiny", "stages": [{"id": seeds.id, "name": "relabel", "kind": "seed"}]}
    data = LabelledImages(own, find_labels(own, about))
    assert len(data) == 21
    assert lost not in data.ids
    assert data[len(data) - 1][1].shape == (32, 32)
    rows = read_shard(own, seeds, 1, "seeds")
    write_shard(own, seeds, 1, "seeds", rows[::-1])
    recommit(own, seeds)
    with pytest.raises(ValueError, match=r"stage 'relabel': shard 1 has labels of .* where its data has .*; delete"):
        list(LabelledImages(own, find_labels(own, about)))


def test_a_model_is_that_of_the_run(run, made):
    store, plan = made
    images = rows_of(store, stage_named(plan, "images-val"), "images")
    predicted = dict(run.predictions())
    torch.set_num_threads(1)
    model = run.model(device="cpu")
    assert model.trained.id == wsss_ray.load(run, device="cpu").trained.id == stage_named(plan, "retrain").id
    np.testing.assert_array_equal(model.predict(decode_rgb(images[0]["image"])), predicted[images[0]["image_id"]])


def test_an_evaluation_is_the_runs_own_on_its_images(run, made, tmp_path):
    store, plan = made
    unpack(store, plan, tmp_path / "images")
    for row in rows_of(store, stage_named(plan, "images-val"), "images"):
        mask = tmp_path / f"masks/{row['image_id'].removeprefix('val/')}.png"
        mask.parent.mkdir(exist_ok=True)
        mask.write_bytes(row["mask"])
    torch.set_num_threads(1)
    found = wsss_ray.evaluate(run, tmp_path / "images/val", tmp_path / "masks")
    assert found.score.iou == run.scores["miou"].iou
    assert found.miou == run.scores["miou"].miou
    assert found.confusion.tolist() == store.record(stage_named(plan, "miou"))["metrics"]["confusion"]
    assert found.failed == ()
    assert (found.score.precision, found.score.recall) == (run.scores["miou"].precision, run.scores["miou"].recall)
    Image.new("L", (9, 9)).save(tmp_path / "masks/0001.png")
    part = wsss_ray.evaluate("tiny", [tmp_path / "images/val"], tmp_path / "masks", store.uri)
    assert (part.score.images, len(part.failed)) == (7, 1)
    assert "0001.png: the mask is 9x9" in part.failed[0][1]
    (tmp_path / "masks/0002.png").unlink()
    with pytest.raises(ValueError, match=r"there is no 0002.png for .*; give every image a mask"):
        wsss_ray.evaluate("tiny", tmp_path / "images/val", tmp_path / "masks", store.uri)


def test_a_notebook_shows_the_report_and_what_is_missing(run, made, tmp_path):
    store, _ = made
    store.write(store.run_path("tiny", "report.html"), b"<h1>tiny & mine</h1>")
    shown = run._repr_html_()
    assert shown.startswith('<iframe sandbox="allow-scripts"')
    assert "&lt;h1&gt;tiny &amp; mine&lt;/h1&gt;" in shown
    assert "wsss-report" in report_html(b"x" * (9 << 20), "/a/wsss-report.html")
    planned = wsss_ray.plan(tiny_job(name="begun"), store=tmp_path)
    begin_run(planned.job, planned.plan, planned.store)
    shown = wsss_ray.open_run("begun", tmp_path)._repr_html_()
    assert "<b>begun</b>: interrupted, 0 of 12 stages done" in shown
    assert '<progress max="12" value="0"></progress>' in shown


def test_a_notebook_shows_live_bars():
    pages = []
    display = NotebookDisplay(lambda first: pages.append(first) or pages.append)
    display.say("tiny: <11> stages")
    with display.meters():
        meter = display.meter("seeds & more", 40, "images", already=8)
        meter.add(8, "loss < 1")
        before = len(pages)
        for _ in range(20):
            meter.add(1)
        assert len(pages) <= before + 2, "a block is not drawn at every image"
        time_of_next = display._drawn + 0.6
        while time.monotonic() < time_of_next:
            pass
        meter.add(2, "loss < 1")
    assert "tiny: &lt;11&gt; stages" in pages[-1]
    assert "seeds &amp; more" in pages[-1]
    assert '<progress max="40" value="38"></progress>' in pages[-1]
    assert "38/40 images" in pages[-1]
    assert "loss &lt; 1" in pages[-1]
    meter.end()
    assert '<progress max="38" value="38"></progress>' in pages[-1]


def test_a_run_tells_its_status_while_another_process_makes_it(tmp_path):
    code = f"""
        from tests.local import job_of, run_plan
        from tests.shapes import tiny_job
        from wsss_ray.runners.execute import begin_run
        from wsss_ray.storage.store import RunStore
        from wsss_ray.storage.claims import Claims
        job, store = job_of(tiny_job()), RunStore({str(tmp_path)!r})
        plan = job.plan()
        begin_run(job, plan, store)
        run_plan(store, plan, last="images-val")
        claims = Claims(store, "other-7")
        claims.take(plan.stages[2].id)
        print("claimed", flush=True)
        input()
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "claimed\n"
        run = wsss_ray.open_run("tiny", tmp_path)
        status = run.status()
        assert (status.state, status.done, status.now.name, status.now.holder) == ("running", 2, "classifier", "other-7")
        assert run.scores == {}
        with pytest.raises(ValueError, match="run 'tiny' has no pseudo-labels of its training images yet"):
            run.seeds()
        other.communicate("\n")
    assert run.status().state == "interrupted"
    store = RunStore(str(tmp_path))
    run_plan(store, job_of(tiny_job()).plan(), last="seed_quality")
    assert list(run.scores) == ["seed_quality"]
