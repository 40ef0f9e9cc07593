"""Write label maps as files for other tools: palette PNGs in the colours of Pascal VOC, and classes.txt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from wsss_ray.data.images import voc_palette
from wsss_ray.storage.atomic import replacing

if TYPE_CHECKING:
    from wsss_ray.core.values import LabelArray

_FORBIDDEN = re.compile(r"[\\\x00-\x1f\x7f]")


def file_of_image(folder: Path, image_id: str, *, suffix: str = ".png") -> Path:
    """Return the path of an image's file below `folder`, and create its folder. Raises ValueError if it would lie elsewhere."""
    parts = image_id.split("/")
    if _FORBIDDEN.search(image_id) or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"image id {image_id!r} is not a path below a folder; was the store edited by hand?")
    path = folder.joinpath(*parts[:-1], f"{parts[-1]}{suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"image id {image_id!r}: {path.parent} is a link that leads out of {folder}; remove it")
    return path


def write_voc(path: Path, label_HW: LabelArray) -> None:
    """Write labels as a palette PNG in the colours of Pascal VOC."""
    picture = Image.frombytes("P", label_HW.shape[::-1], label_HW.tobytes())
    picture.putpalette(voc_palette().tobytes())
    with replacing(path) as file:
        picture.save(file, format="PNG")


def write_classes(out: Path, classes: Sequence[str]) -> None:
    """Write classes.txt: line n, counted from 1, names label n."""
    with replacing(out / "classes.txt") as file:
        file.write("".join(f"{' '.join(name.split())}\n" for name in classes).encode())
