"""Seeded region growing of DSRG (Huang et al., CVPR 2018, section 3.3), in the order of the authors' code.

One pass from the static cues: every training step grows them anew with the current network's probabilities.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from wsss_ray.core.contracts import IGNORE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsss_ray.core.contracts import LabelArray, MapArray


def grow(
    prob_LHW: MapArray,
    cues_HW: LabelArray,
    present: Collection[int],
    *,
    fg_threshold: float = 0.85,
    bg_threshold: float = 0.99,
) -> NDArray[np.bool_]:
    """Grow cues into the pixels that the network is sure of.

    1. The winner of a pixel is the likeliest of the `present` labels.
    2. A label map takes the cues, then the winner wherever its probability exceeds its threshold.
    3. Of each present label, every 8-connected region of that map with a cue of the label in it is accepted, but for its pixels
       that are cues of another label.
    4. Accepted pixels are added to the cues; no cue is removed.

    Args:
        prob_LHW: probabilities after the CRF.
        cues_HW: static cues, labels with `IGNORE`.
        present: the labels of the image, 0 among them where there is background.
        fg_threshold: strict bound for labels 1 and up.
        bg_threshold: strict bound for label 0.

    Returns:
        cues_LHW, bool, at most one label at a pixel.

    Raises:
        ValueError: on a label outside 0..L-1, or cues of another size.
    """
    from scipy import ndimage

    num_labels = len(prob_LHW)
    if cues_HW.shape != prob_LHW.shape[1:]:
        raise ValueError(f"cues of {cues_HW.shape} for probabilities of {prob_LHW.shape[1:]}")
    labels = np.array(sorted(set(present)), dtype=np.intp)
    cued_HW = cues_HW != IGNORE
    for what, values in (("present", labels), ("cues", cues_HW[cued_HW])):
        if values.size and not (values.min() >= 0 and values.max() < num_labels):
            raise ValueError(f"{what} holds a label outside 0..{num_labels - 1}")

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
        accepted[0] = False  # region 0 is all that does not carry the label
        cues_LHW[label] |= accepted[regions_HW] & (own_HW | ~cued_HW)
    return cues_LHW
