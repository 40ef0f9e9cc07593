"""Describe the machine, and choose image sizes, batches and epochs that suit it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from wsss_ray.preflight.survey.networks import Networks

SALIENCY_SIDE = 256
"""As good as the 320 pixels that U2-Net was trained on, in half the time (benchmarks/voc_animals)."""

_GB = 1e9
_SMALL_TRUNK_SIDE = 160
_GPU_IMAGE_BYTES = 0.5 * _GB  # one image of 384 x 384 in the training of a ResNet50 at stride 16, rounded up
_CPU_IMAGE_BYTES = 0.1 * _GB  # one image of 256 x 256 in the training with a frozen EfficientNet-Lite0


@dataclass(frozen=True)
class Machine:
    """A machine.

    Attributes:
        cpus: CPUs that this process may use.
        memory: Bytes of main memory.
        gpus: Bytes of memory of each GPU.
    """

    cpus: int
    memory: float
    gpus: tuple[float, ...] = ()

    @classmethod
    def here(cls) -> Machine:
        """Describe the machine, or the container, that this process runs in."""
        import torch

        devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
        gpus = tuple(float(torch.cuda.get_device_properties(device).total_memory) for device in devices)
        affinity = getattr(os, "sched_getaffinity", None)
        cpus = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
        return cls(cpus, total_memory(), gpus)

    def words(self) -> str:
        """Describe the machine in words."""
        gpus = ", ".join(f"{memory / _GB:.0f} GB" for memory in self.gpus)
        return f"{self.cpus} CPUs, {self.memory / _GB:.0f} GB of memory, {f'GPUs with {gpus}' if gpus else 'no GPU'}"


@dataclass(frozen=True)
class JobSizes:
    """The numbers in the job file.

    Attributes:
        gpu: True trains on GPUs.
        side: The side in pixels of the images that the networks see.
        max_side: `data.max_side` in pixels.
        stride: The output stride of the networks.
        batch: Images per step of the classifier.
        label_batch: Images per step of each segmenter.
        micro_batch: Images in memory at a time.
        epochs: Epochs of the classifier.
        label_epochs: Epochs of each segmenter.
        shard: Images per shard.
        workers: Training workers.
        loader_workers: Processes that decode images for a training worker.
        saliency: The side in pixels of the squares in which U2-Net makes saliency maps. None: no saliency.
        plain: True makes seeds from localization maps by a threshold alone, without saliency, CRF and a second training.
        networks: Networks with given weights that make the maps or vote on the seeds.
    """

    gpu: bool
    side: int
    max_side: int
    stride: int
    batch: int
    label_batch: int
    micro_batch: int
    epochs: float
    label_epochs: float
    shard: int
    workers: int
    loader_workers: int
    saliency: int | None = None
    plain: bool = False
    networks: Networks = field(default_factory=Networks)

    def at_side(self, side: int) -> JobSizes:
        """Return the numbers for images of another size, in pixels. Fewer pixels need no more memory.

        The stride stays. Half the stride would take four times as long, which uses up what fewer pixels save.
        """
        return replace(self, side=side, max_side=side * 3 // 2)


def sizes_for(machine: Machine, sides: Sequence[int], num_images: int) -> JobSizes:
    """Choose the numbers for a job.

    Args:
        machine: The machine that the job is for.
        sides: The longer side of each image, in pixels.
        num_images: The size of the training set.
    """
    gpu = bool(machine.gpus)
    side = _round32(min(max(median(sides) if sides else 256, 128), 384 if gpu else 256))
    batch, label_batch = (16, 16) if gpu else (20, 10)
    area = side * side
    room = 0.7 * (min(machine.gpus) if gpu else machine.memory)
    each = _GPU_IMAGE_BYTES * area / 384**2 if gpu else _CPU_IMAGE_BYTES * area / 256**2
    workers = max(1, len(machine.gpus))
    epochs = _epochs(num_images, least=20_000 if gpu else 3_000, most=200_000 if gpu else 16_000)
    return JobSizes(
        gpu=gpu,
        side=side,
        max_side=side * 3 // 2,
        stride=8 if side <= _SMALL_TRUNK_SIDE else 16,
        batch=batch,
        label_batch=label_batch,
        micro_batch=max(1, min(batch, int(room / each))),
        epochs=epochs,
        label_epochs=max(1, epochs / 2),
        shard=max(8, min(64, num_images // (4 * machine.cpus))),
        workers=workers,
        loader_workers=min(8, machine.cpus // workers) if gpu else 0,
    )


def total_memory() -> float:
    """Return the bytes of memory that this process may have: the machine's memory, or the limit of its control group if lower."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([float(pages), *_group("memory.max"), *_group("memory/memory.limit_in_bytes")])


def _group(name: str) -> list[float]:
    try:
        text = Path("/sys/fs/cgroup", name).read_text().strip()
    except OSError:
        return []
    return [float(text)] if text.isdigit() else []


def _epochs(num_images: int, *, least: int, most: int) -> float:
    """Choose eight passes, or more for few images and fewer for many, so that the network sees `least` to `most` images."""
    passes = min(max(8.0, least / num_images), max(1.0, most / num_images), 60.0)
    return float(round(passes)) if passes >= 3 else round(passes, 1)


def _round32(side: float) -> int:
    return max(32, round(side / 32) * 32)
