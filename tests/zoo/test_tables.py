"""Tables as spreadsheets and pandas write them: read as meant, or refused with the mend. No tag is invented, and none is lost."""

from __future__ import annotations

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.photos import init, listed, photo
from wsss_ray.data.tables import read_tag_table

WANT = {"a.jpg": ("cat", "dog"), "b.jpg": ("dog",), "7": ()}


def table(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def read(path):
    return {row.image: tuple(sorted(row.tags)) for row in read_tag_table(path, "tags").rows}


READ = {
    "pandas lists": ("t.csv", "image,tags\na.jpg,\"['dog', 'cat']\"\nb.jpg,['dog']\n7,[]\n"),
    "pandas tuples": ("t.csv", "image,tags\na.jpg,\"('dog', 'cat')\"\nb.jpg,\"('dog',)\"\n7,()\n"),
    "JSON lists in cells": ("t.csv", 'image;tags\na.jpg;"[""dog"", ""cat""]"\nb.jpg;["dog"]\n7;\n'),
    "pandas index": ("t.csv", ",image,dog,cat\n0,a.jpg,1,1\n1,b.jpg,1,0\n2,7,0,0\n"),
    "pandas index, read and written twice": ("t.csv", "Unnamed: 0,image,dog,cat\n0,a.jpg,1,1\n1,b.jpg,1,0\n2,7,0,0\n"),
    "Excel's sep": ("t.csv", "sep=;\nimage;tags\na.jpg;dog,cat\nb.jpg;dog\n7;\n"),
    "Excel's empty rows and columns": ("t.csv", "image,tags,,\na.jpg,dog;cat,,\n,,,\nb.jpg,dog,,\n7,,,\n,,,\n"),
    "longer rows that are empty at the end": ("t.csv", "image,tags\na.jpg,dog;cat,,\nb.jpg,dog\n7,\n"),
    "commas in cells of a table with semicolons": ("t.csv", "image;tags\na.jpg;dog,cat\nb.jpg;dog\n7;\n"),
    "upper case": ("t.csv", "IMAGE,Tags\na.jpg,dog;cat\nb.jpg,dog\n7,\n"),
    "upper case in JSON": ("t.jsonl", '{"Image": "a.jpg", "Tags": ["dog", "cat"]}\n{"Image": "b.jpg", "Tags": ["dog"]}\n'
                                      '{"Image": 7, "Tags": []}\n'),
    "one object": ("t.json", '{"a.jpg": ["dog", "cat"], "b.jpg": "dog", "7": null}'),
    "backslashes": ("t.csv", "image,tags\n.\\a.jpg,dog;cat\nb.jpg,dog\n7,\n"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "text"), READ.values(), ids=READ)
def test_read_as_meant(tmp_path, name, text):
    path = table(tmp_path, name, text)
    assert read(path) == WANT
    assert read_tag_table(path, "tags").names == ("cat", "dog")


def test_frames_of_pandas(tmp_path):
    frame = pd.DataFrame({"image": ["a.jpg", "b.jpg", "7"], "tags": [["dog", "cat"], ["dog"], None]})
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "t.csv")
    frame.to_json(tmp_path / "t.json", orient="records")
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    for ending in ("parquet", "csv", "json", "jsonl"):
        assert read(tmp_path / f"t.{ending}") == WANT, ending
    bits = pd.DataFrame({"image": ["a.jpg", "b.jpg", "7"], "dog": [1.0, 1.0, float("nan")], "cat": [True, False, False]})
    bits.set_index(pd.Index([5, 6, 7])).to_parquet(tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet") == WANT
    pq.write_table(pa.table({"image": [7, 12], "tags": ["dog", "cat"]}), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet") == {"7": ("dog",), "12": ("cat",)}


REFUSED = {
    "a column twice": ("t.csv", "image,dog,dog\na,1,0\n", r"t\.csv: column 'dog' is there twice; join the two, or rename one"),
    "a known column twice": ("t.csv", "image,tags,Tags\na,cat,dog\n", r"column 'tags' is there twice"),
    "a key twice": ("t.json", '{"a": ["cat"], "a": ["dog"]}', r"t\.json: 'a' is there twice in one object; join the two"),
    "a key twice in a line": ("t.jsonl", '{"image": "a", "tags": [], "tags": ["x"]}', r"t\.jsonl:1: 'tags' is there twice"),
    "keys that differ in case": ("t.jsonl", '{"image": "a", "tags": [], "Tags": ["x"]}', r"column 'tags' is there twice"),
    "numpy's list": ("t.csv", "image,tags\na,\"['dog' 'cat']\"\n", r"csv:2: tags are .*, which is no list of quoted names; wr"),
    "a list cut off": ("t.csv", "image,tags\na,['dog'\n", r"which is no list of quoted names"),
    "half a list": ("t.csv", "image,tags\na,dog']\n", r"a tag is \"dog'\]\", with a quote or bracket"),
    "text of an empty cell": ("t.csv", "image,tags\na,nan\n", r"a tag is 'nan', which programs write for an empty cell; leave"),
    "None as text": ("t.csv", "image,tags\na,dog;None\n", r"a tag is 'None', which programs write for an empty cell"),
    "a number for a name": ("t.jsonl", '{"image": 1.5, "tags": []}', r"image is 1\.5; write the name of the file as text"),
    "no name in a row": ("t.csv", "image,tags\n,dog\n", r"csv:2: the cell of 'image' is empty; name the file, or remove"),
    "no column image": ("t.csv", "file,tags\na,dog\n", r"no image is named; the column must be called 'image' \(found: file,"),
    "another separator": ("t.csv", "image|tags\na|dog\n", r"\(found: image\|tags\); columns are separated by a comma"),
    "a column without a name": ("t.csv", "image,tags,\na,dog,cat\n", r"t\.csv:2: a column without a name holds 'cat'; name the"),
    "a column that is no class": ("t.csv", "image,dog,width\na,1,640\n", r"column 'width' holds '640'; expected 0 or 1\. Re"),
    "one entry for each column": ("t.json", '{"image": {"0": "a"}, "tags": {"0": "dog"}}', r"one entry for each column; write"),
    "split by pandas": ("t.json", '{"columns": ["image", "tags"], "index": [0], "data": [["a", "dog"]]}', r"for each column"),
    "COCO's JSON": ("t.json", '{"images": [], "categories": [], "annotations": []}', r"is COCO's JSON and no table of tags"),
    "lines named JSON": ("t.json", '{"image": "a", "tags": []}\n{"image": "b", "tags": []}', r"name the file \.jsonl"),
    "numbers for tags": ("t.json", '{"a": [1, 2]}', r"t\.json: a: tags are \[1, 2\]; expected names"),
}


@pytest.mark.parametrize(("name", "text", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_with_the_mend(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_tag_table(table(tmp_path, name, text), "tags")
    assert "\n" not in str(caught.value)


def test_a_column_twice_in_parquet(tmp_path):
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array([1]), pa.array([0])], names=["image", "dog", "dog"])
    pq.write_table(twice, tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t\.parquet: column 'dog' is there twice"):
        read_tag_table(tmp_path / "t.parquet", "tags")


@pytest.mark.parametrize("spelling", [("Dog", "dog"), ("sea lion", "sea_lion"), ("Müll", "Mu\u0308ll")])
def test_two_spellings_of_a_class(tmp_path, spelling):
    for number, kind in enumerate(spelling):
        photo(tmp_path / "photos" / f"{number}.png", "cat", number)
        photo(tmp_path / "folders" / kind / f"{number}.png", "cat", number)
    rows = "".join(f"{number}.png,{kind}\n" for number, kind in enumerate(spelling))
    (tmp_path / "photos" / "tags.csv").write_text("image,tags\n" + rows)
    for folder in ("photos", "folders"):
        said = init(tmp_path / folder, "--out", tmp_path / "job.yaml", code=2)
        assert "are spelled alike; use one spelling, or list each in data.classes to keep them apart" in said
    job = f"name: x\nmethod: {{name: cam}}\ndata: {{kind: folder, root: {tmp_path}/photos, tags: {tmp_path}/photos/tags.csv, "
    (tmp_path / "job.yaml").write_text(job + f"classes: {json.dumps(list(spelling), ensure_ascii=False)}}}\n", encoding="utf-8")
    assert set(listed(tmp_path / "job.yaml")["weak"].values()) == {(spelling[0],), (spelling[1],)}


def test_names_of_another_machine(tmp_path):
    for number, name in enumerate(("cat/1.png", "dog/2.png")):
        photo(tmp_path / "photos" / name, "cat", number)
    (tmp_path / "tags.csv").write_text("image,tags\nD:\\me\\photos\\cat\\1.png,cat\nD:\\me\\photos\\dog\\2.png,dog\n")
    init(tmp_path / "photos", "--tags", tmp_path / "tags.csv", "--out", tmp_path / "job.yaml")
    assert listed(tmp_path / "job.yaml")["weak"] == {"cat/1": ("cat",), "dog/2": ("dog",)}
    assert not (tmp_path / "job.tags.jsonl").exists(), "the data source reads the table as it is"


def test_zeros_that_a_spreadsheet_dropped(tmp_path):
    for number, name in enumerate(("0001.png", "0002.png")):
        photo(tmp_path / "photos" / name, "cat", number)
    (tmp_path / "tags.csv").write_text("image,tags\n1,cat\n2,dog\n")
    job = f"name: x\nmethod: {{name: cam}}\ndata: {{kind: folder, root: {tmp_path}/photos, tags: {tmp_path}/tags.csv}}\n"
    (tmp_path / "job.yaml").write_text(job)
    with pytest.raises(ValueError, match=r"tags\.csv:2: image '1' is not in .*photos; did you mean '0001\.png'\?"):
        listed(tmp_path / "job.yaml")
