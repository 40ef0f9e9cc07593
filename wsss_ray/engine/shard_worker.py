"""Make one shard of a per-image stage: the frame that all workers share.

No Ray here: the runners hand workers to Ray Data, and a test or a script can call them in a loop. A call reads its input shards
and writes its own shard atomically; repeating it does no harm. An image that fails becomes a row of nulls, so that shards stay
aligned, and a row in the stage's errors. It does not end the run: `commit_shards` checks the share of failed images.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar

from wsss_ray.core.contracts import Learner
from wsss_ray.core.errors import is_out_of_memory
from wsss_ray.core.plan import Stage
from wsss_ray.data.source import DataSplit
from wsss_ray.engine.known_features import KnownFeatures
from wsss_ray.storage.shards import read_shard, shard_path, write_shard
from wsss_ray.storage.store import RunStore

Row = dict[str, Any]


class ShardWorker:
    """Make the shards of one stage. A subclass makes the row of one image."""

    schema: ClassVar[str]
    nulls: ClassVar[Row]

    def __init__(self, store: RunStore, stage: Stage, device: str = "cpu") -> None:
        self.store, self.stage, self.device = store, stage, device
        self.image: str | None = None  # id of the image whose row is being made
        self.place = (0, 0)  # its shard and row

    def __call__(self, shard: int) -> int:
        """Make one shard. Return the number of its images, or 0 if the shard exists already."""
        if self.store.exists(shard_path(self.store, self.stage, shard)):
            return 0
        if needs_model(self.stage):
            _ = self.model  # loaded here, because a failure is not the fault of one image
        rows: list[Row] = []
        errors: list[Row] = []
        for place, (image_id, path, make) in enumerate(self.images(shard)):
            self.image, self.place = image_id, (shard, place)
            try:
                rows.append({"image_id": image_id} | make())
            except Exception as error:  # one bad image must not end a run
                if _is_machine_failure(error):
                    raise
                reason = f"{type(error).__name__}: {error}" if not isinstance(error, ValueError | OSError) else str(error)
                errors.append({"image_id": image_id, "path": path, "reason": reason})
                rows.extend(self.failed(image_id))
        self.image = None
        path = shard_path(self.store, self.stage, shard, "errors")
        if errors:
            write_shard(self.store, self.stage, shard, "errors", errors, folder="errors")
        elif self.store.exists(path):  # left by an attempt that died before it wrote the shard
            self.store.delete(path)
        write_shard(self.store, self.stage, shard, self.schema, rows)
        return len(rows)

    def images(self, shard: int) -> Sequence[tuple[str, str | None, Callable[[], Row]]]:
        """Return for each image of the shard its id, its file if it has one, and a function that makes its row."""
        raise NotImplementedError

    def failed(self, image_id: str) -> list[Row]:
        """Return the rows that stand for a failed image: one row of nulls unless overridden."""
        return [{"image_id": image_id} | self.nulls]

    def joined(self, shard: int, **inputs: str) -> list[tuple[Row, ...]]:
        """Zip the rows of the data shard with those of other inputs (role=schema): the same images in the same order."""
        tables = [read_shard(self.store, self.stage.input("data"), shard, "images")]
        tables += [read_shard(self.store, self.stage.input(role), shard, schema) for role, schema in inputs.items()]
        for table in tables[1:]:
            assert [row["image_id"] for row in table] == [row["image_id"] for row in tables[0]], "shards are not aligned"
        return list(zip(*tables, strict=True))

    @cached_property
    def model(self) -> Any:
        """Load the trained network of the stage's `model` input, an `nn.Module`, for inference."""
        import torch

        from wsss_ray.engine.checkpoints import for_inference, load_model

        torch.set_num_threads(1)
        training = self.stage.input("model")
        assert isinstance(training.component, Learner)
        net = load_model(self.store, training, self.device)
        frozen = for_inference(net, training.component)
        known = KnownFeatures(self.store, self.stage.features)
        if frozen is not None and known:
            frozen.find = lambda key: known.find(self.stage.input("data"), *self.place, key)
        return net


def _is_machine_failure(error: Exception) -> bool:
    """Return True if memory, a disk, a device or the network failed: the shard is then made again, and no image is to blame."""
    if isinstance(error, OSError):
        return error.errno is not None and error.errno not in (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EACCES)
    return is_out_of_memory(error) or type(error).__name__ == "AcceleratorError"


def needs_model(stage: Stage) -> bool:
    """Return True if a per-image stage runs a network, and so should run on a GPU."""
    return stage.kind == "features" or stage.optional("model") is not None


def data_split(stage: Stage) -> DataSplit:
    """Return the split that determines the shards of a per-image stage."""
    source = stage if stage.kind == "ingest" else stage.input("data")
    assert isinstance(source.component, DataSplit)
    return source.component
