"""Cut a job down to a few images and a few steps. The work on each image and in each step stays the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from wsss_ray.core.contracts import Learner, OnlineSegmenter
from wsss_ray.core.graph import Plan, rebuild
from wsss_ray.core.optim import Schedule
from wsss_ray.core.plan import Stage
from wsss_ray.data.source import Item, Raw, Source, Split
from wsss_ray.ops.spacing import evenly_spaced

TIMED = 2  # steps: the first includes compilation and filling caches, the second is timed


class FewImages(Source):
    """A few evenly spaced images of each split of another source, and the saliency maps of these images. Not for job files."""

    in_job_files: ClassVar[bool] = False
    inner: Source
    most: int
    counts: dict[Split, int] = {}  # images of a split, where they are known

    @classmethod
    def of(cls, source: Source, *, most: int, shard_size: int, counts: Mapping[Split, int] | None = None) -> FewImages:
        """Take at most `most` images of each split of a source, in shards of `shard_size` images.

        `counts` are the images of the splits that are known from a plan. The images of others are counted first.
        """
        shared = {name: getattr(source, name) for name in Source.model_fields if name != "shard_size"}
        return cls.model_construct(inner=source, most=most, shard_size=shard_size, counts=dict(counts or {}), **shared)

    def class_names(self) -> tuple[str, ...]:
        """See `Source.class_names`."""
        return self.inner.class_names()

    def splits(self) -> tuple[Split, ...]:
        """See `Source.splits`."""
        return self.inner.splits()

    def has_masks(self, split: Split) -> bool:
        """See `Source.has_masks`."""
        return self.inner.has_masks(split)

    def items(self, split: Split) -> list[Item]:
        """Return every n-th item. If only some items have masks, include one that has, to try the code for masks too."""
        listed = self.inner.taken(split)
        if split == "saliency":
            kept = {item.image_id for item in self.items("weak")}
            return [item for item in listed if item.image_id in kept]
        count = self.counts[split] if split in self.counts else sum(1 for _ in self.inner.taken(split))
        places, found, masked = set(evenly_spaced(range(count), self.most)), dict[int, Item](), dict[int, Item]()
        for place, item in enumerate(listed):
            if place in places:
                found[place] = item
            if item.mask and not masked:
                masked[place] = item
        if split == "weak" and masked and not any(item.mask for item in found.values()):
            found = dict(list(found.items())[1:]) | masked
        return [found[place] for place in sorted(found)]

    def load(self, item: Item) -> Raw:
        """See `Source.load`."""
        return self.inner.load(item)


class AsIfWhole(Schedule):
    """The learning rates of the first steps of the whole training. Not for job files."""

    in_job_files: ClassVar[bool] = False
    inner: Schedule
    total: int
    per_epoch: float

    def factor(self, step: int, total: int, per_epoch: float) -> float:
        """See `Schedule.factor`."""
        return self.inner.factor(step, self.total, self.per_epoch)


def shortened(learner: Learner, *, num_images: int, workers: int) -> Learner:
    """Return the learner with two steps (more if it makes labels ahead) and one worker's share of its batch."""
    steps = TIMED + (learner.ahead if isinstance(learner, OnlineSegmenter) else 0)
    schedule = AsIfWhole.model_construct(
        inner=learner.schedule, total=learner.total_steps(num_images), per_epoch=num_images / learner.batch_size
    )
    changes: dict[str, Any] = {"batch_size": math.ceil(learner.batch_size / workers), "steps": steps, "epochs": None}
    return learner.model_copy(update=changes | {"schedule": schedule})


def short_plan(plan: Plan, *, num_images: dict[str, int], workers: int) -> Plan:
    """Shorten all trainings of a plan.

    Args:
        plan: The plan.
        num_images: The size of each training set in the whole job, by the stage's name.
        workers: The number of workers that share a batch.
    """

    def change(stage: Stage) -> Stage:
        learner = stage.component
        if stage.kind != "train" or not isinstance(learner, Learner):
            return stage
        return replace(stage, component=shortened(learner, num_images=num_images[stage.name], workers=workers))

    return Plan.of(rebuild(plan.targets, change))
