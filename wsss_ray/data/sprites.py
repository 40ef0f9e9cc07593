"""Compose the built-in demo and test set: sprites pasted on crops of two photographs, with tags and exact masks.

The sprites are Kenney's (CC0), from the wheel of `arcade`. The photographs are those of scikit-learn (BSD-3). Neither package is
imported: their pictures are read as files. Training scenes use the left halves of the photographs, validation scenes the right
halves. A scene follows from (seed, split, index) through Python's own Mersenne Twister, whose `random()` is the same everywhere.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from wsss_ray.core.component import NotIdentity
from wsss_ray.data.source import Item, Raw, Source, Split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

_PEOPLE = ("female_adventurer", "female_person", "male_adventurer", "male_person")
_PATTERNS: dict[str, tuple[str, ...]] = {
    "bee": ("enemies/bee.png",),
    "card": tuple(f"cards/card{suit}*.png" for suit in ("Clubs", "Diamonds", "Hearts", "Spades")),
    "coin": ("items/gold_[123].png", "items/coinBronze.png", "items/coinGold.png", "items/coinSilver.png"),
    "fish": ("enemies/fish*.png",),
    "frog": ("enemies/frog*.png",),
    "gem": ("items/gem*.png",),
    "key": ("items/key*.png",),
    "mouse": ("enemies/mouse.png",),
    "person": tuple(f"animated_characters/{person}/*.png" for person in _PEOPLE),
    "robot": ("animated_characters/robot/*.png",),
    "ship": ("space_shooter/playerShip*.png",),
    "zombie": ("animated_characters/zombie/*.png",),
}
_VISIBLE = 0.4
"""The least share of each object's pixels that the objects above it must leave visible."""

_TRIES = 1000
_ARCADE = "3.3.3"
_INSTALL = {"arcade": f"pip install --no-deps arcade=={_ARCADE}", "sklearn": "pip install scikit-learn"}


class Sprites(Source):
    """Scenes of one to `objects` sprites of different classes on photographs. They need two packages and no other download."""

    train: Annotated[int, NotIdentity()] = Field(default=1000, ge=1, description="Number of training scenes.")
    val: Annotated[int, NotIdentity()] = Field(default=200, ge=0, description="Number of validation scenes; 0 for none.")
    size: int = Field(default=64, ge=16, le=1024, description="Side of the scenes in pixels.")
    objects: int = Field(default=2, ge=1, le=3, description="Largest number of sprites in a scene.")
    smallest: float = Field(default=0.35, gt=0.1, le=0.75, description="Least longer side of a sprite, as a share of the scene.")
    largest: float = Field(default=0.75, gt=0.1, le=0.75, description="Largest longer side of a sprite, as a share of the scene.")
    rotation: float = Field(default=30.0, ge=0, le=180, description="Largest rotation of a sprite in degrees, either way.")
    seed: int = Field(default=0, ge=0, description="Another seed gives other scenes.")

    @model_validator(mode="after")
    def _ordered(self) -> Sprites:
        if self.smallest > self.largest:
            raise ValueError(f"smallest ({self.smallest}) is more than largest ({self.largest}); set one of them anew")
        return self

    def class_names(self) -> tuple[str, ...]:
        """Return the twelve kinds of sprite."""
        return tuple(_PATTERNS)

    def splits(self) -> tuple[Split, ...]:
        """Return `weak`, and `val` if it has scenes."""
        return ("weak", "val") if self.val else ("weak",)

    def has_masks(self, split: Split) -> bool:
        """Return True for weak and val, where every scene has a mask."""
        return split in ("weak", "val")

    def items(self, split: Split) -> list[Item]:
        """List the scenes with their tags, without making the scenes."""
        return list(self.listed(split))

    def listed(self, split: Split) -> Iterator[Item]:
        """Yield the items of `items` one by one."""
        if split not in ("weak", "val"):
            raise ValueError(f"data.{split}: the sprites have no such split; they have weak and val")
        _check_packages()
        count = self.train if split == "weak" else self.val
        rng = random.Random()
        for image_id in (f"{split}-{index:05d}" for index in range(count)):
            yield Item(image_id, tuple(sorted(self._classes(image_id, rng))))

    def load(self, item: Item) -> Raw:
        """Make the scene and its mask, both as PNG."""
        from wsss_ray.data.codecs import encode_labels

        image, label_HW = self._compose(item.image_id)
        buffer = io.BytesIO()
        image.save(buffer, format="PNG", compress_level=3)
        return Raw(buffer.getvalue(), encode_labels(label_HW))

    def _classes(self, image_id: str, rng: random.Random | None = None) -> list[int]:
        """Draw the classes of a scene at random, all different, the lowest one first. A given `rng` is seeded and used."""
        rng = rng or random.Random(0)
        rng.seed(f"classes/{self.seed}/{image_id}")
        left = list(range(len(_PATTERNS)))
        count = 1 + int(rng.random() * self.objects)
        return [left.pop(int(rng.random() * len(left))) for _ in range(count)]

    def _compose(self, image_id: str) -> tuple[Image.Image, NDArray[np.uint8]]:
        """Paste the sprites; place them again while one hides too much of another."""
        import numpy as np

        classes = self._classes(image_id)
        rng = random.Random(f"scene/{self.seed}/{image_id}")
        image = self._background(image_id.partition("-")[0], rng)
        for _ in range(_TRIES):
            placed = [self._place(kind, rng) for kind in classes]
            label_HW = np.zeros((self.size, self.size), dtype=np.uint8)
            whole = []
            for kind, (sprite, corner) in zip(classes, placed, strict=True):
                solid_HW = np.asarray(sprite.getchannel("A")) > 127
                (x, y), (height, width) = corner, solid_HW.shape
                label_HW[y : y + height, x : x + width][solid_HW] = kind + 1
                whole.append(int(solid_HW.sum()))
            free = [int((label_HW == kind + 1).sum()) for kind in classes]
            if all(0 < pixels * _VISIBLE <= seen for pixels, seen in zip(whole, free, strict=True)):
                for sprite, corner in placed:
                    image.paste(sprite, corner, sprite)
                return image, label_HW
        raise ValueError(f"data: no place found for the sprites of {image_id}; lower data.largest or data.objects")

    def _place(self, kind: int, rng: random.Random) -> tuple[Image.Image, tuple[int, int]]:
        """Flip, rotate and scale a sprite of a class, and draw its place at random, fully inside the scene."""
        from PIL import Image

        names = _sprites()[kind]
        sprite = names[int(rng.random() * len(names))]
        if rng.random() < 0.5:
            sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        angle = (2 * rng.random() - 1) * self.rotation
        sprite = _trim(sprite.rotate(angle, resample=Image.Resampling.BICUBIC, expand=True))
        share = self.smallest + rng.random() * (self.largest - self.smallest)
        scale = share * self.size / max(sprite.size)
        width, height = (max(1, round(side * scale)) for side in sprite.size)
        sprite = sprite.resize((width, height), resample=Image.Resampling.BICUBIC)
        return sprite, (int(rng.random() * (self.size - width + 1)), int(rng.random() * (self.size - height + 1)))

    def _background(self, split: str, rng: random.Random) -> Image.Image:
        """Cut a square from the split's half of one of the photographs."""
        from PIL import Image

        photos = _photographs()
        photo = photos[int(rng.random() * len(photos))]
        half = photo.width // 2
        start = 0 if split == "weak" else half
        side = int(min(half, photo.height) * (0.3 + 0.5 * rng.random()))
        x = start + int(rng.random() * (half - side + 1))
        y = int(rng.random() * (photo.height - side + 1))
        return photo.resize((self.size, self.size), resample=Image.Resampling.BILINEAR, box=(x, y, x + side, y + side))


def _trim(sprite: Image.Image) -> Image.Image:
    """Cut off the transparent margin."""
    box = sprite.getchannel("A").point(lambda alpha: 255 if alpha > 127 else 0).getbbox()
    return sprite.crop(box) if box is not None else sprite


@lru_cache(maxsize=1)
def _sprites() -> tuple[tuple[Image.Image, ...], ...]:
    """Read the sprites of every class, sorted by name within a class."""
    from PIL import Image

    folder = _package_folder("arcade", "resources/assets/images")
    found = []
    for name, patterns in _PATTERNS.items():
        paths = sorted((path for pattern in patterns for path in folder.glob(pattern)), key=Path.as_posix)
        if not paths:
            raise ValueError(f"data: no sprites of class {name} in {folder}; run `{_INSTALL['arcade']}`")
        sprites = []
        for path in paths:
            with Image.open(path) as image:
                sprites.append(_trim(image.convert("RGBA")))
        found.append(tuple(sprites))
    return tuple(found)


@lru_cache(maxsize=1)
def _photographs() -> tuple[Image.Image, ...]:
    """Read the two photographs of scikit-learn."""
    from PIL import Image

    folder = _package_folder("sklearn", "datasets/images")
    found = []
    for name in ("china.jpg", "flower.jpg"):
        with Image.open(folder / name) as image:
            found.append(image.convert("RGB"))
    return tuple(found)


def _check_packages() -> None:
    """Raise ValueError unless both packages are installed. Other versions of arcade may have other sprites, and so other data."""
    _package_folder("arcade", "resources/assets/images")
    found = version("arcade")
    if found != _ARCADE:
        raise ValueError(f"data: the sprites are those of arcade {_ARCADE}, found {found}; run `{_INSTALL['arcade']}`")
    _package_folder("sklearn", "datasets/images")


def _package_folder(package: str, inside: str) -> Path:
    """Locate a folder of an installed package without importing it."""
    spec = find_spec(package)
    folder = Path(spec.origin).parent / inside if spec is not None and spec.origin is not None else None
    if folder is None or not folder.is_dir():
        raise ValueError(f"data: the sprites need the pictures of the package {package}; run `{_INSTALL[package]}`")
    return folder
