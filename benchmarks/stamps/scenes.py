"""Compose one scene: cut-outs pasted on a crop of a photograph, and its exact mask. All is drawn from the given generator."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.stamps.catalogue import Background, Cutout

BORDER = 255
CROP = (0.6, 1.0)  # side of the background's crop, of its shorter side
LENGTH = (0.35, 0.7)  # longer side of an object, of the scene's side
MAX_ZOOM = 2.5  # a cut-out is not enlarged more than this
MAX_ANGLE = 20.0  # degrees, either way
MIN_VISIBLE = 0.4  # of an object's pixels, after the next one is pasted over it


@dataclass(frozen=True)
class Placed:
    """One object of a scene: which cut-out, its box (left, top, right, bottom; the last two exclusive), how it was turned."""

    cutout: str
    class_index: int
    box: tuple[int, int, int, int]
    flipped: bool
    angle: float
    visible: float


@dataclass(frozen=True)
class Scene:
    """image: uint8 [H, W, 3]. mask: uint8 [H, W], 0 background, 1 + class index, 255 border. Objects from back to front."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    background: str
    objects: tuple[Placed, ...]


def compose(rng: random.Random, *, background: Background, cutouts: Sequence[Cutout], size: int) -> Scene:
    """Paste the cut-outs in turn on a crop of the background; where one hides more than 60 % of another it is placed anew.

    An object's pixels are those of alpha >= 240; those of alpha 16 to 239 are border; the few below are background.
    After each 20 places in vain the object shrinks to 80 %, so the search ends.
    """
    canvas = _crop(rng, background.image, size)
    owner = np.full((size, size), -1, np.int64)  # index of the object a pixel is labelled with; -2 border, -1 background
    totals: list[int] = []
    kept: list[tuple[Cutout, tuple[int, int, int, int], bool, float]] = []
    for cutout in cutouts:
        flipped, angle = rng.random() < 0.5, rng.uniform(-MAX_ANGLE, MAX_ANGLE)
        length = min(rng.uniform(*LENGTH) * size, MAX_ZOOM * max(cutout.image.size))
        picture = _turned(cutout.image, length, flipped, angle)
        for attempt in range(1, 200):
            left, top = (rng.randint(0, size - side) for side in picture.size)
            alpha = np.zeros((size, size), np.uint8)
            alpha[top : top + picture.height, left : left + picture.width] = np.asarray(picture.getchannel("A"))
            after = np.where(alpha >= 240, len(totals), np.where(alpha >= 16, -2, owner))
            if all((after == i).sum() >= MIN_VISIBLE * total for i, total in enumerate(totals)):
                break
            if attempt % 20 == 0:
                length *= 0.8
                picture = _turned(cutout.image, length, flipped, angle)
        else:
            raise AssertionError(f"no place found for {cutout.name}")
        canvas.paste(picture, (left, top), picture)
        owner = after
        totals.append(int((alpha >= 240).sum()))
        assert totals[-1] > 0, f"{cutout.name}: nothing solid is left of it at {length:.0f} pixels"
        kept.append((cutout, (left, top, left + picture.width, top + picture.height), flipped, angle))
    mask = np.where(owner == -2, BORDER, 0).astype(np.uint8)
    placed = []
    for i, (cutout, box, flipped, angle) in enumerate(kept):
        mask[owner == i] = 1 + cutout.class_index
        visible = round(float((owner == i).sum()) / totals[i], 4)
        placed.append(Placed(cutout.name, cutout.class_index, box, flipped, round(angle, 2), visible))
    return Scene(np.asarray(canvas), mask, background.name, tuple(placed))


def _crop(rng: random.Random, photo: Image.Image, size: int) -> Image.Image:
    side = max(1, round(rng.uniform(*CROP) * min(photo.size)))
    left, top = rng.randint(0, photo.width - side), rng.randint(0, photo.height - side)
    crop = photo.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop


def _turned(picture: Image.Image, length: float, flipped: bool, angle: float) -> Image.Image:
    """Scaled to `length` on its longer side, flipped, rotated, and cropped to what can be seen of it."""
    factor = length / max(picture.size)
    width, height = (max(1, round(side * factor)) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    if flipped:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture = picture.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    return picture.crop(picture.getchannel("A").getbbox())
