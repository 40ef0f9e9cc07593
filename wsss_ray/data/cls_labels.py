"""Read image tags from `cls_labels.npy`, a file that the code of many papers ships, without unpickling it.

The file is a 0-d object array in .npy format, that is a pickle, which `numpy.load` would execute. This module reads the pickle's
instructions with `pickletools.genops`, and interprets them without importing or calling anything. The few numpy constructors that
occur become plain values; everything else is refused.
"""

from __future__ import annotations

import ast
import pickletools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from wsss_ray.core.errors import in_one_line, shown

_GLOBALS = {
    "numpy.core.multiarray _reconstruct": "reconstruct",
    "numpy._core.multiarray _reconstruct": "reconstruct",
    "numpy.core.multiarray scalar": "scalar",
    "numpy._core.multiarray scalar": "scalar",
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    "_codecs encode": "encode",
}
_CODES = {"f4": "f", "f8": "d", "i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "i8": "q", "u8": "Q", "b1": "?"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NUMBERS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")
_TEXTS = ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING")
_LITERALS = frozenset((*_NUMBERS, *_TEXTS, "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"))
_MARK = object()
_MOST_UNFOLDED = 32  # numbers or characters made of each byte of the file


@dataclass(frozen=True)
class _Symbol:
    """An allowed global of the pickle; only its name is kept."""

    name: str


@dataclass
class _Budget:
    """What may still be made of a file: a short pickle can use one long vector many times."""

    left: int

    def spend(self, count: int) -> None:
        """Take off the size of what is made now. Raises ValueError if too little is left."""
        self.left -= count
        if self.left < 0:
            raise ValueError("its pickle unfolds to much more than the file; refused")


@dataclass
class _Dtype:
    code: str
    order: str = "<"


@dataclass
class _Array:
    values: Sequence[Any] = ()
    ndim: int = 0


def read_cls_labels(data: bytes) -> dict[str, tuple[int, ...]]:
    """Read the tags of images from the bytes of a `cls_labels.npy`. Nothing in the file is executed.

    A string key is an image id. An integer key such as 2007000032 becomes the id "2007_000032".

    Returns:
        A map from image id to the sorted 0-based indices of its tags.

    Raises:
        ValueError: if the content is not a dict from such keys to vectors of numbers.

    Example:
        >>> read_cls_labels(Path("cls_labels.npy").read_bytes())["2007_000032"]
        (0, 14)
    """
    start = _check_header(data)
    budget = _Budget(_MOST_UNFOLDED * len(data))
    try:
        top = _interpret(data[start:], budget)
    except (IndexError, KeyError, TypeError, AttributeError, struct.error, OverflowError, UnicodeError) as err:
        raise ValueError(f"not the pickle of a dict of tag vectors ({shown(in_one_line(err), 200)})") from err
    table = top.values[0] if isinstance(top, _Array) and top.ndim == 0 and len(top.values) == 1 else top
    if not isinstance(table, dict):
        raise ValueError("does not hold a dict; expected a dict from image id to a vector with 1 for every class in the image")
    return {_image_id(key): _tags(key, value, budget) for key, value in table.items()}


def _check_header(data: bytes) -> int:
    """Check the .npy header, and return the offset of the pickle."""
    if data[:6] != b"\x93NUMPY" or len(data) < 12:
        raise ValueError("not a .npy file; save the dict by numpy.save")
    wide = data[6] > 1
    (length,) = struct.unpack_from("<I" if wide else "<H", data, 8)
    start = 12 if wide else 10
    if length > 10_000:  # numpy's own limit for parsing a header
        raise ValueError("its .npy header is too long; save the dict by numpy.save")
    try:
        header = ast.literal_eval(data[start : start + length].decode("latin-1").strip())
        fits = header["descr"] == "|O" and header["shape"] == ()
    except (SyntaxError, ValueError, TypeError, KeyError, MemoryError, RecursionError) as err:
        raise ValueError("its .npy header is damaged; save the dict by numpy.save") from err
    if not fits:
        raise ValueError("holds an array; expected a dict of image id to tag vector, as numpy.save writes it")
    return start + int(length)


def _image_id(key: Any) -> str:
    if isinstance(key, str):
        return key
    return f"{key // 1_000_000}_{key % 1_000_000:06d}"


def _tags(key: Any, value: Any, budget: _Budget) -> tuple[int, ...]:
    numbers = value.values if isinstance(value, _Array) and value.ndim == 1 else value
    if isinstance(numbers, list | tuple):
        budget.spend(len(numbers))
    if not isinstance(numbers, list | tuple) or not all(isinstance(number, int | float) for number in numbers):
        raise ValueError(f"the entry of {shown(repr(key))} is not a vector of numbers; expected 1 for every class in the image")
    return tuple(index for index, number in enumerate(numbers) if number)


def _interpret(data: bytes, budget: _Budget) -> Any:
    """Run the instructions of the pickle on plain values, and return the result."""
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for opcode, arg, _ in pickletools.genops(data):
        name = opcode.name
        if name in ("PROTO", "FRAME"):
            continue
        if name == "STOP":
            break
        if name in _LITERALS:
            stack.append(arg)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if name == "MEMOIZE" else arg] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[arg])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "GLOBAL":
            stack.append(_symbol(str(arg)))
        elif name in _ACTIONS:
            _ACTIONS[name](stack, budget)
        else:
            raise ValueError(f"its pickle holds the instruction {name}, which a dict of tag vectors does not need; refused")
    if len(stack) != 1:
        raise ValueError("its pickle ends too early")
    return stack[0]


def _symbol(name: str) -> _Symbol:
    if name not in _GLOBALS:
        raise ValueError(f"its pickle names {shown(name.replace(' ', '.'))}, which a dict of tag vectors does not need; refused")
    return _Symbol(_GLOBALS[name])


def _pop_mark(stack: list[Any]) -> list[Any]:
    place = len(stack) - 1
    while stack[place] is not _MARK:
        place -= 1
        if place < 0:
            raise IndexError("no mark")
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _take(stack: list[Any], count: int) -> list[Any]:
    items = stack[-count:]
    if len(items) != count:
        raise IndexError("stack too short")
    del stack[-count:]
    return items


def _append(stack: list[Any], items: list[Any]) -> None:
    if not isinstance(stack[-1], list):
        raise TypeError("append to an object that is not a list")
    stack[-1].extend(items)


def _set(stack: list[Any], items: list[Any]) -> None:
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) not in (str, int) or not isinstance(stack[-1], dict):
            raise TypeError("a key that is neither text nor an integer")
        stack[-1][key] = value


def _reduce(stack: list[Any], budget: _Budget) -> None:
    function, args = _take(stack, 2)
    name = function.name
    if name == "encode":
        text, encoding = args
        if encoding not in ("latin1", "latin-1"):
            raise TypeError("bytes in an odd encoding")
        budget.spend(len(text))
        stack.append(text.encode("latin-1"))
    elif name == "dtype":
        stack.append(_Dtype(args[0]))
    elif name == "reconstruct":
        stack.append(_Array())
    elif name == "scalar":
        dtype, content = args
        (value,) = _numbers(dtype, content, budget)
        stack.append(value)
    else:
        raise TypeError(f"a call of {name}")


def _build(stack: list[Any], budget: _Budget) -> None:
    target, state = _take(stack, 2)
    if isinstance(target, _Dtype):
        target.order = state[1]
    elif isinstance(target, _Array):
        _, shape, dtype, _, content = state
        target.ndim = len(shape)
        target.values = content if dtype.code in ("O", "O8") else _numbers(dtype, content, budget)
        fits = isinstance(target.values, list | tuple) and all(type(side) is int for side in shape)
        if not fits or len(target.values) != prod(shape):
            raise TypeError("an array whose shape does not fit its content")
    else:
        raise TypeError("state for an object that takes none")
    stack.append(target)


def _numbers(dtype: _Dtype, content: bytes | str, budget: _Budget) -> tuple[Any, ...]:
    budget.spend(len(content))
    raw = content.encode("latin-1") if isinstance(content, str) else content
    code = _CODES[dtype.code]
    size = struct.calcsize("<" + code)
    order = ">" if dtype.order == ">" else "<"
    return struct.unpack(f"{order}{len(raw) // size}{code}", raw)


_ACTIONS: dict[str, Callable[[list[Any], _Budget], None]] = {
    "STACK_GLOBAL": lambda stack, _: stack.append(_symbol(" ".join(_take(stack, 2)))),
    "EMPTY_LIST": lambda stack, _: stack.append([]),
    "EMPTY_DICT": lambda stack, _: stack.append({}),
    "TUPLE": lambda stack, _: stack.append(tuple(_pop_mark(stack))),
    "TUPLE1": lambda stack, _: stack.append(tuple(_take(stack, 1))),
    "TUPLE2": lambda stack, _: stack.append(tuple(_take(stack, 2))),
    "TUPLE3": lambda stack, _: stack.append(tuple(_take(stack, 3))),
    "APPEND": lambda stack, _: _append(stack, _take(stack, 1)),
    "APPENDS": lambda stack, _: _append(stack, _pop_mark(stack)),
    "SETITEM": lambda stack, _: _set(stack, _take(stack, 2)),
    "SETITEMS": lambda stack, _: _set(stack, _pop_mark(stack)),
    "REDUCE": _reduce,
    "BUILD": _build,
}
