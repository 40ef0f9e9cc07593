"""Read YAML as plain data of bounded size and depth: blocks with names, lists, texts, numbers, true, false and null.

Nothing else is built: a date is a text, and a tag that asks for another type is a mistake. All limits hold while the text is
read, so that a hostile file costs no more than a large one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from wsss_ray.core.errors import shown

Place = tuple[str, ...]

MOST_BYTES = 1 << 19
MOST_VALUES = 20_000  # as written; PyYAML takes half a second for them
MOST_LEVELS = 50
_MOST_UNFOLDED = 100_000  # values, if each use of an alias counts
_MOST_DIGITS = 18  # of a whole number: 64 bits hold it
_MOST_NAME = 200  # characters in the name of a field

_TAG = "tag:yaml.org,2002:"
_TYPES = ("null", "bool", "int", "float", "str", "seq", "map")
_NOT_PLAIN = (ValueError, LookupError, TypeError, ArithmeticError, AttributeError)  # of PyYAML's constructors of scalars


class YamlError(ValueError):
    """Raised for a text that is no YAML or no plain data. `line` counts from 1; None if no single line is to blame."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line


@dataclass(frozen=True)
class Plain:
    """The data of a YAML text, and the line that sets each field and list item."""

    values: Any
    lines: dict[Place, int]


def parse_yaml(text: str) -> Plain:
    """Parse YAML.

    Args:
        text: The text, with one document at most.

    Raises:
        YamlError: if the text is too large or too deep, is no YAML, or holds other than plain data. The message is one line.

    Example:
        >>> parse_yaml("run: {seed: 1}").lines[("run", "seed")]
        1
    """
    if len(text) > MOST_BYTES:
        raise YamlError(f"has more than {MOST_BYTES} characters. Make it shorter.")
    loader = None
    try:
        loader = _Loader(text)
        tree = loader.get_single_node()
        if tree is None:
            return Plain(None, {})
        _check_aliases(tree)
        return Plain(apart(loader.construct_document(tree)), dict(_lines(tree, ())))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(f"invalid YAML: the character {_shown(error.character)} is not allowed. Remove it.", line) from error
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or "cannot be parsed"
        tab = ". Indent with spaces, not tabs." if "\\t" in problem else ""
        raise YamlError(f"invalid YAML: {shown(problem, 200)}{tab}", mark.line + 1 if mark else 1) from error
    finally:
        if loader is not None:
            loader.dispose()


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, for plain data alone and within the limits. The line of a mistake is in its mark."""

    yaml_constructors = {
        **{f"{_TAG}{kind}": yaml.SafeLoader.yaml_constructors[f"{_TAG}{kind}"] for kind in _TYPES},
        None: yaml.SafeLoader.construct_undefined,
    }
    yaml_implicit_resolvers = {
        first: [(tag, rule) for tag, rule in rules if tag.removeprefix(_TAG) in (*_TYPES, "merge")]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values, self._levels = 0, 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a value, unless it is one too many, or lies too deep. Names of fields must be text."""
        line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
        self._values += 1
        self._levels += 1
        if self._values > MOST_VALUES:
            raise YamlError(f"holds more than {MOST_VALUES} values. Make it shorter.", line)
        if self._levels > MOST_LEVELS:
            raise YamlError(f"is nested more than {MOST_LEVELS} levels deep. Use fewer levels.", line)
        node = super().compose_node(parent, index)
        self._levels -= 1
        if index is None and isinstance(parent, yaml.MappingNode):
            _check_name(node, line)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct a value, and name the line of a scalar that is none of its type."""
        if not isinstance(node, yaml.ScalarNode):
            return super().construct_object(node, deep)
        line, is_whole = node.start_mark.line + 1, node.tag == f"{_TAG}int"
        if is_whole and len(node.value) > 4 * _MOST_DIGITS:  # before the conversion, which takes long for very many digits
            raise YamlError(f"{shown(node.value, 30)}: a whole number has at most {_MOST_DIGITS} digits.", line)
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, str):
                value.encode()
        except UnicodeEncodeError as error:
            raise YamlError(f"{shown(node.value, 30)}: half of a surrogate pair is no text. Remove it.", line) from error
        except _NOT_PLAIN as error:
            if isinstance(error, YamlError):
                raise
            what = node.tag.removeprefix(_TAG)
            raise YamlError(f"invalid YAML: {shown(node.value, 30)!r} is no {what}. Correct it.", line) from error
        if is_whole and abs(value) >= 10**_MOST_DIGITS:
            raise YamlError(f"{shown(node.value, 30)}: a whole number has at most {_MOST_DIGITS} digits.", line)
        return value


def _shown(character: str | int) -> str:
    return repr(chr(character) if isinstance(character, int) else character)


def _check_name(node: yaml.Node | None, line: int) -> None:
    """Raise YamlError unless a key is a text that fits into a message."""
    if not isinstance(node, yaml.ScalarNode) or node.tag not in (f"{_TAG}str", f"{_TAG}merge"):
        what = shown(node.value, 30) if isinstance(node, yaml.ScalarNode) else "a block or list"
        raise YamlError(f"{what}: is no name of a field. Write a name; quote it if it is a number, a date, yes or no.", line)
    if not node.value.isprintable() or len(node.value) > _MOST_NAME:
        raise YamlError(f"{shown(node.value, 30)}: is no name of a field. Use up to {_MOST_NAME} printable characters.", line)


def _check_aliases(tree: yaml.Node) -> None:
    """Raise YamlError if an alias refers to itself, or if the values, counted once per alias, are too many or too deep."""
    sizes: dict[int, tuple[int, int]] = {}
    open_nodes: set[int] = set()

    def measure(node: yaml.Node) -> tuple[int, int]:
        """Return the number of values in a node, itself included, and the number of its levels."""
        if not isinstance(node, yaml.CollectionNode):
            return 1, 1
        if id(node) in sizes:
            return sizes[id(node)]
        line = node.start_mark.line + 1
        if id(node) in open_nodes:
            raise YamlError("an alias (*name) refers to itself. Write a value in its place.", line)
        open_nodes.add(id(node))
        count, levels = 1, 0
        for part in _parts(node):
            inner, below = measure(part)
            count, levels = count + inner, max(levels, below)
        open_nodes.discard(id(node))
        if count > _MOST_UNFOLDED:
            raise YamlError(f"its aliases (*name) multiply to more than {_MOST_UNFOLDED} values. Use fewer aliases.", line)
        if levels >= MOST_LEVELS:
            raise YamlError(f"is nested more than {MOST_LEVELS} levels deep. Use fewer levels.", line)
        sizes[id(node)] = count, levels + 1
        return sizes[id(node)]

    measure(tree)


def _parts(node: yaml.CollectionNode) -> Iterator[yaml.Node]:
    for part in node.value:
        if isinstance(part, tuple):
            yield from part
        else:
            yield part


def _lines(node: yaml.Node, path: Place) -> Iterator[tuple[Place, int]]:
    """Yield the path and the line of every key and list item. Raises YamlError on a key that is set twice."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            where, line = (*path, str(key.value)), key.start_mark.line + 1
            if key.value in seen and key.tag != f"{_TAG}merge":
                raise YamlError(f"{'.'.join(where)}: is set twice. Remove one.", line)
            seen.add(key.value)
            yield where, line
            yield from _lines(value, where)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            where = (*path, str(index))
            yield where, value.start_mark.line + 1
            yield from _lines(value, where)


def apart(value: Any) -> Any:
    """Copy a value so that blocks behind a YAML alias are separate. Then an override changes only one of them."""
    if isinstance(value, dict):
        return {key: apart(part) for key, part in value.items()}
    return [apart(part) for part in value] if isinstance(value, list) else value
