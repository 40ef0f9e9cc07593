"""Initial weights of a network: none, the ImageNet weights of its family, or a file known by its content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator, model_validator

from wsss_ray.core.component import Component

if TYPE_CHECKING:
    from torch import Tensor, nn

_SUFFIXES = (".pt", ".pth", ".safetensors", ".params")


class Weights(Component):
    """Where a network's initial weights come from; in a job file also a plain string, the `source`.

    Two files with the same bytes are the same weights, whatever their paths: the identity of a file is its SHA-256. With
    `sha256` given, planning does not read the file and loading checks it.
    """

    source: str = Field(
        default="none",
        min_length=1,
        description="none, imagenet, or a state dict's file (.pt, .pth, .safetensors; mxnet's .params).",
    )
    sha256: str | None = Field(default=None, description="Digest that the file must have; only with a file.")

    @classmethod
    def from_text(cls, text: str) -> dict[str, str]:
        """See `Component.from_text`: the source."""
        return {"source": text}

    @field_validator("sha256")
    @classmethod
    def _hexadecimal(cls, value: str | None) -> str | None:
        if value is not None and (len(value) != 64 or not set(value.lower()) <= set("0123456789abcdef")):
            raise ValueError("must be 64 hexadecimal digits, as sha256sum prints them")
        return value.lower() if value else None

    @model_validator(mode="after")
    def _consistent(self) -> Weights:
        if self.is_file and Path(self.source).suffix not in _SUFFIXES:
            raise ValueError(
                f"weights.source is {self.source!r}, allowed: none, imagenet, or a file ending in {', '.join(_SUFFIXES)}"
            )
        if self.sha256 and not self.is_file:
            raise ValueError(f"weights.sha256 goes with a file, not with source {self.source!r}; leave it out")
        return self

    @property
    def is_file(self) -> bool:
        """Whether `source` is a path."""
        return self.source not in ("none", "imagenet")

    def identity(self) -> dict[str, Any]:
        """The content in place of the path. Without `sha256` it reads the file, once per process; ValueError if it is missing."""
        what = {"sha256": self.sha256 or file_sha256(self.source)} if self.is_file else {"source": self.source}
        return {"kind": self.kind(), "revision": self.revision} | what


def load_weights(spec: Weights, *, imagenet: Callable[[], Mapping[str, Tensor]] | None = None) -> dict[str, Tensor]:
    """The state dict that `spec` names, on the CPU; empty for none.

    Args:
        spec: what to load. Files are read without running code from them.
        imagenet: fetches the ImageNet weights of the network at hand, if its family has any.

    Raises:
        ValueError: if the file is missing, is no state dict, or has another digest; if there are no ImageNet weights.
    """
    if spec.source == "none":
        return {}
    if not spec.is_file:
        if imagenet is None:
            raise ValueError("weights.source is imagenet, but this network has no such weights; give none or a file")
        return dict(imagenet())
    found = file_sha256(spec.source) if spec.sha256 else None
    if found != spec.sha256:
        raise ValueError(f"weights.sha256 is {spec.sha256}, but {spec.source} has {found}; is it the file you meant?")
    return _read(spec.source)


def copy_weights(net: nn.Module, state: Mapping[str, Tensor], *, ignore: Sequence[str] = ()) -> None:
    """Load `state` into `net`, every parameter and buffer of it; keys that begin with one of `ignore` may be left over.

    Raises:
        ValueError: if keys are missing or left over, or a shape differs.
    """
    kept = {key: value for key, value in state.items() if not key.startswith(tuple(ignore))}
    try:
        net.load_state_dict(kept)
    except RuntimeError as error:
        raise ValueError(f"weights.source does not fit the network: {error}") from error


def file_sha256(path: str) -> str:
    """SHA-256 of a file; read again only if its size or time changes. ValueError if there is no such file."""
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"weights.source: there is no file {path}; give its path on this machine, or none or imagenet")
    stat = file.stat()
    return _sha256(str(file.resolve()), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: str, _size: int, _mtime_ns: int) -> str:
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read(path: str) -> dict[str, Tensor]:
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise ValueError(f"weights.source: there is no file {path} on this machine; every worker must see it")
    if path.endswith(".params"):
        from wsss_ray.nets.mxnet_params import read_params

        return read_params(path)
    try:
        state = load_file(path) if path.endswith(".safetensors") else torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        why = "it is damaged, or holds other objects than tensors, which are never unpickled; save net.state_dict()"
        raise ValueError(f"weights.source: {path} is not a readable file of tensors: {why}") from error
    except (RuntimeError, EOFError, SafetensorError) as error:
        raise ValueError(f"weights.source: {path} is not a readable file of tensors: {error}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"weights.source: {path} is no state dict (names to tensors); save net.state_dict()")
    return state
