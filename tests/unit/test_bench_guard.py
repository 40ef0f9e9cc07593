"""What makes the quick forms quick, at tiny sizes: operations that do not happen, and ratios in one run with a wide margin."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.parity.naive_selection import autograd_cams, expanded_logits
from wsss_ray.ops.crf import DenseCrf
from wsss_ray.ops.selection.closed_form import sample_keep, stochastic_cams, stochastic_logits

pytestmark = pytest.mark.alone

K, S, H, W = 32, 5, 12, 12


def features(batch=1):
    rng = torch.Generator().manual_seed(0)
    return torch.randn(batch, K, H, W, generator=rng), torch.randn(2, K, S, S, generator=rng)


def quickest(work, runs=5):
    best = float("inf")
    for _ in range(runs):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best


def test_more_selections_cost_no_more_products():
    x, weight = features()
    for n in (1, 50):
        with FlopCounterMode(display=False) as counted:
            list(stochastic_cams(x[0], weight, key=1, n=n, dropout_rate=0.9))
        assert counted.get_total_flops() == 2 * (2 * S * S) * K * (H * W)


def test_the_training_head_is_one_product_over_the_map():
    x, weight = features(3)
    with FlopCounterMode(display=False) as counted:
        stochastic_logits(x, weight, keys=[1, 2, 3], dropout_rate=0.9)
    assert counted.get_total_flops() == 2 * 3 * K * (H * W) * (S * S) + 2 * 3 * 2 * K * S * S


def test_inference_beats_the_expanded_form_many_times():
    x, weight = features()
    keep = sample_keep(key=1, n=4, kernel_size=S, height=H, width=W, dropout_rate=0.9)
    ours = quickest(lambda: list(stochastic_cams(x[0], weight, key=1, n=4, dropout_rate=0.9)))
    theirs = quickest(lambda: autograd_cams(expanded_logits, x[0], weight, keep), runs=2)
    assert theirs > 5 * ours


def photograph(labels=3, height=120, width=160):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    image = (np.stack([x, y, x + y], axis=-1) / 2 + 40 * (x > y)[..., None] + rng.normal(0, 4, (height, width, 3))).clip(0, 255)
    prob = rng.dirichlet(np.ones(labels), (height, width)).transpose(2, 0, 1)
    return image.astype(np.uint8), np.ascontiguousarray(prob, np.float32)


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_crf_beats_pydensecrf(one_thread):
    image, prob = photograph()
    ours, theirs = (partial(DenseCrf(backend=backend).refine, image, prob) for backend in ("lattice", "pydensecrf"))
    assert np.array_equal(ours().argmax(axis=0), theirs().argmax(axis=0))
    assert quickest(theirs) > 1.3 * quickest(ours)


def test_many_label_sets_share_one_pair_of_lattices(one_thread):
    image, prob = photograph()
    crf, probs = DenseCrf(iterations=3), [prob] * 6
    together, singly = quickest(lambda: crf.refine_all(image, probs)), quickest(lambda: [crf.refine(image, one) for one in probs])
    assert singly > 1.3 * together
