"""The commands that the pages show: found in their blocks, tables and prose, and read by the parser of the command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer

from wsss_ray.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md")]
PAGES += sorted(page for folder in ("docs", "benchmarks", "cluster") for page in (ROOT / folder).rglob("*.md"))

GROUP = typer.main.get_command(app)
OPENED = GROUP.make_context("wsss-ray", ["methods"], resilient_parsing=True)


@dataclass(frozen=True)
class Block:
    """Lines that are set apart: fenced, or indented by four."""

    page: str
    line: int
    section: str
    language: str  # of a fence; "" if it is indented
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)


@dataclass(frozen=True)
class Command:
    """One command of a block, its line continued and its comment gone."""

    page: str
    line: int
    section: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {shlex.join(self.words)}"


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: str) -> list[Block]:
    """The blocks of a page in order; a blank line ends an indented one."""
    found, section, fence, kept, start = [], "", None, [], 0
    for number, line in enumerate([*(ROOT / page).read_text().splitlines(), ""], start=1):
        opens = re.match(r"```(\w*)", line)
        indented = fence is None and line.startswith("    ")
        if kept and (opens if fence is not None else not indented):
            found.append(Block(page, start, section, fence or "", tuple(kept)))
            kept = []
        if opens:
            fence = opens[1] if fence is None else None
        elif indented or fence is not None:
            start = start if kept else number
            kept.append(line.removeprefix("    ") if indented else line)
        elif line.startswith("## "):
            section = line.removeprefix("## ")
    return found


def fenced(page: str, language: str) -> list[str]:
    """The texts of a page's fenced blocks in one language."""
    return [block.text for block in blocks(page) if block.language == language]


def outside_blocks(page: str) -> list[str]:
    """A page's lines of prose and of tables."""
    within = {block.line + place for block in blocks(page) for place in range(len(block.lines))}
    return [line for number, line in enumerate((ROOT / page).read_text().splitlines(), start=1) if number not in within]


def commands(block: Block) -> Iterator[Command]:
    """A block's commands: all its lines, or those behind a prompt if it has any; two that `&&` joins are two."""
    joined: list[tuple[int, str]] = []
    for number, line in enumerate(block.lines, start=block.line):
        if joined and joined[-1][1].endswith("\\"):
            joined[-1] = (joined[-1][0], joined[-1][1][:-1] + line.strip())
        else:
            joined.append((number, line))
    prompted = [(number, line[2:]) for number, line in joined if line.startswith("$ ")]
    for number, line in prompted or joined:
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word != "&&":
                words.append(word)
            elif words:
                yield Command(block.page, number, block.section, tuple(words))
                words = []


def spans(page: str) -> Iterator[str]:
    """The commands in backticks; in a table's cell that begins with one, the other spans are commands of wsss-ray too."""
    for line in outside_blocks(page):
        for cell in line.strip("|").split(" | ") if line.startswith("|") else [line]:
            first, *rest = re.findall(r"`([^`]+)`", cell) or [""]
            of_table = line.startswith("|") and first.startswith("wsss-ray ")
            yield first
            yield from (f"wsss-ray {span}" if of_table and not span.startswith("-") else span for span in rest)


def inner(words: tuple[str, ...]) -> list[str] | None:
    """What a command hands to `wsss-ray` or `python -m wsss_ray`, at its beginning or through docker or ray; None if nothing."""
    for place, word in enumerate(words):
        if " " in word and "wsss" in word and (found := inner(tuple(shlex.split(word)))):
            return found
        if word == "wsss-ray" or (word == "wsss_ray" and words[place - 1] == "-m"):
            return list(words[place + 1 :])
    return None


def parse(arguments: list[str]) -> tuple[str, dict]:
    """The command and its values, by the command line's own parser. Raises its errors."""
    name, *rest = arguments
    assert name in GROUP.commands, f"there is no command {name}"
    return name, GROUP.commands[name].make_context(name, rest, parent=OPENED).params


def options() -> set[str]:
    """Every option that some command has."""
    params = [param for command in GROUP.commands.values() for param in command.params]
    return {option for param in params for option in (*param.opts, *param.secondary_opts)} | {"--help", "--version"}
