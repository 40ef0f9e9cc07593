"""The seeds that a page makes are those of the rule itself, to the pixel, for every recipe: seeds.js against ops/seeds.py."""

from __future__ import annotations

import base64
import html
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from tests.recipes import RULES
from wsss_ray.core.plan import Stage, seed
from wsss_ray.core.threshold import Recipe
from wsss_ray.core.values import Axis, Maps
from wsss_ray.methods.cam import CamLocalizer
from wsss_ray.ops.seeds import resize_maps
from wsss_ray.reporting.report import embedded
from wsss_ray.reporting.report.thresholds import Rule

WEAK = Stage("ingest", "weak", CamLocalizer())
MAPS = Stage("localize", "maps", CamLocalizer(), (("data", WEAK),))
PARTS = [rule for part in RULES if (rule := Rule.of(seed(part, MAPS, WEAK)))]
VALUES = (0.0, 0.01, 0.2, 0.1 + 0.2, 0.5, 0.65, 0.99, 1.0)
SIZE = (23, 31)
SCRIPT = """
const found = given.cases.map(([i, k, value]) => {
  const rule = given.rules[i], ready = prepare(given.images[k], rule);
  return btoa(String.fromCharCode(...seeds(ready, rule.recipe, value)));
});
"""


def maps_of(shape: tuple[int, int, int], tenths: bool = False) -> Maps:
    """As the store holds them, in float16, and in other places than the pixels."""
    rng = np.random.default_rng(len(shape))
    peak = rng.random(shape) ** 2
    if tenths:
        peak = peak.round(1)
    mean = peak * rng.choice([0.25, 0.5, 1.0], shape)
    peak, mean = (part.astype(np.float16).astype(np.float32) for part in (peak, mean))
    return Maps(tuple(range(1, 8, 2))[: len(peak)], peak, mean, Axis(0.07, 0.23), Axis(0.05, 0.19))


def resized(map_CHW: np.ndarray, maps: Maps) -> np.ndarray:
    return resize_maps(map_CHW, *SIZE, maps.rows, maps.columns)


ALONE = maps_of((1, 40, 50))  # nothing hides what this class does not claim
ZERO = np.stack([np.zeros((9, 4), np.float32), maps_of((1, 9, 4)).peak_CHW[0]])  # no class claims by the first
ZEROS = Maps((2, 5), ZERO, ZERO, ALONE.rows, ALONE.columns)
IMAGES = (ALONE, maps_of((4, 7, 5)), maps_of((3, 5, 6), tenths=True), maps_of((1, 1, 1)), ZEROS)


def near_bounds() -> Iterator[float]:
    """Values on which one digit of rounding decides: a pixel's own, and those whose share of the maximum is a pixel's."""
    for part in (ALONE.peak_CHW, ALONE.mean_CHW):
        (map_HW,) = resized(part, ALONE)
        for pixel in map_HW.ravel()[5::60]:
            share = float(pixel) / float(map_HW.max())
            yield from (float(pixel), float(pixel) - 1e-12, share, 1 - share)


def by_node(script: str, folder: Path) -> str:
    program = shutil.which("node")
    if program is None:
        pytest.skip("no node found")
    (folder / "seeds.js").write_text(f"{script}\nconsole.log(JSON.stringify(found));")
    return subprocess.run([program, folder / "seeds.js"], check=True, capture_output=True, text=True, timeout=300).stdout


def by_chromium(script: str, folder: Path) -> str:
    pytest.importorskip("playwright", reason="needs Playwright: pip install playwright")
    from tests.browser import MISSING, chromium

    program = chromium()
    if program is None:
        pytest.skip(MISSING)
    shown = 'document.body.append(Object.assign(document.createElement("pre"), { textContent: JSON.stringify(found) }));'
    (folder / "seeds.html").write_text(f"<!doctype html><meta charset=utf-8><body><script>{script}\n{shown}</script>")
    command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    environment = os.environ | {"HOME": str(folder)}
    page = subprocess.run(
        [*command, (folder / "seeds.html").as_uri()], check=True, capture_output=True, text=True, timeout=300, env=environment
    ).stdout  # fmt: skip
    return html.unescape(page.partition("<pre>")[2].partition("</pre>")[0])


@cache
def expected(i: int, k: int, value: float) -> np.ndarray:
    changed = PARTS[i].at(value)
    assert changed is not None
    return changed.seed(np.zeros((*SIZE, 3), np.uint8), IMAGES[k], None)


@pytest.mark.parametrize("run", [by_node, by_chromium])
def test_python_and_javascript_make_the_same_labels(run: Callable[[str, Path], str], tmp_path: Path) -> None:
    assert len(PARTS) == 2 * 4 * 3 * 3 * 2, "every recipe"
    cases = list(product(range(len(PARTS)), range(len(IMAGES)), VALUES))
    simple = [i for i, part in enumerate(RULES) if part.recipe == Recipe(source=part.source, region=part.region)]
    cases += product(simple, [0], near_bounds())
    images = []
    for maps in IMAGES:
        cues = {rule.stage.id: embedded.runs(rule.cues(resized(maps.peak_CHW, maps), None)) for rule in PARTS}
        packed = {MAPS.id: embedded.maps_json(maps, mean=True)}
        images.append({"width": SIZE[1], "height": SIZE[0], "mask": None, "maps": packed, "cues": cues})
    given = {"rules": [embedded.rule_json(rule, None) for rule in PARTS], "images": images, "cases": cases}
    source = (files("wsss_ray.reporting.report") / "seeds.js").read_text(encoding="utf-8")
    found = json.loads(run(f'"use strict";\n{source}\nconst given = {json.dumps(given)};{SCRIPT}', tmp_path))
    for (i, k, value), text in zip(cases, found, strict=True):
        label = np.frombuffer(base64.b64decode(text), np.uint8).reshape(SIZE)
        np.testing.assert_array_equal(label, expected(i, k, value), err_msg=f"image {k} at {value!r}: {RULES[i].recipe}")
