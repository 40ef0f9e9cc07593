"""Compute losses of weakly supervised segmentation. Each returns one value per image, (B,), and never mixes images.

A mean over an empty set is 0: an image without labels adds nothing, and no NaN.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from wsss_ray.core.values import IGNORE


def softmax_floor(logits_BLHW: Tensor, floor: float = 1e-4) -> Tensor:
    """Compute a softmax whose probabilities have a lower bound (DSRG's softmax layer).

    Args:
        logits_BLHW: scores.
        floor: value added to every probability before they are normalised again.

    Returns:
        prob_BLHW, at least floor / (1 + L * floor).

    Example:
        >>> softmax_floor(torch.tensor([0.0, -1e3]).view(1, 2, 1, 1)).flatten()
        tensor([9.9990e-01, 9.9980e-05])
    """
    prob_BLHW = logits_BLHW.softmax(dim=1) + floor
    return prob_BLHW / prob_BLHW.sum(dim=1, keepdim=True)


def seed_loss(log_prob_BLHW: Tensor, cues_BLHW: Tensor) -> Tensor:
    """Compute the balanced seeding loss (DSRG, Eq. 1): background and foreground cues are averaged separately.

    Args:
        log_prob_BLHW: log-probabilities.
        cues_BLHW: bool; a pixel may have several labels or none.

    Returns:
        (B,): minus the mean of log p_0 over the background cues, minus the mean of log p_c over all foreground cues.

    Example:
        >>> seed_loss(softmax_floor(logits_BLHW).log(), cues_BLHW).mean().backward()
    """
    cued = torch.where(cues_BLHW, log_prob_BLHW, torch.zeros_like(log_prob_BLHW))  # not a product: 0 * -inf is NaN
    background, foreground = (
        part.flatten(1).sum(dim=1) / cue.flatten(1).sum(dim=1).clamp(min=1)
        for part, cue in ((cued[:, :1], cues_BLHW[:, :1]), (cued[:, 1:], cues_BLHW[:, 1:]))
    )
    return -(background + foreground)


def boundary_loss(prob_BLHW: Tensor, crf_BLHW: Tensor) -> Tensor:
    """Compute the boundary loss (SEC, Eq. 5; clipped as in DSRG's code): the divergence of the network's output from its CRF.

    Args:
        prob_BLHW: probabilities p of the network.
        crf_BLHW: probabilities q after the CRF. They are constants and get no gradient.

    Returns:
        (B,): mean over pixels of sum_c q_c log(clip(q_c / p_c, 0.05, 20)). Where the ratio is clipped, the gradient is 0.

    Example:
        >>> prob = torch.full((1, 2, 4, 4), 0.5)
        >>> boundary_loss(prob, prob)
        tensor([0.])
    """
    q_BLHW = crf_BLHW.detach()
    ratio_BLHW = (q_BLHW / prob_BLHW.clamp(min=1e-12)).clamp(min=0.05, max=20.0)
    return (q_BLHW * ratio_BLHW.log()).sum(dim=1).flatten(1).mean(dim=1)


def cross_entropy(logits_BLHW: Tensor, label_BHW: Tensor) -> Tensor:
    """Compute the cross-entropy, averaged over the labelled pixels of each image.

    Args:
        logits_BLHW: scores.
        label_BHW: labels, uint8 with `IGNORE`.

    Returns:
        (B,): mean of -log softmax(logits)[label] over the pixels that are not `IGNORE`.

    Example:
        >>> cross_entropy(torch.zeros(1, 2, 1, 2), torch.tensor([[[1, 255]]], dtype=torch.uint8))
        tensor([0.6931])
    """
    loss_BHW = functional.cross_entropy(logits_BLHW, label_BHW.long(), ignore_index=IGNORE, reduction="none")
    return loss_BHW.flatten(1).sum(dim=1) / (label_BHW != IGNORE).flatten(1).sum(dim=1).clamp(min=1)


def full_loss(logits_BLHW: Tensor, label_BHW: Tensor) -> Tensor:
    """Compute the loss of images with human masks (FickleNet, Eq. 3).

    The equation sums -log p over the pixels of every present class and divides by the number of these pixels. Every labelled
    pixel belongs to one class, so the result equals `cross_entropy`.

    Args:
        logits_BLHW: scores.
        label_BHW: human masks, uint8 with `IGNORE`.

    Returns:
        (B,).

    Example:
        >>> full_loss(torch.zeros(1, 2, 1, 2), torch.tensor([[[1, 255]]], dtype=torch.uint8))
        tensor([0.6931])
    """
    return cross_entropy(logits_BLHW, label_BHW)


def multilabel_bce(logits_BK: Tensor, tags_BK: Tensor, *, over: Literal["mean", "sum"] = "mean") -> Tensor:
    """Compute the binary cross-entropy of the tags.

    Args:
        logits_BK: class scores before the sigmoid.
        tags_BK: 0 or 1, of any type.
        over: take the mean over the classes, or their sum (Multi-Estimations, Eq. 1, and Caffe's SigmoidCrossEntropyLoss).

    Returns:
        (B,).

    Example:
        >>> multilabel_bce(torch.zeros(1, 3), torch.tensor([[1, 0, 0]]))
        tensor([0.6931])
    """
    target_BK = tags_BK.to(logits_BK.dtype)
    loss_BK = functional.binary_cross_entropy_with_logits(logits_BK, target_BK, reduction="none")
    return loss_BK.mean(dim=1) if over == "mean" else loss_BK.sum(dim=1)


def online_labels(logits_BLHW: Tensor, tags_BK: Tensor, valid_BHW: Tensor) -> Tensor:
    """Label pixels with the network's current prediction among background and the image's tags (MDC, 3.3.1).

    Args:
        logits_BLHW: scores.
        tags_BK: tags, 0 or 1.
        valid_BHW: bool, False outside the image.

    Returns:
        label_BHW, uint8, with `IGNORE` where `valid_BHW` is False. Labels are constants and get no gradient.

    Example:
        >>> logits = torch.tensor([1.0, 5.0, 3.0]).view(1, 3, 1, 1)
        >>> online_labels(logits, torch.tensor([[0, 1]]), torch.ones(1, 1, 1, dtype=torch.bool))
        tensor([[[2]]], dtype=torch.uint8)
    """
    allowed_BL = torch.cat([torch.ones_like(tags_BK[:, :1]), tags_BK], dim=1) > 0
    label_BHW = logits_BLHW.detach().masked_fill(~allowed_BL[:, :, None, None], -torch.inf).argmax(dim=1)
    return label_BHW.to(torch.uint8).masked_fill(~valid_BHW, IGNORE)


def selective_cross_entropy(
    logits_BLHW: Tensor, seeds_BEHW: Tensor, *, sharpness: float, over: str = "labelled", unknown: str = "left_out"
) -> tuple[Tensor, Tensor]:
    """Compute the loss of weighted selective training (Multi-Estimations, Eqs. 5 to 7), and the weights of the seeds.

    At each pixel, the weights are a softmax over the seeds: the score of a seed is `sharpness` if the network predicts its
    label, else 0. The weights are constants. A seed that is `IGNORE` at the pixel has no label, so it adds no loss. By default
    the softmax leaves it out, and the other seeds share its weight. With `counted` it keeps a weight, as printed: its y is 0
    and matches nothing. With sharpness 0 the loss is L_plain (Eq. 4), over the seeds that decide or, if `counted` and over
    "pixels", as printed.

    Args:
        logits_BLHW: scores.
        seeds_BEHW: label maps of E seeds, uint8 with `IGNORE`.
        sharpness: s of the equations.
        over: divide by the pixels that at least one seed decides ("labelled"), or by all pixels, as in the paper ("pixels").
        unknown: seeds that are `IGNORE` at a pixel are "left_out" of the softmax or "counted" in it.

    Returns:
        The loss (B,), and weight_BEHW, which sums to 1 over the seeds at every decided pixel (if `counted`, at every pixel).

    Example:
        >>> seeds = torch.tensor([1, 0], dtype=torch.uint8).view(1, 2, 1, 1)
        >>> loss, weight = selective_cross_entropy(torch.tensor([0.0, 2.0]).view(1, 2, 1, 1), seeds, sharpness=1.0)
        >>> weight.flatten()
        tensor([0.7311, 0.2689])
    """
    known_BEHW = seeds_BEHW != IGNORE
    match_BEHW = (logits_BLHW.detach().argmax(dim=1)[:, None] == seeds_BEHW) & known_BEHW
    score_BEHW = sharpness * match_BEHW.to(logits_BLHW.dtype)
    if unknown == "counted":
        weight_BEHW = score_BEHW.softmax(dim=1)
    else:
        weight_BEHW = score_BEHW.masked_fill(~known_BEHW, -1e30).softmax(dim=1) * known_BEHW
    log_prob_BLHW = logits_BLHW.log_softmax(dim=1)
    picked_BEHW = log_prob_BLHW.gather(1, seeds_BEHW.long().masked_fill(~known_BEHW, 0)).masked_fill(~known_BEHW, 0)
    loss_BHW = -(weight_BEHW * picked_BEHW).sum(dim=1)
    decided_B = known_BEHW.any(dim=1).flatten(1).sum(dim=1).clamp(min=1)
    count_B = decided_B if over == "labelled" else torch.full_like(decided_B, loss_BHW[0].numel())
    return loss_BHW.flatten(1).sum(dim=1) / count_B, weight_BEHW


def two_sided_cross_entropy(logits_BLHW: Tensor, label_BHW: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the cross-entropy of background and foreground, each averaged over its own pixels (RRM, "Implementation").

    Args:
        logits_BLHW: scores.
        label_BHW: labels, uint8 with `IGNORE`.

    Returns:
        The background term (B,) and the foreground term (B,). A term is 0 for an image without such pixels; the authors' code
        gives NaN there.

    Example:
        >>> two_sided_cross_entropy(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 0]]], dtype=torch.uint8))
        (tensor([0.6931]), tensor([0.]))
    """
    loss_BHW = functional.cross_entropy(logits_BLHW, label_BHW.long(), ignore_index=IGNORE, reduction="none")
    is_bg = label_BHW == 0
    is_fg = ~is_bg & (label_BHW != IGNORE)
    bg, fg = (torch.where(part, loss_BHW, 0.0).flatten(1).sum(1) / part.flatten(1).sum(1).clamp(min=1) for part in (is_bg, is_fg))
    return bg, fg
