"""Grow seeded regions as in DSRG (Huang et al., CVPR 2018, section 3.3), in the order of the authors' code.

Every training step makes one pass: it starts again from the static cues and uses the current network's probabilities.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from wsss_ray.core.values import IGNORE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsss_ray.core.values import LabelArray, MapArray


def grow(
    prob_LHW: MapArray,
    cues_HW: LabelArray,
    present: Collection[int],
    *,
    fg_threshold: float = 0.85,
    bg_threshold: float = 0.99,
) -> NDArray[np.bool_]:
    """Grow cues into the pixels that the network is sure of.

    1. The winner of a pixel is the most probable of the `present` labels.
    2. A label map takes the cues, then the winner wherever its probability exceeds the threshold.
    3. For each present label, accept every 8-connected region of that map that contains a cue of the label. Leave out the pixels
       that are cues of another label.
    4. Add the accepted pixels to the cues. No cue is removed.

    Args:
        prob_LHW: probabilities after the CRF.
        cues_HW: static cues, labels with `IGNORE`.
        present: labels of the image, with 0 if it has background.
        fg_threshold: probability that a label from 1 up must exceed.
        bg_threshold: probability that label 0 must exceed.

    Returns:
        cues_LHW, bool, with at most one label per pixel.

    Raises:
        ValueError: if a label is outside 0..L-1, or the cues have another size.

    Example:
        >>> prob_LHW = np.array([[[0.1, 0.1, 0.6]], [[0.9, 0.9, 0.4]]])
        >>> grow(prob_LHW, np.array([[1, IGNORE, IGNORE]], np.uint8), present=(0, 1))[1]
        array([[ True,  True, False]])
    """
    from scipy import ndimage

    num_labels = len(prob_LHW)
    if cues_HW.shape != prob_LHW.shape[1:]:
        raise ValueError(f"cues: size {cues_HW.shape} differs from the probabilities' {prob_LHW.shape[1:]}. Resize one of them.")
    labels = np.array(sorted(set(present)), dtype=np.intp)
    cued_HW = cues_HW != IGNORE
    for what, values in (("present", labels), ("cues", cues_HW[cued_HW])):
        if values.size and not (values.min() >= 0 and values.max() < num_labels):
            raise ValueError(f"{what}: a label is outside 0..{num_labels - 1}. Use the labels of prob_LHW.")

    cues_LHW: NDArray[np.bool_] = cues_HW == np.arange(num_labels)[:, None, None]
    if not len(labels):
        return cues_LHW
    prob_CHW = prob_LHW[labels]
    winner_HW = labels[prob_CHW.argmax(axis=0)]
    bound_L = np.full(num_labels, fg_threshold, prob_LHW.dtype)
    bound_L[0] = bg_threshold
    sure_HW = prob_CHW.max(axis=0) > bound_L[winner_HW]
    map_HW = np.where(sure_HW, winner_HW, cues_HW)

    for label in labels:
        own_HW = cues_LHW[label].copy()
        regions_HW, count = ndimage.label(map_HW == label, structure=np.ones((3, 3), np.int8))
        accepted = np.zeros(count + 1, bool)
        accepted[regions_HW[own_HW]] = True
        accepted[0] = False  # region 0 holds the pixels without the label
        cues_LHW[label] |= accepted[regions_HW] & (own_HW | ~cued_HW)
    return cues_LHW
