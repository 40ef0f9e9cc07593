"""A component: a frozen value whose fields are its configuration and whose methods are its mathematics.

It hashes, pickles to workers and prints as YAML. Its identity is the canonical form of all that decides numbers, defaults
included; fields marked `NotIdentity` (paths) stay out of it, and those marked `SinceThen` while they have their default. Where a
field's type is an abstract role (`Localizer`, `SeedRule`), the job file picks the implementation by its `kind`, the snake-case
name of the class; a block without `kind` changes single fields of the default that stands there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, model_validator
from typing_extensions import Self


class NotIdentity:
    """Marks a field, by `Annotated[str, NotIdentity()]`, that changes no number: where a file lies, not what is in it."""


class SinceThen:
    """Marks a field that came when artifacts were made already: its default is what was done before, and changes no id."""


class Component(BaseModel):
    """A frozen configuration value with behaviour. Raise `revision` when the same fields come to mean other numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), validate_default=True)

    revision: ClassVar[int] = 1
    tag: ClassVar[str] = "kind"

    @classmethod
    def kind(cls) -> str:
        """The name by which a job file picks this class: `StochasticGradCam` is `stochastic_grad_cam`."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower()

    @classmethod
    def is_abstract(cls) -> bool:
        """Whether the class only names a role."""
        return bool(getattr(cls, "__abstractmethods__", None))

    @classmethod
    def kinds(cls) -> dict[str, type[Component]]:
        """All implementations of this role that are imported, by kind; without a kind that several have, as none is meant."""
        return {kind: several[0] for kind, several in cls.by_kind().items() if len(several) == 1}

    @classmethod
    def by_kind(cls) -> dict[str, list[type[Component]]]:
        """All implementations of this role that are imported, by kind: one each, unless two modules took the same name."""
        found: dict[str, list[type[Component]]] = {}
        for sub in sorted(_subclasses(cls), key=lambda sub: (sub.kind(), sub.__module__)):
            several = found.setdefault(sub.kind(), [])
            if not sub.is_abstract() and sub not in several:
                several.append(sub)
        return {kind: several for kind, several in found.items() if several}

    @classmethod
    def from_text(cls, text: str) -> Any:
        """The block that a plain string in a job file stands for, where a role has such a shorthand; else the string."""
        return text

    def spec(self) -> dict[str, Any]:
        """The component as a job file would write it, every default spelt out."""
        return {self.tag: self.kind()} | {name: spec_of(value) for name, value in self}

    def identity(self) -> dict[str, Any]:
        """All that decides numbers, nested: kind, revision and fields, but for those that a mark leaves out."""
        fields = {
            name: _identity(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if not any(isinstance(mark, NotIdentity) for mark in field.metadata)
            and not (any(isinstance(mark, SinceThen) for mark in field.metadata) and getattr(self, name) == field.default)
        }
        return {"kind": self.kind(), "revision": self.revision} | fields

    def parts(self) -> Iterator[Component]:
        """The component itself and every one in it."""
        yield self
        for _, value in self:
            yield from _parts(value)

    def everywhere(self, role: type[Component], **fields: Any) -> Self:
        """The same component, with these values for fields of itself and of every part in it that is a `role`."""
        update = {name: _everywhere(value, role, fields) for name, value in self}
        return self.model_copy(update=update | (fields if isinstance(self, role) else {}))

    @model_validator(mode="wrap")
    @classmethod
    def _resolve(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(value, str):
            value = cls.from_text(value)
        if not isinstance(value, dict):
            return handler(value)
        given = dict(value)
        kind = given.pop(cls.tag, None)
        target = cls if kind in (None, cls.kind()) else cls.kinds().get(kind) if isinstance(kind, str) else None
        if target is None or target.is_abstract():
            if isinstance(kind, str) and (several := cls.by_kind().get(kind, ()))[1:]:
                raise ValueError(f"{cls.tag} is {kind!r}, but {twice(kind, several)}; rename one, or uninstall its plug-in")
            allowed = ", ".join(cls.kinds()) or "none is installed"
            raise ValueError(f"{cls.tag} is {kind!r}, allowed: {allowed}")
        given = {name: _over_default(target, name, part) for name, part in given.items()}
        return handler(given) if target is cls else target.model_validate(given)  # type: ignore[return-value]


def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces, so that equal values have equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def twice(kind: str, several: Sequence[type[Component]]) -> str:
    """What to say of components with one name."""
    return f"{len(several)} components are called {kind}: in {' and '.join(one.__module__ for one in several)}"


def _over_default(owner: type[Component], name: str, given: Any) -> Any:
    """Lay a job file's partial block over the component that stands there by default."""
    field = owner.model_fields.get(name)
    default = field.get_default(call_default_factory=True) if field is not None and not field.is_required() else None
    if not (isinstance(given, dict) and isinstance(default, Component)):
        return given
    return _overlay(default, given)


def _overlay(default: Component, given: dict[str, Any]) -> dict[str, Any]:
    if given.get(default.tag, default.kind()) != default.kind():
        return given
    merged: dict[str, Any] = {default.tag: default.kind()} | dict(default)
    for name, part in given.items():
        inner = merged.get(name)
        merged[name] = _overlay(inner, part) if isinstance(part, dict) and isinstance(inner, Component) else part
    return merged


def _subclasses(cls: type[Component]) -> Iterator[type[Component]]:
    yield cls
    for sub in cls.__subclasses__():
        yield from _subclasses(sub)


def _parts(value: Any) -> Iterator[Component]:
    if isinstance(value, Component):
        yield from value.parts()
    elif isinstance(value, tuple):
        for item in value:
            yield from _parts(item)


def _everywhere(value: Any, role: type[Component], fields: dict[str, Any]) -> Any:
    if isinstance(value, Component):
        return value.everywhere(role, **fields)
    return tuple(_everywhere(item, role, fields) for item in value) if isinstance(value, tuple) else value


def spec_of(value: Any) -> Any:
    """A field's value as a job file would write it."""
    if isinstance(value, Component):
        return value.spec()
    return [spec_of(item) for item in value] if isinstance(value, tuple | list) else value


def _identity(value: Any) -> Any:
    if isinstance(value, Component):
        return value.identity()
    return [_identity(item) for item in value] if isinstance(value, tuple | list) else value
