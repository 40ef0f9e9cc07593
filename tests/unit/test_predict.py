"""Label maps of new images: the same as the stored predictions, one by one whatever fails, nothing twice, nothing outside."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import wsss_ray
from tests.local import job_of, run_plan, stage_named
from tests.masked import masked_job
from tests.pictures import odd_pictures, unpack
from wsss_ray.cli import app
from wsss_ray.data.codecs import decode_gray, decode_rgb
from wsss_ray.inference.batch import Prediction, PredictWorker, begin, blended
from wsss_ray.inference.inputs import list_images
from wsss_ray.inference.trained import find_trained
from wsss_ray.runners.execute import begin_run
from wsss_ray.storage.shards import list_shards, read_shard
from wsss_ray.storage.store import RunStore


@pytest.fixture
def photos(trained_run, tmp_path):
    """Three of the run's validation images as files."""
    return unpack(*trained_run, tmp_path / "photos", most=3)


def call(store, *arguments, run="tiny"):
    app(["predict", run, *map(str, arguments), "--store", store.uri], standalone_mode=False)


def error_of(capsys, store, *arguments, code=2, run="tiny"):
    with pytest.raises(SystemExit) as end:
        call(store, *arguments, run=run)
    said = capsys.readouterr().err
    assert end.value.code == code, said
    assert said.count("\n") == 1, said
    return said


def stored(store, plan):
    """The predictions of the evaluate stage, by image id, as they lie in the store."""
    stage = stage_named(plan, "miou")
    rows = [row for shard in list_shards(store, stage) for row in read_shard(store, stage, shard, "scores")]
    return {row["image_id"]: row["prediction"] for row in rows}


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def errors(folder):
    with (folder / "errors.csv").open(newline="") as file:
        return {Path(row["image"]).name: row["reason"] for row in csv.DictReader(file)}


def test_a_validation_image_gets_the_stored_prediction(trained_run, tmp_path, capsys):
    """Byte for byte in Parquet, whose label maps are encoded as the store's; pixel for pixel as palette PNG."""
    store, plan = trained_run
    expected = stored(store, plan)
    unpack(store, plan, tmp_path / "photos")
    call(store, tmp_path / "photos", "--out", tmp_path / "table", "--format", "parquet")
    call(store, tmp_path / "photos", "--out", tmp_path / "png")
    table = pq.read_table(tmp_path / "table/shards").to_pylist()
    assert {row["image_id"]: row["prediction"] for row in table} == expected
    for row in table:
        label_HW = decode_gray(row["prediction"])
        assert (row["height"], row["width"]) == label_HW.shape
        assert row["pixels"] == [int((label_HW == label).sum()) for label in range(4)]
        assert Path(row["path"]).read_bytes().startswith(b"\x89PNG")
        with Image.open(tmp_path / f"png/masks/{row['image_id']}.png") as mask:
            assert mask.mode == "P"
            assert mask.getpalette()[3:6] == [128, 0, 0]
            np.testing.assert_array_equal(np.asarray(mask), label_HW)
    assert len(set(expected.values())) > 1, "or nothing was shown"
    assert (tmp_path / "png/classes.txt").read_text() == "square\ndisc\nbar\n"
    retrain = stage_named(plan, "retrain")
    assert f"run 'tiny': model 'retrain' ({retrain.id}): 8 images to {tmp_path / 'png'}" in capsys.readouterr().out
    about = json.loads((tmp_path / "png/predictions.json").read_text())
    assert about["counts"] == {"images": 8, "made": 8, "failed": 0}
    assert about["model"]["id"] == retrain.id


def test_the_model_and_the_crf_are_chosen(trained_run, photos, tmp_path):
    store, plan = trained_run
    call(store, tmp_path / "photos", "--out", tmp_path / "plain", "--no-crf", "--model", "segmenter")
    call(store, tmp_path / "photos", "--out", tmp_path / "by_id", "--no-crf", run=stage_named(plan, "segmenter").id)
    call(store, tmp_path / "photos", "--out", tmp_path / "crf", "--model", "segmenter")
    plain, by_id, crf = (
        [(tmp_path / name / f"masks/{image}.png").read_bytes() for image in photos] for name in ("plain", "by_id", "crf")
    )
    assert plain == by_id != crf
    metric, stage = find_trained("tiny", store.uri, "segmenter").with_crf(False).metric, stage_named(plan, "segmenter")
    assert metric.crf is None
    net = wsss_ray.load("tiny", store.uri, model="segmenter", crf=False)
    for image, path in photos.items():
        label_HW = metric.predict(stage.component, net.net, decode_rgb(path.read_bytes()))
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"plain/masks/{image}.png")), label_HW)


def test_overlays_show_picture_and_labels(trained_run, photos, tmp_path):
    store, _ = trained_run
    call(store, tmp_path / "photos", "--out", tmp_path / "out", "--overlay")
    assert files(tmp_path / "out/overlays") == [f"{image}.jpg" for image in photos]
    for image, path in photos.items():
        picture = Image.open(path).convert("RGB")
        label_HW = np.asarray(Image.open(tmp_path / f"out/masks/{image}.png"))
        shown = np.asarray(Image.open(tmp_path / f"out/overlays/{image}.jpg")).astype(int)
        colours = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)])[label_HW]
        wanted = np.where(label_HW[..., None] > 0, (np.asarray(picture).astype(int) + colours) / 2, picture)
        assert abs(shown - wanted).mean() < 15, "but for JPEG"
        assert abs(shown - wanted).mean() < abs(shown - np.asarray(picture)).mean() or not label_HW.any()


def test_a_blend_leaves_the_background_alone():
    image_HWC = np.array([[[10, 20, 30], [10, 20, 31], [255, 255, 255]]], np.uint8)
    mixed = blended(image_HWC, np.array([[0, 2, 1]], np.uint8))
    assert mixed.tolist() == [[[10, 20, 30], [5, 74, 15], [191, 127, 127]]]


def test_bad_images_are_recorded_and_the_others_predicted(trained_run, photos, tmp_path, capsys):
    store, _ = trained_run
    good = next(iter(photos.values()))
    for form in ("voc", "parquet"):
        out = tmp_path / form
        (tmp_path / "photos/cut.png").write_bytes(good.read_bytes()[:200])
        (tmp_path / "photos/text.jpg").write_text("no image")
        (tmp_path / "photos/empty.png").write_bytes(b"")
        said = error_of(capsys, store, tmp_path / "photos", "--out", out, "--format", form, code=1)
        assert f"3 of 6 images failed, see {out / 'errors.csv'}; " in said
        found = errors(out)
        assert sorted(found) == ["cut.png", "empty.png", "text.jpg"]
        assert "truncated or damaged PNG" in found["cut.png"]
        assert "not an image" in found["text.jpg"]
        assert "0 bytes" in found["empty.png"]
    assert files(tmp_path / "voc/masks") == [f"{image}.png" for image in photos]
    rows = pq.read_table(tmp_path / "parquet/shards").to_pylist()
    assert [row["image_id"] for row in rows if row["prediction"] is None] == ["cut", "empty", "text"]
    for name in ("cut.png", "text.jpg", "empty.png"):
        (tmp_path / "photos" / name).write_bytes(good.read_bytes())
    call(store, tmp_path / "photos", "--out", tmp_path / "voc")
    assert "3 images to" in capsys.readouterr().out
    assert not (tmp_path / "voc/errors.csv").exists()


def test_what_is_there_is_not_made_again(trained_run, photos, tmp_path, capsys):
    store, _ = trained_run
    out = tmp_path / "out"
    call(store, tmp_path / "photos", "--out", out)
    made = {path: path.stat().st_mtime_ns for path in (out / "masks").rglob("*.png")}
    first, second, _ = made
    first.unlink()
    later = second.stat().st_mtime_ns + 10**9
    os.utime(photos[second.relative_to(out / "masks").with_suffix("").as_posix()], ns=(later, later))
    capsys.readouterr()
    call(store, tmp_path / "photos", "--out", out)
    assert f"2 images to {out}, 1 was there already" in capsys.readouterr().out
    changed = [path for path in made if path.stat().st_mtime_ns != made[path]]
    assert sorted(changed) == sorted([first, second])


def test_a_replaced_picture_gets_its_own_mask(trained_run, photos, tmp_path, capsys):
    """By an older one of another size, by one of as many bytes, by one of another ending, by one that cannot be read."""
    store, _ = trained_run
    out, (name, path) = tmp_path / "out", next(iter(photos.items()))
    options = (tmp_path / "photos", "--out", out, "--overlay")

    def replace(size, old, suffix=".bmp", colour=(220, 60, 60)):
        path.unlink(missing_ok=True)
        path.with_suffix(".bmp").unlink(missing_ok=True)
        picture = Image.new("RGB", size, (120, 120, 120))
        picture.paste(colour, (4, 4, size[0] // 2, size[1] // 2))
        picture.save(path.with_suffix(suffix))
        os.utime(path.with_suffix(suffix), ns=(old, old))
        return path.with_suffix(suffix)

    call(store, *options)
    began = path.stat().st_mtime_ns
    net = wsss_ray.load("tiny", store.uri)
    for arguments in (((40, 24), began - 10**12), ((40, 24), began - 10**13, ".bmp", (70, 90, 230)), ((24, 40), began, ".png")):
        new = replace(*arguments)
        capsys.readouterr()
        call(store, *options)
        assert "1 image to" in capsys.readouterr().out, arguments
        found_HW = np.asarray(Image.open(out / f"masks/{name}.png"))
        np.testing.assert_array_equal(found_HW, net.predict(new))
        assert Image.open(out / f"overlays/{name}.jpg").size == found_HW.shape[::-1]
    call(store, *options)
    assert "0 images to" in capsys.readouterr().out
    new.write_bytes(b"no picture")
    error_of(capsys, store, *options, code=1)
    assert not (out / f"masks/{name}.png").exists()
    assert not (out / f"overlays/{name}.jpg").exists()


def test_an_overlay_is_made_anew_with_its_mask(trained_run, photos, tmp_path, capsys):
    store, _ = trained_run
    out, path = tmp_path / "out", next(iter(photos.values()))
    call(store, tmp_path / "photos", "--out", out, "--overlay")
    path.write_bytes([*photos.values()][1].read_bytes())
    call(store, tmp_path / "photos", "--out", out)  # the mask alone
    capsys.readouterr()
    call(store, tmp_path / "photos", "--out", out, "--overlay")
    assert f"1 image to {out}, 2 were there already" in capsys.readouterr().out


def test_shards_are_not_made_again(trained_run, photos, tmp_path, capsys):
    store, _ = trained_run
    call(store, tmp_path / "photos", "--out", tmp_path / "out", "--format", "parquet")
    before = (tmp_path / "out/shards/part-00000.parquet").stat().st_mtime_ns
    capsys.readouterr()
    call(store, tmp_path / "photos", "--out", tmp_path / "out", "--format", "parquet")
    assert "0 images to" in capsys.readouterr().out
    assert (tmp_path / "out/shards/part-00000.parquet").stat().st_mtime_ns == before
    path = next(iter(photos.values()))
    os.utime(path, ns=(10**18, 10**18))
    for _ in range(2):
        said = error_of(capsys, store, tmp_path / "photos", "--out", tmp_path / "out", "--format", "parquet")
        assert "another list of images; give another folder, or make them anew by --overwrite" in said
        path.unlink(missing_ok=True)


def test_a_folder_has_the_predictions_of_one_model(trained_run, photos, tmp_path, capsys):
    store, _ = trained_run
    out = tmp_path / "out"
    call(store, tmp_path / "photos", "--out", out)
    image = next(iter(photos.values()))
    for arguments, what in [
        ([tmp_path / "photos", "--model", "segmenter"], "another model"),
        ([tmp_path / "photos", "--no-crf"], "another metric or CRF"),
        ([tmp_path / "photos", "--format", "parquet"], "another --format"),
        ([image], "images below another folder"),
    ]:
        assert f"holds predictions of {what}" in error_of(capsys, store, *arguments, "--out", out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    assert "holds other files" in error_of(capsys, store, tmp_path / "photos", "--out", tmp_path / "mine")
    call(store, tmp_path / "photos", "--out", tmp_path / "mine", "--overwrite")
    assert (tmp_path / "mine/notes.txt").read_text() == "mine"


def test_an_interrupted_overwrite_takes_no_old_mask_for_a_new_one(trained_run, photos, tmp_path):
    store, _ = trained_run
    out = tmp_path / "out"
    call(store, tmp_path / "photos", "--out", out, "--model", "segmenter")
    listing = list_images([str(tmp_path / "photos")], out=out)
    work = Prediction(find_trained("tiny", store.uri), out, "voc")
    assert len(begin(work, listing, overwrite=True)[1][0].images) == 3
    assert len(begin(work, listing)[1][0].images) == 3, "the other model's are gone"


def test_any_picture(trained_run, tmp_path):
    store, _ = trained_run
    (tmp_path / "photos").mkdir()
    sizes = odd_pictures(tmp_path / "photos")
    call(store, tmp_path / "photos", "--out", tmp_path / "out")
    net = wsss_ray.load("tiny", store.uri)
    for path in (tmp_path / "photos").iterdir():
        label_HW = np.asarray(Image.open(tmp_path / f"out/masks/{path.stem}.png"))
        assert label_HW.shape == sizes[path.stem]
        with Image.open(path) as picture:
            np.testing.assert_array_equal(net.predict(picture), label_HW)
        np.testing.assert_array_equal(net.predict(path), label_HW)
        np.testing.assert_array_equal(net.predict(net.pixels(path)), label_HW)


def test_huge_pictures_are_refused_from_their_header(trained_run, photos, tmp_path, capsys):
    store, _ = trained_run
    arguments = (tmp_path / "photos", "--out", tmp_path / "out")
    said = error_of(capsys, store, *arguments, "--max-pixels", "1000", code=1)
    assert "32x32 is more than 1000 pixels; raise --max-pixels to take it" in said
    call(store, *arguments, "--max-pixels", "1024")


def test_large_pictures_are_shrunk_as_the_data_was_and_labels_enlarged(tmp_path):
    """Stored predictions have the size of the packed images; masks that of the files."""
    store = RunStore(str(tmp_path / "store"))
    data = {"kind": "shapes", "train": 8, "held_out": 3}
    plans = {}
    for name, extra in (("whole", {}), ("small", {"max_side": 16})):
        job = job_of(masked_job(name, data=data | extra))
        plans[name] = job.plan()
        begin_run(job, plans[name], store)
        run_plan(store, plans[name])
    unpack(store, plans["whole"], tmp_path / "photos")
    call(store, tmp_path / "photos", "--out", tmp_path / "out", run="small")
    expected = stored(store, plans["small"])
    for image, data in expected.items():
        small_HW = decode_gray(data)
        assert small_HW.shape == (16, 16)
        enlarged_HW = np.asarray(Image.fromarray(small_HW).resize((32, 32), Image.Resampling.NEAREST))
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"out/masks/{image}.png")), enlarged_HW)
    options = ["--store", store.uri, "--split", "val", "--format", "voc", "--out", str(tmp_path / "voc")]
    app(["export", "small", *options], standalone_mode=False)
    for image in expected:
        exported = Image.open(tmp_path / f"voc/SegmentationClass/{image}.png")
        assert exported.tobytes() == Image.open(tmp_path / f"out/masks/{image}.png").tobytes(), "as `predict` writes it"


def test_a_link_never_leads_out_of_the_folder(trained_run, photos, tmp_path, capsys):
    store, _ = trained_run
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out/masks").mkdir(parents=True)
    os.symlink(tmp_path / "elsewhere", tmp_path / "out/masks/val")
    kept = [tmp_path / "elsewhere" / f"{path.stem}.png" for path in photos.values()]
    for path in kept:
        path.write_bytes(b"kept")
    said = error_of(capsys, store, tmp_path / "photos", "--out", tmp_path / "out", "--overwrite", code=1)
    assert "is a link that leads out" in said
    assert sorted((tmp_path / "elsewhere").iterdir()) == sorted(kept)
    assert {path.read_bytes() for path in kept} == {b"kept"}


def test_a_worker_that_sees_another_folder_writes_nothing(trained_run, photos, tmp_path):
    store, _ = trained_run
    listing = list_images([str(tmp_path / "photos")], out=tmp_path / "out")
    work, parts = begin(Prediction(find_trained("tiny", store.uri), tmp_path / "out", "voc"), listing)
    worker = PredictWorker(work)
    (tmp_path / "out/predictions.json").unlink()
    with pytest.raises(ValueError, match="a worker's machine does not see it"):
        worker(parts[0])
    assert files(tmp_path / "out") == ["classes.txt"]
