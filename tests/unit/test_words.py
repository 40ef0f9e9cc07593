"""One form for each kind of figure that people read, and nobody who writes percentages in another way."""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path

import pytest

import wsss_ray
from wsss_ray.reporting.words import percent, roughly

SOURCE = Path(wsss_ray.__file__).parent


def test_a_percentage():
    assert [percent(share) for share in (0, 0.0049, 0.614, 1, 1.2)] == ["0 %", "0 %", "61 %", "100 %", "120 %"]
    assert percent(0.0204, digits=1) == "2.0 %"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (99.4, "99 s"), (100, "2 min"), (480, "8 min"), (5940, "99 min"), (6000, "1 h 40 min")]
)
def test_an_estimate_of_a_duration(seconds, text):
    assert roughly(seconds) == text


def own_percentages(tree):
    """The lines of f-strings that write a percentage by themselves. `f"{x}%"` alone is a place in a drawing, as SVG has it."""
    specs = {id(node.format_spec) for node in ast.walk(tree) if isinstance(node, ast.FormattedValue) and node.format_spec}
    for node in ast.walk(tree):
        if not isinstance(node, ast.JoinedStr):
            continue
        parts = [part.value if isinstance(part, ast.Constant) else None for part in node.values]
        if id(node) in specs:
            if str(parts[-1]).endswith("%"):
                yield node.lineno
        elif parts != [None, "%"] and any(
            before is None and after is not None and after.lstrip().startswith("%") for before, after in pairwise(parts)
        ):
            yield node.lineno


def test_percentages_are_written_by_one_function():
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if name not in ("reporting/words.py", "reporting/report/markup.py"):
            found += [f"{name}:{line}" for line in own_percentages(ast.parse(path.read_text()))]
    assert found == [], "use wsss_ray.reporting.words.percent"


def test_the_search_finds_them():
    text = 'f"{x:.0%} of it"\nf"{x}% of it"\nf"{x:.1f} %"\nf"{x:.2f}%"\nf"{x} %d"\n"5 %"'
    assert sorted(own_percentages(ast.parse(text))) == [1, 2, 3, 5]
