"""Losses of weakly supervised segmentation. Each returns one value per image, (B,), and never looks across images.

A mean over an empty set is 0, so that an image without labels adds nothing and no NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from wsss_ray.core.contracts import IGNORE


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


def online_labels(logits_BLHW: Tensor, tags_BK: Tensor, valid_BHW: Tensor) -> Tensor:
    """The network's own labels of the moment among background and the image's tags (MDC, 3.3.1): uint8, a constant.

    `IGNORE` outside the image, where `valid_BHW` is False.
    """
    allowed_BL = torch.cat([torch.ones_like(tags_BK[:, :1]), tags_BK], dim=1) > 0
    label_BHW = logits_BLHW.detach().masked_fill(~allowed_BL[:, :, None, None], -torch.inf).argmax(dim=1)
    return label_BHW.to(torch.uint8).masked_fill(~valid_BHW, IGNORE)


def selective_cross_entropy(
    logits_BLHW: Tensor, seeds_BEHW: Tensor, *, sharpness: float, over: str = "labelled"
) -> tuple[Tensor, Tensor]:
    """Weighted selective training (Multi-Estimations, Eqs. 5 to 7), and the weights themselves.

    The weight of a seed at a pixel is the softmax over the seeds of `sharpness` times "the network has its label". A seed that is
    `IGNORE` at a pixel is left out of that softmax; a pixel that all leave undecided counts nothing. Sharpness 0 is L_plain
    (Eq. 4) over the seeds that decide. The weights are constants.

    Args:
        logits_BLHW: scores.
        seeds_BEHW: label maps of E seeds, uint8 with `IGNORE`.
        sharpness: s.
        over: divide by the pixels that some seed decides (labelled), or by all (pixels), as the equations are printed.

    Returns:
        (B,), and weight_BEHW, which sums to 1 over the seeds at every decided pixel.
    """
    known_BEHW = seeds_BEHW != IGNORE
    match_BEHW = (logits_BLHW.detach().argmax(dim=1)[:, None] == seeds_BEHW) & known_BEHW
    score_BEHW = (sharpness * match_BEHW.to(logits_BLHW.dtype)).masked_fill(~known_BEHW, -1e30)
    weight_BEHW = score_BEHW.softmax(dim=1) * known_BEHW
    log_prob_BLHW = logits_BLHW.log_softmax(dim=1)
    picked_BEHW = log_prob_BLHW.gather(1, seeds_BEHW.long().masked_fill(~known_BEHW, 0))
    loss_BHW = -(weight_BEHW * picked_BEHW).sum(dim=1)
    decided_B = known_BEHW.any(dim=1).flatten(1).sum(dim=1).clamp(min=1)
    count_B = decided_B if over == "labelled" else torch.full_like(decided_B, loss_BHW[0].numel())
    return loss_BHW.flatten(1).sum(dim=1) / count_B, weight_BEHW


def two_sided_cross_entropy(logits_BLHW: Tensor, label_BHW: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of background and of foreground, each averaged over its own pixels (RRM, section "Implementation"): 2 x (B,).

    An image without one of the two has 0 there (the authors' code has NaN).
    """
    loss_BHW = functional.cross_entropy(logits_BLHW, label_BHW.long(), ignore_index=IGNORE, reduction="none")
    is_bg = label_BHW == 0
    is_fg = ~is_bg & (label_BHW != IGNORE)
    bg, fg = (torch.where(part, loss_BHW, 0.0).flatten(1).sum(1) / part.flatten(1).sum(1).clamp(min=1) for part in (is_bg, is_fg))
    return bg, fg
