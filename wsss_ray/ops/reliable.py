"""Find the reliable regions of RRM: the few pixels for which localization maps and a dense CRF agree on the label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wsss_ray.core.values import IGNORE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsss_ray.core.values import MapArray

    Places = NDArray[np.intp]  # (H, W): 0 for background, c + 1 for map c


def surest(
    cam_CHW: MapArray,
    background_HW: MapArray,
    *,
    ratio: float,
    floor: float,
    background_floor: float,
) -> tuple[Places, NDArray[np.bool_]]:
    """Find the winning place of every pixel (RRM, Eq. 6) and the pixels where it is most certain.

    A place is 0 for background and c + 1 for map c. For each map, take the n pixels that it wins with a value above `floor`. The
    certain ones have a value above the one at index int((1 - ratio) * n) in ascending order, as in the authors' code. Background
    is certain where it wins with a score above `background_floor`.

    Args:
        cam_CHW: localization maps in [0, 1].
        background_HW: background score in [0, 1].
        ratio: share of a map's pixels to keep; from 1 on, all of them.
        floor: value that a map must exceed.
        background_floor: score that background must exceed.

    Returns:
        The winning places (H, W), and a bool (H, W) that is True where they are certain.

    Example:
        >>> cam, background = np.array([[[0.0, 0.4, 0.6, 0.8]]]), np.array([[0.9, 0.1, 0.1, 0.1]])
        >>> surest(cam, background, ratio=0.7, floor=0.1, background_floor=0.8)
        (array([[0, 1, 1, 1]]), array([[ True, False,  True,  True]]))
    """
    score_LHW = np.concatenate([background_HW[None], cam_CHW])
    winner_HW: Places = score_LHW.argmax(axis=0)
    sure_HW = (winner_HW == 0) & (background_HW > background_floor)
    for place, cam_HW in enumerate(cam_CHW, start=1):
        own_HW = (winner_HW == place) & (cam_HW > floor)
        values = np.sort(cam_HW[own_HW])
        if not values.size:
            continue  # the authors' code raises an error here
        if ratio >= 1:
            sure_HW |= own_HW
        else:
            sure_HW |= own_HW & (cam_HW > values[int((1 - ratio) * values.size)])
    return winner_HW, sure_HW


def agreed(low_LHW: MapArray, high_LHW: MapArray, floor: float) -> tuple[Places, NDArray[np.bool_]]:
    """Combine two CRFs into one place per pixel, and find the pixels that they decide.

    The CRF with the strong background decides objects, the CRF with the weak background decides background. A pixel that is
    neither is undecided, and so is a pixel whose probability is below `floor`.

    Args:
        low_LHW: probabilities after the CRF with the strong background (a small gamma).
        high_LHW: probabilities after the CRF with the weak background (a large gamma).
        floor: least probability of a decided pixel.

    Returns:
        Places (H, W), 0 for background and c + 1 for class c, and a bool (H, W) that is True where they are decided.

    Example:
        >>> low_LHW, high_LHW = np.array([[[0.1, 0.9]], [[0.9, 0.1]]]), np.array([[[0.1, 0.9]], [[0.9, 0.1]]])
        >>> agreed(low_LHW, high_LHW, floor=0.8)
        (array([[1, 0]]), array([[ True,  True]]))
    """
    low_HW, high_HW = low_LHW.argmax(axis=0), high_LHW.argmax(axis=0)
    place_HW: Places = np.where(high_HW == 0, 0, low_HW)
    decided_HW = (low_HW != 0) | (high_HW == 0)
    confidence_HW = np.maximum(high_LHW[0], low_LHW[1:].max(axis=0)) if len(low_LHW) > 1 else high_LHW[0]
    return place_HW, decided_HW & (confidence_HW >= floor)


def combine(places: Places, keep: NDArray[np.bool_], classes: tuple[int, ...]) -> NDArray[np.uint8]:
    """Convert places to a label map.

    Args:
        places: places (H, W), 0 for background and c + 1 for the c-th of `classes`.
        keep: bool (H, W); pixels that get a label.
        classes: 0-based tags of the image.

    Returns:
        Labels, uint8 (H, W), with `IGNORE` where `keep` is False.

    Example:
        >>> combine(np.array([[0, 1, 2]]), np.array([[True, True, False]]), classes=(3, 7))
        array([[  0,   4, 255]], dtype=uint8)
    """
    labels = np.array([0, *(tag + 1 for tag in classes)], np.uint8)
    return np.where(keep, labels[places], np.uint8(IGNORE))
