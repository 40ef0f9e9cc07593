"""The VOC reader on a small tree, in all list styles, and on real VOC files where they are installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss_ray.data.codecs import decode_gray
from wsss_ray.data.images import normalise_image, normalise_mask
from wsss_ray.data.palette import voc_palette
from wsss_ray.data.source import Raw, Source, describe
from wsss_ray.data.voc import VOC_CLASSES, Voc
from wsss_ray.data.voc_xml import read_annotation

LABELME = Path("/usr/share/doc/labelme-examples/examples")
IDS = ("2007_000032", "2007_000039", "2007_000063")
OBJECTS = {
    IDS[0]: [("aeroplane", 0), ("person", 1), ("aeroplane", 0)],
    IDS[1]: [("tvmonitor", 1)],
    IDS[2]: [("dog", 0), ("chair", 0)],
}
TAGS = {IDS[0]: (0, 14), IDS[1]: (19,), IDS[2]: (8, 11)}


def annotation(objects):
    body = "".join(
        f"<object><name>{name}</name><part><name>head</name></part><difficult>{hard}</difficult></object>"
        for name, hard in objects
    )
    return f"<annotation><filename>x.jpg</filename>{body}</annotation>"


def write_list(root, name, lines):
    path = root / "ImageSets" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def root(tmp_path):
    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "SegmentationClassAug", "maps"):
        (tmp_path / folder).mkdir()
    labels = np.array([[0, 1, 255]], np.uint8)
    coloured = Image.new("P", (3, 1))
    coloured.putpalette(voc_palette().ravel().tolist())
    coloured.putdata(labels.ravel().tolist())
    for place, image_id in enumerate(IDS):
        Image.new("RGB", (3, 1), (place, 0, 0)).save(tmp_path / "JPEGImages" / f"{image_id}.jpg")
        (tmp_path / "Annotations" / f"{image_id}.xml").write_text(annotation(OBJECTS[image_id]))
        Image.fromarray(labels).save(tmp_path / "SegmentationClassAug" / f"{image_id}.png")
        coloured.save(tmp_path / "SegmentationClass" / f"{image_id}.png")
        Image.new("L", (3, 1), 100 + place).save(tmp_path / "maps" / f"{image_id}.png")
    write_list(tmp_path, "SegmentationAug/train_aug.txt", IDS[:2])
    write_list(tmp_path, "Segmentation/val.txt", IDS[2:])
    return tmp_path


def test_defaults(root):
    source = Voc(root=str(root))
    weak, val = source.items("weak"), source.items("val")
    assert source.class_names() == VOC_CLASSES
    assert len(VOC_CLASSES) == 20
    assert source.splits() == ("weak", "val")
    assert [(item.image_id, item.tags) for item in weak + val] == list(TAGS.items())
    assert weak[0].path == str(root / "JPEGImages" / f"{IDS[0]}.jpg")
    assert weak[0].mask == str(root / "SegmentationClassAug" / f"{IDS[0]}.png")
    assert weak[0].size == os.path.getsize(weak[0].path) + os.path.getsize(weak[0].mask)
    assert source.load(weak[0]) == Raw(Path(weak[0].path).read_bytes(), Path(weak[0].mask).read_bytes())


@pytest.mark.parametrize(
    "line",
    [
        "/JPEGImages/{0}.jpg /SegmentationClass/{0}.png",
        "JPEGImages/{0}.jpg",
        "{0}",
        "  {0}   # one of many",
        "{0}  14 0 0",
        "JPEGImages/{0}.jpg 0 14",
    ],
)
def test_list_styles(root, line):
    path = write_list(root, "own.txt", ["# a comment", "", line.format(IDS[0])])
    for given in ("ImageSets/own.txt", str(path)):
        (item,) = Voc(root=str(root), train=given).items("weak")
        assert (item.image_id, item.tags) == (IDS[0], (0, 14))
        assert item.path == str(root / "JPEGImages" / f"{IDS[0]}.jpg")
        folder = "SegmentationClass" if "/SegmentationClass/" in line else "SegmentationClassAug"
        assert item.mask == str(root / folder / f"{IDS[0]}.png")


def test_a_masks_folder_that_is_set_wins_over_the_list(root):
    write_list(root, "own.txt", [f"/JPEGImages/{IDS[0]}.jpg /SegmentationClassAug/{IDS[0]}.png"])
    source = Voc(root=str(root), train="ImageSets/own.txt", val="ImageSets/own.txt", masks="maps", val_masks="SegmentationClass")
    assert Path(source.items("weak")[0].mask).parent.name == "maps"
    assert Path(source.items("val")[0].mask).parent.name == "SegmentationClass"


def test_tags_in_the_list_need_no_xml(root):
    (root / "Annotations" / f"{IDS[0]}.xml").unlink()
    write_list(root, "own.txt", [f"{IDS[0]} 3"])
    assert Voc(root=str(root), train="ImageSets/own.txt").items("weak")[0].tags == (3,)


@pytest.mark.parametrize("drop", [False, True])
def test_difficult_objects(root, drop):
    first, second = Voc(root=str(root), drop_difficult=drop).items("weak")
    assert first.tags == ((0,) if drop else (0, 14))
    assert second.tags == (19,)  # it has no other


def test_tags_from_npy_and_from_a_list(root):
    vectors = {np.int32(image_id.replace("_", "")): np.eye(20, dtype=np.float32)[5] for image_id in IDS[:2]}
    np.save(root / "cls_labels.npy", vectors, allow_pickle=True)
    write_list(root, "oaa.txt", [f"{IDS[0]} 5", f"{IDS[1]} 5"])
    for tags in ("cls_labels.npy", "ImageSets/oaa.txt"):
        source = Voc(root=str(root), tags=tags)
        assert [item.tags for item in source.items("weak")] == [(5,), (5,)]
        assert source.items("val")[0].tags == ()  # only scored
        strong = Voc(root=str(root), tags=tags, strong="ImageSets/Segmentation/val.txt")
        with pytest.raises(ValueError, match=rf"val\.txt:1: image {IDS[2]} has no tags in .*{Path(tags).name}; add them"):
            strong.items("strong")


def test_both_mask_encodings_give_the_same_labels(root):
    found = []
    for masks in ("SegmentationClass", "SegmentationClassAug"):
        source = Voc(root=str(root), masks=masks)
        raw = source.load(source.items("val")[0])
        found.append(normalise_mask(raw.mask, height=1, width=3, num_labels=21))
    assert found[0] == found[1]
    assert decode_gray(found[0]).tolist() == [[0, 1, 255]]


def test_weak_masks_may_be_missing_but_no_others(root):
    (root / "SegmentationClassAug" / f"{IDS[0]}.png").unlink()
    source = Voc(root=str(root), strong="ImageSets/SegmentationAug/train_aug.txt")
    assert [item.mask is None for item in source.items("weak")] == [True, False]
    assert source.has_masks("weak")
    assert source.splits() == ("weak", "val", "strong")
    with pytest.raises(ValueError, match=rf"train_aug\.txt:1: mask .*{IDS[0]}\.png is missing; every image of data\.strong"):
        source.items("strong")
    (root / "SegmentationClassAug" / f"{IDS[1]}.png").unlink()
    assert not source.has_masks("weak")


def test_saliency_follows_the_weak_images(root):
    source = Voc(root=str(root), val=None, saliency="maps")
    items = source.items("saliency")
    assert source.splits() == ("weak", "saliency")
    assert [item.image_id for item in items] == list(IDS[:2])
    assert items[1].path == str(root / "maps" / f"{IDS[1]}.png")
    assert (items[1].mask, items[1].size) == (None, os.path.getsize(items[1].path))
    (root / "maps" / f"{IDS[1]}.png").unlink()
    with pytest.raises(ValueError, match=rf"{IDS[1]}\.png is missing"):
        source.items("saliency")


def test_classes_txt_and_classes(root):
    (root / "classes.txt").write_text("cat\n# no background here\ndog\n")
    assert Voc(root=str(root)).class_names() == ("cat", "dog")
    assert Voc(root=str(root), classes=("a", "b", "c")).class_names() == ("a", "b", "c")
    wrong = {"twice": ("a", "a"), "background is label 0": ("_background_", "a"), "no class": (), "no name": ("",)}
    for message, names in wrong.items():
        with pytest.raises(ValueError, match=message):
            Voc(root=str(root), classes=names).class_names()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{IDS[0]} what is this", r"own\.txt:2: .* is not understood"),
        (f"/JPEGImages/{IDS[0]}.jpg /x.txt", r"own\.txt:2: .* is not understood"),
        (f"{IDS[0]} -1", r"own\.txt:2: .* is not understood"),
        (f"{IDS[0]} 20", r"own\.txt:2: tag 20 is not one of the 20 classes \(0 to 19\)"),
        ("2007_999999", r"own\.txt:2: image .*JPEGImages/2007_999999\.jpg is missing"),
        ("/JPEGImages/gone.jpg", r"own\.txt:2: image .*JPEGImages/gone\.jpg is missing"),
    ],
)
def test_bad_lines_name_file_and_line(root, line, message):
    write_list(root, "own.txt", ["# first", line])
    with pytest.raises(ValueError, match=message) as caught:
        Voc(root=str(root), train="ImageSets/own.txt").items("weak")
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(root):
    with pytest.raises(ValueError, match=r"data\.train: cannot read .*none\.txt"):
        Voc(root=str(root), train="none.txt").items("weak")
    with pytest.raises(ValueError, match=r"data\.root: .*nowhere is not a folder"):
        Voc(root=str(root / "nowhere")).items("weak")
    with pytest.raises(ValueError, match=r"data\.tags: cannot read .*none\.npy"):
        Voc(root=str(root), tags="none.npy").items("weak")
    (root / "bad.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ValueError, match=r"data\.tags: .*bad\.npy: not a \.npy file"):
        Voc(root=str(root), tags="bad.npy").items("weak")
    (root / "ImageSets" / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match=r"latin\.txt is not UTF-8"):
        Voc(root=str(root), train="ImageSets/latin.txt").items("weak")
    (root / "Annotations" / f"{IDS[1]}.xml").unlink()
    with pytest.raises(ValueError, match=rf"train_aug\.txt:2: no tags in the list, and annotation .*{IDS[1]}\.xml"):
        Voc(root=str(root)).items("weak")
    with pytest.raises(ValueError, match=r"data\.strong: is null; set it to a list of images"):
        Voc(root=str(root)).items("strong")


def test_annotations():
    assert read_annotation(annotation(OBJECTS[IDS[0]]).encode(), "x.xml") == ("aeroplane", "person")
    with pytest.raises(ValueError, match=r"x\.xml: not XML"):
        read_annotation(b"<annotation>", "x.xml")
    bomb = b'<!DOCTYPE a [<!ENTITY b "' + b"c" * 99 + b'">]><annotation>&b;</annotation>'
    with pytest.raises(ValueError, match=r"x\.xml: a document type"):
        read_annotation(bomb, "x.xml")


def test_unknown_class_in_xml(root):
    (root / "Annotations" / f"{IDS[0]}.xml").write_text(annotation([("unicorn", 0)]))
    with pytest.raises(ValueError, match=rf"{IDS[0]}\.xml: unknown class 'unicorn'; allowed: aeroplane, "):
        Voc(root=str(root)).items("weak")


def test_identity_is_the_content_and_not_the_place(root, tmp_path_factory):
    moved = tmp_path_factory.mktemp("moved") / "VOC"
    first = describe(Voc(root=str(root)), "weak")
    root.rename(moved)
    assert describe(Voc(root=str(moved), masks="SegmentationClassAug"), "weak").identity() == first.identity()
    path = moved / "JPEGImages" / f"{IDS[0]}.jpg"
    path.write_bytes(path.read_bytes() + b"\0")
    assert describe(Voc(root=str(moved)), "weak").identity() != first.identity()


def test_from_a_job_file(root):
    assert Source.model_validate({"kind": "voc", "root": str(root)}) == Voc(root=str(root))


def test_importing_the_sources_is_cheap():
    code = "import sys, wsss_ray.data as d; d.load_sources(); print([m for m in ('torch', 'ray', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not LABELME.is_dir(), reason="Debian's labelme-examples, which hold real VOC files, are not installed")
def test_real_voc_files(tmp_path):
    root = LABELME / "semantic_segmentation" / "data_dataset_voc"
    listed = tmp_path / "train.txt"
    listed.write_text("2011_000003\n2011_000006\n2011_000025\n")
    renamed = {"pottedplant": "potted plant", "tvmonitor": "tv/monitor"}
    source = Voc(
        root=str(root),
        train=str(listed),
        val=str(listed),
        masks="SegmentationClassPNG",
        annotations=str(LABELME / "bbox_detection" / "data_dataset_voc" / "Annotations"),
        classes=tuple(renamed.get(name, name) for name in VOC_CLASSES),
    )
    seen = {}
    for item in source.items("val"):
        raw = source.load(item)
        image = normalise_image(raw.image, max_pixels=source.max_pixels)
        assert image.image == raw.image
        mask = normalise_mask(raw.mask, height=image.height, width=image.width, num_labels=21)
        seen[item.image_id] = (image.height, image.width, set(np.unique(decode_gray(mask)).tolist()))
        assert item.tags
    assert seen == {
        "2011_000003": (338, 500, {0, 5, 15, 255}),
        "2011_000006": (375, 500, {0, 9, 15, 18, 255}),
        "2011_000025": (375, 500, {0, 6, 7}),
    }
