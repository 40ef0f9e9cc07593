"""Import torchvision next to any build of torch.

PyPI's torchvision wheels are CUDA builds. With a CPU-only torch, their extension cannot load. `import torchvision` then stops
with "operator torchvision::nms does not exist", because torchvision registers a fake kernel for an operator that only the
extension defines. Networks and transforms need none of these operators. This module first tries to load the extension. If that
fails, it declares the two missing schemas without an implementation: the import works, and a call of such an operator still
fails.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.library import Library

_EXTENSIONS = ("_C_stable", "_C")
"""Names of the extension: since torchvision 0.29, and before."""
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def torchvision() -> ModuleType:
    """Import torchvision, with or without its compiled operators.

    Returns:
        The torchvision module.

    Raises:
        ImportError: if torchvision is not installed.

    Example:
        >>> net = torchvision().models.resnet50(weights=None)
    """
    if "torchvision" not in sys.modules and not _extension_loads():
        _schemas()
    return import_module("torchvision")


def _extension_loads() -> bool:
    """Load the extension as torchvision will do, and return False if it cannot load. Loading it twice has no effect."""
    import torch

    spec = find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("torchvision: the package is not installed. Run: pip install torchvision")
    finder = FileFinder(spec.submodule_search_locations[0], (ExtensionFileLoader, EXTENSION_SUFFIXES))
    extension = next((found for name in _EXTENSIONS if (found := finder.find_spec(name))), None)
    if extension is None or extension.origin is None:
        return False
    try:
        torch.ops.load_library(extension.origin)  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return True


@cache  # torch drops a library's definitions with the object: the cache keeps it for the life of the process
def _schemas() -> Library:
    """Declare the schemas of the operators that torchvision's Python code expects."""
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + _SIGNATURE)  # type: ignore[no-untyped-call]
    return library
