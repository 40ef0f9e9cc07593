"""What may be wrong with COCO's JSON, and its shapes against those of pycocotools."""

from __future__ import annotations

import re

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.coco_set import LABELS, TRAIN, H, W, annotation, box, change, make_set, mask_of, write
from wsss_ray.data.coco import Coco
from wsss_ray.data.coco_json import read_instances
from wsss_ray.data.coco_masks import draw_labels


@pytest.fixture
def root(tmp_path):
    return make_set(tmp_path)


def test_a_file_is_parsed_once_while_it_stays_the_same(root):
    path = root / "annotations" / "instances_train2014.json"
    first = read_instances(path, "train_annotations")
    assert read_instances(path, "val_annotations") is first
    change(root, lambda content: annotation(content, 900).update(iscrowd=1))
    assert read_instances(path, "train_annotations") is not first


def test_polygons_are_those_of_pycocotools():
    rng = np.random.default_rng(0)
    for _ in range(50):
        height, width = (int(side) for side in rng.integers(1, 60, 2))
        polygons = [(rng.random(2 * rng.integers(3, 9)) * 80 - 10).tolist() for _ in range(rng.integers(1, 4))]
        polygons = [[min(max(value, -max(height, width)), 2 * max(height, width)) for value in one] for one in polygons]
        merged = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
        found = draw(polygons, height, width)
        assert found.sum() == coco_mask.area(merged)
        assert coco_mask.encode(np.asfortranarray(found)) == merged


def test_run_lengths_of_pycocotools():
    rng = np.random.default_rng(1)
    for share in (0, 0.01, 0.5, 0.99, 1):
        inside = np.asfortranarray((rng.random((70, 90)) < share).astype(np.uint8))
        inside[20:50, 30:80] = 1
        shape = coco_mask.encode(inside)
        np.testing.assert_array_equal(draw(shape | {"counts": shape["counts"].decode()}, 70, 90), inside)


def draw(shape, height=H, width=W):
    annotations = [{"id": 7, "category_id": 3, "segmentation": shape}]
    return draw_labels(annotations, height=height, width=width, labels={3: 1}, crowd="background")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([], "it has no polygon; give one, or remove the annotation"),
        ([[1, 2, 3, 4]], "polygon 0 has 4 numbers; expected x and y of three points or more"),
        ([box(0, 0, 1, 1), [1, 2, 3, 4, 5, 6, 7]], "polygon 1 has 7 numbers"),
        ([1, 2, 3, 4], "polygon 0 has 4 numbers"),
        ([[1, 2, 3, 4, 5, "6"]], "polygon 0 is not a list of numbers"),
        ([[1, 2, 3, 4, 5, None]], "polygon 0 is not a list of numbers"),
        ([[1, 2, 3, 4, 5, float("nan")]], "polygon 0 goes far beyond the image, which is 8x6"),
        ([[1, 2, 3, 4, 5, 1e9]], "polygon 0 goes far beyond the image, which is 8x6"),
        (None, "its segmentation is neither polygons nor run lengths"),
        ({"size": [H, W]}, "its segmentation is neither polygons nor run lengths"),
        ({"size": [W, H], "counts": [48]}, r"its run lengths are for the size \[8, 6\], expected \[6, 8\] \(height, width\)"),
        ({"counts": [48]}, "its run lengths are for the size None"),
        ({"size": [H, W], "counts": [3, 4]}, r"its run lengths are not whole numbers that add up to 6 \* 8 pixels"),
        ({"size": [H, W], "counts": [50, -2]}, "its run lengths are not whole numbers"),
        ({"size": [H, W], "counts": [47.0, 1]}, "its run lengths are not whole numbers"),
        ({"size": [H, W], "counts": [10**30]}, "its run lengths are not whole numbers"),
        ({"size": [H, W], "counts": []}, "its run lengths are not whole numbers"),
        ({"size": [H, W], "counts": ""}, "its run lengths are not whole numbers"),
        ({"size": [H, W], "counts": "0\x00"}, "its run lengths are not in COCO's text format"),
        ({"size": [H, W], "counts": "ä"}, "its run lengths are not in COCO's text format"),
        ({"size": [H, W], "counts": "P" * 99}, "its run lengths are not in COCO's text format"),
        ({"size": [H, W], "counts": "P"}, "its run lengths end in the middle of a number"),
    ],
)
def test_bad_shapes_are_their_images_matter(root, shape, message):
    with pytest.raises(ValueError, match=f"^annotation 7: {message}"):
        draw(shape)
    change(root, lambda content: annotation(content, 2500).update(segmentation=shape))
    source = Coco(root=str(root))
    items = source.items("weak")
    assert mask_of(source, items[0]) == LABELS[9]
    raw = source.load(items[1])
    assert raw.mask is None
    assert re.match(f"annotation 2500: {message}", raw.no_mask)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.pop("annotations"), "there is no 'annotations'; expected images, annotations, categories"),
        (lambda c: c.update(images={}), r"not JSON: Expecting \["),
        (lambda c: c["images"].insert(1, 3), r"images\[1\] is 3; expected an object"),
        (lambda c: c["images"][0].pop("id"), r"images\[0\] has no 'id'"),
        (lambda c: c["images"][2].pop("file_name"), r"images\[2\] has no 'file_name'"),
        (lambda c: c["images"][2].update(file_name=" "), r"images\[2\]\.file_name is ' '; expected a name"),
        (lambda c: c["images"][2].update(height="6"), r"images\[2\]\.height is '6'; expected a whole number from 1"),
        (lambda c: c["images"][2].update(width=0), r"images\[2\]\.width is 0; expected a whole number from 1"),
        (lambda c: c["images"][2].update(id=36), r"images\[2\]: the id 36 is used twice"),
        (lambda c: c["images"][2].update(file_name=TRAIN(9) + ".png"), r"images 9 and 30 are both called 'COCO_train2014_0*9'"),
        (lambda c: c["images"].pop(), r"annotations\[0\]\.image_id is 9, which is not one of the 4 images"),
        (lambda c: c["annotations"][1].pop("image_id"), r"annotations\[1\] has no 'image_id'"),
        (lambda c: c["annotations"][1].pop("category_id"), r"annotations\[1\] has no 'category_id'"),
        (
            lambda c: c["annotations"][1].update(category_id=2),
            r"annotations\[1\]\.category_id is 2, which is not one of the 3 categories",
        ),
        (lambda c: c["annotations"][1].update(category_id=True), r"annotations\[1\]\.category_id is True; expected a whole num"),
        (lambda c: c["annotations"][1].update(iscrowd="no"), r"annotations\[1\]\.iscrowd is 'no'; expected 0 or 1"),
        (lambda c: c["annotations"][1].update(id=900), r"annotations\[1\]: the id 900 is used twice"),
        (lambda c: c["categories"][1].update(id=90), r"categories\[1\]: the id 90 is used twice"),
        (lambda c: c["categories"][1].pop("name"), r"categories\[1\] has no 'name'"),
        (lambda c: c["categories"][1].update(name=["x"] * 99), r"categories\[1\]\.name is \['x', .*\.\.\.; expected a name"),
    ],
)
def test_a_file_of_another_form(root, edit, message):
    path = change(root, edit)
    with pytest.raises(ValueError, match=rf"^data\.train_annotations: {path}: {message}") as caught:
        Coco(root=str(root)).items("weak")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"not JSON: Expecting \{: line 1 column 1"),
        ("[]", r"not JSON: Expecting \{"),
        ("{}", "there is no 'images'"),
        ('{"images": []', r"not JSON: Expecting , or \}: line 1 column 14"),
        ('{"images": [PICTURE 2]}', r"not JSON: Expecting , or \]: line 1 column 70"),
        ('{"images": [PICTURE], "categories": [], "annotations": []} {', "not JSON: Extra data: line 1 column 109"),
        ('{"info": {"a"', "not JSON: "),
        ('{"info": ' + "[" * 100_000, "not JSON: "),
        ('{"images": [{"id": 1, "file_name": "a\\', "not JSON: "),
    ],
)
def test_no_json(root, content, message):
    path = write(root, "train", content.replace("PICTURE", '{"id": 1, "file_name": "a.jpg", "height": 1, "width": 1}'))
    with pytest.raises(ValueError, match=rf"^data\.train_annotations: {path}: {message}"):
        Coco(root=str(root)).items("weak")


def test_names_that_are_not_utf8(root):
    path = root / "annotations" / "instances_train2014.json"
    path.write_bytes(path.read_bytes().replace(b'"person"', b'"p\xe9rson"'))
    with pytest.raises(ValueError, match=r"^data\.train_annotations: .*train2014\.json is not UTF-8 text; save it as UTF-8"):
        Coco(root=str(root)).class_names()


def test_classes(root):
    change(root, lambda content: content["categories"][0].update(name="background"))
    with pytest.raises(ValueError, match=r"^data\.train_annotations: .*json: categories: leave 'background' out"):
        Coco(root=str(root)).class_names()
    change(root, lambda content: content["categories"].append({"id": 5, "name": "bus"}))
    different = r"category 5 is missing, in .*train2014\.json bus; both files need the same categories"
    with pytest.raises(ValueError, match=rf"^data\.val_annotations: .*val2014\.json: {different}"):
        Coco(root=str(root)).items("val")
