"""Run the Segment Anything Model of the package `segment-anything` at a grid of points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from wsss_ray.nets.torchvision_safe import torchvision
from wsss_ray.ops.segments import largest_apart

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsss_ray.core.values import ImageArray

_AT_ONCE = 64


def masks_at_points(
    net: nn.Module, image_HWC: ImageArray, *, points: int, score: float, stability: float, overlap: float
) -> list[NDArray[np.bool_]]:
    """Return the masks that SAM draws at a grid of points, by falling score. They may overlap.

    Args:
        net: SAM, in evaluation mode.
        image_HWC: RGB image.
        points: points along each side.
        score: least score that SAM gives a mask.
        stability: least IoU of a mask with logits above 1 and above -1.
        overlap: largest IoU of the boxes of two masks; of such masks the one with the highest score stays.

    Returns:
        Masks, bool (H, W).

    Example:
        >>> masks = masks_at_points(net, image_HWC, points=32, score=0.88, stability=0.95, overlap=0.7)
    """
    torchvision()  # segment_anything imports torchvision: load it safely first
    from segment_anything import SamPredictor

    predictor: Any = SamPredictor(net)
    height, width = image_HWC.shape[:2]
    middle = (np.arange(points) + 0.5) / points
    place_N2 = np.stack([grid.ravel() for grid in np.meshgrid(middle * width, middle * height)], axis=1)
    masks: list[NDArray[np.bool_]] = []
    scores: list[float] = []
    with torch.inference_mode():
        predictor.set_image(np.array(image_HWC))
        at_N2 = torch.from_numpy(predictor.transform.apply_coords(place_N2, (height, width))).float()
        for part in torch.split(at_N2[:, None].to(predictor.device), _AT_ONCE):
            ones = torch.ones(part.shape[:2], dtype=torch.int64, device=part.device)
            logits_N3HW, score_N3, _ = predictor.predict_torch(part, ones, multimask_output=True, return_logits=True)
            logits_MHW, score_M = logits_N3HW.flatten(0, 1), score_N3.flatten()
            inner_M, outer_M = ((logits_MHW > level).sum(dim=(-2, -1)) for level in (1.0, -1.0))
            good_M = (score_M >= score) & (inner_M > 0) & (inner_M >= stability * outer_M)
            masks += list((logits_MHW[good_M] > 0).cpu().numpy())
            scores += score_M[good_M].tolist()
    if not masks:
        return []
    boxes = np.array([_box(mask_HW) for mask_HW in masks], np.float64)
    return [masks[number] for number in largest_apart(boxes, np.array(scores), overlap)]


def _box(mask_HW: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a mask that is not empty."""
    rows, columns = (np.flatnonzero(mask_HW.any(axis=axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
