"""The frame of every report: one HTML file with its styles and scripts inside, which may load nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

from wsss_ray.reporting.report.markup import Markup, escape, join, tag

_STYLES = ("style.css", "tables.css", "charts.css", "gallery.css", "sweep.css")


def render(
    *,
    title: str,
    header: Markup,
    links: Sequence[Markup],
    body: Markup,
    scripts: Sequence[str] = (),
    data: Mapping[str, Any] | None = None,
) -> bytes:
    """A page as UTF-8 HTML. `scripts` are files of this folder beyond the switch of the theme, `data` is what they read.

    The policy names the one script by its hash, so that nothing else in the page can run, whatever the data says.
    """
    script = _script(("theme.js", *scripts))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    navigation = join([*links, tag("button", "Theme: auto", id="theme", type="button", hidden="")])
    page = Template(_read("page.html")).substitute(
        title=escape(title),
        script_hash=digest,
        style="".join(map(_read, _STYLES)),
        header=header,
        navigation=navigation,
        body=body,
        data=tag("script", _json(data), type="application/json", id="data") if data is not None else "",
        script=script,
    )
    return page.encode()


def _script(names: Sequence[str]) -> str:
    """The files as one script with a scope of its own."""
    return '"use strict";\n{\n' + "\n".join(map(_read, names)) + "}\n"


def _json(data: Mapping[str, Any]) -> Markup:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(data, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _read(name: str) -> str:
    return (files("wsss_ray.reporting.report") / name).read_text(encoding="utf-8")
