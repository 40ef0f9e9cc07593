"""The layers: import-linter holds them, and the page that explains them shows the same table."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "wsss_ray"


def contracts():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def layers():
    (contract,) = [one for one in contracts() if one["type"] == "layers"]
    return [re.split(r" [|:] ", row) for row in contract["layers"]]


def test_the_page_shows_the_layers_that_are_held():
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", page, flags=re.M)
    assert [re.findall(r"`(\w+)`", row) for row in rows] == layers()


def test_every_package_stands_in_a_layer_and_nothing_lies_beside_them():
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages == {name for row in layers() for name in row}
    assert {path.name for path in PACKAGE.iterdir() if path.is_file()} == {"__init__.py", "__main__.py", "py.typed"}


def test_ray_is_forbidden_to_every_package_but_runners():
    (contract,) = [one for one in contracts() if one.get("forbidden_modules") == ["ray"]]
    packages = {name for row in layers() for name in row}
    assert {name.removeprefix("wsss_ray.") for name in contract["source_modules"]} == packages - {"runners"}


def test_the_contracts_are_kept():
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--config", ROOT / "pyproject.toml"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout
    assert f"{len(contracts())} kept, 0 broken" in done.stdout


def test_core_hands_on_what_authors_import():
    code = "import sys, wsss_ray.core as core; print(all(hasattr(core, name) for name in core.__all__), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == ["True", "False"]
