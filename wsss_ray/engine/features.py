"""Compute the features of a frozen trunk once, shard by shard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from wsss_ray.core.features import FrozenFeatures
from wsss_ray.data.codecs import decode_rgb
from wsss_ray.engine.known_features import SAMPLES
from wsss_ray.engine.shard_worker import Row, ShardWorker

if TYPE_CHECKING:

    from wsss_ray.core.values import ImageArray
    from wsss_ray.nets.frozen import FrozenTrunk

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

    def images(self, shard: int) -> Sequence[tuple[str, str | None, Callable[[], Row]]]:
        """See `ShardWorker.images`."""
        return [(row["image_id"], None, partial(self.row, row)) for (row,) in self.joined(shard)]

    def row(self, image: Row) -> Row:
        """Make the row of an image: the features of its sample, and those of the mirror image if the training mirrors."""
        image_HWC = decode_rgb(image["image"])
        sample_HWC, _ = self.rule.augment(image_HWC, np.zeros((0, *image_HWC.shape[:2]), np.uint8), np.random.default_rng(0))
        samples = [sample_HWC, sample_HWC[:, ::-1]] if self.rule.augment.outcomes == "mirrored" else [sample_HWC]
        row = dict(self.nulls)
        for (key, column), one_HWC in zip(SAMPLES.items(), samples, strict=False):
            features_CHW = self._features(one_HWC)
            row |= {key: self.model.key(one_HWC), column: features_CHW.tobytes(), "shape": list(features_CHW.shape)}
        return row

    def _features(self, image_HWC: ImageArray) -> np.ndarray[Any, np.dtype[np.float32]]:
        import torch

        from wsss_ray.ops.multiscale import to_tensor

        features_CHW = self.model(to_tensor(image_HWC, torch.device(self.device)))[0].cpu().numpy()
        if not np.isfinite(features_CHW).all():
            raise ValueError("the features of the trunk are not finite")
        return features_CHW
