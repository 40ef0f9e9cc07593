"""Background cues and scores."""

from __future__ import annotations

import numpy as np
import pytest

from wsss_ray.ops.background import Background, CamBackground, PowerBackground, SaliencyBackground

MAPS = np.array([[[0.0, 0.1, 0.5]], [[0.05, 0.3, 1.0]]], np.float32)  # two classes, three pixels
SALIENCY = np.array([[0.0, 0.05, 0.9]], np.float32)


@pytest.mark.parametrize(
    ("background", "cues", "score"),
    [
        (SaliencyBackground(threshold=0.06), [True, True, False], [1.0, 0.95, 0.1]),
        (CamBackground(threshold=0.2), [True, False, False], [0.2, 0.2, 0.2]),
        (PowerBackground(gamma=2), [True, True, False], [0.95**2, 0.7**2, 0.0]),
        (PowerBackground(gamma=4), [True, False, False], [0.95**4, 0.7**4, 0.0]),
    ],
)
def test_cues_and_scores(background, cues, score):
    assert background.cues(MAPS, SALIENCY)[0].tolist() == cues
    np.testing.assert_allclose(background.score(MAPS, SALIENCY)[0], score, rtol=1e-6)
    assert background.score(MAPS, SALIENCY).dtype == np.float32
    assert background.needs_saliency == isinstance(background, SaliencyBackground)


@pytest.mark.parametrize("background", [CamBackground(), PowerBackground()])
def test_an_image_without_tags_is_all_background(background):
    none = np.zeros((0, 2, 3), np.float32)
    assert background.cues(none, None).all()
    assert background.score(none, None).shape == (2, 3)


def test_a_job_picks_them_by_kind():
    assert isinstance(Background.model_validate({"kind": "power_background", "gamma": 8}), PowerBackground)
