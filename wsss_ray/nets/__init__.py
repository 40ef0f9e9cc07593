"""Define networks: trunks, heads and classifiers.

The file of a network family (`vgg16`, `resnet`, ...) and `deeplab` define the components that a job file configures. They import
torch only when they build. `modules`, `wrapped`, `residual`, `segnet`, `cam`, `rrm` and `selection` define the torch modules.
"""

from __future__ import annotations

import importlib

_TRUNKS = ("efficientnet_lite", "resnet", "resnet38", "small", "timm_trunk", "vgg16")


def load_trunks() -> None:
    """Import every trunk of the package, so that job files can name it.

    Example:
        >>> load_trunks()
        >>> "vgg16" in Trunk.kinds()
        True
    """
    for name in _TRUNKS:
        importlib.import_module(f"{__name__}.{name}")
