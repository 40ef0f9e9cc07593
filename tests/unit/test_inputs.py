"""Which images a command line names, and how they are called."""

from __future__ import annotations

import os

import pytest

from wsss_ray.data.image_files import bare
from wsss_ray.inference.inputs import list_images


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/x.jpg", "a/deep/y.PNG", "b/x.jpg", "b/notes.txt", "b/.hidden.jpg", ".cache/z.jpg", "out/masks/x.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def names(*patterns, out="out"):
    listing = list_images(patterns, out=out)
    assert len({image.path for image in listing.images}) == len(listing.images)
    return [image.name for image in listing.images]


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["a"], ["deep/y", "x"]),
        (["."], ["a/deep/y", "a/x", "b/x"]),
        (["a/x.jpg"], ["x"]),
        (["a/x.jpg", "b/x.jpg"], ["a/x", "b/x"]),
        (["a", "b"], ["a/deep/y", "a/x", "b/x"]),
        (["*/x.jpg"], ["a/x", "b/x"]),
        (["**/*.jpg"], ["a/x", "b/x"]),
        (["a/../b"], ["x"]),
        (["b", "b/x.jpg", "b/*"], ["x"]),
        (["b/notes.txt"], ["notes.txt"]),
    ],
    ids=" ".join,
)
def test_names_start_at_the_folder_common_to_all(tree, patterns, found):
    assert names(*patterns) == found


def test_two_images_with_one_name_are_refused(tree):
    (tree / "a/x.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a/x.jpg and .*a/x.png would both be written as x; rename one"):
        names("a")


def test_what_is_written_is_not_read(tree):
    with pytest.raises(ValueError, match=r"lies in --out a, where the labels would be written"):
        names("a/x.jpg", out="a")
    with pytest.raises(ValueError, match=r"lies in --out a, where the labels would be written"):
        names("a", out="a")


def test_names_that_cannot_be_written_are_told(tree):
    (tree / "b/line\nbreak.jpg").write_bytes(b"")
    with open(os.fsencode(tree / "b") + b"/\xff.jpg", "wb"):
        pass
    listing = list_images(["b"], out="out")
    assert [image.name for image in listing.images] == ["x"]
    assert [path.rpartition("/")[2] for path, _ in listing.refused] == ["line\\x0abreak.jpg", "\\xff.jpg"]
    assert {reason for _, reason in listing.refused} == {
        "its name holds a backslash, a control character or bytes that are not UTF-8; rename it"
    }


def test_a_file_named_like_a_pattern_is_that_file(tree):
    (tree / "a/[1].jpg").write_bytes(b"")
    assert names("a/[1].jpg") == ["[1]"]


def test_endings():
    assert [bare(name) for name in ("a/x.JPG", "x.tar.gz", "a.png.jpg", "a/.png")] == ["a/x", "x.tar.gz", "a.png", "a/.png"]
