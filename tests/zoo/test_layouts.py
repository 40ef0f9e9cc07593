"""Every layout that the documentation lists, from the folder to packed images, by the real command in a fresh process."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.photos import init
from tests.zoo import sets
from tests.zoo.keeper import fresh, packed

CAT, DOG, BACKGROUND = (0, 1), (0, 2), (0,)


@dataclass(frozen=True)
class Layout:
    """A layout: what `init` says, what `plan` counts, and what is packed, as id -> (tags, labels in the mask)."""

    build: Callable[[Path], Path]
    said: tuple[str, ...]
    planned: str
    weak: dict[str, tuple[tuple[str, ...], tuple[int, ...] | None]]
    val: dict[str, tuple[tuple[str, ...], tuple[int, ...] | None]] | None = None


def both(ids: dict[str, str], *, masks: bool = True, labels: dict[str, int] = sets.LABELS) -> dict:
    """Images of one class each, with or without masks."""
    return {name: ((kind,), (0, labels[kind]) if masks else None) for name, kind in ids.items()}


VOC = {"cat": 8, "dog": 12}
LAYOUTS = [
    Layout(
        sets.class_folders,
        ("a folder with one subfolder for each class", "6, median 40 x 30"),
        "images-weak: 6 images, 0 with masks; cat 3, dog 3",
        both({f"{kind}/{k}": kind for kind in sets.LABELS for k in range(3)}, masks=False),
    ),
    Layout(
        sets.class_folders_by_split,
        ("folders train, val or test", "masks     6", "6 for training, 6 for validation, as given", "6 in a test folder: test/"),
        "images-val: 6 images, 6 with masks; cat 3, dog 3",
        both({f"train/{kind}/{k}": kind for kind in sets.LABELS for k in range(3)}, masks=False),
        both({f"val/{kind}/{k}": kind for kind in sets.LABELS for k in range(3)}),
    ),
    Layout(
        sets.table_inside,
        ("a folder with a table of tags", "masks     12", "10 for training, 2 held out for validation"),
        "images-weak: 10 images, 10 with masks; cat 5, dog 5",
        both({str(k): ("cat", "dog")[k % 2] for k in range(12) if k not in (1, 6)}),
        both({str(k): ("cat", "dog")[k % 2] for k in (1, 6)}),
    ),
    Layout(
        sets.table_beside,
        ("photos.csv", "masks     6", "5 for training, 2 for validation, as given", "1 image without tags"),
        "images-weak: 5 images, 4 with masks, 1 without tags; cat 2, dog 2",
        both({str(k): ("cat", "dog")[k % 2] for k in range(4)}) | {"lawn": ((), None)},
        both({str(k): ("cat", "dog")[k % 2] for k in (4, 5)}),
    ),
    Layout(
        sets.coco,
        ("COCO's annotations", "masks     8, drawn from the annotations", "5 for training, 3 for validation, as given"),
        "images-weak: 5 images, 5 with masks, 1 without tags; cat 2, dog 2",
        both({f"train{k}": ("cat", "dog")[k % 2] for k in range(4)}) | {"train-lawn": ((), BACKGROUND)},
        both({f"val{k}": ("cat", "dog")[k % 2] for k in range(2)}) | {"val-lawn": ((), BACKGROUND)},
    ),
    Layout(
        sets.roboflow,
        ("2: cat 3, dog 3", "pets: groups of categories", "2 images that this layout does not use", "1 other files: README"),
        "images-val: 2 images, 2 with masks; cat 1, dog 1",
        both({f"train-{k}_jpg.rf.0a1b": ("cat", "dog")[k % 2] for k in range(4)}),
        both({f"valid-{k}_jpg.rf.0a1b": ("cat", "dog")[k % 2] for k in range(2)}),
    ),
    Layout(
        sets.voc,
        ("a set like Pascal VOC", "3 for training, 2 for validation, as given", "1 in no list that is used: VOC2012/JPEGImages/"),
        "images-weak: 3 images, 3 with masks",
        both({"2007_1": "dog", "2007_2": "cat", "2007_0 1": "dog"}, labels=VOC),
        both({"2007_3": "dog", "2007_9": "cat"}, labels=VOC),
    ),
    Layout(
        sets.voc_without_lists,
        ("a set like Pascal VOC", "there is no list in ImageSets"),
        "images-weak: 4 images, 0 with masks",
        both({f"my photo #{k}": ("cat", "dog")[k % 2] for k in range(4)}, masks=False),
    ),
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.build.__name__)
def test_from_the_folder_to_packed_images(layout, tmp_path):
    folder = layout.build(tmp_path)
    said = fresh("init", folder, folder=tmp_path)
    for text in layout.said:
        assert text in said, said
    assert layout.planned in fresh("plan", "job.yaml", folder=tmp_path)
    found = packed(tmp_path / "job.yaml", tmp_path / "store")
    want = {"weak": layout.weak} | ({"val": layout.val} if layout.val is not None else {})
    assert {split: {name: (one.tags, one.labels) for name, one in images.items()} for split, images in found.items()} == want
    assert {one.size for images in found.values() for one in images.values()} == {(30, 40)}


def test_check_in_a_fresh_process(tmp_path):
    init(sets.coco(tmp_path), "--out", tmp_path / "job.yaml")
    small = "method.classifier.trunk={kind: small_net, widths: [8, 16], strides: [2, 1]}"
    said = fresh("check", "job.yaml", "--until", "localize", "--images", 2, "--set", small, folder=tmp_path)
    assert re.search(r"^images-weak +\d+ images", said, re.MULTILINE), said
    assert re.search(r"^maps +\d+ images", said, re.MULTILINE), said
