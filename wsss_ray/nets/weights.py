"""Load the initial weights of a network: none, the ImageNet weights of its family, or a file identified by its content."""

from __future__ import annotations

import hashlib
import io
import pickletools
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, field_validator, model_validator

from wsss_ray.core.component import Component, LocalPath
from wsss_ray.core.errors import in_one_line, shown

if TYPE_CHECKING:
    from torch import Tensor, nn

_NAMES = ("none", "imagenet")
_LONGEST_WORD = 4096
_PICKLES = 5  # in a row, in a file of before torch saved zips
_SUFFIXES = (".pt", ".pth", ".safetensors", ".params", ".onnx")


class Weights(Component):
    """Weights of a network, by name or file. A job file may give `source` alone, as a plain string. `names` are the sources
    that are no files.

    Files with the same bytes are the same weights, at any path: the SHA-256 identifies a file. With `sha256` given, planning
    does not read the file, and loading checks the digest.

    Example:
        >>> Weights(source="imagenet").is_file
        False
        >>> Weights.model_validate("vgg16.pth").source
        'vgg16.pth'
    """

    names: ClassVar[tuple[str, ...]] = _NAMES
    source: Annotated[str, LocalPath(unless=_NAMES)] = Field(
        default="none",
        min_length=1,
        description="none, imagenet, or a path to a state dict (.pt, .pth, .safetensors, .onnx, or mxnet's .params).",
    )
    sha256: str | None = Field(default=None, description="SHA-256 that the file must have. Only with a file.")

    @classmethod
    def from_text(cls, text: str) -> dict[str, str]:
        """Read a plain string as the source. See `Component.from_text`."""
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
                f"source: {self.source!r} is not known. Give {', '.join(self.names)}, or a file ending in {', '.join(_SUFFIXES)}."
            )
        if self.sha256 and not self.is_file:
            raise ValueError(f"sha256: only a file has a digest, but source is {self.source!r}. Remove sha256.")
        return self

    @property
    def is_file(self) -> bool:
        """Return True if `source` is a path."""
        return self.source not in self.names

    def identity(self) -> dict[str, Any]:
        """Return the identity of the weights, with the SHA-256 of a file in place of its path.

        Without `sha256`, this reads the file; an unchanged file is read once per process.

        Raises:
            ValueError: if `sha256` is not given and the file does not exist.
        """
        what = {"sha256": self.sha256 or file_sha256(self.source)} if self.is_file else {"source": self.source}
        return {"kind": self.kind(), "revision": self.revision} | what


def load_weights(spec: Weights, *, imagenet: Callable[[], Mapping[str, Tensor]] | None = None) -> dict[str, Tensor]:
    """Load weights to the CPU. Reading a file never runs code from it.

    Args:
        spec: weights to load.
        imagenet: function that returns the ImageNet weights of the network; None if there are none.

    Returns:
        The state dict; empty for `source` none.

    Raises:
        ValueError: if the file is missing, is not a state dict or has another digest, or if there are no ImageNet weights.

    Example:
        >>> state = load_weights(Weights(source="vgg16.pth"))
        >>> load_weights(Weights(source="none"))
        {}
    """
    if spec.source == "none":
        return {}
    if not spec.is_file:
        if imagenet is None:
            raise ValueError("weights.source: this network has no imagenet weights. Give none or a file.")
        return dict(imagenet())
    found = file_sha256(spec.source) if spec.sha256 else None
    if found != spec.sha256:
        raise ValueError(
            f"weights.sha256: expected {spec.sha256}, but {spec.source} has {found}. Correct the path or the digest."
        )
    return _read(spec.source)


def copy_weights(net: nn.Module, state: Mapping[str, Tensor], *, ignore: Sequence[str] = ()) -> None:
    """Copy a state dict into a network. It must cover every parameter and buffer.

    Args:
        net: network; changed.
        state: state dict.
        ignore: prefixes of keys in `state` to skip, such as those of a classifier.

    Raises:
        ValueError: if a key is missing or unexpected, or a shape differs.

    Example:
        >>> copy_weights(trunk, load_weights(Weights(source="vgg16.pth")), ignore=("classifier.",))
    """
    kept = {key: value for key, value in state.items() if not key.startswith(tuple(ignore))}
    try:
        net.load_state_dict(kept)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        sizes = [line for line in lines if line.startswith("size mismatch")]  # one line for each; keys are two long lines
        said = " ".join(shown(line, 2000) for line in (*(line for line in lines if line not in sizes), *sizes[:1]))
        more = f" And {len(sizes) - 1} more like it." if len(sizes) > 1 else ""
        advice = f"Give weights of the same network. {said}{more}"
        raise ValueError(f"weights.source: does not fit the network. {advice}") from error


def package_folder(name: str) -> Path | None:
    """Return the folder of an installed package, or None. The package itself is not imported.

    Example:
        >>> package_folder("torch").name
        'torch'
    """
    spec = find_spec(name)
    return Path(spec.submodule_search_locations[0]) if spec is not None and spec.submodule_search_locations else None


def file_sha256(path: str) -> str:
    """Compute the SHA-256 of a file. The digest is cached until the size or the modification time changes.

    Args:
        path: path of the file.

    Returns:
        64 hexadecimal digits.

    Raises:
        ValueError: if there is no such file.

    Example:
        >>> len(file_sha256("vgg16.pth"))
        64
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"weights.source: there is no file {path}. Give a path on this machine, none or imagenet.")
    stat = file.stat()
    return _sha256(str(file.resolve()), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: str, _size: int, _mtime_ns: int) -> str:
    """Compute the digest. The size and the time are part of the cache's key."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read(path: str) -> dict[str, Tensor]:
    """Read a state dict from a file."""
    import torch

    if not Path(path).is_file():
        raise ValueError(f"weights.source: there is no file {path} on this machine. Put it where every worker can read it.")
    if path.endswith(".params"):
        from wsss_ray.nets.mxnet_params import read_params

        return read_params(path)
    if path.endswith(".onnx"):
        from wsss_ray.nets.onnx_weights import read_initializers

        return read_initializers(path)
    state = _load(path)
    for key in ("state_dict", "model"):  # in checkpoints of torch's examples, and of DeiT
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(part, torch.Tensor) for part in state.values()):
        raise ValueError(f"weights.source: {path} is not a state dict (names to tensors). Save net.state_dict().")
    odd = next((name for name, part in state.items() if not (isinstance(name, str) and _is_plain(part))), None)
    if odd is not None:
        what = "is not a plain tensor on a CPU with a name"
        raise ValueError(f"weights.source: {path}: {shown(repr(odd))} {what}. Save net.cpu().state_dict().")
    return state


def _load(path: str) -> Any:
    """Load a file of tensors without unpickling other objects. Raises ValueError for any file that torch cannot load."""
    import pickle

    import torch
    from safetensors.torch import load_file

    try:
        if path.endswith(".safetensors"):
            return load_file(path)
        _check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, UnicodeDecodeError) as error:
        why = "it is damaged, or it holds objects other than tensors, which are never unpickled"
        raise ValueError(f"weights.source: {path} is not a readable file of tensors: {why}. Save net.state_dict().") from error
    except Exception as error:  # what torch raises for a damaged file: nearly anything
        said = shown(in_one_line(error), 300)
        raise ValueError(f"weights.source: {path} is not a readable file of tensors. Save it again. {said}") from error


def _check_archive(path: str) -> None:
    """Raise ValueError for a file that would cost torch.load much more memory or time than its size.

    torch.save writes its zip without compression. torch searches its own message about a bad pickle in time that grows with the
    square of the longest word in it, and such a word may come from the pickle: a minute for 60 kB.
    """
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            file.seek(0)
            _check_words(file)
            return
        with zipfile.ZipFile(file) as archive:
            unfolded = sum(entry.file_size for entry in archive.infolist())
            if unfolded > 2 * file.seek(0, 2) + (1 << 20):
                raise ValueError(f"it unfolds to {unfolded} bytes")
            for name in archive.namelist():
                if name.endswith("data.pkl"):
                    _check_words(io.BytesIO(archive.read(name)))


def _check_words(stream: IO[bytes]) -> None:
    """Raise ValueError if a text in the pickles of a file has a longer word than any name has."""
    for text in _texts(stream):
        if len(text) > _LONGEST_WORD and max(map(len, text.split()), default=0) > _LONGEST_WORD:
            raise ValueError("it holds a text without spaces that is too long for a name")


def _texts(stream: IO[bytes]) -> Iterator[str]:
    """Yield the texts in the pickles of a file. What ends them too early is left to torch, which says what is wrong."""
    with suppress(ValueError):
        for _ in range(_PICKLES):
            yield from (value for _, value, _ in pickletools.genops(stream) if isinstance(value, str))


def _is_plain(tensor: Tensor) -> bool:
    import torch

    return tensor.layout == torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"
