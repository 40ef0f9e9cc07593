"""Seed rules of the papers on maps that one can check by hand."""

from __future__ import annotations

import numpy as np
import pytest

from wsss_ray.core.threshold import Recipe
from wsss_ray.core.values import IGNORE, Axis, Maps
from wsss_ray.methods.common.seed_rules import CrfSeeds
from wsss_ray.methods.mdc import RegionSeeds
from wsss_ray.methods.noisy_masks import BlockNoise
from wsss_ray.methods.rrm import ReliableRegions
from wsss_ray.ops import crf, reliable
from wsss_ray.ops.background import CamBackground, PowerBackground, SaliencyBackground
from wsss_ray.ops.crf import DenseCrf
from wsss_ray.ops.seeds import claims, recompute

SIZE = 32
PIXELS = Axis(first=0.5 / SIZE, step=1 / SIZE)


def scene():
    """A bright square on dark ground, its map high in the middle of the square and low around it; tag 2."""
    image = np.full((SIZE, SIZE, 3), 40, np.uint8)
    image[8:24, 8:24] = (220, 180, 60)
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    cam = np.exp(-(y**2 + x**2) / 60).astype(np.float32)[None]
    return image, Maps((2,), peak_CHW=cam, mean_CHW=cam, rows=PIXELS, columns=PIXELS)


def test_three_readings_of_the_top_share():
    ramp = np.arange(10, dtype=np.float32).reshape(1, 2, 5) / 9
    for reading, expected in (("of_maximum", 7), ("below_maximum", 3), ("of_pixels", 3)):
        assert claims(ramp, 0.3, reading).sum() == expected, reading
    assert claims(ramp, 0.3, "above").sum() == 7
    for reading in ("above", "of_maximum", "below_maximum", "of_pixels"):
        for share in (0.0, 0.3, 1.0):
            assert not claims(np.zeros((1, 4, 4), np.float32), share, reading).any(), "a map of zeros has no region"
    flat = np.ones((1, 4, 4), np.float32)
    assert claims(flat, 0.3, "of_maximum").all()
    assert claims(np.zeros((0, 4, 4), np.float32), 0.3, "of_pixels").shape == (0, 4, 4)


def test_what_two_claim_or_nobody_is_undecided():
    def undisputed(region, background, classes):
        return recompute(Recipe(winner="nobody", conflict="ignore"), 0.5, region, region, background, classes)

    region = np.array([[[1, 1, 0, 0]], [[0, 1, 0, 1]]], np.float32)
    background = np.array([[0, 0, 0, 1]], bool)
    assert undisputed(region, background, (0, 4)).tolist() == [[1, IGNORE, IGNORE, IGNORE]]
    assert undisputed(region[:, :, :1], ~background[:, :1], (0, 4)).tolist() == [[IGNORE]]
    assert undisputed(np.zeros((0, 1, 2), np.float32), np.array([[True, False]]), ()).tolist() == [[0, IGNORE]]


def test_the_top_share_of_pixels_is_the_quantile_below():
    maps = np.random.default_rng(0).random((2, 12, 17))  # so many that no bound is at a whole place, where NumPys differ
    maps = maps.astype(np.float32).round(2)
    for share in np.arange(101) / 100:
        bound = np.quantile(maps, 1 - share, axis=(1, 2), keepdims=True, method="lower")
        np.testing.assert_array_equal(claims(maps, float(share), "of_pixels"), maps > bound, err_msg=str(share))


def test_region_seeds_with_saliency():
    image, maps = scene()
    saliency = np.ones((SIZE, SIZE), np.float32)
    saliency[:, :4] = 0
    label = RegionSeeds(share=0.3, background=SaliencyBackground(threshold=0.06)).seed(image, maps, saliency)
    assert (label[:, :4] == 0).all()
    assert (label[14:18, 14:18] == 3).all()
    assert set(np.unique(label)) == {0, 3, IGNORE}
    assert RegionSeeds().needs_saliency
    assert not RegionSeeds(background=CamBackground()).needs_saliency


def test_salient_objects_have_the_mean_of_map_and_saliency():
    image = np.zeros((1, 4, 3), np.uint8)
    axes = {"rows": Axis(first=0.5, step=1.0), "columns": Axis(first=0.125, step=0.25)}
    peak = np.array([[[0.1, 0.4, 0.7, 0.7]]], np.float32)
    saliency = np.array([[0.8, 0.4, 0.4, 0.1]], np.float32)
    plain = CrfSeeds(crf=None).seed(image, Maps((4,), peak, peak, **axes), saliency)
    assert plain.tolist() == [[0, 0, 5, 0]], "background scores .2, .6, .6, .9"
    mixed = CrfSeeds(crf=None, salient_objects=True)
    assert mixed.needs_saliency
    found = mixed.seed(image, Maps((4,), peak, peak, **axes), saliency)
    assert found.tolist() == [[5, 0, 0, 0]], "objects score .45, .4, .55, .4"


def test_crf_seeds_decide_every_pixel_and_find_the_edge():
    image, maps = scene()
    rule = CrfSeeds(background=PowerBackground(gamma=4))
    label = rule.seed(image, maps, None)
    truth = np.zeros((SIZE, SIZE), np.uint8)
    truth[8:24, 8:24] = 3
    assert (label == truth).mean() > 0.99
    rough = rule.model_copy(update={"crf": None}).seed(image, maps, None)
    assert (rough == truth).mean() < (label == truth).mean()
    nothing = Maps((), np.zeros((0, 4, 4), np.float32), np.zeros((0, 4, 4), np.float32), PIXELS, PIXELS)
    assert (rule.seed(image, nothing, None) == 0).all()


def test_the_surest_pixels_of_a_class():
    cam = np.array([[[0.05, 0.2, 0.4, 0.6, 0.8, 1.0]]], np.float32)
    background = np.array([[0.9, 0.1, 0.1, 0.1, 0.1, 0.1]], np.float32)
    place, sure = reliable.surest(cam, background, ratio=0.4, floor=0.1, background_floor=0.8)
    assert place.tolist() == [[0, 1, 1, 1, 1, 1]]
    assert sure.tolist() == [[True, False, False, False, False, True]], "above the value in place int(.6 * 5) = 3 of five"
    _, every = reliable.surest(cam, background, ratio=1.0, floor=0.1, background_floor=0.95)
    assert every.tolist() == [[False, True, True, True, True, True]]
    _, none = reliable.surest(cam * 0.05, background, ratio=0.4, floor=0.1, background_floor=0.95)
    assert not none.any(), "a class without a pixel above the floor is left out, where the authors' code stops"


def test_two_crfs_agree():
    low = np.array([[[0.1, 0.6, 0.9, 0.3]], [[0.9, 0.4, 0.1, 0.7]]], np.float32)  # (background, class) at four pixels
    high = np.array([[[0.05, 0.4, 0.85, 0.9]], [[0.95, 0.6, 0.15, 0.1]]], np.float32)
    place, decided = reliable.agreed(low, high, 0.8)
    assert place[decided].tolist() == [1, 0, 0]
    assert decided.tolist() == [[True, False, True, True]], "neither an object by the one nor background by the other"
    _, strict = reliable.agreed(low, high, 0.88)
    assert strict.tolist() == [[True, False, False, True]]


def test_a_class_that_the_crf_dropped_is_sure_nowhere():
    """A faint second map wins a few pixels; the CRF gives them to the first class, and they are left undecided."""
    image, maps = scene()
    faint = np.zeros_like(maps.peak_CHW)
    faint[0, 15:17, 15:17] = 0.98
    strong = np.where(faint > 0, 0.9, np.maximum(maps.peak_CHW, 0.0)).astype(np.float32)
    both = np.concatenate([strong, faint])
    label = ReliableRegions(gamma=4.0, background_floor=0.5).seed(image, Maps((2, 5), both, both, PIXELS, PIXELS), None)
    assert 6 not in label
    assert (label[15:17, 15:17] == IGNORE).all()


def test_reliable_regions_are_few_and_right():
    image, maps = scene()
    rule = ReliableRegions(gamma=4.0, background_floor=0.5)
    label = rule.seed(image, maps, None)
    inside = np.zeros((SIZE, SIZE), bool)
    inside[8:24, 8:24] = True
    assert (label[inside] != 0).all()
    assert (label[~inside] != 3).all()
    assert 0.1 < (label == 3).sum() / inside.sum() < 0.5, "about ratio of the object"
    assert (label == 0).sum() > 100
    more = rule.model_copy(update={"ratio": 1.0}).seed(image, maps, None)
    assert (more == 3).sum() > (label == 3).sum()
    alone = rule.model_copy(update={"crf": None}).seed(image, maps, None)
    assert ((alone == 3) & ~inside).sum() >= ((label == 3) & ~inside).sum(), "the CRF keeps to the edge"
    nothing = Maps((), np.zeros((0, 4, 4), np.float32), np.zeros((0, 4, 4), np.float32), PIXELS, PIXELS)
    assert (rule.seed(image, nothing, None) == 0).all()


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.3, 0.6])
def test_block_noise_takes_that_share_of_the_foreground(ratio):
    mask = np.zeros((80, 80), np.uint8)
    mask[20:70, 10:60] = 2
    mask[19] = IGNORE
    noise = BlockNoise(ratio=ratio)
    spoilt = noise.spoil(mask, np.random.default_rng(0))
    lost = ((mask == 2) & (spoilt == 0)).sum() / (mask == 2).sum()
    assert ratio <= lost <= ratio + 0.17 * (ratio > 0), "at most one block (1/16 of the image's pixels) more"
    assert (spoilt[mask != 2] == mask[mask != 2]).all()
    again = noise.spoil(mask, np.random.default_rng(0))
    assert (again == spoilt).all()
    assert not ratio or (noise.spoil(mask, np.random.default_rng(1)) != spoilt).any()
    assert (noise.spoil(np.zeros((8, 8), np.uint8), np.random.default_rng(0)) == 0).all()


def test_a_crf_of_a_package_that_is_not_there_is_refused_before_anything_starts(monkeypatch):
    monkeypatch.setattr(crf, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"backend is 'pydensecrf', which is not installed; run `pip install 'wsss-ray\[crf\]'`"):
        DenseCrf(backend="pydensecrf")
    assert DenseCrf().backend == "lattice"
