"""SBD's masks become VOC's augmented set; what is damaged is named."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.io import savemat

from tests.photos import call
from tests.voc_folder import NAMES, make_raw, sbd_mask, write_mat
from wsss_ray.data.codecs import decode_gray
from wsss_ray.data.stages import stages_of
from wsss_ray.data.voc import Voc


@pytest.fixture
def raw(tmp_path):
    return make_raw(tmp_path)


def mask(voc, name, folder="SegmentationClassAug"):
    return (voc / folder / f"{name}.png").read_bytes()


@pytest.mark.parametrize("inner", ["", "dataset"])
def test_the_augmented_set(raw, inner):
    voc, sbd = raw
    assert "4 images, 2 of them VOC's own; 2 to score on" in call("augment-voc", voc, sbd / inner)
    for name in (*NAMES[:2], *NAMES[4:]):
        assert mask(voc, name) == mask(voc, name, "SegmentationClass"), "VOC's own, though SBD has some of them"
    for place in (2, 3):
        assert np.array_equal(decode_gray(mask(voc, NAMES[place])), sbd_mask(place))
    source = Voc(root=str(voc))
    assert [item.image_id for item in source.items("weak")] == NAMES[:4]
    data = stages_of(source)
    assert (data.weak.component.num_masks, data.val.component.num_masks) == (4, 2)


def test_it_is_not_made_over(raw):
    voc, sbd = raw
    call("augment-voc", voc, sbd)
    assert "SegmentationClassAug: exists already; move it away" in call("augment-voc", voc, sbd, code=2)
    mine = (voc / "SegmentationClassAug").rename(voc / "mine")
    assert "train_aug.txt: exists already; move it away" in call("augment-voc", voc, sbd, code=2)
    assert not (voc / "SegmentationClassAug").exists()
    assert sorted(file.name for file in mine.iterdir())


def damaged(path):
    path.write_bytes(path.read_bytes()[:200])


def other(path):
    savemat(path, {"else": np.zeros(3)})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (damaged, r"holds no mask of SBD \(.*\); unpack benchmark\.tgz again"),
        (other, r"holds no mask of SBD \(no structure GTcls\); unpack"),
        (lambda path: path.write_text("x"), "holds no mask of SBD"),
        (lambda path: write_mat(path, sbd_mask(2, label=21)), "is not a mask with the labels 0 to 20"),
        (lambda path: write_mat(path, np.zeros((3, 4))), "is not a mask with the labels 0 to 20"),
        (lambda path: path.unlink(), "No such file"),
    ],
    ids=["damaged", "other", "text", "label", "float", "missing"],
)
def test_a_bad_mask_is_named_and_leaves_no_list(raw, spoil, said):
    voc, sbd = raw
    spoil(sbd / "dataset/cls" / f"{NAMES[2]}.mat")
    (line,) = call("augment-voc", voc, sbd, code=2).splitlines()
    assert line.startswith(f"error: {sbd}/dataset/cls/{NAMES[2]}.mat: ")

    assert re.search(said, line)
    assert not (voc / "ImageSets/SegmentationAug/train_aug.txt").exists()
    assert not (voc / "SegmentationClassAug").exists()


def test_lists_that_cannot_be(raw):
    voc, sbd = raw
    (sbd / "dataset/val.txt").write_text("../../evil\n")
    assert "image id '../../evil' is not a path below a folder" in call("augment-voc", voc, sbd, code=2)
    (sbd / "dataset/val.txt").write_text("\n")
    assert "val.txt: names no image" in call("augment-voc", voc, sbd, code=2)
    assert "train.txt: No such file" in call("augment-voc", sbd, sbd, code=2)
