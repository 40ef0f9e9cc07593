"""The reliable regions of RRM: the few pixels whose label localization maps and dense CRF agree on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wsss_ray.core.contracts import IGNORE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wsss_ray.core.contracts import MapArray

    Places = NDArray[np.intp]  # (H, W): 0 for background, c + 1 for map c


def surest(
    cam_CHW: MapArray,
    background_HW: MapArray,
    *,
    ratio: float,
    floor: float,
    background_floor: float,
) -> tuple[Places, NDArray[np.bool_]]:
    """The likeliest place of every pixel (Eq. 6), and whether it is among the surest.

    Of each map, among the pixels that it wins with more than `floor`, the `ratio` with the highest values: those above the value
    in place int((1 - ratio) * n) of their rising order, as the authors' code has it. Background where it wins with more than
    `background_floor`.
    """
    score_LHW = np.concatenate([background_HW[None], cam_CHW])
    winner_HW: Places = score_LHW.argmax(axis=0)
    sure_HW = (winner_HW == 0) & (background_HW > background_floor)
    for place, cam_HW in enumerate(cam_CHW, start=1):
        own_HW = (winner_HW == place) & (cam_HW > floor)
        values = np.sort(cam_HW[own_HW])
        if not values.size:
            continue  # the authors' code fails here
        if ratio >= 1:
            sure_HW |= own_HW
        else:
            sure_HW |= own_HW & (cam_HW > values[int((1 - ratio) * values.size)])
    return winner_HW, sure_HW


def agreed(low_LHW: MapArray, high_LHW: MapArray, floor: float) -> tuple[Places, NDArray[np.bool_]]:
    """The place of every pixel by two CRFs, and whether it is decided.

    `low_LHW` are the probabilities after the CRF with the strong background (a small gamma): what it calls an object is one.
    `high_LHW` those with the weak background: what it calls background is. Elsewhere, and where the probability behind the label
    is below `floor`, nothing is decided.
    """
    low_HW, high_HW = low_LHW.argmax(axis=0), high_LHW.argmax(axis=0)
    place_HW: Places = np.where(high_HW == 0, 0, low_HW)
    decided_HW = (low_HW != 0) | (high_HW == 0)
    confidence_HW = np.maximum(high_LHW[0], low_LHW[1:].max(axis=0)) if len(low_LHW) > 1 else high_LHW[0]
    return place_HW, decided_HW & (confidence_HW >= floor)


def combine(places: Places, keep: NDArray[np.bool_], classes: tuple[int, ...]) -> NDArray[np.uint8]:
    """Label map: the labels of `places` (classes are 0-based) where `keep`, `IGNORE` elsewhere."""
    labels = np.array([0, *(tag + 1 for tag in classes)], np.uint8)
    return np.where(keep, labels[places], np.uint8(IGNORE))
