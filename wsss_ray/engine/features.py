"""Compute the features of a frozen trunk once, shard by shard."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from wsss_ray.core.features import FrozenFeatures
from wsss_ray.data.codecs import decode_rgb
from wsss_ray.engine.batches import Row
from wsss_ray.engine.known_features import SAMPLES
from wsss_ray.engine.shard_worker import ShardWorker, Task

if TYPE_CHECKING:
    from wsss_ray.core.values import ImageArray
    from wsss_ray.nets.frozen import FrozenTrunk

    Features = np.ndarray[Any, np.dtype[np.float32]]


class FeaturesWorker(ShardWorker):
    """Compute the features of the sample that a training cuts from each image, and those of its mirror image."""

    schema = "features"
    nulls = {"key": None, "mirrored_key": None, "shape": None, "features": None, "mirrored": None}

    @property
    def rule(self) -> FrozenFeatures:
        """Return the trunk and the rule that cuts the samples."""
        assert isinstance(self.stage.component, FrozenFeatures)
        return self.stage.component

    @cached_property
    def model(self) -> FrozenTrunk:
        """Build the trunk, for inference."""
        import torch

        from wsss_ray.nets.frozen import FrozenTrunk

        torch.set_num_threads(1)
        return FrozenTrunk(self.rule.trunk.build().to(self.device), self.rule.inference)

    def images(self, shard: int) -> Sequence[Task]:
        """See `ShardWorker.images`."""
        return [self.by_network(row) for (row,) in self.joined(shard)]

    def decoded(self, image: Row) -> list[ImageArray]:
        """Cut the sample of an image, and mirror it if the training mirrors."""
        image_HWC = decode_rgb(image["image"])
        sample_HWC, _ = self.rule.augment(image_HWC, np.zeros((0, *image_HWC.shape[:2]), np.uint8), np.random.default_rng(0))
        return [sample_HWC, sample_HWC[:, ::-1]] if self.rule.augment.outcomes == "mirrored" else [sample_HWC]

    def run(self, items: Sequence[list[ImageArray]]) -> list[list[Features]]:
        """Compute the features of the samples of several images, one after the other: they must not depend on a batch."""
        return [[self._features(sample_HWC) for sample_HWC in samples] for samples in items]

    def encoded(self, samples: list[ImageArray], features: list[Features]) -> Row:
        """Make the row of an image: the features of its samples."""
        row = dict(self.nulls)
        for (key, column), sample_HWC, features_CHW in zip(SAMPLES.items(), samples, features, strict=False):
            if not np.isfinite(features_CHW).all():
                raise ValueError("the features of the trunk are not finite")
            row |= {key: self.model.key(sample_HWC), column: features_CHW.tobytes(), "shape": list(features_CHW.shape)}
        return row

    def _features(self, image_HWC: ImageArray) -> Features:
        import torch

        from wsss_ray.ops.multiscale import to_tensor

        features_CHW: Features = self.model(to_tensor(image_HWC, torch.device(self.device)))[0].cpu().numpy()
        return features_CHW
