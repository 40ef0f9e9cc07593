"""Score a segmenter while it trains: the mIoU of its plain predictions on a few images with masks.

Validation changes no byte of the training. The network predicts in eval mode, no random number of the training is used, and the
settings are not part of a stage's identity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from wsss_ray.core.contracts import Segmenter
from wsss_ray.core.graph import Plan
from wsss_ray.core.plan import Stage
from wsss_ray.core.randomness import random_key
from wsss_ray.data.codecs import decode_gray, decode_rgb
from wsss_ray.engine.loader import image_places
from wsss_ray.engine.loop import is_distributed
from wsss_ray.engine.shard_worker import data_split
from wsss_ray.methods.common.segmentation import MultiScale
from wsss_ray.ops.confusion import confusion, scores
from wsss_ray.storage.shards import read_rows
from wsss_ray.storage.store import RunStore

PLAIN = MultiScale(scales=(1.0,), flip=False, crf=None)
"""Predict once, on the image as it is: the score is that of the network, without post-processing."""


@dataclass(frozen=True)
class Validation:
    """Settings of validation.

    Attributes:
        data: Ingest stage with the validation images.
        every: Steps from one score to the next. The last step is scored too.
        images: Number of images with masks to score, at most.
    """

    data: Stage
    every: int
    images: int


def validation_of(plan: Plan, stage: Stage, *, every: int | None, images: int) -> Validation | None:
    """Choose the validation data of a training: the data of the first evaluate stage that scores its model.

    Args:
        plan: The plan with the training.
        stage: The train stage.
        every: Steps from one score to the next; None for no validation.
        images: Number of images to score, at most.

    Returns:
        The settings; None if no stage scores the model, or `every` is None.

    Example:
        >>> validation_of(plan, stage, every=500, images=100).data.name
        'images-val'
    """
    scored = [one for one in plan if one.kind == "evaluate" and stage.id in [model.id for model in one.all("model")]]
    return Validation(scored[0].input("data"), every, images) if scored and every is not None else None


class Validator:
    """Score the network on one worker's share of the validation images. All workers must call it at the same steps.

    The images are the first ones in the order of a key drawn from their ids, so every training on that data uses the same ones.

    Args:
        validation: The settings.
        store: The store of the validation images.
        stage: The train stage, whose component is a segmenter.
        rank: Number of this worker, from 0.
        world: Number of workers.

    Example:
        >>> validator = Validator(validation, store, stage, rank=0, world=1)
        >>> validator.miou(net, torch.device("cpu"), step=500, total=2000)
        0.62
    """

    def __init__(self, validation: Validation, store: RunStore, stage: Stage, *, rank: int, world: int) -> None:
        assert isinstance(stage.component, Segmenter)
        self.every, self.segmenter = validation.every, stage.component
        self.labels = len(data_split(validation.data).classes) + 1
        places = image_places(store, validation.data, ["mask"])
        chosen = sorted(places, key=lambda image_id: random_key("validation", image_id))[: validation.images]
        self.some = bool(chosen)
        self.rows: list[tuple[bytes, bytes]] = []  # encoded, as they lie in the store
        for image_id in chosen[rank::world]:
            data, shard, place = places[image_id]
            (row,) = read_rows(store, data, shard, "images", [place], ["image", "mask"])
            self.rows.append((row["image"], row["mask"]))

    def miou(self, net: nn.Module, device: torch.device, *, step: int, total: int) -> float | None:
        """Score the network on the images of all workers. Its mode and all random numbers stay as they were.

        Args:
            net: The network, without a wrapper for distributed training.
            device: The device of the network.
            step: Number of steps that are done.
            total: Number of steps of the whole training.

        Returns:
            The mean IoU in [0, 1]; None if no score is due at that step, or no pixel can be scored.
        """
        if not self.some or (step % self.every and step != total):
            return None
        matrix = np.zeros((self.labels, self.labels + 1), np.int64)
        modes = [(module, module.training) for module in net.modules()]
        net.eval()
        try:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                for image, mask in self.rows:
                    label_HW = PLAIN.predict(self.segmenter, net, decode_rgb(image))
                    matrix += confusion(decode_gray(mask), label_HW, self.labels)
        finally:
            for module, training in modes:
                module.training = training
        if is_distributed():
            summed = torch.from_numpy(matrix).to(device)
            torch.distributed.all_reduce(summed)
            matrix = summed.cpu().numpy()
        found = scores(matrix).miou
        return None if math.isnan(found) else found
