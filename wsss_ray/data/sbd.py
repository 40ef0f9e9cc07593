"""Build VOC's augmented training set, on which the literature trains: the masks of SBD (Hariharan et al., ICCV 2011) and VOC.

Its list `train_aug` holds the images of VOC's training list and of both lists of SBD, without those of VOC's validation list. An
image of VOC's two lists keeps VOC's mask, whose objects have a border of 255. Other images have SBD's mask, which has no border.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wsss_ray.data.label_files import file_of_image, write_voc
from wsss_ray.data.matlab import read_field

if TYPE_CHECKING:
    from wsss_ray.core.values import LabelArray

MASKS, LIST = "SegmentationClassAug", "ImageSets/SegmentationAug/train_aug.txt"
_CLASSES = 20


@dataclass(frozen=True)
class Augmented:
    """The number of images in VOC's training list, in VOC's validation list, and in `train_aug`."""

    train: int
    val: int
    train_aug: int


def augment(voc: Path, sbd: Path, *, watch: Callable[[str, int], Callable[[int], None]]) -> Augmented:
    """Write the folder `SegmentationClassAug` and then the list `train_aug.txt` below `voc`.

    The folder gets its name when it is complete.

    Args:
        voc: `VOCdevkit/VOC2012`, with `ImageSets/Segmentation` and `SegmentationClass`.
        sbd: `benchmark_RELEASE`, or the folder in it that has `cls`, `train.txt` and `val.txt`.
        watch: Called with the name of the work and its number of items; returns a function that is called with each advance.

    Raises:
        ValueError: if the masks or the list exist already, or a file does not hold what it should.
        OSError: if a file is missing.

    Example:
        >>> augment(Path("VOCdevkit/VOC2012"), Path("benchmark_RELEASE"), watch=lambda name, total: lambda advance: None)
        Augmented(train=1464, val=1449, train_aug=10582)
    """
    for made in (voc / MASKS, voc / LIST):
        if made.exists():
            raise ValueError(f"{made}: exists already; move it away to make {MASKS} and {LIST} again")
    sbd = sbd / "dataset" if (sbd / "dataset").is_dir() else sbd
    train, val = (_ids(voc / "ImageSets/Segmentation" / f"{name}.txt") for name in ("train", "val"))
    more = {*_ids(sbd / "train.txt"), *_ids(sbd / "val.txt")} - train - val
    add, part = watch("masks", len(train | val | more)), voc / f"{MASKS}.part"
    for image_id in sorted(train | val):
        file_of_image(part, image_id).write_bytes((voc / "SegmentationClass" / f"{image_id}.png").read_bytes())
        add(1)
    for image_id in sorted(more):
        write_voc(file_of_image(part, image_id), read_sbd_mask(sbd / "cls" / f"{image_id}.mat"))
        add(1)
    (voc / LIST).parent.mkdir(parents=True, exist_ok=True)
    part.rename(voc / MASKS)
    (voc / LIST).write_text("".join(f"{image_id}\n" for image_id in sorted(train | more)), encoding="utf-8")
    return Augmented(len(train), len(val), len(train | more))


def _ids(path: Path) -> set[str]:
    found = set(path.read_text(encoding="utf-8", errors="replace").split())
    if not found:
        raise ValueError(f"{path}: names no image; unpack the archive again")
    return found


def read_sbd_mask(path: Path) -> LabelArray:
    """Read the mask in a .mat file of SBD.

    Raises:
        ValueError: if the file holds no mask of SBD.
        OSError: if it cannot be read.
    """
    data = path.read_bytes()
    try:
        label_HW = read_field(data, "GTcls", "Segmentation")
    except ValueError as error:
        raise ValueError(f"{path}: holds no mask of SBD ({error}); unpack benchmark.tgz again") from error
    if label_HW.ndim != 2 or label_HW.dtype.kind not in "iu" or not set(np.unique(label_HW)) <= set(range(_CLASSES + 1)):
        raise ValueError(f"{path}: is not a mask with the labels 0 to {_CLASSES}; unpack benchmark.tgz again")
    return label_HW.astype(np.uint8)
