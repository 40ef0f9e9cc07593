"""Trained networks as files of other programs: the same labels, read without this package, and a card that tells no paths."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import wsss_ray
from tests.local import stage_named
from tests.masked import small_segmenter
from tests.pictures import unpack
from tests.told import error_line
from wsss_ray.cli import app
from wsss_ray.data.codecs import decode_rgb
from wsss_ray.data.images import normalise_image
from wsss_ray.inference.export_model import FILES, InputSizes, _attempts, _EvenSame, export_model
from wsss_ray.inference.model_card import write_card
from wsss_ray.inference.model_code import labels_of_code
from wsss_ray.inference.predictor import Predictor
from wsss_ray.inference.trained import find_trained
from wsss_ray.methods.common.segmentation import MultiScale
from wsss_ray.methods.deeplab import DeeplabSegmenter
from wsss_ray.storage.shards import read_all
from wsss_ray.storage.store import RunStore

FORMS = ("safetensors", "torch", "onnx")
ALONE = "import sys; sys.modules['wsss_ray'] = None\n"  # importing it is an error from now on


def call(store, *arguments, run="tiny"):
    app(["export", run, "--store", store.uri, *map(str, arguments)], standalone_mode=False)


def error_of(capsys, store, *arguments, run="tiny"):
    return error_line(capsys, lambda: call(store, *arguments, run=run))


@pytest.fixture(scope="module")
def exported(trained_run, tmp_path_factory):
    """The run's model in all forms."""
    folder = tmp_path_factory.mktemp("exported")
    for form in FORMS:
        call(trained_run[0], "--format", form, "--out", folder / form)
    return folder


def photo(trained_run, path, *, size=None):
    """A photograph of any size as a JPEG, and its pixels."""
    source = next(iter(unpack(*trained_run, path.parent / "photos", most=1).values()))
    picture = Image.open(source).convert("RGB")
    picture.resize(size or picture.size).save(path, format="JPEG", quality=95)
    return decode_rgb(normalise_image(path.read_bytes(), max_pixels=10**6).image)


@pytest.mark.parametrize("form", FORMS)
def test_the_code_of_the_card_gives_the_networks_labels(trained_run, exported, tmp_path, form):
    """In a process of its own; torch and ONNX without this package. The picture has another size than those compared on."""
    store, _ = trained_run
    folder = shutil.copytree(exported / form, tmp_path / form)
    image_HWC = photo(trained_run, folder / "photo.jpg", size=(45, 70))
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    code += f"import numpy\nnumpy.save({str(tmp_path / 'label.npy')!r}, numpy.asarray(label_HW))\n"
    alone = "" if form == "safetensors" else ALONE
    environment = os.environ | {"PYTHONPATH": str(Path(wsss_ray.__file__).parents[1])}
    command = [sys.executable, "-c", alone + code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found_HW = np.load(tmp_path / "label.npy")
    net = wsss_ray.load("tiny", store.uri)
    expected_HW = (net if form == "safetensors" else net.without_crf()).predict(image_HWC)
    assert found_HW.shape == (70, 45)
    assert (found_HW != expected_HW).mean() <= 1e-3
    assert len(np.unique(expected_HW)) > 1, "or nothing was shown"


@pytest.fixture(scope="module")
def shrunk_run(trained_run, tmp_path_factory):
    """The same network in a job that shrinks its images, with several scales: a folder for each form."""
    trained = find_trained("tiny", trained_run[0].uri)
    metric = MultiScale(scales=(0.75, 1.0, 1.3), flip=True, crf=None)
    small = replace(trained, max_side=40, metric=metric)
    folder = tmp_path_factory.mktemp("shrunk")
    image_HWC = photo(trained_run, folder / "photo.jpg", size=(40, 30))
    for form in ("torch", "onnx"):
        done = export_model(small, folder / form, form=form, image_HWC=image_HWC)
        write_card(trained_run[0], small, done, folder / form)
        assert done.code_different == (0, 40 * 30)
    return small, folder


def odd_photos(folder):
    """Photographs in several forms, most larger than 40 pixels."""
    found = {}
    rng = np.random.default_rng(1)
    sizes = {"large.jpg": (333, 217), "turned.jpg": (211, 100), "clear.png": (90, 90), "small.png": (39, 21)}
    sizes |= {"gray.tif": (64, 80)}
    for name, size in sizes.items():
        pixels = np.full((size[1], size[0], 3), 120, np.uint8)
        for colour in ((220, 60, 60), (60, 200, 80), (70, 90, 230)):
            x, y = rng.integers(0, size[0] // 2), rng.integers(0, size[1] // 2)
            pixels[y : y + size[1] // 3, x : x + size[0] // 3] = colour
        picture, options = Image.fromarray(pixels), {}
        if name == "turned.jpg":
            options["exif"] = Image.Exif()
            options["exif"][0x0112] = 8
        if name == "clear.png":
            picture.putalpha(Image.fromarray(rng.integers(0, 256, size[::-1]).astype(np.uint8)))
        if name == "gray.tif":
            picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
        found[name] = folder / name
        picture.save(found[name], **options)
    return found


@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_photographs_larger_than_those_of_the_training_get_the_labels_of_predict(shrunk_run, tmp_path, form):
    small, folder = shrunk_run
    photos = odd_photos(tmp_path)
    for name, path in photos.items():
        if name == "large.jpg":  # one in a process of its own, which takes a second
            run = f"{ALONE}import runpy; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
            command = [sys.executable, "-c", run, folder / form / "predict.py", path, tmp_path / "labels.png"]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
            assert done.returncode == 0, done.stderr
            found_HW = np.asarray(Image.open(tmp_path / "labels.png"))
        else:
            found_HW = labels_of_code(folder / form, path)
        expected_HW = Predictor(small, device="cpu").predict(path)
        assert found_HW.shape == expected_HW.shape
        assert (found_HW != expected_HW).mean() <= 1e-3, name
    whole = Predictor(replace(small, max_side=None), device="cpu").predict(photos["large.jpg"])
    assert (whole != Predictor(small, device="cpu").predict(photos["large.jpg"])).any(), "or nothing was shown"


def test_card_and_metadata_say_how_to_make_the_input(shrunk_run):
    import onnx

    _, folder = shrunk_run
    extra = dict.fromkeys(("max_side", "classes", "input", "metric"), "")
    torch.export.load(folder / "torch/model.pt2", extra_files=extra)
    props = {one.key: one.value for one in onnx.load(folder / "onnx/model.onnx").metadata_props}
    for found in (extra, props):
        assert json.loads(found["max_side"]) == 40
        assert json.loads(found["classes"]) == ["background", "square", "disc", "bar"]
        assert json.loads(found["metric"])["scales"] == [0.75, 1.0, 1.3]
        assert "RGB, 0 to 255, upright, shrunk to at most 40 pixels a side; any height, width and batch" in found["input"]
    for form in ("torch", "onnx"):
        card = (folder / form / "README.md").read_text()
        assert "shrinks it to at most 40 pixels a side, as the training images were" in card
        assert "(scales 0.75, 1.0, 1.3, also on the mirror image)" in card
        assert "Its labels are those of `wsss-ray predict`: on the image that they were compared on, 0 of 1200" in card


@pytest.mark.parametrize("form", FORMS)
def test_what_was_compared_is_written(trained_run, exported, form, capsys, tmp_path):
    config = json.loads((exported / form / "config.json").read_text())
    assert config["classes"] == ["square", "disc", "bar"]
    done = config["exported"]
    assert done["file"] == FILES[form]
    assert done["takes"] == "any height, width and batch"
    assert done["pixels_different"] == 0
    assert 0 <= done["largest_difference"] < 1e-3
    assert [size[0] for size in done["sizes_compared"]] == [1, 1, 2], "two sizes and two batches"
    call(trained_run[0], "--format", form, "--out", tmp_path / form)
    said = capsys.readouterr().out
    assert f"{FILES[form]}, takes any height, width and batch; README.md is its model card" in said
    assert f"the label differs on 0 of {done['pixels']} pixels" in said


def test_onnx_names_its_sides(exported):
    import onnx

    model = onnx.load(exported / "onnx/model.onnx")
    ends = (model.graph.input[0], model.graph.output[0])
    sides = [[dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in ends]
    assert sides == [["batch", 3, "height", "width"], ["batch", 4, "height", "width"]]
    assert (model.graph.input[0].name, model.graph.output[0].name) == ("image", "logits")


def test_the_card_tells_what_it_is_and_no_path(trained_run, exported):
    store, plan = trained_run
    text = (exported / "onnx/README.md").read_text()
    record = store.record(stage_named(plan, "miou"))
    assert f"mIoU {record['metrics']['miou']:.3f} on 8 images with masks (`miou`)" in text
    assert "| 0 | background |\n| 1 | square |\n| 2 | disc |\n| 3 | bar |" in text
    rows = read_all(store, stage_named(plan, "images-weak"), "images", columns=["tags"]).to_pylist()
    for tag, name in enumerate(("square", "disc", "bar")):
        assert f"| {name} | {sum(tag in row['tags'] for row in rows)} |" in text
    assert "24 images. The network learned from human masks." in text
    (job,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    job = yaml.safe_load(job)
    assert job["run"]["store"] == "(a path)"
    assert job["method"]["retrain"]["steps"] == 40
    assert store.uri not in text
    assert os.path.expanduser("~") not in text
    assert f"torch {version('torch')}" in text
    for heading in ("How to use it", "Limits", "Licence"):
        assert f"\n## {heading}\n" in text


def test_an_exported_folder_is_a_model(trained_run, exported, tmp_path, capsys):
    """Without the store: by path in Python and on the command line, with the same labels."""
    store, _ = trained_run
    images = unpack(*trained_run, tmp_path / "photos", most=2)
    app(["predict", f"{exported}/safetensors", str(tmp_path / "photos"), "--out", str(tmp_path / "out")], standalone_mode=False)
    net = wsss_ray.load("tiny", store.uri)
    for image, path in images.items():
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"out/masks/{image}.png")), net.predict(path))
    with pytest.raises(ValueError, match=r"its weights are not there \(.*\); restore the file, or give a folder"):
        wsss_ray.load(f"{exported}/onnx")
    (tmp_path / "config.json").write_text('{"format": 1}')
    with pytest.raises(ValueError, match=r"is no config.json of wsss-ray \(KeyError: 'run'\); give a folder"):
        wsss_ray.load(f"{tmp_path}/")
    with pytest.raises(ValueError, match=r"--model retrain: .* is an exported folder"):
        wsss_ray.load(f"{exported}/onnx", model="retrain")


class Moody(DeeplabSegmenter):
    """Its logits change sign with every call: what is traced is not what runs."""

    def predict(self, net, image_BCHW):
        CALLS.append(1)
        return super().predict(net, image_BCHW) * (-1) ** len(CALLS)


CALLS: list[int] = []


@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_a_file_that_gives_other_labels_is_not_written(trained_run, tmp_path, form):
    trained = find_trained("tiny", trained_run[0].uri)
    moody = replace(trained, segmenter=Moody.model_validate(dict(trained.segmenter)))
    image_HWC = photo(trained_run, tmp_path / "photo.jpg")
    CALLS.clear()
    said = rf"{FILES[form]}: its labels differ .* of \d+ pixels \(allowed: 0.0001 .*nothing was written"
    with pytest.raises(ValueError, match=said):
        export_model(moody, tmp_path / "out", form=form, image_HWC=image_HWC)
    assert not any((tmp_path / "out").iterdir())


def test_a_network_that_cannot_be_traced_for_all_sizes_takes_one(trained_run, tmp_path):
    """ONNX has no rounding of sizes, which several input scales need."""
    trained = find_trained("tiny", trained_run[0].uri)
    scales = replace(trained, segmenter=trained.segmenter.model_copy(update={"input_scales": (1.0, 0.5)}))
    done = export_model(scales, tmp_path / "out", form="onnx", image_HWC=photo(trained_run, tmp_path / "photo.jpg"))
    assert (done.takes, done.fixed) == ("one image of 32x32 (height x width)", (32, 32))
    assert done.sizes_compared == ((1, 32, 32),)
    assert done.code_different == (0, 32 * 32)
    assert labels_of_code(tmp_path / "out", np.zeros((50, 71, 3), np.uint8)).shape == (50, 71)
    assert "The network takes one size only, to which photographs are resized" in (tmp_path / "out/predict.py").read_text()


def test_padding_as_tensorflow_has_it_is_the_same_on_whole_sizes():
    utils = pytest.importorskip("efficientnet_lite_pytorch.utils")
    for kernel, stride, dilation in [(3, 1, 1), (3, 2, 1), (5, 2, 1), (5, 1, 2), (1, 1, 1)]:
        conv = utils.Conv2dDynamicSamePadding(4, 4, kernel, stride=stride, dilation=dilation, groups=2)
        x_BCHW = torch.rand(2, 4, 32, 64)
        expected = conv(x_BCHW)
        conv.__class__ = _EvenSame
        assert torch.equal(conv(x_BCHW), expected)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_an_efficientnet_takes_whole_sizes(trained_run, tmp_path, form):
    pytest.importorskip("efficientnet_lite_pytorch")
    from wsss_ray.nets.efficientnet_lite import EfficientNetLite0
    from wsss_ray.nets.weights import Weights

    trained = find_trained("tiny", trained_run[0].uri)
    segmenter = small_segmenter(1).model_copy(update={"trunk": EfficientNetLite0(weights=Weights(), output_stride=16)})
    own = RunStore(str(tmp_path / "own"))
    torch.manual_seed(0)
    from safetensors.torch import save

    weights = {name: tensor.contiguous() for name, tensor in segmenter.build(3).state_dict().items()}
    own.write(own.path("model.safetensors"), save(weights))
    trained = replace(trained, segmenter=segmenter, place=own.uri, file="model.safetensors")
    assert next(iter(_attempts(Predictor(trained), np.zeros((40, 50, 3), np.uint8)))) == InputSizes(step=16)
    image_HWC = photo(trained_run, tmp_path / "photo.jpg", size=(70, 100))
    done = export_model(trained, tmp_path / "out", form=form, image_HWC=image_HWC)
    assert done.takes == "any batch, height and width multiples of 16"
    assert done.sizes_compared[0] == (1, 96, 64)
    assert labels_of_code(tmp_path / "out", image_HWC).shape == (100, 70)
    different, pixels = done.code_different
    assert (pixels, different < pixels / 4) == (7000, True), "resized to 96 x 64"
    assert "resized to multiples of 16; so labels differ a little" in (tmp_path / "out/predict.py").read_text()


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime", "onnxscript"])
def test_without_onnx(trained_run, tmp_path, capsys, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    said = error_of(capsys, trained_run[0], "--format", "onnx", "--out", tmp_path / "out")
    assert "pip install 'wsss-ray[onnx]'" in said
    assert not (tmp_path / "out").exists()


def test_mistakes_are_one_line(trained_run, tmp_path, capsys):
    store, plan = trained_run
    out = ("--out", tmp_path / "out")
    (tmp_path / "text.jpg").write_text("no image")
    for arguments, said in [
        (("--format", "torch", "--stage", "miou"), "--stage: goes with --format voc, coco and label-studio; with torch give"),
        (("--format", "voc", "--model", "retrain"), "--model: goes with --format torch, onnx and safetensors"),
        (("--format", "torch", "--model", "none"), "--model none: is not one of the trained segmenters: segmenter, retrain"),
        (("--format", "safetensors", "--image", tmp_path / "none.jpg"), "none.jpg"),
        (("--format", "safetensors", "--image", tmp_path / "text.jpg"), "not an image in a format that is read here"),
    ]:
        assert said in error_of(capsys, store, *arguments, *out)
    assert "give the run that it came from" in error_of(capsys, store, "--format", "torch", run="./folder")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    assert "holds files already" in error_of(capsys, store, "--format", "safetensors", *out)
    photo(trained_run, tmp_path / "photo.jpg")
    call(store, "--format", "safetensors", "--overwrite", *out, "--image", tmp_path / "photo.jpg")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["README.md", "config.json", "mine.txt", "model.safetensors"]
    assert stage_named(plan, "retrain").id in (tmp_path / "out/README.md").read_text()
