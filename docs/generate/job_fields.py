"""Write the reference of the job file from its JSON Schema."""

from __future__ import annotations

import importlib
import inspect
import json
from collections import defaultdict
from typing import Any

from commands import cell, flat

from wsss_ray.config.schema import job_schema
from wsss_ray.core.component import Component

_HEAD = ["| field | value | default | |", "|---|---|---|---|"]


def markdown() -> str:
    """Return the fields of the blocks, then those of every method, data source and part, by role."""
    schema = job_schema()
    lines = ["## Blocks", ""]
    for name, block in schema["properties"].items():
        lines += _section(name, block)
    by_role: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    for name, block in schema["$defs"].items():
        by_role[_role(name)].append((name, block))
    for role in sorted(by_role, key=lambda role: (role != "Method", role != "Source", role == "Others", role)):
        lines += [f"## {role}", ""]
        for name, block in sorted(by_role[role], key=lambda one: one[1].get("title", one[0])):
            lines += _section(block.get("title", name), block, name)
    return "\n".join(lines)


def _section(title: str, block: dict[str, Any], name: str | None = None) -> list[str]:
    anchor = f" {{ #{_anchor(name)} }}" if name else ""
    about = inspect.cleandoc(block.get("description", "")).partition("\n\n")[0]
    lines = [f"### {title}{anchor}", "", about, ""]
    while "properties" not in block and "anyOf" in block:
        block = block["anyOf"][0]
    fields = {key: field for key, field in block.get("properties", {}).items() if "const" not in field}
    if not fields:
        return [*lines, f"Value: {_value(block)}.", ""] if "type" in block or "enum" in block else lines
    return [*lines, *_HEAD, *(_row(key, field) for key, field in fields.items()), ""]


def _row(name: str, field: dict[str, Any]) -> str:
    default = f"`{flat(json.dumps(field['default']))}`" if "default" in field else _default_kind(field)
    return f"| `{name}` | {_value(field)} | {default} | {cell(field.get('description', ''))} |"


def _value(field: dict[str, Any]) -> str:
    """Describe what a field may hold."""
    if "$ref" in field:
        return _link(field["$ref"])
    if "allOf" in field:
        links = [_link(case["then"]["$ref"]) for case in field["allOf"] if "required" in case["if"]]
        return " or ".join(dict.fromkeys(links)) or "a block"
    if "anyOf" in field or "oneOf" in field:
        return " or ".join(dict.fromkeys(_value(one) for one in field.get("anyOf") or field["oneOf"]))
    if "enum" in field:
        return ", ".join(f"`{flat(json.dumps(one))}`" for one in field["enum"])
    if "const" in field:
        return f"`{flat(json.dumps(field['const']))}`"
    if field.get("type") == "array":
        items = field.get("prefixItems") or [field.get("items") or {}]
        return f"list of {', '.join(dict.fromkeys(_value(one) for one in items))}"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {field[key]}" for key, sign in bounds.items() if key in field]
    return cell(" ".join([str(field.get("type", "any value")), ", ".join(limits)]).strip())


def _default_kind(field: dict[str, Any]) -> str:
    """Name the part that a role has if the job names none."""
    blocks = [field, *field.get("anyOf", ())]
    cases = [case for block in blocks for case in block.get("allOf", ()) if "not" in case["if"]]
    return _link(cases[0]["then"]["$ref"]) if cases else ""


def _link(reference: str) -> str:
    name = reference.rpartition("/")[2]
    shown = _class(name)
    return f"[`{shown.kind() if shown else name}`](#{_anchor(name)})"


def _anchor(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _class(name: str) -> type[Component] | None:
    """Return the class of a definition; None if it is a block of a sweep."""
    module, _, known = name.rpartition(".")
    found = getattr(importlib.import_module(f"wsss_ray.{module}"), known, None) if module else None
    return found if isinstance(found, type) and issubclass(found, Component) else None


def _role(name: str) -> str:
    """Return the role that a class plays: the nearest base without an implementation that the core or the data sources define."""
    found = _class(name)
    homes = ("wsss_ray.core.", "wsss_ray.data.source")
    bases = [base for base in found.__mro__ if issubclass(base, Component) and base.is_abstract()] if found else []
    return next((base.__name__ for base in bases if base.__module__.startswith(homes)), "Others")
