"""torchvision beside any torch.

PyPI's torchvision wheels are CUDA builds. Beside a CPU-only torch their extension cannot load, and `import torchvision` stops at
"operator torchvision::nms does not exist", because it describes an operator that only the extension defines. Networks and
transforms need none of its operators. So whether the extension loads is asked first, and only if it does not are the two missing
schemas declared, without an implementation: calling them still fails, importing no longer does.
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

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def torchvision() -> ModuleType:
    """The torchvision module, imported so that it works with or without its compiled operators.

    Raises:
        ImportError: if torchvision is not installed.
    """
    if "torchvision" not in sys.modules and not _extension_loads():
        _schemas()
    return import_module("torchvision")


def _extension_loads() -> bool:
    """Load the extension as torchvision itself is about to (loading it twice is loading it once)."""
    import torch

    spec = find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("torchvision is not installed; run: pip install torchvision")
    finder = FileFinder(spec.submodule_search_locations[0], (ExtensionFileLoader, EXTENSION_SUFFIXES))
    extension = finder.find_spec("_C")
    if extension is None or extension.origin is None:
        return False
    try:
        torch.ops.load_library(extension.origin)  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return True


@cache  # a library's definitions vanish with the object: the cache keeps it for the life of the process
def _schemas() -> Library:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + _SIGNATURE)  # type: ignore[no-untyped-call]
    return library
