"""Make one shard of a per-image stage: the frame that all workers share.

No Ray here: the runners hand workers to Ray Data, and a test or a script can call them in a loop. A call reads its input shards
and writes its own shard atomically; repeating it does no harm. An image that fails becomes a row of nulls, so that shards stay
aligned, and a row in the stage's errors. It does not end the run: `commit_shards` checks the share of failed images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, ClassVar

from wsss_ray.core.contracts import Learner
from wsss_ray.core.errors import REPAIR, DamagedFile, is_machine_failure
from wsss_ray.core.plan import Stage
from wsss_ray.core.refiner import Refiner
from wsss_ray.data.source import DataSplit
from wsss_ray.engine.batches import BatchRunner, NetworkRow, Row, reason_of
from wsss_ray.engine.known_features import KnownFeatures
from wsss_ray.storage.finished import FileDigest
from wsss_ray.storage.shards import digests_of, read_shard, shard_path, write_shard
from wsss_ray.storage.store import RunStore

NOTES = "notes"
"""The folder with the training images that were packed without a mask, because theirs cannot be used."""

Task = tuple[str, str | None, Callable[[], Row]]
"""The id of an image, its file if it has one, and the function that makes its row."""


class ShardWorker:
    """Make the shards of one stage. A subclass makes the row of one image.

    Args:
        store: The store of the stage.
        stage: A per-image stage.
        device: The device of its network.
        batch: Images in a batch of the network. None measures on a GPU how many fit, and is 1 on a CPU. On a CPU, a batch of 1
            needs no threads, and every image is made in this one.
        gpu_share: The share of a GPU that this worker may use.

    Example:
        >>> worker_class(stage)(store, stage, "cuda", batch=16)(shard=0)
        128
    """

    schema: ClassVar[str]
    nulls: ClassVar[Row]

    def __init__(
        self, store: RunStore, stage: Stage, device: str = "cpu", *, batch: int | None = None, gpu_share: float = 1.0
    ) -> None:
        self.store, self.stage, self.device = store, stage, device
        self.batches = BatchRunner(stage.name, device, size=batch, share=gpu_share)
        self.notes: list[Row] = []  # images of the shard whose masks cannot be used, with the reason
        self.image: str | None = None  # the image whose row is being made, or the images of the batch
        self.shard, self.places = 0, [0]  # their shard and rows
        self.written: list[FileDigest] = []  # the files of the last shard
        self._digests: dict[str, Mapping[str, FileDigest]] = {}  # of the files of inputs, by the input's id

    def __call__(self, shard: int) -> int:
        """Make one shard. Return the number of its images, or 0 if the shard exists already. `written` has the new files."""
        self.written = []
        if self.store.exists(shard_path(self.store, self.stage, shard)):
            return 0
        if needs_model(self.stage):
            _ = self.model  # loaded here, because a failure is not the fault of one image
        rows: list[Row] = []
        errors: list[Row] = []
        tasks = self.images(shard)
        self.shard, self.notes = shard, []
        for (image_id, path, _), found in zip(tasks, self._made(tasks), strict=True):
            if isinstance(found, str):
                errors.append({"image_id": image_id, "path": path, "reason": found})
                rows.extend(self.failed(image_id))
            else:
                rows.append({"image_id": image_id} | found)
        self.image = None
        for folder, found_here in (("errors", errors), (NOTES, self.notes)):
            path = shard_path(self.store, self.stage, shard, folder)
            if found_here:
                self.written.append(write_shard(self.store, self.stage, shard, "errors", found_here, folder=folder))
            elif self.store.exists(path):  # left by an attempt that died before it wrote the shard
                self.store.delete(path)
        self.written.append(write_shard(self.store, self.stage, shard, self.schema, rows))
        return len(rows)

    def _made(self, tasks: Sequence[Task]) -> Iterator[Row | str]:
        """Yield the row of each image, or the reason why it failed."""

        def running(places: Sequence[int]) -> None:
            first, others = tasks[places[0]][0], len(places) - 1
            self.image, self.places = f"{first} or one of {others} others" if others else first, list(places)

        together: dict[int, Row | str] = {}
        if self.batches.on_gpu or self.batches.size != 1:
            makes = ((place, make) for place, (_, _, make) in enumerate(tasks))
            together = self.batches({place: make for place, make in makes if isinstance(make, NetworkRow)}, running)
        for place, (_, _, make) in enumerate(tasks):
            running([place])
            try:
                found = together[place] if place in together else make()
            except Exception as error:  # one bad image must not end a run
                if is_machine_failure(error):
                    raise
                found = reason_of(error)
            yield found

    def images(self, shard: int) -> Sequence[Task]:
        """Return the images of the shard. What makes the row of an image is a `NetworkRow` if it runs a network."""
        raise NotImplementedError

    def by_network(self, image: Row, *others: Row) -> Task:
        """Return the task of an image whose row is made by `decoded`, which gets its rows of all inputs, `run` and `encoded`."""
        size = (image["height"], image["width"])
        return image["image_id"], None, NetworkRow(partial(self.decoded, image, *others), self.run, self.encoded, size)

    def decoded(self, image: Row) -> Any:
        """Read an image. See `NetworkRow.decode`."""
        raise NotImplementedError

    def run(self, items: Sequence[Any]) -> Sequence[Any]:
        """Run the network on several images. See `NetworkRow.run`."""
        raise NotImplementedError

    def encoded(self, item: Any, found: Any) -> Row:
        """Make the row of an image from its result. See `NetworkRow.encode`."""
        raise NotImplementedError

    def failed(self, image_id: str) -> list[Row]:
        """Return the rows that stand for a failed image: one row of nulls unless overridden."""
        return [{"image_id": image_id} | self.nulls]

    def joined(self, shard: int, **inputs: str) -> list[tuple[Row, ...]]:
        """Zip the rows of the data shard with those of other inputs (role=schema): the same images in the same order."""
        roles = {"data": "images", **inputs}
        tables = [
            read_shard(self.store, source, shard, schema, digests=self.digests(source))
            for source, schema in ((self.stage.input(role), schema) for role, schema in roles.items())
        ]
        for role, table in zip(roles, tables, strict=True):
            if [row["image_id"] for row in table] != [row["image_id"] for row in tables[0]]:
                path = shard_path(self.store, self.stage.input(role), shard)
                raise DamagedFile(f"{path}: holds other images than its data. {REPAIR}")
        return list(zip(*tables, strict=True))

    def digests(self, source: Stage) -> Mapping[str, FileDigest]:
        """Return the digests of the files of an input, which is not made in the meantime. Its record is read once."""
        if source.id not in self._digests:
            self._digests[source.id] = digests_of(self.store, source)
        return self._digests[source.id]

    @cached_property
    def model(self) -> Any:
        """Return the network of the stage, an `nn.Module`, for inference."""
        return self.trained()

    def trained(self) -> Any:
        """Load the trained network of the stage's `model` input."""
        import torch

        from wsss_ray.engine.networks import for_inference, load_model

        torch.set_num_threads(1)
        training = self.stage.input("model")
        assert isinstance(training.component, Learner)
        net = load_model(self.store, training, self.device)
        frozen = for_inference(net, training.component)
        known = KnownFeatures(self.store, self.stage.features)
        if frozen is not None and known:
            frozen.find = lambda key: known.find_among(self.stage.input("data"), self.shard, self.places, key)
        return net


def needs_model(stage: Stage) -> bool:
    """Return True if a per-image stage runs a network, and so should run on a GPU."""
    own = isinstance(stage.component, Refiner) and stage.component.has_network
    return own or stage.kind in ("features", "saliency") or stage.optional("model") is not None


def data_split(stage: Stage) -> DataSplit:
    """Return the split that determines the shards of a per-image stage."""
    source = stage if stage.kind == "ingest" else stage.input("data")
    assert isinstance(source.component, DataSplit)
    return source.component
