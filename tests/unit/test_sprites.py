"""The sprites set: tags agree with masks, scenes are repeatable, splits share no background."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from wsss_ray.data import sprites
from wsss_ray.data.codecs import decode_gray, decode_rgb
from wsss_ray.data.source import describe
from wsss_ray.data.sprites import Sprites

pytestmark = pytest.mark.skipif(
    find_spec("arcade") is None or find_spec("sklearn") is None, reason="arcade's and scikit-learn's pictures are not installed"
)

KNOWN = [["card", "zombie"], ["mouse", "zombie"], ["coin", "person"], ["bee"]]


def scenes(source, split):
    for item in source.items(split):
        raw = source.load(item)
        yield item, decode_rgb(raw.image), decode_gray(raw.mask)


@pytest.mark.parametrize("split", ["weak", "val"])
@pytest.mark.parametrize("objects", [2, 3])
def test_tags_are_exactly_the_labels_of_the_mask(split, objects):
    source = Sprites(train=60, val=60, objects=objects)
    counts = []
    for item, image, mask in scenes(source, split):
        labels = set(np.unique(mask).tolist())
        assert {label - 1 for label in labels - {0}} == set(item.tags)
        assert image.shape == (64, 64, 3)
        assert mask.shape == (64, 64)
        counts.append(len(item.tags))
    assert set(counts) == set(range(1, objects + 1))


def test_occlusion_is_bounded(monkeypatch):
    placed = []
    original = Sprites._place

    def spy(self, kind, rng):
        found = original(self, kind, rng)
        placed.append(int((np.asarray(found[0].getchannel("A")) > 127).sum()))
        return found

    monkeypatch.setattr(Sprites, "_place", spy)
    source = Sprites(train=150, val=0, smallest=0.7)
    redrawn = 0
    for item in source.items("weak"):
        placed.clear()
        mask = decode_gray(source.load(item).mask)
        kinds = source._classes(item.image_id)
        for kind, whole in zip(kinds, placed[-len(kinds) :], strict=True):
            assert (mask == kind + 1).sum() >= 0.4 * whole
        redrawn += len(placed) > len(kinds)
    assert redrawn > 5  # the limit was at work


def test_scenes_are_the_same_in_another_process():
    source = Sprites(train=8, val=0)
    here = hashlib.sha256(b"".join(source.load(item).image + source.load(item).mask for item in source.items("weak"))).hexdigest()
    code = (
        "import hashlib, sys; from wsss_ray.data.sprites import Sprites; s = Sprites(train=8, val=0);"
        "print(hashlib.sha256(b''.join(s.load(i).image + s.load(i).mask for i in s.items('weak'))).hexdigest());"
        "print([m for m in ('arcade', 'sklearn', 'torch', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == [here, "[]"]


def test_known_tags():
    """Tags follow from Python's random() alone, so they hold on every platform and version."""
    names = Sprites().class_names()
    assert len(names) == 12
    found = [[names[tag] for tag in item.tags] for item in Sprites().items("weak")[:4]]
    assert found == KNOWN


def test_what_changes_the_scenes_is_in_the_identity():
    first = describe(Sprites(train=20), "weak")
    assert describe(Sprites(train=20, val=7), "weak").identity() == first.identity()
    for other in ({"seed": 1}, {"size": 96}, {"rotation": 0.0}, {"objects": 1}, {"largest": 0.5}):
        assert describe(Sprites(train=20, **other), "weak").identity() != first.identity(), other
    assert describe(Sprites(train=21), "weak").identity() != first.identity()


def test_seeds_and_splits_differ():
    def pixels(source, split):
        return source.load(source.items(split)[0]).image

    assert len({pixels(Sprites(seed=seed), split) for seed in (0, 1) for split in ("weak", "val")}) == 4
    first, other = Sprites(train=100), Sprites(train=100, seed=1)
    alike = [item for item, twin in zip(first.items("weak"), other.items("weak"), strict=True) if item.tags == twin.tags]
    assert alike
    assert all(first.load(item).mask != other.load(item).mask for item in alike)


def test_splits_see_different_halves_of_the_photographs(monkeypatch):
    boxes = {"weak": [], "val": []}
    source = Sprites(train=100, val=100)

    class Photo:
        width, height = 640, 427

        def __init__(self, split):
            self.split = split

        def resize(self, size, resample, box):
            boxes[self.split].append(box)

    for split in boxes:
        monkeypatch.setattr(sprites, "_photographs", lambda split=split: (Photo(split),))
        rng = random.Random(0)
        for _ in range(200):
            source._background(split, rng)
    assert max(box[2] for box in boxes["weak"]) <= 320 <= min(box[0] for box in boxes["val"])
    assert all(min(box) >= 0 and box[2] <= 640 and box[3] <= 427 for found in boxes.values() for box in found)


def test_no_val_and_unknown_splits():
    source = Sprites(val=0)
    assert source.splits() == ("weak",)
    assert Sprites().splits() == ("weak", "val")
    assert Sprites().has_masks("weak")
    with pytest.raises(ValueError, match=r"data\.strong"):
        source.items("strong")
    with pytest.raises(ValueError, match=r"smallest \(0\.7\) is more than largest \(0\.5\)"):
        Sprites(smallest=0.7, largest=0.5)


@pytest.mark.parametrize(
    ("package", "message"), [("arcade", "pip install --no-deps arcade==3.3.3"), ("sklearn", "pip install scikit-learn")]
)
def test_missing_packages_say_what_to_install(monkeypatch, package, message):
    monkeypatch.setattr(sprites, "find_spec", lambda name: None if name == package else find_spec(name))
    with pytest.raises(ValueError, match=message):
        Sprites().items("weak")


def test_another_arcade_is_refused(monkeypatch):
    monkeypatch.setattr(sprites, "version", lambda name: "4.0")
    with pytest.raises(ValueError, match=r"arcade 3\.3\.3, found 4\.0"):
        Sprites().items("weak")
