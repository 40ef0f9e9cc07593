"""`wsss_ray.load`: a module for scripts, from the records and the weights alone; what does not fit is one line."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import wsss_ray
from tests.local import recommit, stage_named
from tests.masked import masked_job
from tests.pictures import unpack
from tests.unit.test_security import Evil
from wsss_ray.config.job import register
from wsss_ray.core.contracts import Learner, Segmenter
from wsss_ray.core.rules import Metric
from wsss_ray.data.codecs import decode_gray
from wsss_ray.engine.networks import load_model
from wsss_ray.inference.trained import component_of, find_trained
from wsss_ray.methods import methods
from wsss_ray.methods.deeplab import DeeplabSegmenter
from wsss_ray.nets.vgg16 import Vgg16
from wsss_ray.nets.weights import Weights
from wsss_ray.ops.crf import DenseCrf
from wsss_ray.storage.shards import read_shard
from wsss_ray.storage.store import RunStore

ROOT = Path(__file__).parents[2]
BOMB = "a0: &a0 [1]\n" + "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 9))


@pytest.fixture
def copied(trained_run, tmp_path):
    """A store of one's own to break, with what prediction needs and no more: no image, no shard."""
    store, plan = trained_run
    own = RunStore(str(tmp_path / "store"))
    for stage in plan:
        for name in ("record.json", "model.safetensors"):
            if store.exists(store.stage_path(stage, name)):
                own.write(own.stage_path(stage, name), store.read(store.stage_path(stage, name)))
    for name in ("run.json", "job.yaml"):
        own.write(own.run_path("tiny", name), store.read(store.run_path("tiny", name)))
    return own, plan


def test_importing_the_package_imports_nothing():
    heavy = {"numpy", "pyarrow", "pydantic", "ray", "torch", "yaml"}
    code = f"import sys, wsss_ray; print(sorted({heavy} & set(sys.modules)), callable(wsss_ray.load))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[] True\n"


def test_a_script_needs_neither_ray_nor_the_data(copied, trained_run, tmp_path):
    """The data source is a class of the tests that this process has never seen."""
    store, plan = copied
    image_id, path = next(iter(unpack(*trained_run, tmp_path / "photos").items()))
    code = f"""
        import sys
        import numpy as np, torch, wsss_ray
        torch.set_num_threads(1)
        model = wsss_ray.load("tiny", {store.uri!r})
        assert isinstance(model, torch.nn.Module) and not model.training
        np.save({str(tmp_path / "label.npy")!r}, model.predict({str(path)!r}))
        print(*model.classes, tuple(model(torch.zeros(2, 3, 17, 23)).shape), sorted({{"ray", "tests"}} & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.stdout == "background square disc bar (2, 4, 17, 23) []\n", done.stderr
    whole, stage = trained_run[0], stage_named(plan, "miou")
    expected = {row["image_id"]: row["prediction"] for row in read_shard(whole, stage, 0, "scores")}
    np.testing.assert_array_equal(np.load(tmp_path / "label.npy"), decode_gray(expected[image_id]))


def test_logits_are_those_of_the_stages_network(trained_run):
    store, plan = trained_run
    stage = stage_named(plan, "retrain")
    image_BCHW = torch.rand(2, 3, 20, 30) * 255
    net = load_model(store, stage, "cpu")
    expected = stage.component.predict(net, image_BCHW)
    model = wsss_ray.load("tiny", store.uri, device="cpu")
    assert not expected.requires_grad or not model(image_BCHW).requires_grad
    assert torch.equal(model(image_BCHW), expected)
    assert wsss_ray.load(stage.id, store.uri).trained.id == stage.id


def test_what_is_no_picture_is_one_line(trained_run, tmp_path):
    model = wsss_ray.load("tiny", trained_run[0].uri)
    image_HWC = np.zeros((8, 8, 3), np.uint8)
    assert model.predict(image_HWC).shape == (8, 8)
    for wrong, said in [
        (image_HWC.astype(np.float32), r"not float32 \(8, 8, 3\)"),
        (image_HWC[..., 0], r"not uint8 \(8, 8\)"),
        (image_HWC[:0], "has no pixels: .*; expected"),
        (torch.zeros(3, 8, 8), "not Tensor"),
        (Image.new("F", (4, 4)), "floating-point pixels"),
    ]:
        with pytest.raises(ValueError, match=said):
            model.predict(wrong)
    with pytest.raises(FileNotFoundError):
        model.predict(tmp_path / "none.jpg")


@pytest.mark.parametrize("name", sorted(methods()))
def test_learners_and_metrics_come_back_from_their_identity(name):
    """Of every method, with the defaults of the paper; but for the weights that they start from."""
    register()
    parts = [part for part in vars(methods()[name]()).values() if isinstance(part, Learner | Metric)]
    assert parts
    for part in parts:
        role = Segmenter if isinstance(part, Segmenter) else type(part)
        again = component_of(role, json.loads(json.dumps(part.identity())), "here")
        assert without_weights(again.spec()) == without_weights(part.spec())
        assert "imagenet" not in json.dumps(again.spec())


def without_weights(spec):
    if isinstance(spec, dict):
        return "weights" if spec.get("kind") == "weights" else {name: without_weights(part) for name, part in spec.items()}
    return [without_weights(part) for part in spec] if isinstance(spec, list) else spec


def test_files_that_a_network_started_from_are_not_needed(tmp_path):
    weights = tmp_path / "start.pt"
    weights.write_bytes(b"something")
    learner = DeeplabSegmenter(trunk=Vgg16(weights=Weights(source=str(weights))))
    identity = learner.identity()
    weights.unlink()
    assert component_of(Segmenter, identity, "here").trunk == Vgg16(weights=Weights())


def broken(store, plan, change):
    record = store.record(stage_named(plan, "retrain"))
    change(record)
    store.commit(stage_named(plan, "retrain"), record)
    with pytest.raises(ValueError, match=r"\S") as raised:
        find_trained("tiny", store.uri)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_records_that_do_not_fit_are_one_line(copied):
    store, plan = copied
    said = broken(store, plan, lambda record: record["identity"]["component"].update(revision=7))
    assert "run 'tiny': model 'retrain', made by wsss-ray 0.1.0: deeplab_segmenter has revision 7, here it is 1" in said
    said = broken(store, plan, lambda record: record["identity"]["component"].update(revision=1, kind="mine"))
    assert "kind is 'mine', allowed: deeplab_segmenter, " in said
    assert "install its plug-in, or name its module in WSSS_RAY_PLUGINS" in said
    said = broken(store, plan, lambda record: record["identity"]["component"].update(kind="deeplab_segmenter", new_field=3))
    assert "made by wsss-ray 0.1.0: new_field: " in said
    outside = [["data", ".."]]
    said = broken(store, plan, lambda record: record["identity"]["component"].pop("new_field") and record.update(inputs=outside))
    assert "'..' is not the id of a stage" in said


def test_weights_that_do_not_fit_are_one_line(copied, tmp_path):
    store, plan = copied
    path = Path(store.stage_path(stage_named(plan, "retrain"), "model.safetensors"))
    whole = path.read_bytes()
    sign = tmp_path / "executed"
    for data, said in [
        (whole[:100], "is damaged or no safetensors file"),
        (pickle.dumps(Evil(sign)), "is damaged or no safetensors file"),
        (b"", "is damaged or no safetensors file"),
    ]:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"run 'tiny': model 'retrain' .* is damaged \(other bytes"):
            wsss_ray.load("tiny", store.uri)
        recommit(store, stage_named(plan, "retrain"))  # the bytes that were written are no weights
        with pytest.raises(ValueError, match=said) as raised:
            wsss_ray.load("tiny", store.uri)
        assert "\n" not in str(raised.value)
    assert not sign.exists()
    from safetensors.torch import load, save

    path.write_bytes(save({name: tensor for name, tensor in load(whole).items() if "head" not in name}))
    recommit(store, stage_named(plan, "retrain"))
    with pytest.raises(ValueError, match=r"run 'tiny': model 'retrain' .* does not fit its network: Missing key"):
        wsss_ray.load("tiny", store.uri)
    path.unlink()
    with pytest.raises(ValueError, match="its weights are not there"):
        wsss_ray.load("tiny", store.uri)


def test_what_is_not_trained_yet_is_told(copied):
    store, plan = copied
    Path(store.stage_path(stage_named(plan, "retrain"), "record.json")).unlink()
    assert find_trained("tiny", store.uri).stage == "segmenter", "the last that is trained"
    told = "--model retrain: is not one of the trained segmenters: segmenter; not trained yet: retrain"
    with pytest.raises(ValueError, match=told):
        find_trained("tiny", store.uri, "retrain")
    shutil.rmtree(store.path("stages"))
    with pytest.raises(ValueError, match="trained segmenters: none yet"):
        find_trained("tiny", store.uri)


def test_a_model_that_was_not_scored_is_used_as_the_job_would_score_it(copied):
    store, plan = copied
    Path(store.stage_path(stage_named(plan, "miou"), "record.json")).unlink()
    metric = stage_named(plan, "miou").component
    assert find_trained("tiny", store.uri).metric == metric
    assert find_trained("tiny", store.uri).scored is None
    assert masked_job()["method"] == {"name": "masked"}, "whose metric is the default"
    path = store.run_path("tiny", "job.yaml")
    shutil.rmtree(store.run_path("tiny", "attempts"), ignore_errors=True)  # an older store, which has only this job
    for text in ("method: [", "method: {name: none}", BOMB):
        store.write(path, text.encode())
        with pytest.raises(ValueError, match="is not the job that was submitted") as raised:
            find_trained("tiny", store.uri)
        assert str(raised.value).startswith(path)


class OwnMetric(Metric):
    """A metric of somebody else, without a CRF."""

    def predict(self, segmenter, net, image_HWC):
        raise NotImplementedError


class OwnCrfMetric(OwnMetric):
    """A metric of somebody else that can switch something like a CRF."""

    refine: bool = True

    def with_crf(self, crf):
        return self.model_copy(update={"refine": crf})


def test_a_metric_of_ones_own_switches_its_crf_or_refuses(trained_run):
    trained = find_trained("tiny", trained_run[0].uri)
    assert trained.scored is not None
    for crf in (True, False):
        message = r"^--crf, --no-crf: run 'tiny': .*: the metric is own_metric, which has no crf to switch$"
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(trained, metric=OwnMetric()).with_crf(crf)
    own = dataclasses.replace(trained, metric=OwnCrfMetric())
    assert own.with_crf(True) is own.with_crf(None) is own
    assert (own.with_crf(False).metric, own.with_crf(False).scored) == (OwnCrfMetric(refine=False), None)
    assert trained.with_crf(False).with_crf(True).metric.crf == DenseCrf(), "the default one"
    narrow = trained.metric.model_copy(update={"crf": DenseCrf(iterations=3)})
    assert narrow.with_crf(True) == narrow


def test_a_sweep_is_not_a_run(copied):
    store, _ = copied
    store.write_json(store.run_path("many", "sweep.json"), {})
    with pytest.raises(ValueError, match="run 'many' is a sweep; give one of its trials"):
        find_trained("many", store.uri)
