"""Texts held flat: what comes out is what went in, whatever the letters, the hashes and the number."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from wsss_ray.data import flat
from wsss_ray.data.finder import FoundFiles
from wsss_ray.data.flat import Places, Texts, in_order
from wsss_ray.data.tables import read_tag_table

ODD = ["", "a", "müll/é", "日本", "a\u0301", "\udcff broken", "\U0001f600", "\ufeff", "line\u2028break"]


class Alike(str):
    """A text whose hash is that of many others."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 7


def test_texts_come_out_as_they_went_in():
    texts = Texts(ODD)
    texts.append("last")
    texts.extend(["x", ""])
    want = [*ODD, "last", "x", ""]
    assert list(texts) == want
    assert [texts[place] for place in range(len(texts))] == want
    assert (texts[-3], texts[2:5], texts[::4]) == ("last", want[2:5], want[::4])
    for place in (len(want), -len(want) - 1):
        with pytest.raises(IndexError):
            texts[place]


def test_every_text_is_found_at_all_its_places():
    places, rng = Places(), random.Random(0)
    names = [f"{rng.randrange(700)}" for _ in range(2000)]
    seen = set[str]()
    for name in names:
        assert places.add(name) == (name in seen)
        seen.add(name)
    for name in seen:
        assert places.find(name) == [place for place, other in enumerate(names) if other == name]
    assert places.find("none") == []


def test_texts_of_one_hash_are_all_found():
    places = Places()
    assert [places.add(Alike(name)) for name in "abc"] == [False, True, True]
    for number in range(100):
        places.add(f"other {number}")
    assert places.find(Alike("d")) == [0, 1, 2], "the caller compares"


@pytest.mark.parametrize("count", [0, 1, 7, 8, 50])
def test_order_is_that_of_sorted(monkeypatch, count):
    monkeypatch.setattr(flat, "_PIECE", 8)
    rng = random.Random(count)
    names = [f"{rng.choice(ODD)}{rng.randrange(99)}" for _ in range(count)]
    assert list(in_order(iter(names))) == sorted(names)


def test_files_are_found_by_name_extension_and_accents():
    files = FoundFiles(["b.png", "a/x.jpg", "a/x.png", "mu\u0308ll.png", "a.b.tif"])
    assert list(files.names) == ["a.b.tif", "a/x.jpg", "a/x.png", "b.png", "mu\u0308ll.png"]
    assert files.named("a/x") == files.named("a/x.gif") == ["a/x.jpg", "a/x.png"]
    assert files.named("m\u00fcll") == ["mu\u0308ll.png"]
    assert (files.named("a"), files.named("a.b")) == ([], ["a.b.tif"])


def test_a_folder_and_its_table_take_a_few_bytes_of_an_image(tmp_path):
    """Names of 12 letters: an object for each would take hundreds of bytes."""
    count, path = 10_000, tmp_path / "tags.csv"
    with path.open("w") as file:
        file.write("image,tags\n")
        file.writelines(f"{place:08d}.png,{'cat;dog' if place % 2 else 'dog'}\n" for place in range(count))
    read_tag_table(path, "tags")
    tracemalloc.start()
    table = read_tag_table(path, "tags")
    files = FoundFiles(f"{place:08d}.png" for place in range(count))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 110 * count
    assert len(table.rows) == len(files.names) == count
    assert table.rows[-1] == ("00009999.png", ("cat", "dog"), "weak", str(path), ":{line}", count + 1)
    assert table.rows[-1].where == f"{path}:{count + 1}"
    assert sum(1 for _ in table.rows.of_split("weak")) == count
    assert not list(table.rows.of_split("val"))
