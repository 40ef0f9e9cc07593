"""One's own folder of images with tags in every kind of table."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from wsss_ray.data.folder import Folder
from wsss_ray.data.source import Raw, describe

WANT = {"a": (0, 1), "sub/b": (1,), "c.d": ()}
FILES = ("a.jpg", "sub/b.PNG", "c.d.webp")


def put(path, colour=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 2), (colour, 0, 0)).save(path, format={".png": "PNG", ".webp": "WEBP"}.get(path.suffix.lower(), "JPEG"))


@pytest.fixture
def root(tmp_path):
    for name in (*FILES, "unlisted.jpg"):
        put(tmp_path / "images" / name)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    return tmp_path


def table(root, name, text):
    path = root / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def folder(root, tags, **fields):
    return Folder(root=str(root / "images"), tags=tags, **fields)


def tables(root):
    names = [["cat", "dog"], ["dog"], []]
    records = [{"image": image, "tags": tags} for image, tags in zip(FILES, names, strict=True)]
    yield table(root, "semi.csv", "image,tags\na.jpg,dog;cat\nsub/b,dog\n./c.d.webp,\n")
    yield table(root, "excel.csv", "Image;Tags\r\na;dog,cat\r\nsub/b;dog\r\nc.d;\r\n")
    yield table(root, "tabs.csv", "image\ttags\na\tdog;cat\nsub/b\tdog\nc.d\t\n")
    yield table(root, "comma.csv", '\ufeffimage, tags\r\na, "dog, cat"\r\n"sub/b.PNG",dog|dog\r\nc.d,\r\n')
    yield table(root, "bits.csv", "image,dog,cat\na,1,1.0\nsub\\b,True,0\nc.d,,0\n")
    yield table(root, "map.json", json.dumps(dict(zip(FILES, names, strict=True))))
    yield table(root, "rows.json", json.dumps(records))
    yield table(root, "rows.jsonl", "\n".join(map(json.dumps, records)) + "\n\n")
    for name, columns in (
        ("lists.parquet", {"image": FILES, "tags": names}),
        ("text.parquet", {"image": FILES, "tags": ["cat;dog", "dog", None]}),
        ("bits.parquet", {"image": FILES, "dog": [1, 1, 0], "cat": [True, False, None]}),
    ):
        if name.startswith("bits"):
            columns["cat"] = [1, 0, None]
        pq.write_table(pa.table({key: list(value) for key, value in columns.items()}), root / name)
        yield str(root / name)


def test_every_kind_of_table_says_the_same(root):
    listings = set()
    for tags in tables(root):
        source = folder(root, tags)
        assert source.class_names() == ("cat", "dog"), tags
        assert {item.image_id: item.tags for item in source.items("weak")} == WANT, tags
        assert source.splits() == ("weak",)
        assert not source.has_masks("weak")
        listings.add(describe(source, "weak").listing)
    assert len(listings) == 1


def test_load_and_size(root):
    source = folder(root, table(root, "t.csv", "image,tags\nsub/b,dog\n"))
    (item,) = source.items("weak")
    data = (root / "images" / "sub" / "b.PNG").read_bytes()
    assert source.load(item) == Raw(data)
    assert item.size == len(data)


def test_columns_of_classes_that_never_occur_count(root):
    source = folder(root, table(root, "t.csv", "image,zebra,ant\na,1,0\n"))
    assert source.class_names() == ("ant", "zebra")
    assert source.items("weak")[0].tags == (1,)


def test_given_classes_fix_the_order(root):
    source = folder(root, table(root, "t.csv", "image,tags\na,dog;cat\nsub/b,dog\n"), classes=("dog", "eel", "cat"))
    assert [item.tags for item in source.items("weak")] == [(0, 2), (0,)]


def test_split_column_with_masks_and_saliency(root):
    for name in ("masks/c.d.png", "masks/a.png", "maps/a.png", "maps/sub/b.png"):
        put(root / name, colour=7)
    tags = table(root, "t.csv", "image,tags,split\na,cat,train\nsub/b,dog,\nc.d,cat,VAL\nunlisted,dog,test\n")
    source = folder(root, tags, masks=str(root / "masks"), saliency=str(root / "maps"))
    assert source.splits() == ("weak", "val", "saliency")
    assert [item.image_id for item in source.items("weak")] == ["a", "sub/b"]
    assert [item.mask for item in source.items("weak")] == [str(root / "masks" / "a.png"), None]
    assert [item.image_id for item in source.items("val")] == ["c.d"]
    assert [item.path for item in source.items("saliency")] == [str(root / "maps" / name) for name in ("a.png", "sub/b.png")]
    assert source.has_masks("weak")
    assert source.has_masks("val")
    (item,) = source.items("val")
    assert source.load(item).mask == (root / "masks" / "c.d.png").read_bytes()
    assert item.size == Path(item.path).stat().st_size + Path(item.mask).stat().st_size
    assert folder(root, tags).splits() == ("weak",)  # nothing to score with
    (root / "masks" / "c.d.png").unlink()
    with pytest.raises(ValueError, match=r"t\.csv:4: mask .*c\.d\.png is missing"):
        source.items("val")
    (root / "maps" / "a.png").unlink()
    with pytest.raises(ValueError, match=r"data\.saliency: .*a\.png is missing"):
        source.items("saliency")


def test_val_table(root):
    put(root / "masks" / "a.png")
    tags = table(root, "t.csv", "image,tags\nsub/b,dog\n")
    val = table(root, "v.json", '{"a.jpg": ["dog"]}')
    source = folder(root, tags, val=val, masks=str(root / "masks"))
    assert source.splits() == ("weak", "val")
    assert [item.image_id for item in source.items("val")] == ["a"]
    with pytest.raises(ValueError, match="val is set but masks is not"):
        folder(root, tags, val=val)


def test_class_folders(tmp_path):
    for name in ("dog/1.jpg", "cat/2.jpg", "cat/more/3.jpg", "cat/9.jpg", "masks/cat/9.png", ".trash/x.jpg"):
        put(tmp_path / name)
    val = table(tmp_path, "v.json", '{"cat/9.jpg": ["cat"]}')
    source = Folder(root=str(tmp_path), masks=str(tmp_path / "masks"), val=val)
    assert source.class_names() == ("cat", "dog")
    assert {item.image_id: item.tags for item in source.items("weak")} == {"cat/2": (0,), "cat/more/3": (0,), "dog/1": (1,)}
    assert [item.image_id for item in source.items("val")] == ["cat/9"]
    put(tmp_path / "loose.jpg")
    with pytest.raises(ValueError, match=r"loose\.jpg is not in a class folder"):
        source.items("weak")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "image,tags\na,cat\ngone.jpg,dog\n", r"t\.csv:3: image 'gone\.jpg' is not in .*images"),
        ("t.csv", "image,tags\na.png,cat\n", r"t\.csv:2: image 'a\.png' is not in"),
        ("t.csv", "file,tags\na,cat\n", r"t\.csv:2: no image is named; the column must be called 'image' \(found: file, tags\)"),
        ("t.csv", "image\na\n", r"t\.csv:2: no tags; give a column 'tags'"),
        ("t.csv", "image,cat\na,2\n", r"t\.csv:2: column 'cat' holds '2'; expected 0 or 1"),
        ("t.csv", "image,tags\na,cat,dog\n", r"t\.csv:2: more cells"),
        ("t.csv", "image,tags\na\n", r"t\.csv:2: fewer cells"),
        ("t.csv", "image,tags\n", r"t\.csv holds no images"),
        ("t.csv", "", r"t\.csv holds no images"),
        ("t.csv", "image,tags\na,background\n", "background is label 0"),
        ("t.csv", "image,tags\na,\n", "no class is named"),
        ("t.json", '{"a.jpg": 3}', r"t\.json: a\.jpg: tags are 3; expected names"),
        ("t.json", "[1]", r"t\.json\[0\]: expected an object"),
        ("t.json", "{", r"t\.json: not JSON"),
        ("t.jsonl", '{"image": "a", "tags": []}\n{oops\n', r"t\.jsonl:2: not JSON"),
        ("t.parquet", "not parquet", r"data\.tags: .*t\.parquet is not a readable Parquet"),
        ("t.txt", "a", r"t\.txt has an unknown format; save it as one of \.csv, \.json, \.jsonl, \.parquet"),
    ],
)
def test_errors_name_the_file_and_the_line(root, name, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        folder(root, table(root, name, text)).items("weak")
    assert "\n" not in str(caught.value)


def test_unknown_class_lists_the_allowed(root):
    tags = table(root, "t.csv", "image,tags\na,cow\n")
    with pytest.raises(ValueError, match=r"t\.csv:2: unknown class 'cow'; allowed: cat, dog"):
        folder(root, tags, classes=("cat", "dog")).items("weak")


def test_ambiguous_name_and_missing_places(root):
    put(root / "images" / "a.png")
    tags = table(root, "t.csv", "image,tags\na,cat\n")
    with pytest.raises(ValueError, match=r"t\.csv:2: image 'a' may be a\.jpg or a\.png; give the extension"):
        folder(root, tags).items("weak")
    assert folder(root, table(root, "u.csv", "image,tags\na.png,cat\n")).items("weak")[0].path.endswith("a.png")
    with pytest.raises(ValueError, match=r"data\.tags: cannot read .*none\.csv"):
        folder(root, str(root / "none.csv")).items("weak")
    with pytest.raises(ValueError, match=r"data\.root: .* is not a folder"):
        Folder(root=str(root / "none"), tags=tags).items("weak")


def test_a_table_that_changes_is_read_again(root):
    path = table(root, "t.csv", "image,tags\na,cat\n")
    assert folder(root, path).class_names() == ("cat",)
    table(root, "t.csv", "image,tags\na,horse\n")
    assert folder(root, path).class_names() == ("horse",)


def test_file_names_of_all_kinds(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    names = ["IMG (1).jpg", "Mum & Dad's.png", "a b+c=d.jpg", unicodedata.normalize("NFD", "Müll.jpg")]
    for name in names:
        (images / name).write_bytes(b"x")
    text = "image,tags\n" + "".join(f'"{unicodedata.normalize("NFC", name)}",cat\n' for name in names)
    split = describe(folder(tmp_path, table(tmp_path, "tags.csv", text)), "weak")
    assert split.num_images == 4
    assert split.summary() == "4 images, 0 with masks; cat 4"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,tags,split\na,cat,tarin\n", r"tags\.csv:2: split is 'tarin'; allowed: train, val, or test"),
        ("image,tags\nimages/a.jpg,cat\n", r"tags\.csv:2: image 'images/a\.jpg' is not in .*; did you mean 'a\.jpg'\?"),
        ("image,tags\nA.JPG,cat\n", r"image 'A\.JPG' is not in .*; did you mean 'a\.jpg'\?"),
        ("image,tags\nnew.heic,cat\n", r"image 'new\.heic' is not in .*formats: \.jpg"),
        ("image,tags\na,cat\na.jpg,cat\n", r"image 'a' is listed twice \(.*a\.jpg\); remove one"),
    ],
)
def test_mistakes_in_a_table_come_with_the_mend(root, text, message):
    with pytest.raises(ValueError, match=message):
        describe(folder(root, table(root, "tags.csv", text)), "weak")


def test_a_mask_folder_that_holds_none_is_a_mistake(root):
    tags = table(root, "tags.csv", "image,tags\na,cat\n")
    with pytest.raises(ValueError, match=r"data\.masks: .*nowhere is not a folder"):
        folder(root, tags, masks=str(root / "nowhere")).items("weak")
    (root / "masks").mkdir()
    with pytest.raises(ValueError, match=r"data\.masks: no image has a mask in .*; that of 'a' would be a\.png"):
        folder(root, tags, masks=str(root / "masks")).items("weak")


def test_at_most_254_classes(root):
    names = ";".join(f"c{k:03d}" for k in range(255))
    with pytest.raises(ValueError, match="255 classes; at most 254"):
        folder(root, table(root, "tags.csv", f"image,tags\na,{names}\n")).class_names()


def test_the_lost_and_found_of_a_disk_is_no_obstacle(root, monkeypatch):
    (root / "images" / "lost+found").mkdir()
    (root / "images" / "private").mkdir()
    refused, scan = ["lost+found"], os.scandir

    def scandir(path):
        if os.path.basename(path) in refused:
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    source = folder(root, table(root, "t.csv", "image,tags\na,cat\n"))
    assert source.items("weak")
    refused.append("private")
    with pytest.raises(PermissionError, match="private"):
        source.items("weak")
