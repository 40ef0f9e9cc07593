"""A data set that a tiny network learns in seconds: one or two coloured shapes on noise. A third-party source, as users write."""

from __future__ import annotations

import io
import os
import signal
from typing import Any

import numpy as np
from PIL import Image

from wsss_ray.core.randomness import random_key
from wsss_ray.core.rules import SaliencyNet, SeedRule
from wsss_ray.data.codecs import encode_labels
from wsss_ray.data.source import Item, Raw, Source, Split
from wsss_ray.methods.ficklenet import StochasticClassifier

COLOURS = np.array([(220, 60, 60), (60, 200, 80), (70, 90, 230)])


class Shapes(Source):
    """Squares, discs and bars in their own colours, `size` pixels wide."""

    size: int = 32
    train: int = 24
    held_out: int = 8
    broken: tuple[int, ...] = ()
    saliency: bool | SaliencyNet = False
    shard_size: int = 8

    def class_names(self) -> tuple[str, ...]:
        return ("square", "disc", "bar")

    def splits(self) -> tuple[Split, ...]:
        return ("weak", "val", "saliency") if self.saliency is True else ("weak", "val")

    def has_masks(self, split: Split) -> bool:
        return True

    def items(self, split: Split) -> list[Item]:
        if split == "saliency":
            return [Item(image_id=item.image_id, tags=item.tags, path="saliency") for item in self.items("weak")]
        count = self.train if split == "weak" else self.held_out
        return [Item(image_id=f"{split}/{k:04d}", tags=self._tags(f"{split}/{k:04d}")) for k in range(count)]

    def load(self, item: Item) -> Raw:
        rng = np.random.default_rng(random_key("shapes", item.image_id, "pixels"))
        image = rng.integers(90, 150, (self.size, self.size, 3)).astype(np.uint8)
        mask = np.zeros((self.size, self.size), np.uint8)
        half = self.size // 2
        y, x = np.mgrid[: self.size, : self.size]
        for place, tag in enumerate(item.tags):
            r = rng.integers(half // 3, half // 2)
            cy, cx = rng.integers(r, self.size - r), rng.integers(r, half - r + 1) + place * half
            inside = {
                0: (abs(y - cy) < r) & (abs(x - cx) < r),
                1: (y - cy) ** 2 + (x - cx) ** 2 < r**2,
                2: (abs(y - cy) < r) & (abs(x - cx) < r / 2),
            }[tag]
            image[inside] = np.clip(COLOURS[tag] + rng.integers(-25, 25, (inside.sum(), 3)), 0, 255)
            mask[inside] = tag + 1
        if item.path == "saliency":
            return Raw(image=encode_labels((mask > 0).astype(np.uint8) * 255))
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="PNG")
        data = buffer.getvalue()
        if int(item.image_id[-4:]) in self.broken and item.image_id.startswith("weak"):
            data = data[: len(data) // 2]
        return Raw(image=data, mask=encode_labels(mask))

    def _tags(self, image_id: str) -> tuple[int, ...]:
        rng = np.random.default_rng(random_key("shapes", image_id, "tags"))
        return tuple(sorted(int(k) for k in rng.choice(3, size=rng.integers(1, 3), replace=False)))


class BrokenClassifier(StochasticClassifier):
    """A classifier with a mistake in its code."""

    def loss(self, net: Any, batch: Any) -> Any:
        raise RuntimeError("the mistake")


class DeadlyClassifier(StochasticClassifier):
    """A classifier that ends its process, as the kernel does where memory is short."""

    def loss(self, net: Any, batch: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


class HungrySeeds(SeedRule):
    """A rule that runs out of memory, for which no image is to blame."""

    def seed(self, image_HWC: Any, maps: Any, saliency_HW: Any) -> Any:
        raise MemoryError("no room for a table")


def tiny_job(**overrides: Any) -> dict[str, Any]:
    """A FickleNet job on shapes that runs in seconds."""
    trunk = {"kind": "small_net", "widths": [8, 16], "strides": [2, 1]}
    head = {"kind": "large_fov", "dilation": 2, "hidden": 16}
    adam = {"kind": "adam", "lr": 5e-3}
    crop = {"kind": "random_crop", "size": 32}
    return {
        "name": "tiny",
        "method": {
            "name": "ficklenet",
            "classifier": {
                "trunk": trunk,
                "kernel_size": 5,
                "epochs": None,
                "steps": 12,
                "batch_size": 8,
                "augment": crop,
                "optimizer": adam,
            },
            "localizer": {"size": None, "selections": 8},
            "seed_rule": {"background": {"kind": "cam_background", "threshold": 0.3}},
            "segmenter": {
                "trunk": trunk,
                "head": head,
                "steps": 6,
                "batch_size": 8,
                "augment": {"kind": "warp", "size": 32},
                "optimizer": adam,
                "crf": {"scale": 2, "iterations": 3},
            },
            "relabel": {"sizes": [32], "crf": {"iterations": 2}},
            "retrain": {"trunk": trunk, "head": head, "steps": 6, "batch_size": 8, "augment": crop, "optimizer": adam},
            "metric": {"scales": [1.0], "crf": None},
        },
        "data": {"kind": "shapes"},
        "run": {"checkpoint_every": 4, "log_every": 2},
    } | overrides
