"""Write label maps as files for other tools: palette PNGs in the colours of Pascal VOC, and the names of the classes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile, PngInfo

from wsss_ray.core.values import IGNORE
from wsss_ray.data.list_lines import as_line
from wsss_ray.data.palette import voc_palette
from wsss_ray.storage.atomic import replacing

if TYPE_CHECKING:
    from wsss_ray.core.values import ImageArray, LabelArray

_SOURCE = "wsss-ray source"
_FORBIDDEN = re.compile(r"[\\\x00-\x1f\x7f]")


def file_of_image(folder: Path, image_id: str, *, suffix: str = ".png", make: bool = True) -> Path:
    """Return the path of an image's file, and create its folder if `make` is True.

    Args:
        folder: The folder of all files.
        image_id: The id of the image; its slashes lead to subfolders.
        suffix: The end of the name.
        make: False creates no folder.

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
    if make:
        path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"image id {image_id!r}: {path.parent} is a link that leads out of {folder}; remove it")
    return path


def enlarged(label_HW: LabelArray, height: int, width: int) -> LabelArray:
    """Resize a label map by the nearest label.

    Args:
        label_HW: Labels as uint8, (H, W).
        height: The new height in pixels.
        width: The new width in pixels.
    """
    if label_HW.shape == (height, width):
        return label_HW
    return np.array(Image.fromarray(label_HW).resize((width, height), Image.Resampling.NEAREST))


def write_voc(path: Path, label_HW: LabelArray, *, source: str = "") -> None:
    """Write labels as a palette PNG in the colours of Pascal VOC.

    Args:
        path: The file, which is replaced. Its folder exists.
        label_HW: Labels as uint8, (H, W), 255 where undecided.
        source: What the labels were made from, which `source_of` reads again.
    """
    picture = Image.frombytes("P", label_HW.shape[::-1], label_HW.tobytes())
    picture.putpalette(voc_palette().tobytes())
    about = PngInfo()
    if source:
        about.add_text(_SOURCE, source)
    with replacing(path) as file:
        picture.save(file, format="PNG", pnginfo=about)


def write_overlay(path: Path, image_HWC: ImageArray, *, source: str) -> None:
    """Write an image as JPEG. The arguments are those of `write_voc`."""
    with replacing(path) as file:
        Image.fromarray(image_HWC).save(file, format="JPEG", quality=90, comment=source)


def source_of(path: Path) -> str | None:
    """Return the `source` of a file that `write_voc` or `write_overlay` wrote; None if there is no such file."""
    try:
        with PngImageFile(path) if path.suffix == ".png" else JpegImageFile(path) as image:
            found = image.info.get(_SOURCE if path.suffix == ".png" else "comment")
    except (OSError, SyntaxError, ValueError):
        return None
    return found.decode("latin-1") if isinstance(found, bytes) else found


def write_classes(out: Path, classes: Sequence[str]) -> None:
    """Write classes.txt: line n, counted from 1, names label n.

    Args:
        out: The folder of the file.
        classes: The names of the K object classes, background not among them.
    """
    with replacing(out / "classes.txt") as file:
        file.write("".join(f"{as_line(name)}\n" for name in classes).encode())


def write_labelmap(out: Path, classes: Sequence[str]) -> list[str]:
    """Write labelmap.txt, by which CVAT and Datumaro read masks in colours, with the colours of `write_voc`.

    Label 255 is called `ignored`: an importer refuses a colour that the file does not name.

    Args:
        out: The folder of the file.
        classes: The names of the K object classes, background not among them.

    Returns:
        The names that stand in the file otherwise, because its format has no place for them.
    """
    lines, changed = ["# label:color_rgb:parts:actions"], []
    for label, name in _coloured(classes):
        written = name_in_labelmap(name)
        changed += [name] if written != name else []
        lines.append(f"{written}:{','.join(map(str, voc_palette()[label]))}::")
    with replacing(out / "labelmap.txt") as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
    return changed


def name_in_labelmap(name: str) -> str:
    """Return the name of a class as labelmap.txt can hold it: without `:`, several spaces, and `#` at the start."""
    written = " ".join(name.replace(":", "_").split())
    return f"_{written[1:]}" if written.startswith("#") else written


def write_cvat_labels(out: Path, classes: Sequence[str]) -> None:
    """Write cvat_labels.json, the labels of a CVAT task with the colours of `write_voc`. CVAT's label editor takes it as "Raw".

    An import into CVAT finds its labels by their names, so `classes` are written as the imported file has them. CVAT knows the
    background itself.

    Args:
        out: The folder of the file.
        classes: The names of the K object classes, background not among them.
    """
    named = list(_coloured(classes))[1:]
    labels = [{"name": name, "color": "#{:02x}{:02x}{:02x}".format(*voc_palette()[label])} for label, name in named]
    with replacing(out / "cvat_labels.json") as file:
        file.write((json.dumps([one | {"attributes": []} for one in labels], indent=1, ensure_ascii=False) + "\n").encode())


def _coloured(classes: Sequence[str]) -> list[tuple[int, str]]:
    """Return label and name of everything that has a colour in a mask."""
    return [*enumerate(("background", *classes)), (IGNORE, "ignored")]
