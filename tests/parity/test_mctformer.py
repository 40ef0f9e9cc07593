"""MCTformer against numpy from the raw weights: scores, class attention, PatchCAM, their fusion and the affinity."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.local import job_of, run_plan, stage_named
from tests.parity.naive_vit import conv3x3, vit
from tests.tiny import tiny_job_of
from wsss_ray.core import Axis
from wsss_ray.core.graph import Plan, until
from wsss_ray.data.codecs import decode_gray, decode_maps
from wsss_ray.methods.mctformer import MctClassifier, MctLocalizer
from wsss_ray.nets.timm_vit import TimmVit
from wsss_ray.nets.torchvision_safe import torchvision
from wsss_ray.ops.seeds import resize_maps
from wsss_ray.ops.tokens import class_attention, spread_by_affinity, stretch
from wsss_ray.storage.shards import read_all
from wsss_ray.storage.store import RunStore

torchvision()
timm = pytest.importorskip("timm", reason="needs wsss-ray[timm]")
ROWS, COLUMNS, CLASSES = 5, 7, 4


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(5)
    found = MctClassifier(trunk=TimmVit(name="test_vit", patch_size=8, weights="none")).build(CLASSES).double().eval()
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        found.head.bias.add_(0.3)
    return found


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(2).integers(0, 256, (8 * ROWS, 8 * COLUMNS, 3)).astype(np.uint8)


def by_numpy(net, image_HWC):
    """Scores of both branches, class attention of each layer (A, K, h, w), PatchCAMs (K, h, w) and affinity (hw, hw)."""
    trunk = net.trunk
    mean, std = (getattr(trunk.normalize, name).double().numpy().reshape(3) for name in ("mean", "std"))
    given = ((image_HWC - mean) / std).transpose(2, 0, 1)
    weights = {name: value.detach().numpy() for name, value in trunk.net.state_dict().items()}
    with torch.no_grad():  # resizing embeddings is timm's; tests of the trunk hold it to timm
        place = trunk._embedded(torch.zeros(1, 3, *image_HWC.shape[:2], dtype=torch.float64) + trunk.normalize.mean)[0][0]
    patch = place[CLASSES:].numpy() - weights["patch_embed.proj.bias"]
    x, attention = vit(given, weights, side=8, heads=2, place_NC=patch)
    cam = conv3x3(x[CLASSES:].T.reshape(-1, ROWS, COLUMNS), *(part.detach().numpy() for part in (net.head.weight, net.head.bias)))
    scores = np.stack([x[:CLASSES].mean(1), cam.mean((1, 2))])
    return (
        scores,
        attention[:, :CLASSES, CLASSES:].reshape(-1, CLASSES, ROWS, COLUMNS),
        cam,
        attention[:, CLASSES:, CLASSES:].mean(0),
    )


def test_scores_are_means_of_class_tokens_and_of_patchcams(net, image):
    scores, *_ = by_numpy(net, image)
    with torch.inference_mode():
        found = net(torch.from_numpy(image).permute(2, 0, 1)[None].double())[0]
    np.testing.assert_allclose(found, scores, atol=1e-9)


@pytest.mark.parametrize("layers", [1, 3, 12])
@pytest.mark.parametrize("fuse", ["product", "attention", "patches"])
@pytest.mark.parametrize("affinity", [True, False])
def test_maps_are_those_of_numpy(net, image, layers, fuse, affinity):
    _, attention, cam, between = by_numpy(net, image)
    expected = {
        "attention": lambda: attention[-layers:].mean(0),
        "patches": lambda: np.maximum(cam, 0),
        "product": lambda: attention[-layers:].mean(0) * np.maximum(cam, 0),
    }[fuse]()
    if affinity:
        expected = np.einsum("pq,kq->kp", between, expected.reshape(CLASSES, -1)).reshape(expected.shape)
    with torch.inference_mode():
        found = net.maps(torch.from_numpy(image).permute(2, 0, 1)[None].double(), layers=layers, fuse=fuse, affinity=affinity)
    assert found.shape == (1, CLASSES, ROWS, COLUMNS)
    np.testing.assert_allclose(found[0], expected, atol=1e-9)


def test_the_localizer_stretches_the_mean_with_the_mirror_image(net, image):
    one, other = (by_numpy(net, np.ascontiguousarray(picture)) for picture in (image, image[:, ::-1]))
    raw = []
    for _, attention, cam, between in (one, other):
        fused = attention[-3:].mean(0) * np.maximum(cam, 0)
        raw.append(np.einsum("pq,kq->kp", between, fused.reshape(CLASSES, -1)).reshape(fused.shape))
    mean = (raw[0] + raw[1][..., ::-1]) / 2
    low, high = mean.min((1, 2), keepdims=True), mean.max((1, 2), keepdims=True)
    net = net.float()
    maps = MctLocalizer().localize(net, image, (1, 3), key=0)
    net.double()
    np.testing.assert_allclose(maps.peak_CHW, ((mean - low) / (high - low))[[1, 3]], atol=2e-4)
    assert maps.rows == Axis(first=0.5 / ROWS, step=1 / ROWS)
    assert maps.classes == (1, 3)
    assert MctLocalizer().localize(net.float(), image, (), key=0).peak_CHW.shape == (0, ROWS, COLUMNS)
    net.double()


def test_attention_by_hand():
    """One class, two patches, two layers."""
    attention = torch.tensor([[[[0.0, 0.8, 0.2], [0.0, 0.7, 0.3], [0.0, 0.1, 0.9]],
                               [[0.0, 0.4, 0.6], [0.0, 0.5, 0.5], [0.0, 0.3, 0.7]]]])  # fmt: skip
    torch.testing.assert_close(class_attention(attention, 1, (1, 2), layers=1), torch.tensor([[[[0.4, 0.6]]]]))
    torch.testing.assert_close(class_attention(attention, 1, (1, 2), layers=2), torch.tensor([[[[0.6, 0.4]]]]))
    spread = spread_by_affinity(torch.tensor([[[[1.0, 0.0]]]]), attention, 1)
    torch.testing.assert_close(spread, torch.tensor([[[[0.6, 0.2]]]]))
    torch.testing.assert_close(stretch(torch.tensor([[[2.0, 2.0]], [[1.0, 3.0]]])), torch.tensor([[[0.0, 0.0]], [[0.0, 1.0]]]))


def test_it_learns_from_tags_and_its_maps_find_the_objects(tmp_path):
    """Without pretrained weights, on drawn shapes: the losses fall, and maps are higher on the object than beside it.

    The affinity is left out: of a network that has seen 48 drawings, it moves the maps beside the objects.
    """
    job = tiny_job_of("mctformer", data={"kind": "shapes", "train": 48})
    job["method"]["classifier"] |= {"steps": 150, "optimizer": {"kind": "adam", "lr": 1e-3}}
    job["method"]["localizer"] |= {"layers": 6, "affinity": False}
    plan, store = Plan.of(until(job_of(job).plan().targets, "localize")), RunStore(str(tmp_path))
    run_plan(store, plan)
    classifier, maps = stage_named(plan, "classifier"), stage_named(plan, "maps")
    lines = [json.loads(line) for line in store.read(store.stage_path(classifier, "metrics.jsonl")).decode().splitlines()]
    for term in ("class_tokens", "patches"):
        assert lines[-1]["terms"][term] < 0.6 * lines[0]["terms"][term]
    masks = {row["image_id"]: decode_gray(row["mask"]) for row in read_all(store, maps.input("data"), "images").to_pylist()}
    ahead = []
    for row in read_all(store, maps, "maps").to_pylist():
        found, mask = decode_maps(row), masks[row["image_id"]]
        for tag, map_HW in zip(found.classes, resize_maps(found.peak_CHW, 32, 32, found.rows, found.columns), strict=True):
            inside = mask == tag + 1
            ahead.append((map_HW[inside][:, None] > map_HW[~inside][None]).mean())
    assert np.mean(ahead) > 0.75, "0.5 is chance"


def test_tokens_embeddings_biases_and_norms_have_no_weight_decay(net):
    decays, rest = MctClassifier().param_groups(net)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    kept = {names[id(parameter)] for parameter in rest["params"]}
    assert rest["weight_decay"] == 0.0
    assert {"trunk.net.cls_token", "trunk.net.pos_embed", "head.bias", "trunk.net.blocks.0.norm1.weight"} <= kept
    assert {names[id(parameter)] for parameter in decays["params"]} == set(names.values()) - kept
    assert all(name.endswith("weight") for name in set(names.values()) - kept)
