"""Folders of small photographs in several layouts, and the command that reads them."""

from __future__ import annotations

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from wsss_ray.cli import app
from wsss_ray.config.job import load_job
from wsss_ray.data.stages import stages_of

COLOURS = {"cat": (220, 60, 60), "dog": (60, 60, 220)}


def photo(path, label="cat", number=0, size=(40, 30), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(number)
    pixels = rng.integers(90, 150, (size[1], size[0], 3)).astype(np.uint8)
    pixels[5:20, 8:28] = COLOURS.get(label, (60, 200, 80))
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def mask(path, label, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.zeros((size[1], size[0]), np.uint8)
    labels[5:20, 8:28] = label
    Image.fromarray(labels).save(path)


def class_folders(root, each=6):
    for name in COLOURS:
        for number in range(each):
            photo(root / name / f"{number}.png", name, number + 100 * len(name) + ord(name[0]))
    return root


def call(command, *args, code=0):
    """What a command says; it ends with `code` and without a traceback."""
    result = CliRunner().invoke(app, [command, *map(str, args)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


def init(*args, code=0):
    return call("init", *args, code=code)


def listed(out):
    """The splits of a job file: id -> class names."""
    source = load_job(out).data
    classes, data = source.class_names(), stages_of(source)
    load_job(out).plan(data)
    splits = [split for split in source.splits() if split != "saliency"]
    return {split: {item.image_id: tuple(classes[tag] for tag in item.tags) for item in source.items(split)} for split in splits}


def with_masks(root, each=20, labels=None):
    class_folders(root, each)
    for name, label in (labels or {"cat": 1, "dog": 2}).items():
        for number in range(each):
            mask(root / "masks" / name / f"{number}.png", label)
    return root
