"""Build the JSON Schema of job files, with which editors complete and check them."""

from __future__ import annotations

from typing import Any, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from wsss_ray.config.job import JobConfig, register
from wsss_ray.config.run import Execution
from wsss_ray.config.sweep import Sweep
from wsss_ray.core.component import Component
from wsss_ray.core.method import Method
from wsss_ray.data.source import Source


def job_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12). For a role, such as a localizer, `kind` picks one of its installed implementations."""
    register()
    sweep = Sweep.model_json_schema(ref_template="#/$defs/{model}")
    definitions: dict[str, Any] = sweep.pop("$defs")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "wsss-ray job",
        "type": "object",
        "additionalProperties": False,
        "if": {"not": {"required": ["base"]}},
        "then": {
            "required": ["name", "method", "data"],
            "properties": {"method": {"required": [Method.tag]}, "data": {"required": [Source.tag]}},
        },
        "properties": {
            "name": _plain(JobConfig, "name"),
            "method": _role(Method, definitions),
            "data": _role(Source, definitions),
            "run": _block(Execution, definitions),
            "sweep": {"anyOf": [sweep, {"type": "null"}]},
            "base": {"type": "string", "description": "Job file that this one is laid over; a path relative to this file."},
        },
        "$defs": definitions,
    }


def _role(role: type[Component], definitions: dict[str, Any], default: type[Component] | None = None) -> dict[str, Any]:
    """Describe a block of the job file. Its tag picks the class whose fields it has; without a tag, it is the default's class."""
    kinds = role.kinds()
    for component in kinds.values():
        _define(component, definitions)
    cases = [
        {"if": {"required": [role.tag], "properties": {role.tag: {"const": kind}}}, "then": _ref(component)}
        for kind, component in kinds.items()
    ]
    if default is not None and not default.is_abstract():
        cases.append({"if": {"not": {"required": [role.tag]}}, "then": _ref(default)})
    return {"type": "object", "properties": {role.tag: {"enum": list(kinds)}}, "allOf": cases}


def _define(component: type[Component], definitions: dict[str, Any]) -> None:
    name = _name(component)
    if name in definitions:
        return
    definitions[name] = {}  # a part may refer to its owner
    block = _block(component, definitions)
    kind = {component.tag: {"const": component.kind()}}
    definitions[name] = {"title": component.kind(), **block, "properties": kind | block["properties"]}


def _block(model: type[BaseModel], definitions: dict[str, Any]) -> dict[str, Any]:
    """Describe a block with the fields of a model."""
    return {
        "description": (model.__doc__ or "").strip(),
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _field(model, name, definitions) for name in model.model_fields},
    }


def _field(model: type[BaseModel], name: str, definitions: dict[str, Any]) -> dict[str, Any]:
    field = model.model_fields[name]
    role = _role_of(field)
    if role is None:
        return _plain(model, name)
    is_list = get_origin(field.annotation) is tuple
    default = None if is_list or field.is_required() else field.get_default(call_default_factory=True)
    block = _role(role, definitions, role if is_list else type(default) if isinstance(default, Component) else None)
    has_text = role.from_text.__func__ is not Component.from_text.__func__  # type: ignore[attr-defined]
    others = () if is_list else getattr(field.annotation, "__args__", ())  # beside the block, such as str | SaliencyNet | None
    shorthand = [{"type": "string"}] if has_text or str in others else []
    optional = [{"type": name} for of, name in ((bool, "boolean"), (type(None), "null")) if of in others]
    found = {"anyOf": [block, *shorthand, *optional]} if shorthand or optional else block
    return {"type": "array", "items": found} if is_list else found


def _role_of(field: FieldInfo) -> type[Component] | None:
    """Return the component type of a field, of an optional field, or of a list's items."""
    options = getattr(field.annotation, "__args__", None) or (field.annotation,)
    classes = (option for option in options if get_origin(option) is None and isinstance(option, type))
    return next((option for option in classes if issubclass(option, Component)), None)


def _plain(model: type[Any], name: str) -> dict[str, Any]:
    """Describe a field that is no component."""
    from pydantic import TypeAdapter

    field = model.model_fields[name]
    kind: Any = field.annotation
    for mark in field.metadata:
        from typing import Annotated

        kind = Annotated[kind, mark]
    found = TypeAdapter(kind).json_schema()
    if field.description:
        found["description"] = field.description
    if not field.is_required():
        default = field.get_default(call_default_factory=True)
        found["default"] = list(default) if isinstance(default, tuple) else default
    return found


def _name(component: type[Component]) -> str:
    return f"{component.__module__.removeprefix('wsss_ray.')}.{component.__name__}"


def _ref(component: type[Component]) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{_name(component)}"}
