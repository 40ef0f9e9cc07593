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
    """Return the path of an image's file, and create its folder.

    Args:
        folder: The folder of all files.
        image_id: The id of the image; its slashes lead to subfolders.
        suffix: The end of the name.

    Raises:
        ValueError: if the file would lie outside `folder`.

    Example:
        >>> file_of_image(Path("masks"), "dog/1")
        PosixPath('masks/dog/1.png')
    """
    parts = image_id.split("/")
    if _FORBIDDEN.search(image_id) or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"image id {image_id!r} is not a path below a folder; was the store edited by hand?")
    path = folder.joinpath(*parts[:-1], f"{parts[-1]}{suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"image id {image_id!r}: {path.parent} is a link that leads out of {folder}; remove it")
    return path


def write_voc(path: Path, label_HW: LabelArray) -> None:
    """Write labels as a palette PNG in the colours of Pascal VOC.

    Args:
        path: The file, which is replaced. Its folder exists.
        label_HW: Labels as uint8, (H, W), 255 where undecided.
    """
    picture = Image.frombytes("P", label_HW.shape[::-1], label_HW.tobytes())
    picture.putpalette(voc_palette().tobytes())
    with replacing(path) as file:
        picture.save(file, format="PNG")


def write_classes(out: Path, classes: Sequence[str]) -> None:
    """Write classes.txt: line n, counted from 1, names label n.

    Args:
        out: The folder of the file.
        classes: The names of the K object classes, background not among them.
    """
    with replacing(out / "classes.txt") as file:
        file.write("".join(f"{' '.join(name.split())}\n" for name in classes).encode())
