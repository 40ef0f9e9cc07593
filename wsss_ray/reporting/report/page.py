"""Render templates and the frame of every report: one HTML file that loads nothing."""

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

from wsss_ray.reporting.headings import kind_words, stage_words
from wsss_ray.reporting.report.markup import css_percent, duration, escape, is_finite, number, shorten, whole

_STYLES = ("style.css", "tables.css", "charts.css", "gallery.css", "sweep.css")
_BETWEEN = re.compile(r">\n\s*<")


class Figure(NamedTuple):
    """One of the large figures in a page's header.

    Attributes:
        title: what the figure is.
        value: the figure in words.
        note: words below it.
        href: address that makes the value a link.
    """

    title: str
    value: str
    note: str | None = None
    href: str | None = None


class Section(NamedTuple):
    """One section of a page. A section with an empty body is left out.

    Attributes:
        anchor: id of the section, to which the navigation links.
        title: heading of the section.
        body: its HTML.
    """

    anchor: str
    title: str
    body: Markup


class PageHeader(NamedTuple):
    """The top of a page.

    Attributes:
        title: name of the run or sweep.
        about: facts by name, such as the method.
        last: what ended at `ended`, such as "last stage finished".
        ended: time in ISO format; an empty one leaves `last` out too.
        figures: main figures.
    """

    title: str
    about: Mapping[str, str]
    last: str
    ended: str
    figures: Sequence[Figure]


def render(name: str, **values: object) -> Markup:
    """Fill a template of `templates/`. Line breaks between two elements do not reach the page.

    Args:
        name: file name of the template.
        values: values by the names that the template uses. All text is escaped.

    Returns:
        The HTML; empty if the template prints nothing.

    Raises:
        jinja2.UndefinedError: if the template uses a name that is not given.

    Example:
        >>> html = render("job.html", job_yaml="name: pets")
    """
    return Markup(_BETWEEN.sub("><", _templates().get_template(name).render(values).strip()))


def page(
    header: PageHeader, sections: Iterable[Section], scripts: Sequence[str] = (), data: Mapping[str, Any] | None = None
) -> bytes:
    """Return a page as UTF-8 HTML.

    Its Content-Security-Policy names the one script by its hash. So nothing else in the page can run, whatever the data contains.

    Args:
        header: top of the page.
        sections: sections of the page, in order.
        scripts: names of files in this folder, which run after `theme.js`.
        data: JSON that these scripts read; None if they read none.

    Example:
        >>> header = PageHeader("pets", {}, "last stage finished", "", figures=[])
        >>> html = page(header, [job("name: pets")])
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
    """Show the job file.

    Args:
        job_yaml: its text.
    """
    return Section("job", "Job", render("job.html", job_yaml=job_yaml))


@cache
def _templates() -> Environment:
    """Load the templates. They escape every value, and an undefined value is an error."""
    loader = PackageLoader("wsss_ray.reporting.report")
    found = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, finalize=escape, trim_blocks=True)
    filters = (css_percent, duration, kind_words, number, shorten, stage_words, whole)
    found.filters |= {words.__name__: _strict(words) for words in filters}
    found.tests["finite"] = _strict(is_finite)
    return found


def _strict(words: Callable[..., Any]) -> Callable[..., Any]:
    """Make a filter raise on an undefined value, which it would show as a missing figure otherwise."""

    @wraps(words)
    def checked(value: object, *more: object) -> Any:
        str(value)  # raises if it is undefined
        return words(value, *more)

    return checked


def _json(data: Mapping[str, Any]) -> Markup:
    """Write JSON that cannot close its `script` element."""
    text = json.dumps(data, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _read(name: str) -> str:
    return (files("wsss_ray.reporting.report") / name).read_text(encoding="utf-8")
