"""Networks. Components (no torch) in one file per family, torch modules in `modules`, `residual`, `segnet` and `selection`."""

from __future__ import annotations

import importlib

_TRUNKS = ("efficientnet_lite", "resnet", "resnet38", "small", "timm_trunk", "vgg16")


def load_trunks() -> None:
    """Import every trunk, so that job files can name it."""
    for name in _TRUNKS:
        importlib.import_module(f"{__name__}.{name}")
