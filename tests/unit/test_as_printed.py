"""Fields that follow a paper's printed equations where the defaults follow its code: each against the equation, written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.stage_ids import ROOT
from wsss_ray.config.job import load_job
from wsss_ray.core.values import IGNORE, Axis, Batch, Maps
from wsss_ray.methods.multi_estimations import WeightedSegmenter
from wsss_ray.methods.noisy_masks import BlockNoise, realised
from wsss_ray.methods.rrm import ReliableRegions
from wsss_ray.nets.small import SmallNet
from wsss_ray.ops import reliable
from wsss_ray.ops.confusion import confusion
from wsss_ray.ops.crf import DenseCrf

PRINTED = ReliableRegions(
    floor=0, gamma=4, power_of="max", background_floor=0, background_by="ratio", crf_gammas=(4, 4), crf_floor=0, agreement="equal"
)


def maps_of(cam_CHW, classes):
    """Maps with one feature under each pixel."""
    rows, columns = (Axis(first=0.5 / side, step=1 / side) for side in cam_CHW.shape[1:])
    return Maps(classes, peak_CHW=cam_CHW, mean_CHW=cam_CHW, rows=rows, columns=columns)


def test_a_pixel_to_which_maps_and_crf_give_different_labels():
    """Tag 2, label 3. The maps compete with 1 - max: .9, .4, .3, .1; in the CRF with 1 - max ** 4: .9999, .8704, .7599, .3439."""
    cam, image = np.array([[[0.1, 0.6, 0.7, 0.9]]], np.float32), np.zeros((1, 4, 3), np.uint8)
    still = DenseCrf(iterations=1, gaussian_weight=0, bilateral_weight=0)  # no neighbours: the highest score stays so
    equal = PRINTED.model_copy(update={"gamma": 1.0, "ratio": 1.0, "crf": still})
    assert equal.seed(image, maps_of(cam, (2,)), None).tolist() == [[0, IGNORE, IGNORE, 3]]
    code = equal.model_copy(update={"agreement": "code"})
    assert code.seed(image, maps_of(cam, (2,)), None).tolist() == [[0, 0, 0, 3]], "the CRF's label, whatever the maps say"
    rest = code.model_copy(update={"power_of": "rest"})
    assert rest.seed(image, maps_of(cam, (2,)), None).tolist() == [[0, 3, 3, 3]], "(1 - max) ** 4 is .6561, .0256, .0081, .0001"


def test_the_ratio_applies_to_background_too():
    cam = np.zeros((1, 1, 10), np.float32)
    background = np.array([[1, 1, 1, 1, 1, 0.9, 0.8, 0.7, 0.6, 0.5]], np.float32)
    settings = {"ratio": 0.4, "floor": 0.0}
    _, every = reliable.surest(cam, background, **settings, background_floor=0.55)
    assert every.sum() == 9
    _, few = reliable.surest(cam, background, **settings, background_floor=0.0, background_ratio=0.2)
    assert few[0].tolist() == [True] * 5 + [False] * 5, "2 of 10 pixels, and those that tie with them"
    _, more = reliable.surest(cam, background, **settings, background_floor=0.0, background_ratio=0.7)
    assert more[0].tolist() == [True] * 7 + [False] * 3
    _, above = reliable.surest(cam, background, **settings, background_floor=0.65, background_ratio=1.0)
    assert above[0].tolist() == [True] * 8 + [False] * 2
    _, none = reliable.surest(cam + 2, background, **settings, background_floor=0.0, background_ratio=0.4)
    assert none.sum() == 0, "background wins nowhere"


def equations_4_to_7(cam_CHW, image_HWC, classes, crf):
    """RRM's labels, pixel by pixel: P_bg, I_crf, a threshold alpha for each class, I_cam, I_final."""
    count, height, width = cam_CHW.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    p = np.zeros((count + 1, height, width), np.float32)
    for y, x in pixels:
        p[:, y, x] = [1 - max(cam_CHW[:, y, x]) ** 4, *cam_CHW[:, y, x]]
    i_crf = crf.refine(image_HWC, p).argmax(axis=0)
    highest = {at: int(p[(slice(None), *at)].argmax()) for at in pixels}
    final = np.full((height, width), IGNORE, np.uint8)
    for c in range(count + 1):
        rising = sorted(p[c][at] for at in pixels if highest[at] == c)
        if not rising:
            continue
        alpha = rising[int(0.6 * len(rising))]
        if c == 0:
            alpha = np.nextafter(alpha, np.float32(0))  # the score 1 occurs often: with > those pixels would all be lost
        for at in pixels:
            i_cam = c if highest[at] == c and p[c][at] > alpha else IGNORE
            if i_cam == i_crf[at]:
                final[at] = 0 if c == 0 else classes[c - 1] + 1
    return final


def test_reliable_regions_as_printed():
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:24, :30]
    blobs = [np.exp(-((y - a) ** 2 + (x - b) ** 2) / 70) for a, b in ((8, 8), (16, 20))]
    cam = np.clip(np.stack(blobs) + 0.15 * rng.random((2, 24, 30)), 0, 1).astype(np.float32)
    cam[:, :3] = 0
    image = np.where(cam.max(axis=0)[:, :, None] > 0.8, (220, 180, 60), (40, 60, 90)).astype(np.uint8)
    found = PRINTED.seed(image, maps_of(cam, (2, 5)), None)
    np.testing.assert_array_equal(found, equations_4_to_7(cam, image, (2, 5), DenseCrf()))
    assert set(np.unique(found)) == {0, 3, 6, IGNORE}
    code = PRINTED.model_copy(update={"agreement": "code"}).seed(image, maps_of(cam, (2, 5)), None)
    differ = code != found
    assert differ.any(), "the CRF moves labels here"
    assert (found[differ] == IGNORE).all()


def test_the_job_as_printed():
    method = load_job(ROOT / "jobs" / "rrm_as_printed.yaml").method
    assert method.classifier is None
    assert method.segmenter.labels == PRINTED
    assert (method.segmenter.optimizer.lr, method.segmenter.optimizer.weight_decay) == (1e-3, 5e-4)
    assert (method.segmenter.energy.sigma_xy, method.segmenter.energy.sigma_rgb) == (15, 100)
    assert set(method.segmenter.scales) == {0.5, 1.0, 1.5, 2.0}


@pytest.mark.parametrize("ratio", [0.1, 0.3])
@pytest.mark.parametrize("side", [70, 24, 10, 4], ids=lambda side: f"{side**2 / 100:g} %")
def test_exact_noise_realises_its_ratio_at_every_size(side, ratio):
    """On objects of half the image down to 0.16 % of it; the old form loses far more of the small ones."""
    mask = np.zeros((100, 100), np.uint8)
    mask[20 : 20 + side, 15 : 15 + side] = 4
    shares = [realised(mask, BlockNoise(ratio=ratio, exact=True).spoil(mask, np.random.default_rng(draw))) for draw in range(3)]
    assert shares == [round(ratio * side**2) / side**2] * 3
    old = np.mean([realised(mask, BlockNoise(ratio=ratio).spoil(mask, np.random.default_rng(draw))) for draw in range(20)])
    assert old > ratio * (1 + 1 / side), "why there is another form"


def test_exact_noise_takes_its_ratio_from_each_object():
    mask = np.zeros((60, 90), np.uint8)
    mask[:40, :50], mask[50:56, 60:66], mask[45:55, 60:62], mask[0, 60:90:2], mask[41] = 1, 1, 3, 2, IGNORE
    noisy = BlockNoise(ratio=0.25, exact=True).spoil(mask, np.random.default_rng(0))
    assert (noisy[(mask == 0) | (mask == IGNORE)] == mask[(mask == 0) | (mask == IGNORE)]).all()
    assert set(noisy[noisy != mask]) == {0}
    assert realised(mask[:40, :50], noisy[:40, :50]) == 0.25
    small = (mask[45:56, 60:66], noisy[45:56, 60:66])
    assert realised(*small) == pytest.approx(0.25, abs=1 / (small[0] > 0).sum())
    assert (noisy[0, 60:90:2] == 0).sum() in (3, 4), "15 objects of one pixel: fractions are carried on"
    again = BlockNoise(ratio=0.25, exact=True).spoil(mask, np.random.default_rng(0))
    assert (again == noisy).all()
    assert (BlockNoise(ratio=0.25, exact=True).spoil(mask, np.random.default_rng(1)) != noisy).any()
    assert (BlockNoise(ratio=0.0, exact=True).spoil(mask, np.random.default_rng(0)) == mask).all()


def test_the_realised_share_by_hand():
    mask, noisy = np.array([[0, 1, 2, 2, 1, IGNORE]], np.uint8), np.array([[0, 0, 2, 2, 0, IGNORE]], np.uint8)
    assert realised(mask, noisy) == 0.5
    objects = confusion(mask, noisy, 3)[1:]
    assert objects[:, 0].sum() / objects.sum() == 0.5, "the record of a quality stage has it too"
    assert math.isnan(realised(np.array([[0, IGNORE]]), np.array([[0, IGNORE]])))


def test_a_training_counts_unknown_seeds():
    """All pixels have the label of one seed of two: Eq. 4 gives half the loss of the seed alone, the default the whole."""
    one = torch.randint(0, 3, (1, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    seeds = torch.cat([one, torch.full_like(one, IGNORE)], dim=1)
    image, valid = torch.rand(1, 3, 16, 16) * 255, torch.ones(1, 16, 16, dtype=torch.bool)
    batch = Batch(("a",), image, torch.ones(1, 2), seeds, torch.zeros(1, dtype=torch.bool), valid, (1,))
    loss = {}
    for unknown in ("left_out", "counted"):
        part = WeightedSegmenter(trunk=SmallNet(), sharpness=0.0, over="pixels", unknown=unknown, loss_at="image")
        torch.manual_seed(0)
        loss[unknown] = part.loss(part.build(2).eval(), batch)["selective"].item()
    assert loss["counted"] == pytest.approx(loss["left_out"] / 2)
    assert loss["counted"] > 0
