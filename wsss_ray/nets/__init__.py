"""Define networks: trunks, heads and classifiers.

The file of a network family (`vgg16`, `resnet`, ...), `deeplab`, `u2net` and `clip` define the components that a job file
configures. They import torch only when they build. `modules`, `wrapped`, `residual`, `segnet`, `nested_u`, `cam`, `rrm`,
`selection`, `mctformer`, `vit` and `clip_net` define the torch modules.
"""

from __future__ import annotations

import importlib

_SALIENCY = ("u2net",)
_TRUNKS = ("efficientnet_lite", "resnet", "resnet38", "small", "timm_trunk", "timm_vit", "vgg16")


def load_networks() -> None:
    """Import every trunk and saliency network of the package, so that job files can name it.

    Example:
        >>> load_networks()
        >>> "vgg16" in Trunk.kinds()
        True
    """
    for name in (*_TRUNKS, *_SALIENCY):
        importlib.import_module(f"{__name__}.{name}")
