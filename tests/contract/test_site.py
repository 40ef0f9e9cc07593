"""The site of docs/: every page has its place in the navigation, links and values are true, and it builds strictly."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from tests.pages import GROUP, PAGES, ROOT, name_of, outside_blocks
from wsss_ray.config.job import load_job

LEFT_OUT = {"README.md": "docs/index.md is the site's first page"}
PAPERS = ("cam", "dsrg", "mdc", "ficklenet", "rrm", "multi_estimations", "psa", "mctformer", "clip_es")
NEEDS = ("mkdocs", "material", "mkdocstrings", "mkdocstrings_handlers.python")


class Tolerant(yaml.SafeLoader):
    """YAML without the tags of mkdocs."""


def configuration():
    return yaml.load((ROOT / "mkdocs.yml").read_text(), Loader=Tolerant)


def in_navigation(part):
    """The pages of the navigation in order."""
    for one in part:
        for value in one.values() if isinstance(one, dict) else [one]:
            yield from in_navigation(value) if isinstance(value, list) else [value]


def place(page):
    """Where the site has a page of the repository."""
    return name_of(page).removeprefix("docs/")


def test_every_page_is_in_the_navigation_or_named_as_left_out():
    listed = list(in_navigation(configuration()["nav"]))
    pages = {place(page) for page in (*PAGES, ROOT / "CHANGELOG.md")}
    assert len(listed) == len(set(listed))
    assert set(listed) == pages - LEFT_OUT.keys()
    assert LEFT_OUT.keys() <= pages


def test_the_list_of_pages_in_the_repository_is_the_navigation():
    text = (ROOT / "docs/index.md").read_text()
    linked = {path.removeprefix("../") for path in re.findall(r"\]\(([^)#]+\.md)", text)} | {"index.md"}
    manifests = {name for name in in_navigation(configuration()["nav"]) if name.startswith("cluster/")}
    assert linked == set(in_navigation(configuration()["nav"])) - manifests


def test_the_first_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 80


def test_the_extra_has_what_the_site_is_built_with():
    extra = (ROOT / "pyproject.toml").read_text().partition("\ndocs = [")[2].partition("]\n")[0]
    assert all(re.search(rf'"{name}(\[python\])?>=[\d.]+,<\d+"', extra) for name in ("mkdocs-material", "mkdocstrings"))


# -- the pages of the papers ---------------------------------------------------------------------------------------------------


def inside(part, path):
    for step in path.split("."):
        part = part[int(step)] if step.isdigit() else part.kind() if step == "kind" else getattr(part, step)
    return list(part) if isinstance(part, tuple) else part


@pytest.mark.parametrize("name", PAPERS)
def test_a_papers_page_has_the_values_of_its_job(name):
    page = f"docs/methods/{name}.md"
    method = load_job(ROOT / f"jobs/{name}.yaml").method
    rows = [re.findall(r"`([^`]+)`", line) for line in outside_blocks(page) if re.match(r"\| `", line)]
    assert len(rows) >= 4
    for part, kind, *values in rows:
        block = inside(method, part)
        assert block.kind() == kind, part
        for value in values:
            field, _, text = value.partition(": ")
            assert inside(block, field) == yaml.safe_load(text), f"{part}.{value}"


@pytest.mark.parametrize("name", PAPERS)
def test_a_papers_page_tells_if_saliency_is_needed_and_the_figure_of_the_job(name):
    text, job = (ROOT / f"docs/methods/{name}.md").read_text(), (ROOT / f"jobs/{name}.yaml").read_text()
    (needed,) = re.findall(r"^\*\*Saliency\*\* is (needed|not needed)", text, re.MULTILINE)
    assert (needed == "needed") == ("kind: saliency_background" in re.sub(r"#.*", "", job))
    for figure in re.findall(r"(\d\d\.\d) mIoU", text):
        assert figure in job
    (row,) = re.findall(rf"^\| \[.*\]\({name}\.md\) \|.*$", (ROOT / "docs/methods/index.md").read_text(), re.MULTILINE)
    assert ("| yes |" in row) == (needed == "needed")
    assert re.findall(r"\d\d\.\d", row) == re.findall(r"(\d\d\.\d) mIoU", text)[:1]


# -- the built site ------------------------------------------------------------------------------------------------------------


class Seen(HTMLParser):
    """Collect what a page links to, loads, and is linked by."""

    def __init__(self):
        super().__init__()
        self.links, self.loaded, self.anchors, self.text = [], [], set(), []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors.add(found.get("id"))
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        elif found.get("src") or (tag == "link" and found.get("href")):
            self.loaded.append(found.get("src") or found["href"])

    def handle_data(self, data):
        self.text.append(data)


def read(page):
    seen = Seen()
    seen.feed(page.read_text(encoding="utf-8"))
    return seen


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site: its pages by their paths."""
    if missing := [name for name in NEEDS if not found(name)]:
        pytest.skip(f"needs the extra docs: no {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("site")
    offline = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    environment = os.environ | offline | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, {page: read(page) for page in folder.rglob("*.html") if page.name != "404.html"}


def found(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_the_site_loads_nothing_from_elsewhere_and_its_links_lead_somewhere(site):
    folder, pages = site
    assert len(pages) == len(list(in_navigation(configuration()["nav"])))
    for page, seen in pages.items():
        for link in seen.loaded:
            assert not urlsplit(link).netloc, f"{page.name} loads {link}"
        for link in (*seen.links, *seen.loaded):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link in (".", ".."):
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert target.is_file(), f"{page.relative_to(folder)}: {link}"
            if parts.fragment and target in pages and not parts.fragment.startswith("__"):
                assert unquote(parts.fragment) in pages[target].anchors, f"{page.relative_to(folder)}: {link}"


def test_the_reference_has_every_command_every_kind_and_the_functions(site):
    folder, pages = site
    commands, fields, python = (pages[folder / f"{name}.html"] for name in ("commands", "job_file", "python_reference"))
    assert GROUP.commands.keys() <= commands.anchors
    options = {opt for command in GROUP.commands.values() for param in command.params for opt in param.opts if opt[:2] == "--"}
    assert all(option in "".join(commands.text) for option in options)
    schema = subprocess.run([sys.executable, "-m", "wsss_ray", "schema"], capture_output=True, text=True, check=True)
    ours = json.loads(schema.stdout)["$defs"]  # of a fresh process, where no test has defined a kind of its own
    assert {name.lower().replace("_", "-").replace(".", "-") for name in ours} <= fields.anchors
    assert {"wsss_ray.load", "wsss_ray.inference.predictor.Predictor"} <= python.anchors
    assert re.search(r"<code>(<[^>]*>)*&gt;&gt;&gt;", (folder / "python_reference.html").read_text()), "examples are code"
    assert not any("<!-- generated" in page.read_text() for page in pages)
