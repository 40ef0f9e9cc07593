"""Find the reliable regions of RRM: the few pixels that localization maps are most certain of and a dense CRF decides.

`surest` is Eq. 6 and `agreed` combines the CRFs. Whether the two must give a pixel the same label (Eq. 7) is up to the caller.
"""

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
    background_ratio: float | None = None,
) -> tuple[Places, NDArray[np.bool_]]:
    """Find the winning place of every pixel (RRM, Eq. 6) and the pixels where it is most certain.

    A place is 0 for background and c + 1 for map c. For each map, take the n pixels that it wins with a value above `floor`. The
    certain ones have a value above the one at index int((1 - ratio) * n) in ascending order, as in the authors' code. Background
    is certain where it wins with a score above `background_floor`; with `background_ratio`, only the highest of these scores are.

    The paper says only that the threshold is "chosen with 40% pixels selected as labeled pixels for each class".

    Args:
        cam_CHW: localization maps in [0, 1].
        background_HW: background score in [0, 1].
        ratio: share of a map's pixels to keep; from 1 on, all of them.
        floor: value that a map must exceed.
        background_floor: score that background must exceed.
        background_ratio: share of background's pixels to keep; None for all. Pixels that tie with the last one are kept too:
            many have the score 1.

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
    if background_ratio is not None and sure_HW.any():
        values = np.sort(background_HW[sure_HW])
        sure_HW &= background_HW >= values[min(int((1 - background_ratio) * values.size), values.size - 1)]
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


def confirmed(
    places_HW: Places, low_LHW: MapArray, high_LHW: MapArray, floor: float, agreement: str
) -> tuple[Places, NDArray[np.bool_]]:
    """Find the pixels whose place the CRFs confirm (RRM, Eq. 7), and their places.

    With `equal`, as printed, a pixel is confirmed if the CRFs decide it and give it the place that it has. With `code`, as in the
    authors' code, the CRFs only need to decide it, and to let its place win some pixel of the image: it may get another place.

    Args:
        places_HW: places by the maps.
        low_LHW: probabilities after the CRF with the strong background. See `agreed`.
        high_LHW: probabilities after the CRF with the weak background; the same array if there is one CRF.
        floor: least probability of a decided pixel.
        agreement: "code" or "equal".

    Returns:
        Places (H, W) by the CRFs, and a bool (H, W) that is True where they are confirmed.

    Example:
        >>> crf_LHW = np.array([[[0.1, 0.9, 0.9]], [[0.9, 0.1, 0.1]]])
        >>> confirmed(np.array([[1, 1, 0]]), crf_LHW, crf_LHW, floor=0.0, agreement="equal")
        (array([[1, 0, 0]]), array([[ True, False,  True]]))
    """
    crf_HW, decided_HW = agreed(low_LHW, high_LHW, floor)
    same_HW = places_HW == crf_HW if agreement == "equal" else np.isin(places_HW, np.unique(low_LHW.argmax(axis=0)))
    return crf_HW, decided_HW & same_HW


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
