"""Packages of others, installed in a folder of their own: the one of docs/adding_a_method.md by pip, small ones by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.pages import ROOT, fenced

PAGE = "docs/adding_a_method.md"

TOY = '''
"""A data set, a trunk and a seed rule of somebody else."""

import io

import numpy as np
from PIL import Image

from wsss_ray.core import Recipe, SeedRule, Threshold
from wsss_ray.data.codecs import encode_labels
from wsss_ray.data.source import Item, Raw, Source
from wsss_ray.nets.small import SmallNet
from wsss_ray.ops.seeds import cut


class ToyNet(SmallNet):
    """The small network, thinner."""

    widths: tuple[int, ...] = (4, 8)
    strides: tuple[int, ...] = (2, 1)


class ToySeeds(SeedRule):
    """A share of the highest value; all else is background."""

    threshold: float = 0.5

    @property
    def by_threshold(self):
        return Threshold(field="threshold", recipe=Recipe(region="of_maximum", winner="nobody", unclaimed="background"))

    def seed(self, image_HWC, maps, saliency_HW):
        return cut(self, image_HWC, maps, saliency_HW)


class ToyImages(Source):
    """Squares and bars."""

    def class_names(self):
        return ("square", "bar")

    def splits(self):
        return ("weak", "val")

    def has_masks(self, split):
        return True

    def items(self, split):
        return [Item(image_id=f"{split}-{k}", tags=(k % 2,)) for k in range(8)]

    def load(self, item):
        image, mask = np.full((32, 32, 3), 120, np.uint8), np.zeros((32, 32), np.uint8)
        image[8:24, 8 : 24 - 8 * item.tags[0]], mask[8:24, 8 : 24 - 8 * item.tags[0]] = 250, item.tags[0] + 1
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="PNG")
        return Raw(image=buffer.getvalue(), mask=encode_labels(mask))
'''

METHOD = '''
"""{paper}"""

from wsss_ray.core import Method
from wsss_ray.methods.cam import Cam


class {name}(Cam):
    """A method of somebody else."""


{rest}
'''


def install_the_page(site: Path, work: Path) -> None:
    """The package of the page, built and installed by pip."""
    (code,), (project,) = fenced(PAGE, "python"), fenced(PAGE, "toml")
    (work / "wsss_ray_otsu").mkdir(parents=True)
    (work / "wsss_ray_otsu/__init__.py").touch()
    (work / "wsss_ray_otsu/otsu.py").write_text(code)
    (work / "pyproject.toml").write_text(project)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--target", str(site), str(work)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def write_distribution(site: Path, name: str, version: str, module: str, code: str) -> Path:
    """A package of one module as an installer leaves it, with an entry point for the module."""
    about = site / f"{name.replace('-', '_')}-{version}.dist-info"
    file = site.joinpath(*module.split(".")).with_suffix(".py")
    for folder in (about, file.parent):
        folder.mkdir(parents=True, exist_ok=True)
    file.write_text(code)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (about / "entry_points.txt").write_text(f"[wsss_ray.plugins]\n{name} = {module}\n")
    return site


def make_site(folder: Path) -> Path:
    """A folder with two packages: the page's, and a data set with a trunk and a seed rule."""
    install_the_page(folder / "site", folder / "source")
    return write_distribution(folder / "site", "toy-parts", "1.2", "toy_parts", TOY)


def environment(*sites: Path) -> dict[str, str]:
    """For a process that sees this checkout, and packages in these folders."""
    clean = {name: value for name, value in os.environ.items() if name not in ("WSSS_RAY_PLUGINS", "RAY_ADDRESS")}
    return clean | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, *sites)))}


def otsu_job(**more: Any) -> dict[str, Any]:
    """A job of the page's method on the toy data, with the toy trunk where a small one will do."""
    trunk, crop, adam = {"kind": "toy_net"}, {"kind": "random_crop", "size": 32}, {"kind": "adam", "lr": 5e-3}
    training = {"trunk": trunk, "batch_size": 4, "epochs": None, "steps": 2, "augment": crop, "optimizer": adam}
    method = {
        "name": "otsu",
        "classifier": training | {"hidden": 16},
        "localizer": {"size": None},
        "seed_rule": {"bins": 16},
        "segmenter": training | {"head": {"hidden": 16, "dilation": 2}},
        "metric": {"crf": None},
    }
    return {"name": "otsu", "method": method, "data": {"kind": "toy_images"}} | more
