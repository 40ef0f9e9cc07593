"""RRM's labels against a plain reading of its rule, pixel by pixel and with pydensecrf called directly."""

from __future__ import annotations

import numpy as np
import pydensecrf.densecrf as dcrf
import pytest

from wsss_ray.core.values import IGNORE, Axis, Maps
from wsss_ray.methods.rrm import ReliableRegions
from wsss_ray.ops.crf import DenseCrf

SIZE = 40


def crf(image, prob, iterations):
    """10 iterations, smoothness 3 / 3, appearance 10 / 80 / 13, as PSA and RRM call it."""
    model = dcrf.DenseCRF2D(SIZE, SIZE, len(prob))
    model.setUnaryEnergy(-np.log(np.clip(prob, 1e-5, 1)).reshape(len(prob), -1).astype(np.float32))
    model.addPairwiseGaussian(sxy=3, compat=3)
    model.addPairwiseBilateral(sxy=80, srgb=13, rgbim=np.ascontiguousarray(image), compat=10)
    return np.array(model.inference(iterations)).reshape(len(prob), SIZE, SIZE)


def labels(image, cams, classes, *, ratio, iterations):
    highest = cams.max(axis=0)
    scores = np.concatenate([(1 - highest)[None] ** 32, cams])
    la = crf(image, np.concatenate([(1 - highest)[None] ** 4, cams]), iterations)
    ha = crf(image, np.concatenate([(1 - highest)[None] ** 32, cams]), iterations)
    names = [0, *(c + 1 for c in classes)]
    i_cam, la_map, ha_map = (part.argmax(axis=0) for part in (scores, la, ha))
    sure = np.zeros((SIZE, SIZE), bool)
    for place in np.unique(la_map):
        if place == 0:
            sure |= (scores[0] > 0.8) & (i_cam == 0)
            continue
        values = sorted(cams[place - 1][y, x] for y in range(SIZE) for x in range(SIZE)
                        if i_cam[y, x] == place and cams[place - 1][y, x] > 0.1)  # fmt: skip
        if values:
            bound = values[int((1 - ratio) * len(values))]
            sure |= (i_cam == place) & (cams[place - 1] > 0.1) & (cams[place - 1] > bound)
    out = np.full((SIZE, SIZE), IGNORE, np.uint8)
    for y in range(SIZE):
        for x in range(SIZE):
            label = names[la_map[y, x]] if la_map[y, x] else IGNORE
            if ha_map[y, x] == 0:
                label = 0
            confidence = max(ha[0, y, x], la[1:, y, x].max())
            out[y, x] = label if sure[y, x] and confidence >= 0.8 else IGNORE
    return out


@pytest.mark.parametrize("ratio", [0.2, 0.4, 0.8])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_reliable_regions_are_those_of_the_rule(ratio, seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 60, (SIZE, SIZE, 3)).astype(np.uint8)
    y, x = np.mgrid[:SIZE, :SIZE]
    cams = []
    for centre, colour in (((12, 12), (200, 60, 40)), ((28, 27), (40, 80, 220))):
        distance = (y - centre[0]) ** 2 + (x - centre[1]) ** 2
        image[distance < 70] = np.clip(np.array(colour) + rng.integers(-20, 20, ((distance < 70).sum(), 3)), 0, 255)
        cam = np.exp(-distance / 45) + 0.03 * rng.random((SIZE, SIZE))
        cams.append(np.where(cam / cam.max() < 0.02, 0, cam / cam.max()))
    cams = np.stack(cams).astype(np.float32)
    axis = Axis(first=0.5 / SIZE, step=1 / SIZE)
    found = ReliableRegions(ratio=ratio, crf=DenseCrf(iterations=10)).seed(image, Maps((3, 7), cams, cams, axis, axis), None)
    expected = labels(image, cams, (3, 7), ratio=ratio, iterations=10)
    assert {0, 4, 8, IGNORE} >= set(np.unique(expected).tolist()) > {IGNORE}
    assert (found == expected).mean() > 0.999, "a pixel on the bound may round the other way"
