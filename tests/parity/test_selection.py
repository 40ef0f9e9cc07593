"""The closed forms against the paper's own forms, at borders too."""

from __future__ import annotations

import pytest
import torch

from tests.parity.naive_selection import autograd_cams, expanded_logits, naive_logits
from wsss_ray.ops import selection

SHAPES = [(3, 7, 5), (5, 6, 9), (9, 6, 11), (9, 13, 10), (3, 1, 4)]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def problem(size: int, height: int, width: int, dtype: torch.dtype, n: int = 3, rate: float = 0.7):
    g = torch.Generator().manual_seed(size * 1000 + height * 10 + width)
    x = torch.randn(n, 6, height, width, generator=g, dtype=torch.float64)
    weight = torch.randn(4, 6, size, size, generator=g, dtype=torch.float64)
    keep = selection.sample_keep(n=n, kernel_size=size, height=height, width=width, dropout_rate=rate, generator=g)
    return x.to(dtype), weight.to(dtype), keep


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("oracle", [naive_logits, expanded_logits])
def test_logits_and_gradients_equal_the_plain_forms(shape, dtype, oracle, record_property):
    x, weight, keep = problem(*shape, dtype)
    results = []
    for form in (selection.selection_logits, oracle):
        a, b = x.clone().requires_grad_(), weight.clone().requires_grad_()
        logits = form(a, b, keep)
        torch.autograd.backward((logits * torch.arange(1.0, 5.0, dtype=dtype)).sum())
        results.append((logits.detach(), a.grad, b.grad))
    worst = max(relative(ours, theirs) for ours, theirs in zip(*results, strict=True))
    record_property("largest_relative_difference", worst)
    assert worst < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("oracle", [naive_logits, expanded_logits])
def test_cams_equal_autograd(shape, dtype, oracle):
    x, weight, keep = problem(*shape, dtype)
    ours = selection.selection_cams(x[0], weight, keep)
    assert relative(ours, autograd_cams(oracle, x[0], weight, keep)) < TOLERANCE[dtype]


def test_cams_do_not_depend_on_the_chunk(monkeypatch):
    x, weight, keep = problem(5, 6, 9, torch.float64, n=7)
    whole = selection.selection_cams(x[0], weight, keep)
    monkeypatch.setattr(selection, "_CHUNK", 1)
    assert torch.equal(selection.selection_cams(x[0], weight, keep), whole)


def test_deterministic_selection_is_a_plain_convolution():
    x, weight, _ = problem(5, 6, 9, torch.float64)
    keep = selection.keep_all(n=3, kernel_size=5, height=6, width=9)
    plain = torch.nn.functional.conv2d(x, weight, padding=2).mean(dim=(2, 3))
    assert relative(selection.selection_logits(x, weight, keep), plain) < 1e-12


def test_general_dropout_is_dropout_of_locations():
    x, weight, _ = problem(5, 6, 9, torch.float64)
    draw = dict(n=3, kernel_size=5, height=6, width=9, dropout_rate=0.6)
    keep = selection.sample_dropout(**draw, generator=torch.Generator().manual_seed(1))
    centre = keep[:, 12]  # the window at u keeps its centre exactly when location u is kept
    assert 0.2 < centre.double().mean() < 0.6
    plain = torch.nn.functional.conv2d(x * centre.unsqueeze(1), weight, padding=2).mean(dim=(2, 3))
    assert relative(selection.selection_logits(x, weight, keep), plain) < 1e-12


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.9, 1.0])
def test_keep_has_the_rate_and_always_the_centre(rate):
    keep = selection.sample_keep(
        n=20, kernel_size=9, height=21, width=17, dropout_rate=rate, generator=torch.Generator().manual_seed(3)
    )
    assert keep.shape == (20, 81, 21, 17)
    assert keep.dtype == torch.bool
    assert keep[:, 40].all()
    others = torch.cat([keep[:, :40], keep[:, 41:]], dim=1).double()
    sigma = (rate * (1 - rate) / others.numel()) ** 0.5
    assert abs(others.mean() - (1 - rate)) <= 5 * sigma + 2**-16
    per_offset = others.mean(dim=(0, 2, 3))
    assert (per_offset - (1 - rate)).abs().max() <= 6 * sigma * 80**0.5 + 2**-16


def test_the_stream_is_the_same_in_chunks():
    draw = dict(kernel_size=3, height=5, width=7, dropout_rate=0.5)
    g1, g2 = torch.Generator().manual_seed(9), torch.Generator().manual_seed(9)
    whole = selection.sample_keep(n=6, generator=g1, **draw)
    parts = [selection.sample_keep(n=k, generator=g2, **draw) for k in (1, 3, 2)]
    assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize("wrong", [{"kernel_size": 4}, {"dropout_rate": 1.5}, {"dropout_rate": float("nan")}])
def test_bad_arguments_are_named(wrong):
    good = dict(n=1, kernel_size=3, height=2, width=2, dropout_rate=0.5, generator=torch.Generator())
    with pytest.raises(ValueError, match=next(iter(wrong))):
        selection.sample_keep(**(good | wrong))
