"""Render the templates in `templates/`.

A template writes whole numbers as they are. Every other value passes a filter that quotes it for the place where it stands, so
that no name, path or URI is read as YAML or as words of a shell. A value without a filter is an error.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Undefined
from markupsafe import Markup  # marks text that is quoted already; Jinja keeps the mark on macros and `{% set %}` blocks

_END = "WSSS_RAY_JOB"
# PyYAML reads these as text, Go's YAML (kubectl, Compose) as booleans and numbers.
_OTHERWISE_IN_GO = re.compile(r"[yYnN]|0o?[0-9_]+|[-+]?[0-9._]+[eE][-+]?[0-9]+")


def render(template: str, **values: object) -> str:
    """Render a template.

    Args:
        template: The name of a file in `templates/`.
        values: What the template may name.

    Returns:
        The text.

    Raises:
        TypeError: if the template writes a value without a filter.
        jinja2.UndefinedError: if the template names a value that is not given.
    """
    return environment().get_template(template).render(values)


def yaml_scalar(value: str) -> Markup:
    """Write a text as a YAML scalar on one line: plain if every reader takes it for this text, quoted otherwise."""
    text = str(value)
    style = None if text.isprintable() and not _OTHERWISE_IN_GO.fullmatch(text) else '"'
    written = yaml.safe_dump([text], default_style=style, allow_unicode=True, width=sys.maxsize)
    return Markup(written.removeprefix("- ").removesuffix("\n"))


def yaml_block(value: str, indent: int) -> Markup:
    """Write a text of whole lines as a YAML block whose lines begin at column `indent`, two columns right of their key."""
    text = str(value)
    lines = text.removesuffix("\n").split("\n")
    if not re.fullmatch(r"\S(.*\S)?\n", text, re.DOTALL) or not all(map(str.isprintable, lines)):
        return yaml_scalar(text)
    return Markup("\n".join(["|", *(" " * indent + line if line else "" for line in lines)]))


def sh(value: str | Sequence[str]) -> Markup:
    """Write a text as one word of a shell, several texts as several words."""
    return Markup(shlex.quote(str(value)) if isinstance(value, str) else shlex.join(value))


def sh_home(value: str) -> Markup:
    """Write a path below the home folder as one word of a shell."""
    return Markup('"$HOME/' + re.sub(r'([\\$`"])', r"\\\1", str(value)) + '"')


def heredoc(value: str) -> Markup:
    """Write a text of whole lines as the input of a shell's command; the shell expands nothing in it.

    Raises:
        ValueError: if a line of the text is the one that ends the input.
    """
    text = str(value)
    assert text.endswith("\n"), "a here-document is whole lines"
    if _END in text.splitlines():
        raise ValueError(f"job file: a line is {_END}, which ends the job file in a shell script. Change that line.")
    return Markup(f"<<'{_END}'\n{text}{_END}")


def comment(value: str) -> Markup:
    """Write a text in a comment, where it stays on its line."""
    return Markup("".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(value)))


def _quoted(value: object) -> object:
    """Refuse a value that no filter has quoted."""
    if isinstance(value, Markup | Undefined) or type(value) is int:
        return value
    raise TypeError(f"{value!r} is written without a filter. Add yaml, block, sh, sh_home, heredoc or comment.")


@cache
def environment() -> Environment:
    """Return the environment of the templates, with the filters above."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=_quoted,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(yaml=yaml_scalar, block=yaml_block, sh=sh, sh_home=sh_home, heredoc=heredoc, comment=comment)
    return made
