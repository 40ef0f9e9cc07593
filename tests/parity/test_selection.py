"""The closed forms against the paper's own forms, at borders too."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from tests.parity.naive_selection import autograd_cams, expanded_logits, naive_logits
from wsss_ray.ops import splitmix
from wsss_ray.ops.selection import closed_form

SHAPES = [(3, 7, 5), (5, 6, 9), (9, 6, 11), (9, 13, 10), (3, 1, 4)]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def problem(size: int, height: int, width: int, dtype: torch.dtype, n: int = 3, rate: float = 0.7):
    g = torch.Generator().manual_seed(size * 1000 + height * 10 + width)
    x = torch.randn(n, 6, height, width, generator=g, dtype=torch.float64)
    weight = torch.randn(4, 6, size, size, generator=g, dtype=torch.float64)
    keep = closed_form.sample_keep(key=size, n=n, kernel_size=size, height=height, width=width, dropout_rate=rate)
    return x.to(dtype), weight.to(dtype), keep


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("oracle", [naive_logits, expanded_logits])
def test_logits_and_gradients_equal_the_plain_forms(shape, dtype, oracle, record_property):
    x, weight, keep = problem(*shape, dtype)
    results = []
    for form in (closed_form.selection_logits, oracle):
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
    ours = closed_form.selection_cams(x[0], weight, keep)
    assert relative(ours, autograd_cams(oracle, x[0], weight, keep)) < TOLERANCE[dtype]


def test_cams_do_not_depend_on_the_chunk(monkeypatch):
    x, weight, keep = problem(5, 6, 9, torch.float64, n=7)
    whole = closed_form.selection_cams(x[0], weight, keep)
    monkeypatch.setattr(closed_form, "_CHUNK", 1)
    assert torch.equal(closed_form.selection_cams(x[0], weight, keep), whole)


def test_deterministic_selection_is_a_plain_convolution():
    x, weight, _ = problem(5, 6, 9, torch.float64)
    keep = closed_form.keep_all(n=3, kernel_size=5, height=6, width=9)
    plain = torch.nn.functional.conv2d(x, weight, padding=2).mean(dim=(2, 3))
    assert relative(closed_form.selection_logits(x, weight, keep), plain) < 1e-12


def test_general_dropout_is_dropout_of_locations():
    x, weight, _ = problem(5, 6, 9, torch.float64)
    draw = dict(n=3, kernel_size=5, height=6, width=9, dropout_rate=0.6)
    keep = closed_form.sample_dropout(**draw, key=1)
    centre = keep[:, 12]  # the window at u keeps its centre exactly when location u is kept
    assert 0.2 < centre.double().mean() < 0.6
    plain = torch.nn.functional.conv2d(x * centre.unsqueeze(1), weight, padding=2).mean(dim=(2, 3))
    assert relative(closed_form.selection_logits(x, weight, keep), plain) < 1e-12


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.9, 1.0])
def test_keep_has_the_rate_and_always_the_centre(rate):
    keep = closed_form.sample_keep(key=3, n=20, kernel_size=9, height=21, width=17, dropout_rate=rate)
    assert keep.shape == (20, 81, 21, 17)
    assert keep.dtype == torch.bool
    assert keep[:, 40].all()
    others = torch.cat([keep[:, :40], keep[:, 41:]], dim=1).double()
    sigma = (rate * (1 - rate) / others.numel()) ** 0.5
    assert abs(others.mean() - (1 - rate)) <= 5 * sigma + 2**-16
    per_offset = others.mean(dim=(0, 2, 3))
    assert (per_offset - (1 - rate)).abs().max() <= 6 * sigma * 80**0.5 + 2**-16


@pytest.mark.parametrize("sample", [closed_form.sample_keep, closed_form.sample_dropout])
def test_the_stream_is_the_same_in_chunks(sample):
    draw = dict(key=9, kernel_size=3, height=5, width=7, dropout_rate=0.5)
    whole = sample(n=6, **draw)
    parts = [sample(n=n, first=first, **draw) for first, n in ((0, 1), (1, 3), (4, 2))]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, sample(n=6, **(draw | {"key": 10})))
    assert not torch.equal(whole[:1], whole[1:2])


def test_splitmix_gives_the_published_numbers():
    """The first five of seed 1234567, as the reference implementation in C prints them."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    drawn = splitmix.draws(1234567, torch.arange(5))
    assert [value % 2**64 for value in drawn.tolist()] == published
    parts = splitmix.lanes(1234567, torch.arange(5)).view(5, 4).tolist()
    assert [sum((part % 2**16) << (16 * place) for place, part in enumerate(four)) for four in parts] == published


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rate", [0.0, 0.5, 0.9, 1.0])
def test_the_loops_equal_the_plain_forms(shape, dtype, rate, monkeypatch):
    x, weight, _ = problem(*shape, dtype)
    size, height, width = shape
    draw = dict(kernel_size=size, height=height, width=width, dropout_rate=rate)
    for key in (0, 77, 2**63 + 5):
        plain = closed_form.selection_cams(x[0], weight, closed_form.sample_keep(key=key, n=5, **draw))
        (cams,) = closed_form.stochastic_cams(x[0], weight, key=key, n=5, dropout_rate=rate)
        assert cams.dtype == dtype
        assert relative(cams, plain) < TOLERANCE[dtype]
        with monkeypatch.context() as patch:
            patch.setattr(closed_form, "_CHUNK", 2 * 4 * height * width)
            pieces = list(closed_form.stochastic_cams(x[0], weight, key=key, n=5, dropout_rate=rate))
        assert len(pieces) > 1
        assert torch.equal(torch.cat(pieces), cams)
    keys = [4, 2**63 + 5, 6]
    results = []
    for form in (
        lambda a, b: closed_form.stochastic_logits(a, b, keys=keys, dropout_rate=rate),
        lambda a, b: closed_form.selection_logits(
            a, b, torch.cat([closed_form.sample_keep(key=key, n=1, **draw) for key in keys])
        ),
    ):
        a, b = x.clone().requires_grad_(), weight.clone().requires_grad_()
        logits = form(a, b)
        logits.sum().backward()
        results.append((logits.detach(), a.grad, b.grad))
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


def test_cams_of_no_class():
    x, weight, _ = problem(3, 7, 5, torch.float32)
    (cams,) = closed_form.stochastic_cams(x[0], weight[:0], key=1, n=4, dropout_rate=0.9)
    assert cams.shape == (4, 0, 7, 5)


INTERPRETED = """
import numpy as np, torch
from wsss_ray.ops.selection import closed_form, loops, triton_kernels
for classes, size, height, width, count, first in ((3, 5, 6, 9, 4, 2), (9, 3, 1, 4, 2, 0), (1, 9, 17, 20, 1, 7)):
    answer = torch.randn(classes, size * size, height * width, generator=torch.Generator().manual_seed(0))
    for key in (3, 2**63 + 11):
        for rate in (0.3, 0.9, 1.0):
            how = size, height, width, key, first, closed_form._below(rate)
            sums = [torch.full((count, classes, height * width), 7.0) for _ in range(2)]
            loops.masked_sums_of_tensors(answer, *how, sums[0])
            triton_kernels.masked_sums(answer, *how, sums[1])
            assert torch.equal(*sums), (classes, key, rate)
print("equal")
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton, which torch's builds for CUDA bring")
def test_the_kernel_equals_the_loops_in_tritons_interpreter():
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout == "equal\n", done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu():
    x, weight, _ = problem(9, 13, 10, torch.float32)
    draw = dict(key=5, n=7, dropout_rate=0.9)
    ours = torch.cat(list(closed_form.stochastic_cams(x[0].cuda(), weight.cuda(), **draw))).cpu()
    assert relative(ours, torch.cat(list(closed_form.stochastic_cams(x[0], weight, **draw)))) < 1e-5
    mask = dict(key=5, n=7, kernel_size=9, height=13, width=10, dropout_rate=0.9)
    assert torch.equal(closed_form.sample_keep(**mask, device="cuda").cpu(), closed_form.sample_keep(**mask))
    logits = closed_form.stochastic_logits(x.cuda(), weight.cuda(), keys=[1, 2, 3], dropout_rate=0.9)
    assert relative(logits.cpu(), closed_form.stochastic_logits(x, weight, keys=[1, 2, 3], dropout_rate=0.9)) < 1e-5


@pytest.mark.parametrize("wrong", [{"kernel_size": 4}, {"dropout_rate": 1.5}, {"dropout_rate": float("nan")}])
def test_bad_arguments_are_named(wrong):
    good = dict(n=1, kernel_size=3, height=2, width=2, dropout_rate=0.5)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        closed_form.sample_keep(key=0, **(good | wrong))
