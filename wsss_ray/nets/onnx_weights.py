"""Read the weights in an exported ONNX file. The graph is not run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wsss_ray.core.errors import is_machine_failure, shown

if TYPE_CHECKING:
    from torch import Tensor


def read_initializers(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors that an ONNX file holds.

    Args:
        path: path of the file. Tensors in files beside it are not read.

    Returns:
        Tensors on the CPU by their names, in the order in which the nodes of the graph use them. An exporter that folds batch
        norms gives the tensors names of its own, and then only the order tells which is which.

    Raises:
        ValueError: if the package onnx is not installed, or the file is damaged.

    Example:
        >>> list(read_initializers("u2netp.onnx"))[-2:]
        ['outconv.weight', 'outconv.bias']
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ModuleNotFoundError as error:
        raise ValueError(f"weights.source: {path} needs the package onnx. Run: pip install 'wsss-ray[saliency]'") from error
    import torch

    try:
        model = onnx.load_model(str(path), load_external_data=False)
        held = {one.name: one for one in model.graph.initializer if one.data_location != onnx.TensorProto.EXTERNAL}
        used = dict.fromkeys(name for node in model.graph.node for name in node.input if name in held)
        return {name: torch.from_numpy(numpy_helper.to_array(held[name]).copy()) for name in used}
    except Exception as error:  # protobuf has its own, without a common base
        if is_machine_failure(error):
            raise
        reason = shown(" ".join(str(error).split()), 200)
        raise ValueError(f"weights.source: {path} is not a readable ONNX file. Copy it again. {reason}") from error
