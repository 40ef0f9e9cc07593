"""From folders of every layout to a job file that plans, and what is said of odd ones."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from tests.photos import COLOURS, class_folders, init, listed, photo, with_masks
from wsss_ray.config.job import load_job
from wsss_ray.ops.spacing import evenly_spaced
from wsss_ray.preflight.survey.files import same_content
from wsss_ray.preflight.survey.sizes import Machine, sizes_for
from wsss_ray.preflight.survey.survey import survey
from wsss_ray.preflight.survey.write import write_job


def test_class_folders_need_no_table(tmp_path):
    root, out = class_folders(tmp_path / "pets"), tmp_path / "job.yaml"
    said = init(root, "--out", out)
    assert "12, median 40 x 30, largest 40 x 30 pixels" in said
    assert "2: cat 6, dog 6; 1.0 tags an image" in said
    assert "fewer than 20 images of cat (6), dog (6)" in said
    assert listed(out) == {"weak": {f"{name}/{k}": (name,) for name in COLOURS for k in range(6)}}
    assert sorted(os.listdir(tmp_path)) == ["job.yaml", "pets"]
    comments = [line for line in out.read_text().splitlines() if "  # " in line]
    assert len(comments) > 12
    assert load_job(out).name == "pets"


@pytest.mark.parametrize("name", ['a b\'s "c"', "Größe: 100 % #1 {x}", "- [x], y", "№ 5 & co; $HOME"])
def test_names_survive(tmp_path, name):
    root = tmp_path / name
    photo(root / name / f"{name}.png", "cat", 1)
    photo(root / "dog" / "b.png", "dog", 2)
    out = tmp_path / f"{name}.yaml"
    init(root, "--out", out)
    assert listed(out) == {"weak": {f"{name}/{name}": (name,), "dog/b": ("dog",)}}
    assert load_job(out).data.root == str(root)


def test_a_path_that_a_job_file_would_change_is_an_error(tmp_path):
    said = init(class_folders(tmp_path / "${HOME}"), "--out", tmp_path / "job.yaml", code=2)
    assert "rename the folder" in said
    assert os.listdir(tmp_path) == ["${HOME}"]


def tables(root):
    rows = [("a.png", ["cat"]), ("b.png", ["dog"]), ("sub/c.png", ["cat", "dog"])]
    (root / "t.csv").write_text("image,tags\n" + "".join(f"{name},{';'.join(tags)}\n" for name, tags in rows))
    yield root / "t.csv"
    (root / "t.json").write_text(json.dumps(dict(rows)))
    yield root / "t.json"
    (root / "t.jsonl").write_text("".join(json.dumps({"image": name, "tags": tags}) + "\n" for name, tags in rows))
    yield root / "t.jsonl"
    pq.write_table(pa.table({"image": [name for name, _ in rows], "tags": [tags for _, tags in rows]}), root / "t.parquet")
    yield root / "t.parquet"


def test_a_table_in_the_folder_beside_it_or_given(tmp_path):
    root = tmp_path / "pics"
    for number, name in enumerate(("a.png", "b.png", "sub/c.png", "unlisted.png")):
        photo(root / name, "cat", number)
    found = {"a": ("cat",), "b": ("dog",), "sub/c": ("cat", "dog")}
    for place in (root, tmp_path):
        for path in tables(place):
            out = tmp_path / "job.yaml"
            named = path if place is root else path.rename(tmp_path / f"tags{path.suffix}")
            said = init(root, "--out", out, "--force")
            assert f"a table of tags, {named}" in said
            assert "1 not in the table (images without tags are no use to a classifier): unlisted.png" in said
            assert listed(out) == {"weak": found}
            named.unlink()
    (path, *_) = tables(tmp_path)
    init(root, "--tags", path, "--out", tmp_path / "job.yaml", "--force")
    assert listed(tmp_path / "job.yaml") == {"weak": found}


def test_what_a_table_gets_wrong_is_left_out_in_a_table_of_the_jobs_own(tmp_path):
    root, out = tmp_path / "pics", tmp_path / "job.yaml"
    for number, name in enumerate(("a.png", "b.png", "x/d.png", "e.png", "e.jpg")):
        photo(root / name, "cat", number)
    text = "image,tags\na.png,cat\na.png,dog\nb.PNG,dog\nd,dog\ngone.png,dog\ne.png,cat\ne.jpg,cat\nt.png,cat\n"
    (root / "tags.csv").write_text(text)
    said = init(root, "--out", out)
    assert "2 named in tags.csv and missing in the folder: gone.png, t.png" in said
    assert "1 named like another image except for the extension: e.jpg" in said
    assert listed(out) == {"weak": {"a": ("cat", "dog"), "b": ("dog",), "x/d": ("dog",), "e": ("cat",)}}
    assert (root / "tags.csv").read_text() == text
    assert "made by init" in out.read_text()
    again = init(root, "--out", out, "--force")
    assert again.splitlines()[0] == said.splitlines()[0], "the table that it wrote is not taken for the user's"


def test_odd_files_are_named(tmp_path):
    root, out = class_folders(tmp_path / "pets", each=30), tmp_path / "job.yaml"
    (root / "cat" / "empty.jpg").write_bytes(b"")
    (root / "cat" / "page.jpg").write_text("<html>")
    whole = photo(root / "cat" / "torn.png", "cat", 77).read_bytes()
    (root / "cat" / "torn.png").write_bytes(whole[: len(whole) // 2])
    photo(root / "cat" / "print.jpg", mode="CMYK")
    Image.fromarray(np.full((30, 40), 40_000, np.uint16)).save(root / "dog" / "deep.png")
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    frames[0].save(root / "dog" / "moving.gif", save_all=True, append_images=frames[1:])
    photo(root / "dog" / "A.png", "dog", 5)
    photo(root / "dog" / "a.png", "dog", 6)
    photo(root / "dog" / "huge.png", "dog", 7, size=(1200, 900))
    (root / "dog" / "copy.png").write_bytes((root / "dog" / "1.png").read_bytes())
    (root / "cat" / "other.png").write_bytes((root / "dog" / "1.png").read_bytes())
    (root / "phone.heic").write_bytes(b"x")
    photo(root / "loose.png", "dog", 8)
    said = init(root, "--out", out)
    assert "the file is empty (0 bytes); copy it again" in said
    assert "page.jpg: not an image in a format" in said
    assert "torn.png: truncated or damaged PNG file" in said
    for what in ("1 16-bit", "1 CMYK", "1 animated", "dog/A and dog/a", "1 in no class folder: loose.png", "largest 1200 x 900"):
        assert what in said, what
    assert "1 with the ending .heic, which is not read; save as JPEG" in said
    assert "1 image is there more than once, in 3 files: " in said
    assert "different tags: cat/other.png (cat) and dog/1.png (dog)" in said
    ids = listed(out)["weak"]
    assert {"cat/print", "dog/deep", "dog/moving", "dog/a", "dog/A"} <= set(ids)
    assert not {"cat/empty", "cat/page", "cat/torn", "loose"} & set(ids), "a table of its own leaves them out"


def test_copies_are_found_by_content(tmp_path):
    contents = {"a": b"x" * 20_000, "b": b"x" * 20_000, "c": b"x" * 9_999 + b"y" + b"x" * 10_000, "d": b"", "e": b"", "f": b"z"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    groups = same_content({str(tmp_path / name): len(content) for name, content in contents.items()})
    assert groups == [[str(tmp_path / "a"), str(tmp_path / "b")]], "the ends of c are those of a, and empty files are no copies"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no images; init reads these layouts"),
        ({"a.png": 1, "b.png": 2}, "2 images, and nothing that gives them tags; init reads these layouts"),
        ({"images/a.png": 1}, "nothing that gives them tags"),
        ({"a.heic": None}, r"no images (1 .heic cannot be read: save them as JPEG)"),
        ({"a.png": 1, "tags.csv": "file,label\na.png,cat\n"}, "the column must be called 'image' (found: file, label)"),
        ({"c/a.png": 1, "t.csv": "image,tags\nc/a,x\n", "u.csv": "image,tags\nc/a,y\n"}, "say which by --tags"),
        ({"cat/a.jpg": None, "dog/b.jpg": None}, "none of the 2 images can be read"),
    ],
)
def test_what_cannot_be_understood_is_one_message(tmp_path, files, message):
    root = tmp_path / "mine"
    root.mkdir()
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, int):
            photo(path, number=content)
        else:
            path.write_text(content or "")
    said = init(root, "--out", tmp_path / "job.yaml", code=2)
    assert message in said
    assert os.listdir(tmp_path) == ["mine"], "nothing is written"


def test_what_is_there_is_not_replaced(tmp_path):
    root, out = class_folders(tmp_path / "pets"), tmp_path / "job.yaml"
    out.write_text("mine")
    assert "replace it by --force" in init(root, "--out", out, code=2)
    assert out.read_text() == "mine"
    out.unlink()
    photo(root / "loose.png")
    (tmp_path / "job.tags.jsonl").write_text("mine")
    assert "job.tags.jsonl: is there already" in init(root, "--out", out, code=2)
    assert not out.exists()
    init(root, "--out", out, "--force")
    assert "no folder" in init(root, "--out", tmp_path / "nowhere" / "job.yaml", code=2)
    assert "is a file" in init(out, "--out", tmp_path / "other.yaml", code=2)


def test_sizes_follow_the_machine_and_the_data():
    laptop = sizes_for(Machine(2, 16e9), [400] * 9, 1000)
    assert (laptop.side, laptop.max_side, laptop.epochs, laptop.workers, laptop.micro_batch) == (256, 384, 8, 1, 20)
    big = sizes_for(Machine(64, 256e9, (24e9,) * 4), [400] * 9, 1000)
    assert (big.side, big.workers, big.loader_workers, big.gpu) == (384, 4, 8, True)
    assert sizes_for(Machine(2, 1e9), [400], 1000).micro_batch < 20
    assert sizes_for(Machine(2, 16e9), [400], 100_000).epochs == 1
    assert sizes_for(Machine(2, 16e9), [400], 20).epochs == 60
    assert sizes_for(Machine(8, 16e9), [100], 400).shard == 12, "enough shards for all CPUs"


def test_a_job_for_gpus_is_valid_too(tmp_path):
    found = survey(with_masks(tmp_path / "pets"), machine=Machine(32, 128e9, (80e9, 80e9)))
    write_job(found, tmp_path / "gpu.yaml", force=False)
    job = load_job(tmp_path / "gpu.yaml")
    assert job.run.workers == 2
    assert job.method.classifier.trunk.kind() == "resnet"
    assert "2 GPUs" in (tmp_path / "gpu.yaml").read_text()
    assert yaml.safe_load((tmp_path / "gpu.yaml").read_text())["method"]["segmenter"]["trunk"]["depth"] == 50


def test_samples_are_spread():
    assert evenly_spaced(range(10), 4) == [0, 3, 6, 9]
    assert evenly_spaced(range(3), 4) == [0, 1, 2]


def test_a_folder_of_masks_that_is_not_there_names_one_that_is(tmp_path):
    root = with_masks(tmp_path / "pets")
    with pytest.raises(ValueError, match=r"--masks .*nowhere: is no folder; give the folder of the PNG masks, such as .*masks$"):
        survey(root, masks=Path("nowhere"), machine=Machine(2, 8e9))
