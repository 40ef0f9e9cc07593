"""What is kept of small files between commands: used while a file is the same, never after it has changed."""

from __future__ import annotations

import os

import pytest

from tests.unit.test_voc import Voc
from wsss_ray.data import remembered
from wsss_ray.data.remembered import Remembered
from wsss_ray.data.stages import stages_of


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(remembered, "_LEAST", 1)
    monkeypatch.setattr(remembered, "_YOUNG_NS", 0)
    return tmp_path / "cache" / "wsss-ray"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text("cat dog")
    return path


def words(path, read, name="a"):
    """The words of a file, by what one command after another finds."""
    known = Remembered("words", "here")
    found = tuple(known.words(name, str(path), lambda data: read.append(path.name) or data.decode().split(" ")))
    known.keep()
    return found


def test_a_file_is_read_once(cache, file):
    read = []
    assert words(file, read) == words(file, read) == ("cat", "dog")
    assert read == ["a.xml"]
    assert len(list(cache.iterdir())) == 1


def test_a_file_that_changed_is_read_again_whatever_its_size_and_times_say(cache, file):
    read, before = [], os.stat(file)
    words(file, read)
    file.write_text("cow pig")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = os.stat(file)
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert words(file, read) == ("cow", "pig")
    assert len(read) == 2


def test_another_file_put_in_its_place_is_read(cache, file, tmp_path):
    read = []
    words(file, read)
    (tmp_path / "b.xml").write_text("cow pig")
    os.replace(tmp_path / "b.xml", file)
    assert words(file, read) == ("cow", "pig")


def test_what_was_written_a_moment_ago_is_not_kept(cache, file, monkeypatch):
    monkeypatch.setattr(remembered, "_YOUNG_NS", 10**18)
    read = []
    words(file, read)
    words(file, read)
    assert len(read) == 2
    assert not cache.exists()


def test_few_files_are_not_kept(cache, file, monkeypatch):
    monkeypatch.setattr(remembered, "_LEAST", 2)
    words(file, [])
    assert not cache.exists()


def test_words_that_do_not_fit_a_line_are_not_kept(cache, file):
    for text in ("cat\tdog", "cat\ndog", "cat\u2028dog", ""):
        file.write_text(text)
        read = []
        assert words(file, read) == words(file, read) == (text,)
        assert len(read) == 2, repr(text)
    file.write_text("cat")
    assert words(file, [], name="a\nb") == ("cat",)
    assert not cache.exists()


DAMAGED = (b"", b"something else\na\t1 2 3 4\tcow", b"wsss-ray 1\na", b"\xff\xfe", b"wsss-ray 1\na\t7 1 1 1\tcow")


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_cache_is_none(cache, file, damage):
    words(file, [])
    (kept,) = cache.iterdir()
    kept.write_bytes(damage)
    assert words(file, []) == ("cat", "dog")


def test_a_cache_that_cannot_be_written_is_none(cache, file, tmp_path):
    (tmp_path / "cache").write_text("a file")
    read = []
    assert words(file, read) == words(file, read) == ("cat", "dog")
    assert len(read) == 2


def test_an_annotation_that_changed_changes_the_plan(cache, tmp_path):
    root = tmp_path / "voc"
    for folder in ("JPEGImages", "Annotations"):
        (root / folder).mkdir(parents=True)
    xml = "<annotation><object><name>{}</name></object></annotation>"
    for name in "ab":
        (root / f"JPEGImages/{name}.jpg").write_bytes(b"x")
        (root / f"Annotations/{name}.xml").write_text(xml.format("cat"))
    (root / "list.txt").write_text("a\nb\n")
    source = Voc(root=str(root), train="list.txt", val=None)
    first = stages_of(source).weak
    assert len(list(cache.iterdir())) == 1
    assert stages_of(source).weak.id == first.id
    assert stages_of(source).weak.component.tagged[7] == 2
    (root / "Annotations/b.xml").write_text(xml.format("dog"))
    assert stages_of(source).weak.id != first.id
    (root / "Annotations/b.xml").unlink()
    with pytest.raises(ValueError, match=r"list\.txt:2: no tags in the list, and annotation .*b\.xml"):
        stages_of(source)
