"""Which pictures of the two packages are used: the class of each cut-out, what is left out and why, and how both are split."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from PIL import Image

from benchmarks.stamps import rcc

T = TypeVar("T")

CLASSES = ("bird", "hoofed", "fruit_veg", "flower", "vehicle")

# Where each class lies below the stamps folder.
PATTERNS: dict[str, tuple[str, ...]] = {
    "bird": ("animals/birds/*.png",),
    "hoofed": (
        *(f"animals/mammals/{family}/*.png" for family in ("bovines", "camel", "deer", "equines")),
        "animals/mammals/giraffe.png",
        "animals/mammals/hippopotamus.png",
        "animals/mammals/pig*.png",
        "animals/mammals/rhino_black.png",
        "animals/mammals/wildboar.png",
    ),
    "fruit_veg": ("food/fruit/*.png", "food/vegetables/*.png"),
    "flower": ("plants/flowers/*.png",),
    "vehicle": ("vehicles/**/*.png", "military/vehicles/*.png"),
}

NOT_PHOTOGRAPHS = {"cartoon", "plastic", "toys"}  # folders
MIN_SIDE = 48  # pixels, the longer side of what is not transparent
MIN_SOLID = 0.6  # pixels of alpha >= 240 among those of alpha >= 16: below, it is a veil
MAX_FLAT = 0.5  # solid pixels equal to their left neighbour: above, it is a drawing

# Seen by eye, not caught by the rules.
LEFT_OUT = {
    "animals/birds/albino_peahen.png": "grass is part of the cut-out",
    "food/fruit/apple_green.png": "apple_red in another colour",
    "plants/flowers/appooppanthady.png": "a tuft of seeds",
    "vehicles/emergency/sedan_police.png": "its body is transparent",
    "vehicles/ship/walnutBoat.png": "a toy, with stray pixels",
    "vehicles/wheel_tractor.png": "a wheel",
}

# The archives of photographs, and the folders in them: monuments and power plants.
ARCHIVES = {
    "explore_monuments": ("explore_monuments/resource/",),
    "categorization": ("categorization/resource/images/monuments/", "categorization/resource/images/renewable/"),
}

# Photographs that hold one of the classes, if only small, or are odd.
BACKGROUNDS_LEFT_OUT = {
    "categorization/monuments/IndiaGate": "flower bed",
    "categorization/monuments/arcDeTriomphe": "horses of bronze",
    "categorization/monuments/bayterek": "a bird",
    "categorization/monuments/brandenburgGate": "horses of bronze",
    "categorization/monuments/colosseum": "cars",
    "categorization/monuments/leMusee": "a horse of stone",
    "categorization/monuments/monument3": "bus, cars",
    "explore_monuments/france/arlesAmphitheater": "motorcycle",
    "explore_monuments/france/chateaudeChambord": "sails",
    "explore_monuments/france/eiffelTower": "bus",
    "explore_monuments/germany/aulaPalatina": "cars",
    "explore_monuments/germany/berlinCathedral": "bus, cars",
    "explore_monuments/germany/brandenburgGate": "horses of bronze",
    "explore_monuments/india/mysorePalace": "flowering shrubs",
    "explore_monuments/usa/fortSumter": "sails",
    "explore_monuments/usa/castleClinton": "black and white, a street",
    "explore_monuments/usa/georgeWashingtonBirthplace": "frame of the slide",
    "explore_monuments/wonders/colosseum": "cars",
}

# The same place under two names: both go to the same side. Names are compared in lower case.
SAME_PLACE = {"greatwall": "greatwallofchina", "greatpyramid": "greatpyramidofgiza", "kutubminar": "qutubminar"}


@dataclass(frozen=True)
class Cutout:
    """One object: its path below the stamps folder, its class (0-based), its RGBA picture cropped to what can be seen of it."""

    name: str
    class_index: int
    image: Image.Image


@dataclass(frozen=True)
class Background:
    """One photograph: archive/folder/name, the place it shows, and the picture, RGB."""

    name: str
    place: str
    image: Image.Image


@dataclass(frozen=True)
class Stock:
    """What a package offers: the pictures, those left out with the reason, and the SHA-256 of the files used."""

    cutouts: tuple[Cutout, ...] = ()
    backgrounds: tuple[Background, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    sha256: str = ""
    notices: str = ""


def read_cutouts(root: Path) -> Stock:
    """Read the cut-outs below the stamps folder. Raises ValueError if a class has fewer than 4, or on a bad picture."""
    cutouts: list[Cutout] = []
    left_out: dict[str, str] = {}
    digest = hashlib.sha256()
    for class_index, class_name in enumerate(CLASSES):
        names = {path.relative_to(root).as_posix() for pattern in PATTERNS[class_name] for path in root.glob(pattern)}
        for name in sorted(names):
            content = (root / name).read_bytes()
            image = _decode(content, str(root / name))
            reason = LEFT_OUT.get(name) or why_not_photograph(name, image)
            if reason:
                left_out[name] = reason
                continue
            rgba = image.convert("RGBA")
            visible = rgba.getchannel("A").point([255 if alpha >= 16 else 0 for alpha in range(256)])
            cutouts.append(Cutout(name, class_index, rgba.crop(visible.getbbox())))
            digest.update(hashlib.sha256(content).digest())
        count = sum(cutout.class_index == class_index for cutout in cutouts)
        if count < 4:
            raise ValueError(f"{root} has {count} cut-outs of class {class_name}; at least 4 are needed")
    return Stock(cutouts=tuple(cutouts), left_out=tuple(left_out.items()), sha256=digest.hexdigest())


def why_not_photograph(name: str, image: Image.Image) -> str | None:
    """Name the rule that a stamp breaks, or None: not drawn, not the mirror of another, in colour, large, solid."""
    path = PurePosixPath(name)
    if NOT_PHOTOGRAPHS & set(path.parts):
        return "folder of drawings or toys"
    if path.stem.endswith("_mirror"):
        return "mirror image of another"
    if image.mode in {"1", "L", "LA"}:
        return "no colour"
    rgba = np.asarray(image.convert("RGBA"))
    alpha = rgba[..., 3]
    visible, solid = alpha >= 16, alpha >= 240
    sides = [np.ptp(np.flatnonzero(visible.any(axis=axis))) + 1 if visible.any() else 0 for axis in (0, 1)]
    if max(sides) < MIN_SIDE:
        return f"less than {MIN_SIDE} pixels long"
    if visible.all():
        return "nothing is transparent"
    if solid.sum() < MIN_SOLID * visible.sum():
        return "mostly half transparent"
    pairs = solid[:, 1:] & solid[:, :-1]
    equal = (rgba[:, 1:, :3] == rgba[:, :-1, :3]).all(axis=-1) & pairs
    return "a drawing: large areas of one colour" if equal.sum() > MAX_FLAT * pairs.sum() else None


def read_backgrounds(root: Path, longest_use: int) -> Stock:
    """Read the photographs of the archives in a folder, shrunk so that the shorter side is `longest_use` pixels at most.

    Raises ValueError on a missing or damaged archive, or if there are fewer than 4 places.
    """
    backgrounds: list[Background] = []
    left_out: dict[str, str] = {}
    notices: list[str] = []
    digest = hashlib.sha256()
    for archive, folders in ARCHIVES.items():
        path = root / f"{archive}.rcc"
        blob = path.read_bytes()
        try:
            entries = rcc.entries(blob)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        for entry in sorted(entries, key=lambda entry: entry.path):
            file = PurePosixPath(entry.path)
            if not any(folder in entry.path for folder in folders) or not (file.suffix == ".webp" or file.name == "README"):
                continue
            content = _content(path, blob, entry)
            if file.name == "README":
                notices.append(f"== {entry.path}\n\n{content.decode(errors='replace').strip()}\n")
                continue
            name = f"{archive}/{file.parent.name}/{file.stem}"
            if name in BACKGROUNDS_LEFT_OUT:
                left_out[name] = BACKGROUNDS_LEFT_OUT[name]
                continue
            image = _decode(content, f"{path}: {entry.path}").convert("RGB")
            factor = min(1.0, longest_use / min(image.size))
            if factor < 1:
                image = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS)
            place = file.stem.lower()
            backgrounds.append(Background(name, SAME_PLACE.get(place, place), image))
            digest.update(hashlib.sha256(content).digest())
    if len({background.place for background in backgrounds}) < 4:
        raise ValueError(f"{root} has {len(backgrounds)} photographs in {', '.join(ARCHIVES)}; at least 4 places are needed")
    return Stock(
        backgrounds=tuple(backgrounds), left_out=tuple(left_out.items()), sha256=digest.hexdigest(), notices="\n".join(notices)
    )


def _content(path: Path, blob: bytes, entry: rcc.Entry) -> bytes:
    try:
        return rcc.read(blob, entry)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _decode(content: bytes, origin: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{origin}: not a picture that this Pillow can read ({error})") from error
    return image


def hold_out(names: Sequence[T], share: float, seed: str) -> tuple[list[T], list[T]]:
    """Split into (kept, held out), both in the given order: `share` of them, at least one on each side, drawn from the seed."""
    count = min(max(round(share * len(names)), 1), len(names) - 1)
    out = set(random.Random(seed).sample(range(len(names)), count))
    return [n for i, n in enumerate(names) if i not in out], [n for i, n in enumerate(names) if i in out]
