"""Background cues and scores."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

from wsss_ray.methods.common.seed_rules import CrfSeeds
from wsss_ray.ops.background import Background, CamBackground, PowerBackground, SaliencyBackground

MAPS = np.array([[[0.0, 0.1, 0.5]], [[0.05, 0.3, 1.0]]], np.float32)  # two classes, three pixels
SALIENCY = np.array([[0.0, 0.05, 0.9]], np.float32)


@pytest.mark.parametrize(
    ("background", "cues", "score"),
    [
        (SaliencyBackground(threshold=0.06), [True, True, False], [1.0, 0.95, 0.1]),
        (SaliencyBackground(threshold=0.055, normalised=True), [True, False, False], [1.0, 1 - 0.05 / 0.9, 0.0]),
        (CamBackground(threshold=0.2), [True, False, False], [0.2, 0.2, 0.2]),
        (PowerBackground(gamma=2), [True, True, False], [0.95**2, 0.7**2, 0.0]),
        (PowerBackground(gamma=4), [True, False, False], [0.95**4, 0.7**4, 0.0]),
        (PowerBackground(gamma=4, power_of="max"), [True, True, False], [0.99999375, 0.9919, 0.0]),
    ],
)
def test_cues_and_scores(background, cues, score):
    assert background.cues(MAPS, SALIENCY)[0].tolist() == cues
    np.testing.assert_allclose(background.score(MAPS, SALIENCY)[0], score, rtol=1e-6)
    assert background.score(MAPS, SALIENCY).dtype == np.float32
    assert background.needs_saliency == isinstance(background, SaliencyBackground)


class Half(Background):
    """A background of somebody else, with a constant score under a name of its own."""

    constant: ClassVar[str | None] = "level"
    level: float = 0.5

    def cues(self, peak_CHW, saliency_HW):
        return self.score(peak_CHW, saliency_HW) > peak_CHW.max(axis=0)

    def score(self, peak_CHW, saliency_HW):
        return np.full(peak_CHW.shape[1:], self.level, np.float32)


def test_a_constant_score_is_a_threshold():
    for background, field in ((CamBackground(threshold=0.3), "background.threshold"), (Half(level=0.3), "background.level")):
        found = CrfSeeds(background=background).by_threshold
        assert (found.field, found.of(CrfSeeds(background=background))) == (field, 0.3)
        assert (background.score(MAPS, None) == np.float32(0.3)).all()
    for background in (SaliencyBackground(), PowerBackground()):
        assert CrfSeeds(background=background).by_threshold is None


@pytest.mark.parametrize("background", [CamBackground(), PowerBackground()])
def test_an_image_without_tags_is_all_background(background):
    none = np.zeros((0, 2, 3), np.float32)
    assert background.cues(none, None).all()
    assert background.score(none, None).shape == (2, 3)


def test_a_job_picks_them_by_kind():
    assert isinstance(Background.model_validate({"kind": "power_background", "gamma": 8}), PowerBackground)


def test_normalised_saliency_has_the_maximum_1_and_a_black_map_stays_black():
    faint = np.array([[0, 3, 4, 60]], np.float32) / 255
    plain, normalised = SaliencyBackground(threshold=0.06), SaliencyBackground(threshold=0.06, normalised=True)
    assert plain.cues(MAPS, faint)[0].tolist() == [True, True, True, False]
    assert normalised.cues(MAPS, faint)[0].tolist() == [True, True, False, False], "3 / 60 is below .06, 4 / 60 above"
    np.testing.assert_allclose(normalised.score(MAPS, faint)[0], [1, 0.95, 1 - 4 / 60, 0], rtol=1e-6)
    black = np.zeros((1, 4), np.float32)
    assert normalised.cues(MAPS, black).all()
    assert (normalised.score(MAPS, black) == 1).all()
