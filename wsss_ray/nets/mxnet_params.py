"""Read the parameter files of mxnet without mxnet, and rename the parameters of ResNet38.

A `.params` file lists arrays and their names, little-endian (`NDArray::Save` in mxnet's src/ndarray/ndarray.cc):

    uint64 0x112, uint64 reserved
    uint64 number of arrays, then each array
    uint64 number of names, then for each name its length as uint64 and its bytes
        ("arg:conv1a_weight"; "aux:" for batch norm statistics)

An array begins with a uint32: the magic number of its version or, in the oldest files, the number of dimensions:

    0xF993FACA  numpy shapes   int32 storage type, uint32 dimensions, int64 each
    0xF993FAC9  with sparse    int32 storage type, uint32 dimensions, int64 each
    0xF993FAC8                 uint32 dimensions, int64 each
    otherwise   oldest         (that number of dimensions) uint32 each

Then follow int32 device type, int32 device, int32 element type, and the elements, row by row. Storage type 0 is dense; this
module reads no other. An array without dimensions (with numpy shapes: with a negative side) is undefined and has no elements;
this module rejects such a file.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_LIST = 0x112
_NUMPY, _SPARSE, _WIDE = 0xF993FACA, 0xF993FAC9, 0xF993FAC8
_STORAGE = {-1: "undefined", 1: "row-sparse", 2: "compressed sparse"}
_TYPES = ("<f4", "<f8", "<f2", "<u1", "<i4", "<i1", "<i8")
_MAX_DIMENSIONS = 32  # networks have fewer: a larger number is an unknown magic number
_LEAST_BYTES = 21  # size of the smallest array: one uint8 in the oldest version

_LAYER = re.compile(r"(res|bn)(\d)(?:a|b(\d+))_(branch\w+?)_(weight|gamma|beta|moving_mean|moving_var)")
_OTHER = re.compile(r"(conv1a|bn7)_(weight|gamma|beta|moving_mean|moving_var)")
_PARTS = {"weight": "weight", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_var": "running_var"}


def read_params(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of an mxnet parameter file.

    Args:
        path: path of the file.

    Returns:
        Tensors on the CPU by their names in the file, prefixes included.

    Raises:
        ValueError: if the file is damaged, truncated or too long, or contains sparse, undefined or unnamed arrays.
        OSError: if the file cannot be opened.

    Example:
        >>> params = read_params("ilsvrc-cls_rna-a1_cls1000_ep-0001.params")
        >>> params["arg:conv1a_weight"].shape
        torch.Size([64, 3, 3, 3])
    """
    file = Path(path)
    with file.open("rb") as stream:
        source = _Source(stream, file.stat().st_size)
        try:
            return _read(source)
        except _Refused as error:
            raise ValueError(
                f"weights.source: {path} is not a readable mxnet parameter file: {error}. Copy or export the file again."
            ) from error


def resnet38_names(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of Model A1 (itijyou/ademxapp) to those of `residual.WideResNet`.

    Args:
        params: tensors by their names in the authors' file, as `read_params` returns them.

    Returns:
        The tensors under the new names. Tensors of other layers are left out.

    Example:
        >>> list(resnet38_names({"arg:res2a_branch2a_weight": weight, "arg:linear1000_bias": bias}))
        ['b2.conv_branch2a.weight']
    """
    state = {}
    for name, value in params.items():
        plain = name.removeprefix("arg:").removeprefix("aux:")
        if found := _LAYER.fullmatch(plain):
            kind, stage, unit, branch, part = found.groups()
            layer = f"b{stage}" + (f"_{unit}" if unit else "") + f".{'conv' if kind == 'res' else 'bn'}_{branch}"
        elif found := _OTHER.fullmatch(plain):
            layer, part = found.groups()
        else:
            continue
        state[f"{layer}.{_PARTS[part]}"] = value
    return state


class _Refused(Exception):
    """Error that says what is wrong with the contents of a file."""


class _Source:
    """File with the number of bytes left, so that sizes stated in it are checked before memory is allocated."""

    def __init__(self, stream: BufferedReader, size: int) -> None:
        self.stream, self.size, self.left = stream, size, size

    def take(self, count: int, what: str) -> bytearray:
        """Read the next `count` bytes. `what` names them in errors."""
        if count > self.left:
            raise _Refused(f"{what} needs {count} bytes at offset {self.size - self.left}, but only {self.left} are left")
        data = bytearray(count)
        if self.stream.readinto(data) != count:
            raise _Refused(f"{what} could not be read completely; another process may be writing the file")
        self.left -= count
        return data

    def numbers(self, form: str, what: str) -> tuple[Any, ...]:
        """Read the next numbers, in the format of `struct`."""
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}"), what))


def _read(source: _Source) -> dict[str, Tensor]:
    """Read all arrays and their names."""
    magic, _reserved, count = source.numbers("QQQ", "the header")
    if magic != _LIST:
        raise _Refused(f"it begins with {magic:#x}, not with {_LIST:#x}")
    if count * _LEAST_BYTES > source.left:
        raise _Refused(f"its header says it holds {count} arrays, too many for the {source.left} bytes that follow")
    arrays = [_read_array(source, f"array {index}") for index in range(count)]
    (named,) = source.numbers("Q", "the number of names")
    if named != count:
        raise _Refused(f"it has {count} arrays and {named} names")
    names = [_read_name(source, f"name {index}") for index in range(count)]
    if source.left:
        raise _Refused(f"{source.left} bytes follow the last name")
    if len(set(names)) < count:
        raise _Refused(f"the name {max(names, key=names.count)!r} occurs twice")
    return dict(zip(names, arrays, strict=True))


def _read_array(source: _Source, what: str) -> Tensor:
    """Read the next array."""
    (magic,) = source.numbers("I", what)
    if magic in (_NUMPY, _SPARSE):
        (storage,) = source.numbers("i", what)
        if storage != 0:
            raise _Refused(f"{what} is {_STORAGE.get(storage, 'of an unknown kind')} (storage type {storage}), not dense")
    dimensions = source.numbers("I", what)[0] if magic in (_NUMPY, _SPARSE, _WIDE) else magic
    if dimensions == 2**32 - 1 or (dimensions == 0 and magic != _NUMPY):
        raise _Refused(f"{what} is undefined: it has no shape")
    if dimensions > _MAX_DIMENSIONS:
        raise _Refused(f"{what} begins with {magic:#x} and has {dimensions} dimensions; at most {_MAX_DIMENSIONS} are allowed")
    shape = source.numbers(f"{dimensions}{'q' if magic in (_NUMPY, _SPARSE, _WIDE) else 'I'}", what)
    if any(side < (0 if magic == _NUMPY else 1) for side in shape):
        raise _Refused(f"{what} is undefined: its shape is {shape}")
    _device_type, _device, kind = source.numbers("iii", what)
    if not 0 <= kind < len(_TYPES):
        raise _Refused(f"{what} has the unknown element type {kind}")
    dtype = np.dtype(_TYPES[kind])
    data = source.take(math.prod(shape) * dtype.itemsize, f"{what} of shape {shape}")
    array = np.frombuffer(data, dtype).reshape(shape)
    return torch.from_numpy(array.astype(dtype.newbyteorder("="), copy=False))


def _read_name(source: _Source, what: str) -> str:
    """Read the next name."""
    (length,) = source.numbers("Q", what)
    try:
        return source.take(length, what).decode()
    except UnicodeDecodeError as error:
        raise _Refused(f"{what} is not text: {error}") from error
