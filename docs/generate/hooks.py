"""Hooks of mkdocs: pages from outside of docs/, links as the repository has them, and the pages that are made from the code.

The pages are written to be read in the repository: their links lead to files. Here, links to pages lead to pages of the site, and
other files that a page links to are copied into it. A line `<!-- generated: NAME -->` is replaced by what `MADE[NAME]` returns.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import commands
import job_fields
import public_names
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
FOLDERS = ("benchmarks", "cluster")
OUTSIDE = ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
OUTSIDE += sorted(str(page.relative_to(ROOT)) for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))

MADE: dict[str, Callable[[], str]] = {
    "commands": commands.markdown,
    "job file": job_fields.markdown,
    "python": public_names.markdown,
}
_LINK = re.compile(r"(\]\()(?!https?://|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")
_MARK = re.compile(r"^<!-- generated: (.+) -->$", re.MULTILINE)


def in_repository(src_uri: str) -> str:
    """Return the path in the repository of a page of the site."""
    return src_uri if src_uri in OUTSIDE else f"docs/{src_uri}"


def target_of(page: str, link: str) -> str:
    """Return the path in the repository that a link of a page leads to. A folder stands for its page."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
    return f"{path}/README.md" if (ROOT / path).is_dir() else path


def in_site(path: str) -> str:
    """Return the place in the site of a file of the repository."""
    return path.removeprefix("docs/")


def linked_files(page: str) -> set[str]:
    """Return the files of the repository that a page links to, other than pages of docs/."""
    targets = {target_of(page, link) for _, link, _ in _LINK.findall((ROOT / page).read_text(encoding="utf-8"))}
    return {path for path in targets if not path.startswith("docs/") and (ROOT / path).is_file()}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside of docs/, and the files that any page links to."""
    pages = [in_repository(file.src_uri) for file in files.documentation_pages()] + OUTSIDE
    for path in sorted({*OUTSIDE, *(linked for page in pages for linked in linked_files(page))}):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links of the repository into links of the site, and fill in what is generated."""
    here = in_repository(page.file.src_uri)
    folder = posixpath.dirname(page.file.src_uri)

    def link(found: re.Match[str]) -> str:
        place = posixpath.relpath(in_site(target_of(here, found[2])), folder or ".")
        return f"{found[1]}{place}{found[3] or ''})"

    def made(found: re.Match[str]) -> str:
        return MADE[found[1]]()

    return _MARK.sub(made, _LINK.sub(link, markdown))
