"""A method that tells its classes apart after seconds: two segmenters on human masks, the second from the first. A user's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tests.shapes  # noqa: F401  the data set that the job names
from tests.tiny import TRUNK
from wsss_ray.core.contracts import Segmenter
from wsss_ray.core.method import Method
from wsss_ray.core.optim import Adam, Constant
from wsss_ray.core.plan import Data, Stage, evaluate, train
from wsss_ray.core.rules import Metric
from wsss_ray.data.transforms import RandomCrop
from wsss_ray.methods.common.segmentation import MultiScale
from wsss_ray.methods.deeplab import DeeplabSegmenter
from wsss_ray.nets.deeplab import LargeFov
from wsss_ray.ops.crf import DenseCrf


def small_segmenter(steps: int) -> DeeplabSegmenter:
    return DeeplabSegmenter(
        trunk=TRUNK,
        head=LargeFov(dilation=2, hidden=16, dropout=0.1),
        steps=steps,
        batch_size=8,
        augment=RandomCrop(size=32),
        optimizer=Adam(lr=1e-2),
        schedule=Constant(),
        head_lr_scale=1.0,
    )


class Masked(Method):
    """Image masks to two models."""

    segmenter: Segmenter = small_segmenter(90)
    retrain: Segmenter = small_segmenter(40)
    metric: Metric = MultiScale(scales=(1.0,), flip=True, crf=DenseCrf(iterations=2))

    def plan(self, data: Data) -> Sequence[Stage]:
        first = train(self.segmenter, data.weak, strong=data.weak, name="segmenter")
        final = train(self.retrain, data.weak, strong=data.weak, init=first, name="retrain")
        assert data.val is not None
        return (evaluate(self.metric, final, data.val),)


def masked_job(name: str = "tiny", **overrides: Any) -> dict[str, Any]:
    """A whole job on shapes."""
    return {"name": name, "method": {"name": "masked"}, "data": {"kind": "shapes"}} | overrides
