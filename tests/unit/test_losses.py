"""Losses: hand-checked values, gradients, and that no image sees another."""

from __future__ import annotations

import math

import pytest
import torch

from wsss_ray.core.values import IGNORE
from wsss_ray.ops import losses

B, L, H, W = 3, 4, 5, 6


@pytest.fixture
def case():
    rng = torch.Generator().manual_seed(3)
    logits = torch.randn(B, L, H, W, generator=rng, dtype=torch.float64)
    label = torch.randint(0, L, (B, H, W), generator=rng, dtype=torch.uint8)
    label[torch.rand(B, H, W, generator=rng) < 0.4] = IGNORE
    crf = torch.randn(B, L, H, W, generator=rng, dtype=torch.float64).softmax(dim=1)
    return logits, label, crf


def one_hot(label):
    return label[:, None] == torch.arange(L)[:, None, None]


def three_seeds(label):
    """The label, one shifted, and one that knows nothing in the upper half."""
    blind = label.clone()
    blind[:, : H // 2] = IGNORE
    return torch.stack([label, label.roll(1, dims=-1), blind], dim=1)


TERMS = {
    "selective": lambda logits, label, crf: losses.selective_cross_entropy(logits, three_seeds(label), sharpness=1.0)[0],
    "as printed": lambda logits, label, crf: losses.selective_cross_entropy(
        logits, three_seeds(label), sharpness=1.0, over="pixels", unknown="counted"
    )[0],
    "two_sided": lambda logits, label, crf: sum(losses.two_sided_cross_entropy(logits, label)),
    "seed": lambda logits, label, crf: losses.seed_loss(losses.softmax_floor(logits).log(), one_hot(label)),
    "boundary": lambda logits, label, crf: losses.boundary_loss(losses.softmax_floor(logits), crf),
    "cross_entropy": lambda logits, label, crf: losses.cross_entropy(logits, label),
    "full": lambda logits, label, crf: losses.full_loss(logits, label),
    "bce": lambda logits, label, crf: losses.multilabel_bce(logits.mean((2, 3)), one_hot(label).flatten(2).any(2)),
}


@pytest.mark.parametrize("name", TERMS)
def test_one_value_per_image_and_no_image_sees_another(name, case):
    whole = TERMS[name](*case)
    assert whole.shape == (B,)
    alone = torch.cat([TERMS[name](*(part[i : i + 1] for part in case)) for i in range(B)])
    torch.testing.assert_close(whole, alone, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", TERMS)
def test_gradient(name, case):
    logits, label, crf = case
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: TERMS[name](x, label, crf), (logits,))


@pytest.mark.parametrize("name", ["seed", "boundary", "cross_entropy"])
def test_foreground_labels_are_interchangeable(name, case):
    logits, label, crf = case
    order = torch.tensor([0, 3, 1, 2])
    renamed = label.clone()
    for new, old in enumerate(order):
        renamed[label == old] = new
    torch.testing.assert_close(TERMS[name](logits[:, order], renamed, crf[:, order]), TERMS[name](logits, label, crf))


@pytest.mark.parametrize("name", ["seed", "cross_entropy", "full"])
def test_nothing_labelled_gives_zero(name, case):
    logits, label, crf = case
    logits.requires_grad_()
    value = TERMS[name](logits, torch.full_like(label, IGNORE), crf)
    value.sum().backward()
    assert value.tolist() == [0.0] * B
    assert (logits.grad == 0).all()


def test_seed_loss_by_hand():
    prob = torch.tensor([[[[0.5, 0.8, 0.1]], [[0.25, 0.1, 0.7]], [[0.25, 0.1, 0.2]]]])
    cues = torch.zeros(1, 3, 1, 3, dtype=torch.bool)
    cues[0, 0, 0, 0] = cues[0, 1, 0, 1] = cues[0, 1, 0, 2] = cues[0, 2, 0, 2] = True
    expected = -math.log(0.5) - (math.log(0.1) + math.log(0.7) + math.log(0.2)) / 3
    assert losses.seed_loss(prob.log(), cues).item() == pytest.approx(expected, rel=1e-6)


def test_seed_loss_ignores_infinite_log_probabilities_elsewhere():
    log_prob = torch.tensor([[[[-math.inf, 0.0]], [[0.0, -math.inf]]]], requires_grad=True)
    cues = torch.tensor([[[[False, True]], [[False, False]]]])
    value = losses.seed_loss(log_prob, cues)
    value.sum().backward()
    assert value.item() == 0
    assert log_prob.grad is not None
    assert log_prob.grad.isfinite().all()


def test_boundary_loss_by_hand():
    prob = torch.tensor([[[[0.5, 0.99]], [[0.5, 0.01]]]])
    crf = torch.tensor([[[[0.8, 0.01]], [[0.2, 0.99]]]])
    first = 0.8 * math.log(1.6) + 0.2 * math.log(0.4)
    second = 0.01 * math.log(0.05) + 0.99 * math.log(20)  # both ratios clipped: 1/99 and 99
    assert losses.boundary_loss(prob, crf).item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_boundary_loss_is_zero_at_the_target_which_takes_no_gradient(case):
    _, _, crf = case
    crf.requires_grad_()
    prob = crf.detach().clone().requires_grad_()
    value = losses.boundary_loss(prob, crf)
    value.sum().backward()
    torch.testing.assert_close(value, torch.zeros_like(value))
    assert crf.grad is None


def test_boundary_loss_survives_zeros():
    prob = torch.tensor([[[[0.0, 1.0]], [[1.0, 0.0]]]], requires_grad=True)
    crf = torch.tensor([[[[1.0, 1.0]], [[0.0, 0.0]]]])
    value = losses.boundary_loss(prob, crf)
    value.sum().backward()
    assert value.item() == pytest.approx(math.log(20) / 2)
    assert prob.grad is not None
    assert prob.grad.isfinite().all()


def test_softmax_floor():
    prob = losses.softmax_floor(torch.tensor([[[[100.0]], [[0.0]]]]), floor=1e-4)
    assert prob.flatten().tolist() == pytest.approx([1.0001 / 1.0002, 1e-4 / 1.0002], rel=1e-5)
    assert prob.log().isfinite().all()


def test_cross_entropy_by_hand():
    logits = torch.tensor([[0.5, 0.25], [0.5, 0.75]]).log().view(1, 2, 1, 2)
    assert losses.cross_entropy(logits, torch.tensor([[[0, 1]]], dtype=torch.uint8)).item() == pytest.approx(
        -(math.log(0.5) + math.log(0.75)) / 2
    )
    assert losses.cross_entropy(logits, torch.tensor([[[255, 1]]], dtype=torch.uint8)).item() == pytest.approx(-math.log(0.75))


def test_full_loss_is_the_papers_sum_over_classes(case):
    logits, label, _ = case
    log_prob, image = logits.log_softmax(dim=1), 1
    present = [c for c in range(L) if (label[image] == c).any()]
    total = -sum(log_prob[image, c][label[image] == c].sum() for c in present)
    pixels = sum(int((label[image] == c).sum()) for c in present)
    torch.testing.assert_close(losses.full_loss(logits, label)[image], total / pixels)


def test_multilabel_bce_by_hand():
    value = losses.multilabel_bce(torch.tensor([[0.0, 2.0]]), torch.tensor([[1, 0]], dtype=torch.uint8))
    assert value.item() == pytest.approx((math.log(2) + math.log(1 + math.exp(2))) / 2)


def test_selective_training_with_sharpness_0_is_the_plain_mean(case):
    """L_plain (Multi-Estimations, Eq. 4) where every seed decides every pixel."""
    logits, label, _ = case
    label = label.masked_fill(label == IGNORE, 1)
    seeds = torch.stack([label, label.roll(1, dims=-1), label.roll(2, dims=1)], dim=1)
    found, weights = losses.selective_cross_entropy(logits, seeds, sharpness=0.0)
    each = [torch.nn.functional.cross_entropy(logits, seeds[:, k].long(), reduction="none").mean(dim=(1, 2)) for k in range(3)]
    torch.testing.assert_close(found, sum(each) / 3)
    assert torch.allclose(weights, torch.full_like(weights, 1 / 3))
    for over in ("labelled", "pixels"):
        torch.testing.assert_close(losses.selective_cross_entropy(logits, seeds, sharpness=0.0, over=over)[0], found)


def test_selective_weights_by_hand():
    """One pixel, the network says 1; seeds 1, 2, 1, undecided; s = 1 (Eqs. 6 and 7)."""
    logits = torch.tensor([0.0, 2.0, 1.0])[None, :, None, None]
    seeds = torch.tensor([1, 2, 1, IGNORE], dtype=torch.uint8)[None, :, None, None]
    found, weights = losses.selective_cross_entropy(logits, seeds, sharpness=1.0)
    e, log_p = math.e, torch.log_softmax(logits.flatten(), dim=0)
    torch.testing.assert_close(weights.flatten(), torch.tensor([e, 1, e, 0]) / (2 * e + 1))
    torch.testing.assert_close(found[0], -(2 * e * log_p[1] + log_p[2]) / (2 * e + 1))
    nothing, _ = losses.selective_cross_entropy(logits, torch.full_like(seeds, IGNORE), sharpness=1.0)
    assert nothing.item() == 0
    half = torch.cat([seeds, torch.full_like(seeds, IGNORE)], dim=-1)
    wide = logits.expand(1, 3, 1, 2)
    torch.testing.assert_close(losses.selective_cross_entropy(wide, half, sharpness=1.0)[0], found)
    torch.testing.assert_close(losses.selective_cross_entropy(wide, half, sharpness=1.0, over="pixels")[0], found / 2)


def test_unknown_seeds_count_in_the_printed_form():
    """Two pixels, three seeds, N_k = 3 and HW = 2: Eqs. 4 and 5 by hand. An unknown seed has y = 0 in every class."""
    logits = torch.tensor([[0.0, 2.0], [1.0, 0.0]])[None, :, None]  # (label, pixel): p(1) is sigmoid(1), sigmoid(-2)
    seeds = torch.tensor([[1, 1], [0, IGNORE], [IGNORE, IGNORE]], dtype=torch.uint8)[None, :, None]
    right, wrong, far = math.log(1 + math.exp(-1)), math.log(1 + math.exp(1)), math.log(1 + math.exp(2))  # -log p of the labels
    plain, weights = losses.selective_cross_entropy(logits, seeds, sharpness=0.0, over="pixels", unknown="counted")
    assert plain.item() == pytest.approx((right + wrong + far) / (3 * 2)), "1 / (N_k HW) for each label"
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 3))
    weighted, weights = losses.selective_cross_entropy(logits, seeds, sharpness=1.0, over="pixels", unknown="counted")
    e = math.e
    torch.testing.assert_close(weights[0, :, 0], torch.tensor([[e / (e + 2), 1 / 3], [1 / (e + 2), 1 / 3], [1 / (e + 2), 1 / 3]]))
    assert weighted.item() == pytest.approx((e * right / (e + 2) + wrong / (e + 2) + far / 3) / 2)
    left_out, _ = losses.selective_cross_entropy(logits, seeds, sharpness=0.0, over="pixels")
    assert left_out.item() == pytest.approx(((right + wrong) / 2 + far) / 2), "by default the seeds that decide share the weight"


@pytest.mark.parametrize("sharpness", [50.0, 1e4])
def test_sharp_weights_choose_the_seeds_that_agree(case, sharpness):
    logits, *_ = case
    own = logits.argmax(dim=1).to(torch.uint8)
    seeds = torch.stack([own, (own + 1) % L], dim=1)
    found, weights = losses.selective_cross_entropy(logits, seeds, sharpness=sharpness)
    assert weights[:, 0].min() > 1 - 1e-9
    assert torch.isfinite(found).all()


def test_background_and_foreground_are_averaged_apart(case):
    logits, label, _ = case
    every = torch.nn.functional.cross_entropy(logits, label.long(), ignore_index=IGNORE, reduction="none")
    bg, fg = losses.two_sided_cross_entropy(logits, label)
    for b in range(B):
        torch.testing.assert_close(bg[b], every[b][label[b] == 0].mean())
        torch.testing.assert_close(fg[b], every[b][(label[b] != 0) & (label[b] != IGNORE)].mean())
    for only in (0, 1, IGNORE):
        terms = losses.two_sided_cross_entropy(logits, torch.full_like(label, only))
        assert all(torch.isfinite(term).all() for term in terms)
        assert (terms[0] == 0).all() == (only != 0)
        assert (terms[1] == 0).all() == (only != 1)


def test_online_labels_are_the_best_of_tags_and_background():
    logits = torch.tensor([[1.0, 5.0, 3.0, 2.0], [4.0, 9.0, 0.0, 3.0]]).T[None, :, None, :].requires_grad_()
    tags = torch.tensor([[0.0, 1.0, 1.0]])
    label = losses.online_labels(logits, tags, torch.tensor([[[True, True]]]))
    assert label.tolist() == [[[2, 0]]], "class 0 is not in the image, though it scores highest"
    assert label.dtype == torch.uint8
    assert not label.requires_grad
    assert losses.online_labels(logits, tags, torch.tensor([[[True, False]]])).tolist() == [[[2, IGNORE]]]
    assert losses.online_labels(logits, torch.zeros(1, 3), torch.tensor([[[True, True]]])).tolist() == [[[0, 0]]]
