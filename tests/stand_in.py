"""A device that is not there. Its tensors are computed on the CPU, and what would fail or wait on a GPU is found.

The device is torch's backend for others (`privateuse1`), renamed. `tensor.device.type` is `stand_in`, so code takes the paths
that it takes on a GPU, with true values. As on a GPU,

- an operation on tensors of both devices raises; only single numbers of the host may take part in pointwise operations,
- `.numpy()` raises,
- copies between the devices, and results that the host must wait for, are crossings. A `Watch` counts them.

torch starts the threads of its backward pass once per process, for the devices known then. So `register` has to come first, and
tests of this device run in a process of their own (`in_own_process`).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "stand_in"
_PACKAGE = str(Path(__file__).parents[1] / "wsss_ray")
_ATEN = torch.ops.aten
_TAKES_NUMBERS = {_ATEN.masked_fill.Tensor, _ATEN.masked_fill_.Tensor, _ATEN.fill_.Tensor, _ATEN.rsub.Tensor}
_PUTS = {_ATEN.index_put.default, _ATEN.index_put_.default, _ATEN._index_put_impl_.default}
_CHANGES_SIZE = {"resize_", "t_", "transpose_", "squeeze_", "unsqueeze_", "swapaxes_", "set_"}


@dataclass(frozen=True)
class Crossing:
    """One time that data, or the wait for it, crosses between host and device.

    `upload` copies a tensor of the host to the device, `download` copies one back, and `wait` reads a value or a size that the
    host needs before it can go on. An upload that is not `waited` for comes from pinned memory. `where` is the innermost line of
    the package that asked for it.
    """

    kind: Literal["upload", "download", "wait"]
    what: str
    shape: tuple[int, ...]
    waited: bool
    where: str

    def __str__(self) -> str:
        return f"{self.kind} {list(self.shape)} by {self.what} at {self.where}"


class OnStandIn(torch.Tensor):
    """A tensor of the stand-in. `data_there` holds its values."""

    data_there: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, data: torch.Tensor) -> OnStandIn:
        made: OnStandIn = torch.Tensor._make_wrapper_subclass(
            cls,
            data.size(),
            strides=data.stride(),
            storage_offset=data.storage_offset(),
            dtype=data.dtype,
            device=torch.device(NAME, 0),
        )
        made.data_there = data
        return made

    def tolist(self) -> Any:
        """Copy the values to the host, as on a GPU; torch's own refuses subclasses."""
        return self.cpu().tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnStandIn({self.data_there!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        return _run(func, args, kwargs or {}, None)


class Watch(TorchDispatchMode):
    """Run a block of code with the stand-in, and keep its crossings in order.

    Example:
        >>> with Watch() as watch:
        ...     float(torch.ones(3).to(stand_in()).sum())
        >>> [crossing.kind for crossing in watch.crossings]
        ['upload', 'wait']
    """

    def __init__(self) -> None:
        super().__init__()
        self.crossings: list[Crossing] = []

    def __enter__(self) -> Watch:
        _WATCHES.append(self)
        super().__enter__()
        return self

    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)
        _WATCHES.remove(self)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func._can_decompose():
            with self:  # in inference mode such operations come whole: their parts are what a device runs
                found = func.decompose(*args, **(kwargs or {}))
            if found is not NotImplemented:
                return found
        return _run(func, args, kwargs or {}, self)

    def take(self) -> Tally:
        """Return what was counted since the last `take`, or the start."""
        taken, self.crossings = self.crossings, []
        return Tally(taken)


@dataclass(frozen=True)
class Tally:
    """Crossings, counted."""

    crossings: list[Crossing] = field(default_factory=list)

    @property
    def uploads(self) -> int:
        """Number of tensors made on the host whose copy the host waits for."""
        return sum(one.kind == "upload" and one.waited for one in self.crossings)

    @property
    def waits(self) -> int:
        """Number of times that the host waits for the device."""
        return sum(one.kind != "upload" for one in self.crossings)

    def __str__(self) -> str:
        lines = Counter(str(one) for one in self.crossings if one.waited)
        return "\n".join(f"{count} x {line}" for line, count in lines.most_common())


_WATCHES: list[Watch] = []


@cache
def stand_in() -> torch.device:
    """Register the device, once per process and before any backward pass, and return it."""
    _setup_privateuseone_for_python_backend(NAME)
    # torch.tensor(..., device=...) does not pass through modes: it makes an empty tensor and copies to it.
    library = torch.library.Library("aten", "IMPL")
    library.impl("empty_strided", _empty_strided, "PrivateUse1")
    library.impl("_copy_from", _copy_from, "PrivateUse1")
    _LIBRARIES.append(library)
    return torch.device(NAME, 0)


_LIBRARIES: list[Any] = []  # kernels stay registered while their library lives


@contextmanager
def in_own_process() -> Iterator[Callable[..., Any]]:
    """Start a process with the stand-in. The function that is given calls another one there and returns or raises its result."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin) as pool:
        yield lambda work, *args: pool.submit(work, *args).result()


def _begin() -> None:
    stand_in()
    torch.set_num_threads(1)


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], watch: Watch | None) -> Any:
    """Run one operation on the values, check its devices, and wrap its results."""
    name = func.overloadpacket.__name__
    flat = pytree.arg_tree_leaves(*args, **kwargs)
    there = [one for one in flat if isinstance(one, OnStandIn)]
    here = [one for one in flat if isinstance(one, torch.Tensor) and not isinstance(one, OnStandIn)]
    to = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
    if not there and (to is None or to.type != NAME):
        return func(*args, **kwargs)
    if name in _CHANGES_SIZE:
        raise NotImplementedError(f"the stand-in cannot change a tensor's size in place: {func}")
    if to is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
        if any(isinstance(one, torch.Generator) for one in flat):
            raise RuntimeError(f"Expected a '{to.type}' device type for generator but found 'cpu' ({func})")
    result_there = bool(there) if to is None else to.type == NAME
    if name in ("copy_", "_to_copy", "_copy_from"):
        _note_copy(func, args, kwargs, result_there, watch)
    elif there and here:
        _check_mixed(func, args, there[0], here, watch)
    _note_wait(func, args, watch)
    own = {id(one.data_there): one for one in there}
    found = func(*pytree.tree_map(_data, args), **pytree.tree_map(_data, kwargs))

    def wrapped(one: Any) -> Any:
        if not isinstance(one, torch.Tensor) or not result_there:
            return one
        return own[id(one)] if id(one) in own else OnStandIn(one)

    return args[0] if name == "copy_" else pytree.tree_map(wrapped, found)


def _data(one: Any) -> Any:
    return one.data_there if isinstance(one, OnStandIn) else one


def _check_mixed(func: Any, args: tuple[Any, ...], one: OnStandIn, here: list[torch.Tensor], watch: Watch | None) -> None:
    """Raise RuntimeError where CUDA does, if tensors of both devices meet."""
    indices = [index for index in args[1] if index is not None] if func in _PUTS or func is _ATEN.index.Tensor else []
    for other in here:
        if any(other is index for index in indices):  # CUDA copies an index of the host, and so waits
            if isinstance(args[0], OnStandIn):
                _note(watch, "upload", func, other)
                continue
        elif other.ndim == 0 and (torch.Tag.pointwise in func.tags or func in _TAKES_NUMBERS or func in _PUTS):
            continue
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found {one.device} {list(one.shape)} and "
            f"cpu {list(other.shape)} in {func}, at {_where()}"
        )


def _note_copy(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result_there: bool, watch: Watch | None) -> None:
    """Note a copy between the devices. `copy_` has the target first."""
    source = args[1] if func is _ATEN.copy_.default else args[0]
    to_there = isinstance(args[0], OnStandIn) if func is _ATEN.copy_.default else result_there
    if isinstance(source, OnStandIn) == to_there:
        return
    never_blocks = bool(kwargs.get("non_blocking") or (func is _ATEN.copy_.default and len(args) > 2 and args[2]))
    _note(watch, "upload" if to_there else "download", func, source, waited=not (to_there and never_blocks))


def _note_wait(func: Any, args: tuple[Any, ...], watch: Watch | None) -> None:
    """Note a result whose value, or whose size, depends on values of the device."""
    sized_by_values = torch.Tag.dynamic_output_shape in func.tags
    if func is _ATEN.index.Tensor or (func in _PUTS and args[2].ndim):  # one number is put by a mask without a wait
        sized_by_values = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    if sized_by_values or torch.Tag.data_dependent_output in func.tags:
        _note(watch, "wait", func, args[0])


def _note(watch: Watch | None, kind: Any, func: Any, tensor: torch.Tensor, *, waited: bool = True) -> None:
    if watch is not None:
        watch.crossings.append(Crossing(kind, str(func), tuple(tensor.shape), waited, _where()))


def _where() -> str:
    """Return the innermost line of the package that is being run."""
    frame: Any = sys._getframe()
    while frame is not None and not frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame is not None else "the backward pass or a test"


def _empty_strided(size: Any, stride: Any, dtype: Any = None, **_: Any) -> Any:
    return OnStandIn(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    _note(_WATCHES[-1] if _WATCHES else None, "upload", _ATEN._copy_from.default, source)
    target.data_there.copy_(source)  # type: ignore[attr-defined]
    return target
