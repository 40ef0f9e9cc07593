"""Losses of weakly supervised segmentation. Each returns one value per image, (B,), and never looks across images.

A mean over an empty set is 0, so that an image without labels adds nothing and no NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from wsss_ray.contracts import IGNORE


def shrink_labels(label_BHW: Tensor, like_BLhw: Tensor) -> Tensor:
    """label_Bhw: the labels at the centres of the cells of a coarser (or finer) grid, nearest, of the type they had.

    Cells divide the image evenly, as in an interpolation with align_corners=False, so that enlarging scores undoes it.
    """
    rows, columns = (
        ((torch.arange(cells, device=label_BHW.device) * 2 + 1) * pixels).div(2 * cells, rounding_mode="floor")
        for cells, pixels in zip(like_BLhw.shape[-2:], label_BHW.shape[-2:], strict=True)
    )
    return label_BHW[:, rows[:, None], columns]


def softmax_floor(logits_BLHW: Tensor, floor: float = 1e-4) -> Tensor:
    """prob_BLHW: softmax, plus `floor`, renormalised (DSRG's softmax layer); no probability is below floor / (1 + L * floor)."""
    prob_BLHW = logits_BLHW.softmax(dim=1) + floor
    return prob_BLHW / prob_BLHW.sum(dim=1, keepdim=True)


def seed_loss(log_prob_BLHW: Tensor, cues_BLHW: Tensor) -> Tensor:
    """Balanced seeding loss (DSRG, Eq. 1): background and foreground cues each averaged over their own number.

    Args:
        log_prob_BLHW: log-probabilities.
        cues_BLHW: bool; a pixel may carry several labels or none.

    Returns:
        (B,): -mean over background cues of log p_0, minus the mean over all foreground cues of log p_c.
    """
    cued = torch.where(cues_BLHW, log_prob_BLHW, torch.zeros_like(log_prob_BLHW))  # not a product: 0 * -inf is NaN
    background, foreground = (
        part.flatten(1).sum(dim=1) / cue.flatten(1).sum(dim=1).clamp(min=1)
        for part, cue in ((cued[:, :1], cues_BLHW[:, :1]), (cued[:, 1:], cues_BLHW[:, 1:]))
    )
    return -(background + foreground)


def boundary_loss(prob_BLHW: Tensor, crf_BLHW: Tensor) -> Tensor:
    """Boundary loss (SEC, Eq. 5; clipped as in DSRG's code): the divergence of the network's output from its own CRF.

    Args:
        prob_BLHW: probabilities p of the network.
        crf_BLHW: probabilities q after the CRF; a constant, no gradient goes through it.

    Returns:
        (B,): mean over pixels of sum_c q_c log(clip(q_c / p_c, 0.05, 20)). Where the ratio is clipped the gradient is 0.
    """
    q_BLHW = crf_BLHW.detach()
    ratio_BLHW = (q_BLHW / prob_BLHW.clamp(min=1e-12)).clamp(min=0.05, max=20.0)
    return (q_BLHW * ratio_BLHW.log()).sum(dim=1).flatten(1).mean(dim=1)


def cross_entropy(logits_BLHW: Tensor, label_BHW: Tensor) -> Tensor:
    """(B,): mean over the labelled pixels of -log softmax(logits)[label]; `IGNORE` is left out. Labels are uint8."""
    loss_BHW = functional.cross_entropy(logits_BLHW, label_BHW.long(), ignore_index=IGNORE, reduction="none")
    return loss_BHW.flatten(1).sum(dim=1) / (label_BHW != IGNORE).flatten(1).sum(dim=1).clamp(min=1)


def full_loss(logits_BLHW: Tensor, label_BHW: Tensor) -> Tensor:
    """Loss of an image with a human mask (FickleNet, Eq. 3), (B,).

    The equation sums -log p over the pixels of every class present and divides by the number of those pixels. As every labelled
    pixel belongs to one class, this is `cross_entropy`.
    """
    return cross_entropy(logits_BLHW, label_BHW)


def multilabel_bce(logits_BK: Tensor, tags_BK: Tensor) -> Tensor:
    """(B,): binary cross-entropy of each tag, averaged over the K classes. Tags are 0 or 1, of any type."""
    target_BK = tags_BK.to(logits_BK.dtype)
    return functional.binary_cross_entropy_with_logits(logits_BK, target_BK, reduction="none").mean(dim=1)
