"""COCO's JSON as other programs write it: what each quirk costs, and that the tags are always kept."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from PIL import Image

from tests.mistakes import JOB
from tests.photos import call, init, photo
from tests.zoo.keeper import packed, tags
from tests.zoo.sets import alternating, coco_json, pictures, polygon
from wsss_ray.config.job import load_job

NAMES = alternating(12)
TAGS = {str(k): (("cat", "dog")[k % 2],) for k in range(12)}
Edit = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True)
class Quirk:
    """A quirk of a JSON with twelve images: the edit, how many masks are packed, and what `init` says."""

    name: str
    edit: Edit
    masks: int
    said: tuple[str, ...] = ()
    not_said: tuple[str, ...] = field(default=("cannot be used",))


def annotations(*places: int, **values: Any) -> Edit:
    """Set fields of annotations, of all without `places`; a value of None in the JSON is null, `...` removes the field."""

    def edit(content: dict[str, Any]) -> None:
        for place, one in enumerate(content["annotations"]):
            if not places or place in places:
                one.update({name: value for name, value in values.items() if value is not ...})
                for name in (name for name, value in values.items() if value is ...):
                    del one[name]

    return edit


def images(**values: Any) -> Edit:
    def edit(content: dict[str, Any]) -> None:
        for one in content["images"]:
            one.update({name: value for name, value in values.items() if value is not ...})
            for name in (name for name, value in values.items() if value is ...):
                del one[name]

    return edit


def renamed(name: Callable[[str], str]) -> Edit:
    return lambda content: [one.update(file_name=name(one["file_name"])) for one in content["images"]]


SHAPELESS = ("12, median 40 x 30", "2: cat 6, dog 6", "note      12 images have objects without a shape that can be drawn")
QUIRKS = [
    Quirk("as it should be", lambda content: None, 12, ("masks     12, drawn", "10 for training, 2 held out")),
    Quirk("boxes only", annotations(segmentation=[]), 0, SHAPELESS, ("masks ", "split ", "val:")),
    Quirk("no segmentation", annotations(segmentation=...), 0, SHAPELESS, ("masks ", "split ")),
    Quirk("null segmentation", annotations(segmentation=None), 0, SHAPELESS, ("masks ",)),
    Quirk("two points", annotations(3, segmentation=[[1, 2, 3, 4]]), 11, ("note      1 image has objects without a shape",)),
    Quirk("one of the polygons with two points", annotations(3, segmentation=[*polygon(), [1, 2, 3, 4]]), 11),
    Quirk("a flat polygon list", annotations(segmentation=polygon()[0]), 12),
    Quirk("null iscrowd", annotations(iscrowd=None), 12),
    Quirk("no iscrowd", annotations(iscrowd=...), 12),
    Quirk("no sizes", images(height=..., width=...), 12),
    Quirk("float sizes", images(height=30.0, width=40.0), 12),
    Quirk(
        "height and width exchanged",
        images(height=40, width=30),
        0,
        ("masks are not used: 12 of 12 sampled masks", "the mask is 30x40, its image 40x30"),
        ("val:",),
    ),
    Quirk("an unused background", lambda content: content["categories"].insert(0, {"id": 9, "name": "_background_"}), 12),
    Quirk(
        "a category that groups the others",
        lambda content: content["categories"].append({"id": 0, "name": "pets"})
        or [one.update(supercategory="pets") for one in content["categories"]],
        12,
        ("pets: groups of categories", "2: cat 6, dog 6"),
    ),
    Quirk("backslashes", renamed(lambda name: f".\\{name}"), 12),
    Quirk("absolute names", renamed(lambda name: f"C:\\Users\\me\\set\\{name}"), 12),
    Quirk("names from elsewhere", renamed(lambda name: f"../../up/{name}"), 12),
    Quirk("no endings", renamed(lambda name: name[:-4]), 12),
]  # fmt: skip


@pytest.fixture(scope="module")
def pictured(tmp_path_factory):
    """Twelve images, to which each quirk has its own JSON and its own folder of links."""
    root = tmp_path_factory.mktemp("pictured")
    pictures(root, NAMES)
    return root


@pytest.mark.parametrize("quirk", QUIRKS, ids=lambda quirk: quirk.name)
def test_every_image_keeps_its_tags(quirk, pictured, tmp_path):
    content = coco_json(NAMES)
    quirk.edit(content)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "pictures").symlink_to(pictured)
    (tmp_path / "set" / "labels.json").write_text(json.dumps(content))
    said = init(tmp_path / "set", "--out", tmp_path / "job.yaml")
    for text in quirk.said:
        assert text in said, said
    for text in quirk.not_said:
        assert text not in said, said
    found = packed(tmp_path / "job.yaml", tmp_path / "store")
    assert {image_id: tag for part in found.values() for image_id, tag in tags(part).items()} == TAGS
    masks = [one.labels for part in found.values() for one in part.values() if one.labels is not None]
    assert len(masks) == quirk.masks
    assert set(masks) <= {(0, 1), (0, 2)}
    assert ("val" in found) == (quirk.masks > 0)


def test_what_is_packed_without_a_mask_is_told(pictured, tmp_path):
    content = coco_json(NAMES)
    for one in content["annotations"][:6]:
        one["segmentation"] = []
    (tmp_path / "labels.json").write_text(json.dumps(content))
    (tmp_path / "pictures").symlink_to(pictured)
    data = f"{{kind: coco, root: {tmp_path}, train_annotations: labels.json, train_images: pictures, val_annotations: null}}"
    (tmp_path / "job.yaml").write_text(JOB.partition("data:\n")[0] + f"data: {data}\n")
    said = call("check", tmp_path / "job.yaml", "--until", "localize")
    assert "images-weak: 12 images, 6 with masks; cat 6, dog 6" in said
    without = "3 of the images that were tried are packed without a mask, such as 0: annotation 1: it has no polygon"
    assert f"warning: images-weak: {without}" in said


def test_classes_are_a_part_of_the_categories(tmp_path):
    """The order of `classes` is that of the labels. Objects of other classes are background, or ignored."""
    names = alternating(4)
    pictures(tmp_path / "images", names)
    content = coco_json(names)
    content["annotations"].append({"id": 99, "image_id": 1, "category_id": 2, "segmentation": polygon(30, 22, 38, 28)})
    (tmp_path / "labels.json").write_text(json.dumps(content))
    init(tmp_path, "--out", tmp_path / "job.yaml")
    text, dog = (tmp_path / "job.yaml").read_text(), (("dog",), (0, 1))
    for given, others, want in (
        (["dog"], "background", {"0": dog, "1": dog, "2": ((), (0,)), "3": dog}),
        (["dog"], "ignore", {"0": (("dog",), (0, 1, 255)), "1": dog, "2": ((), (0, 255)), "3": dog}),
        (["dog", "cat"], "background", {"0": (("dog", "cat"), (0, 1, 2)), "1": dog, "2": (("cat",), (0, 2)), "3": dog}),
    ):
        job = tmp_path / f"{others}{len(given)}.yaml"
        job.write_text(text.replace("data:\n", f"data:\n  classes: {json.dumps(given)}\n  others: {others}\n"))
        found = packed(job, tmp_path / "store")
        assert {name: (one.tags, one.labels) for name, one in found["weak"].items()} == want
    dropped = load_job(tmp_path / "job.yaml", ["data.classes=[dog]", "data.untagged=drop"])
    assert dropped.plan().stages[0].component.num_images == 3
    with pytest.raises(ValueError, match=r"data\.classes: unknown class 'cow'; allowed: cat, dog"):
        load_job(tmp_path / "job.yaml", ["data.classes=[cow]"]).data.class_names()


def test_accents_are_found_in_either_spelling(tmp_path):
    """The JSON has composed letters, and the files have those that macOS writes."""
    for form in ("NFC", "NFD"):
        root, name = tmp_path / form, "Müllers Kätzchen"
        photo(root / f"{unicodedata.normalize('NFD' if form == 'NFC' else 'NFC', name)}.png", "cat")
        photo(root / "dog.png", "dog", 1)
        content = coco_json({f"{unicodedata.normalize(form, name)}.png": "cat", "dog.png": "dog"})
        (root / "labels.json").write_text(json.dumps(content))
        init(root, "--out", tmp_path / f"{form}.yaml")
        found = tags(packed(tmp_path / f"{form}.yaml", tmp_path / f"{form}-store")["weak"])
        composed = {unicodedata.normalize("NFC", image_id): one for image_id, one in found.items()}
        assert composed == {name: ("cat",), "dog": ("dog",)}


def test_a_name_without_ending_that_fits_two_files_is_an_error(tmp_path):
    photo(tmp_path / "a.png", "cat")
    photo(tmp_path / "a.jpg", "dog")
    photo(tmp_path / "b.png", "dog", 1)
    (tmp_path / "labels.json").write_text(json.dumps(coco_json({"a": "cat", "b": "dog"})))
    said = init(tmp_path, "--out", tmp_path / "job.yaml", code=2)
    assert "image 1: image 'a' may be a.jpg or a.png; give the extension" in said


def test_validation_images_without_shapes_are_not_scored(tmp_path):
    for part, shape in (("train", None), ("valid", [])):
        names = alternating(2, part + "{}.png")
        pictures(tmp_path / "set" / part, names)
        (tmp_path / "set" / part / "_annotations.coco.json").write_text(json.dumps(coco_json(names, shape=shape)))
    said = init(tmp_path / "set", "--out", tmp_path / "job.yaml")
    assert "the validation images have no shapes, so they cannot be scored and are not used" in said
    assert list(packed(tmp_path / "job.yaml", tmp_path / "store")) == ["weak"]
    with pytest.raises(ValueError, match=r"data\.val_annotations: no image has a mask: none has a shape that can be drawn"):
        load_job(tmp_path / "job.yaml", ["data.val_annotations=valid/_annotations.coco.json", "data.val_images=valid"]).plan()


def test_lists_of_names_with_spaces(tmp_path):
    names = {"photo.png": "cat", "photo 1.png": "dog", "a #b.png": "cat"}
    pictures(tmp_path, names)
    (tmp_path / "labels.json").write_text(json.dumps(coco_json(names)))
    init(tmp_path, "--out", tmp_path / "job.yaml")
    (tmp_path / "own.txt").write_text("a #b\nphoto.png 0\n2\n")
    job = load_job(tmp_path / "job.yaml", ["data.train=own.txt"])
    assert [item.image_id for item in job.data.items("weak")] == ["a #b", "photo", "photo 1"]
    (tmp_path / "own.txt").write_text("photo 1\n")
    with pytest.raises(ValueError, match=r"own\.txt:1: 'photo 1' is image 'photo 1', or 'photo' and more; give its id instead"):
        job.data.items("weak")


def test_a_jpeg_that_is_turned_and_its_json(tmp_path):
    """A JSON with the size of the upright image is drawn on it; one with the size of the stored pixels is turned with them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for where, size in (("upright", (40, 30)), ("stored", (30, 40))):
        root = tmp_path / where
        for k in range(2):
            photo(root / f"{k}.png", ("cat", "dog")[k], k)
            with Image.open(root / f"{k}.png") as image:
                image.save(root / f"{k}.jpg", exif=exif)
            (root / f"{k}.png").unlink()
        content = coco_json({"0.jpg": "cat", "1.jpg": "dog"})
        for one in content["images"]:
            one["height"], one["width"] = size
        for one in content["annotations"]:
            one["segmentation"] = polygon(10, 8, 25, 28) if where == "upright" else polygon()
        (root / "labels.json").write_text(json.dumps(content))
        said = init(root, "--out", tmp_path / f"{where}.yaml")
        assert f"EXIF turns 2 images with a mask: by their sizes, the masks are drawn on the {where}" in said
        assert load_job(tmp_path / f"{where}.yaml").data.masks_on == where
        found = packed(tmp_path / f"{where}.yaml", tmp_path / f"{where}-store")["weak"]
        assert [(one.size, one.labels) for one in found.values()] == [((40, 30), (0, 1)), ((40, 30), (0, 2))]
