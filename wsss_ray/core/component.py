"""Define components: frozen values whose fields are their configuration and whose methods are their mathematics.

A component can be hashed, pickled to workers and printed as YAML. Its identity is the canonical form of everything that decides
its numbers, defaults included. Marks leave a field out of the identity: `NotIdentity` and `LocalPath` always, `SinceThen` while
the field has its default.

The type of a field may be an abstract role (`Localizer`, `SeedRule`). A job file then picks the implementation by its `kind`, the
name of the class in snake case. A block without `kind` changes single fields of the default.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, model_validator
from typing_extensions import Self


class NotIdentity:
    """Mark a field that changes no number, such as the number of lines to print.

    Example:
        verbose: Annotated[bool, NotIdentity()] = False
    """


@dataclass(frozen=True)
class LocalPath(NotIdentity):
    """Mark a field that holds a path of a file or folder. A moved file has the same content, so it changes no number.

    Jobs that run on other machines must know such fields: the paths are made absolute, mounted, and left out of model cards.

    Args:
        below: field with the folder in which a relative path starts; None for the current folder.
        unless: values that are no paths.

    Example:
        root: Annotated[str, LocalPath()]
        labels: Annotated[str, LocalPath(below="root", unless=("none",))] = "labels.csv"
    """

    below: str | None = None
    unless: tuple[str, ...] = ()


class SinceThen:
    """Mark a field that was added after artifacts had been made. Its default keeps the old numbers and therefore the old ids.

    Example:
        flip: Annotated[bool, SinceThen()] = False
    """


class Component(BaseModel):
    """A frozen configuration value with behaviour.

    `revision` is part of the identity: raise it when the same fields give other numbers than before. `tag` is the key by which a
    job file picks the class. `in_job_files` is False for a class that only code makes; a subclass inherits it.

    Example:
        >>> class Blur(Component):
        ...     sigma: float = 1.0
        >>> Blur(sigma=2.0).spec()
        {'kind': 'blur', 'sigma': 2.0}
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), validate_default=True)

    revision: ClassVar[int] = 1
    tag: ClassVar[str] = "kind"
    in_job_files: ClassVar[bool] = True

    @classmethod
    def kind(cls) -> str:
        """Return the name by which a job file picks this class: `StochasticGradCam` is `stochastic_grad_cam`."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower()

    @classmethod
    def is_abstract(cls) -> bool:
        """Return True if the class is a role without an implementation."""
        return bool(getattr(cls, "__abstractmethods__", None))

    @classmethod
    def kinds(cls) -> dict[str, type[Component]]:
        """Return the imported implementations that a job file can name, by kind. Leave out a kind that several classes share."""
        return {kind: several[0] for kind, several in cls.by_kind().items() if len(several) == 1}

    @classmethod
    def by_kind(cls) -> dict[str, list[type[Component]]]:
        """Return those implementations with every class of a kind: one each, or several from modules that use one name."""
        found: dict[str, list[type[Component]]] = {}
        for sub in sorted(_subclasses(cls), key=lambda sub: (sub.kind(), sub.__module__)):
            several = found.setdefault(sub.kind(), [])
            if sub.in_job_files and not sub.is_abstract() and sub not in several:
                several.append(sub)
        return {kind: several for kind, several in found.items() if several}

    @classmethod
    def from_text(cls, text: str) -> Any:
        """Return the block that a plain string in a job file stands for. A role without a shorthand returns the string.

        Example:
            >>> Trunk.from_text("timm:resnet50d")
            {'kind': 'timm', 'name': 'resnet50d'}
        """
        return text

    def spec(self) -> dict[str, Any]:
        """Return the component as a block of a job file, with all defaults."""
        return {self.tag: self.kind()} | {name: spec_of(value) for name, value in self}

    def identity(self) -> dict[str, Any]:
        """Return everything that decides the numbers: kind, revision and fields, nested. Marked fields may be left out.

        Example:
            >>> Poly(power=0.9).identity()
            {'kind': 'poly', 'revision': 1, 'power': 0.9}
        """
        fields = {
            name: _identity(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if not any(isinstance(mark, NotIdentity) for mark in field.metadata)
            and not (any(isinstance(mark, SinceThen) for mark in field.metadata) and getattr(self, name) == field.default)
        }
        return {"kind": self.kind(), "revision": self.revision} | fields

    def parts(self) -> Iterator[Component]:
        """Yield the component itself and every component inside it."""
        yield self
        for _, value in self:
            yield from _parts(value)

    def everywhere(self, role: type[Component], **fields: Any) -> Self:
        """Return a copy in which every component of type `role`, itself included, has the given fields.

        Example:
            >>> CamClassifier().everywhere(Learner, precision="bfloat16").precision
            'bfloat16'
        """
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
            raise ValueError(f"{cls.tag} is {'missing' if kind is None else repr(kind)}, allowed: {allowed}")
        given = {name: _over_default(target, name, part) for name, part in given.items()}
        return handler(given) if target is cls else target.model_validate(given)  # type: ignore[return-value]


def digest(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def canonical(value: Any) -> str:
    """Return JSON with sorted keys and no spaces. Equal values have equal text.

    Example:
        >>> canonical({"b": 1, "a": [True, None]})
        '{"a":[true,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def twice(kind: str, several: Sequence[type[Component]]) -> str:
    """Return the message about components that share a name."""
    return f"{len(several)} components are called {kind}: in {' and '.join(one.__module__ for one in several)}"


def _over_default(owner: type[Component], name: str, given: Any) -> Any:
    """Complete a partial block of a job file with the fields of the default component."""
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
    """Return a field's value as a job file writes it."""
    if isinstance(value, Component):
        return value.spec()
    return [spec_of(item) for item in value] if isinstance(value, tuple | list) else value


def _identity(value: Any) -> Any:
    if isinstance(value, Component):
        return value.identity()
    return [_identity(item) for item in value] if isinstance(value, tuple | list) else value
