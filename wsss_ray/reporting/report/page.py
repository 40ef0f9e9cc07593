"""Rendering of templates, and the frame of every report: one HTML file that loads nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, wraps
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from wsss_ray.reporting.report.markup import duration, escape, is_finite, number, percent, shorten, whole

_STYLES = ("style.css", "tables.css", "charts.css", "gallery.css", "sweep.css")
_BETWEEN = re.compile(r">\n\s*<")


class Figure(NamedTuple):
    """One of the large figures in a page's header. `href` makes the value a link."""

    title: str
    value: str
    note: str | None = None
    href: str | None = None


class Section(NamedTuple):
    """One part of a page. The navigation names it by its anchor; without a body it is left out."""

    anchor: str
    title: str
    body: Markup


class PageHeader(NamedTuple):
    """The top of a page: a run's or sweep's name, words about it by what they are, and its main figures.

    `last` says what ended at `ended`, a time in ISO format; an empty time leaves both out.
    """

    title: str
    about: Mapping[str, str]
    last: str
    ended: str
    figures: Sequence[Figure]


def render(name: str, **values: object) -> Markup:
    """Fill a template of `templates/`; empty if it prints nothing.

    Line breaks between two elements are for the reader of the template and do not reach the page. Raises
    jinja2.UndefinedError on a name that is not given.
    """
    return Markup(_BETWEEN.sub("><", _templates().get_template(name).render(values).strip()))


def page(
    header: PageHeader, sections: Iterable[Section], scripts: Sequence[str] = (), data: Mapping[str, Any] | None = None
) -> bytes:
    """Return a page as UTF-8 HTML. `scripts` are files of this folder beyond the switch of the theme, `data` is what they read.

    The policy names the one script by its hash, so that nothing else in the page can run, whatever the data says.
    """
    script = '"use strict";\n{\n' + "\n".join(map(_read, ("theme.js", *scripts))) + "}\n"
    frame = _templates().get_template("page.html")
    return frame.render(
        header=header,
        sections=[section for section in sections if section.body],
        style=Markup("".join(map(_read, _STYLES))),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=None if data is None else _json(data),
    ).encode()


def job(job_yaml: str) -> Section:
    """Show the job file."""
    return Section("job", "Job", render("job.html", job_yaml=job_yaml))


@cache
def _templates() -> Environment:
    """Set the templates up: every value is escaped on its way out, and an undefined one is an error."""
    loader = PackageLoader("wsss_ray.reporting.report")
    found = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, finalize=escape, trim_blocks=True)
    found.filters |= {words.__name__: _strict(words) for words in (duration, number, percent, shorten, whole)}
    found.tests["finite"] = _strict(is_finite)
    return found


def _strict(words: Callable[..., Any]) -> Callable[..., Any]:
    """Let a filter raise on an undefined value, which would pass for a missing figure otherwise."""

    @wraps(words)
    def checked(value: object, *more: object) -> Any:
        str(value)  # raises if it is undefined
        return words(value, *more)

    return checked


def _json(data: Mapping[str, Any]) -> Markup:
    """Write JSON that cannot end the element it stands in."""
    text = json.dumps(data, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _read(name: str) -> str:
    return (files("wsss_ray.reporting.report") / name).read_text(encoding="utf-8")
