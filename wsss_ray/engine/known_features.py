"""Find the features of a frozen trunk that a stage has computed, by the pixels of a sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from wsss_ray.core.errors import REPAIR, DamagedFile
from wsss_ray.core.plan import Stage
from wsss_ray.storage.open_shards import OpenShards
from wsss_ray.storage.shards import shard_path
from wsss_ray.storage.store import RunStore

if TYPE_CHECKING:
    from torch import Tensor

SAMPLES = {"key": "features", "mirrored_key": "mirrored"}
"""Columns of the schema `features`: the key of a sample, and its features."""


_KEPT = 2048  # shards whose keys stay in memory


class KnownFeatures:
    """The features that stages have computed. Data shard k lies beside feature shard k, row by row.

    Args:
        store: The store of the stages.
        stages: Finished stages of the kind `features`, such as `Stage.features`. Those that are not finished are left out.

    Example:
        >>> known = KnownFeatures(store, stage.features)
        >>> known.find(stage.input("data"), shard=0, row=3, key=trunk.key(image_HWC))
    """

    def __init__(self, store: RunStore, stages: Sequence[Stage]) -> None:
        self.by_data: dict[str, list[Stage]] = {}
        for stage in stages:
            if store.is_done(stage):
                self.by_data.setdefault(stage.input("data").id, []).append(stage)
        self.files = OpenShards(store, "features")
        self._kept: dict[tuple[str, int], list[dict[str, Any]]] = {}

    def __bool__(self) -> bool:
        return bool(self.by_data)

    def find(self, data: Stage, shard: int, row: int, key: bytes) -> Tensor | None:
        """Return the features_CHW of a sample of an image, or None if no stage has them.

        Args:
            data: The ingest stage of the image.
            shard: The shard of the image.
            row: The row of the image in the shard.
            key: The key of the sample, of `FrozenTrunk.key` or `view_key`.

        Raises:
            DamagedFile: if a shard of the features is damaged or lost.
        """
        import torch

        for stage in self.by_data.get(data.id, ()):
            keys = self._keys(stage, shard, row)
            for name, column in SAMPLES.items():
                if keys[name] == key:
                    with self._reading(stage, shard):
                        found = self.files.row(stage, shard, row, [column])[column]
                    return torch.from_numpy(np.frombuffer(found, np.float32).reshape(keys["shape"]).copy())
        return None

    def find_among(self, data: Stage, shard: int, rows: Sequence[int], key: bytes) -> Tensor | None:
        """Return the features_CHW of a sample of one of several images, or None. The arguments are those of `find`."""
        return next((found for row in rows if (found := self.find(data, shard, row, key)) is not None), None)

    def _keys(self, stage: Stage, shard: int, row: int) -> dict[str, Any]:
        """Return the keys of an image. Those of whole shards are kept, because reading them takes as long as the features."""
        keys = self._kept.get((stage.id, shard))
        if keys is None:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            with self._reading(stage, shard):
                keys = self._kept[stage.id, shard] = self.files.rows(stage, shard, [*SAMPLES, "shape"])
        return keys[row]

    @contextmanager
    def _reading(self, stage: Stage, shard: int) -> Iterator[None]:
        """Name a shard that is lost, which would otherwise count as the failure of an image."""
        try:
            yield
        except FileNotFoundError as error:
            path = shard_path(self.files.store, stage, shard)
            raise DamagedFile(f"{path}: is missing. {REPAIR} run.features: false does without it.") from error
