"""Bring corrected label maps back: masks named like the images, for `data.masks` and `data.strong`."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsss_ray.core.values import IGNORE
from wsss_ray.data.corrections import read_corrections
from wsss_ray.data.image_files import bare, nfc
from wsss_ray.data.label_files import file_of_image, write_classes, write_voc
from wsss_ray.data.list_lines import as_line
from wsss_ray.data.tags import numbered_lines
from wsss_ray.storage.atomic import replacing

_UPLOADED = re.compile(r"^(.*/)?upload/\d+/[0-9a-f]{8}-")  # how Label Studio renames uploaded files


@dataclass(frozen=True)
class Imported:
    """The result of an import: how many masks were written, and how many of the exported images have none."""

    masks: int
    missing: int


def import_masks(labels: Path, like: Path, out: Path, *, overwrite: bool = False) -> Imported:
    """Write a mask for every image that a tool exported.

    Args:
        labels: What the tool exported; see `data/corrections.py`.
        like: The folder of `wsss-ray export` that the tool read. It names the classes, in label order, and the images.
        out: The folder of the masks, `<image>.png`, with `list.txt` and `classes.txt`.
        overwrite: True writes into a folder that holds files. Other files in it stay.

    Raises:
        ValueError: if a file cannot be used. Masks that were written before stay.
        OSError: if a file cannot be read or written.
    """
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise ValueError(f"{out} holds files already; give another folder by --out, or write into it by --overwrite")
    images = _ExportedImages(like)
    classes = tuple(name for _, name in numbered_lines(like / "classes.txt", "classes"))
    done: dict[str, str] = {}
    out.mkdir(parents=True, exist_ok=True)
    for found in read_corrections(labels, classes):
        image_id = images.find(found.name, labels)
        if image_id in done:
            raise ValueError(f"{labels}: {done[image_id]!r} and {found.name!r} are both the image {image_id!r}; remove one")
        done[image_id] = found.name
        label_HW = found.labels()
        assert np.isin(label_HW, [*range(len(classes) + 1), IGNORE]).all()
        write_voc(file_of_image(out, image_id), label_HW)
    if not done:
        raise ValueError(f"{labels}: holds no corrected image (in Label Studio, predictions alone do not count); annotate one")
    with replacing(out / "list.txt") as file:
        file.write("".join(f"{as_line(image_id)}\n" for image_id in done).encode())
    write_classes(out, classes)
    return Imported(len(done), len(images) - len(done))


class _ExportedImages:
    """The images of an export, found by the names that tools give them."""

    def __init__(self, like: Path) -> None:
        path = like / "tags.jsonl"
        self._exact: dict[str, str] = {}
        self._ends: dict[str, set[str]] = defaultdict(set)  # of paths without their first folders
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise ValueError(f"--like {like}: {path.name} cannot be read: {error.strerror}; give a folder of `export`") from error
        for line in lines:
            image_id = bare(json.loads(line)["image"])
            self._exact[nfc(image_id)] = image_id
            parts = nfc(image_id).split("/")
            for place in range(len(parts)):
                self._ends["/".join(parts[place:])].add(image_id)

    def __len__(self) -> int:
        return len(self._exact)

    def find(self, name: str, where: Path) -> str:
        """Return the id of the image that a name means.

        A tool may put folders before our path, or leave our folders out if one image ends like that.
        """
        whole = bare(nfc(name.replace("\\", "/").strip("/")))
        parts = whole.split("/")
        for place in range(len(parts)):
            found = self._exact.get("/".join(parts[place:]))
            if found is not None:
                return found
        ends = self._ends.get(_UPLOADED.sub("", whole), set())
        if len(ends) == 1:
            return next(iter(ends))
        if ends:
            raise ValueError(f"{where}: image {name!r} may be {' or '.join(sorted(ends))}; give it its whole path")
        raise ValueError(f"{where}: image {name!r} is not one of the {len(self)} images of --like; give the folder of its export")
