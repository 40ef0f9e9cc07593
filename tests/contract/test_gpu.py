"""Every method on CUDA: losses fall, two trainings end in equal bytes, and CUDA agrees with the CPU. `make gpu` runs this.

It needs no Ray. Convolutions use full float32 here (TF32 is off), so that what differs from the CPU is the order of sums.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.made import picture, smooth_prob
from tests.devices import check_equal_bytes, check_losses_fall, check_rows, check_trainings, deterministic
from tests.tiny import skip_without_extras
from wsss_ray.core.values import IGNORE
from wsss_ray.methods import methods
from wsss_ray.ops.crf import DenseCrf
from wsss_ray.ops.energy import dense_energy
from wsss_ray.ops.lattice.base import bilateral_features
from wsss_ray.ops.lattice.build import build_lattice

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

NAMES = sorted(methods())
LOSSES = 1e-2
"""Largest relative difference of a loss term in three steps: Adam's first steps enlarge differences of small gradients."""

MAPS = 5e-3
"""Largest difference of a map, whose values are from 0 to 1 and stored in half precision."""

LABELS = 0.99
"""Least share of pixels with the same label."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tmp_path_factory.mktemp("gpu"))


@pytest.fixture(autouse=True)
def full_float32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


@pytest.mark.parametrize("name", NAMES)
def test_its_losses_are_those_of_the_cpu(folder, name):
    skip_without_extras(name)
    check_trainings(name, folder, False, "cuda", LOSSES)


@pytest.mark.parametrize("name", NAMES)
def test_its_maps_labels_and_scores_are_those_of_the_cpu(folder, name):
    skip_without_extras(name)
    check_rows(name, folder, False, "cuda", MAPS, LABELS)


@pytest.mark.parametrize("name", NAMES)
def test_its_losses_fall(folder, name):
    skip_without_extras(name)
    check_losses_fall(name, folder, False, "cuda", 25)


@pytest.mark.filterwarnings("default")  # torch warns of an operation that may not repeat; the bytes decide
@pytest.mark.parametrize("name", NAMES)
def test_two_trainings_end_in_the_same_bytes(folder, name):
    skip_without_extras(name)
    with deterministic():
        check_equal_bytes(name, folder, "cuda")


def test_lattice_crf_and_energy_are_those_of_the_cpu():
    image = picture(96, 128, seed=0)
    features = bilateral_features(torch.from_numpy(image), sxy=50, srgb=15)
    on_gpu = bilateral_features(torch.from_numpy(image).cuda(), sxy=50, srgb=15)
    assert torch.equal(on_gpu.cpu(), features)
    values = torch.rand(len(features), 21, generator=torch.Generator().manual_seed(0))
    filtered = build_lattice(on_gpu).filter(values.cuda())
    assert torch.equal(build_lattice(on_gpu).filter(values.cuda()), filtered)
    torch.testing.assert_close(filtered.cpu(), build_lattice(features).filter(values), rtol=1e-4, atol=1e-5)
    prob, crf = smooth_prob(3, 96, 128, seed=0), DenseCrf(backend="lattice")
    np.testing.assert_allclose(crf.refine(image, prob, device="cuda"), crf.refine(image, prob), atol=1e-3)
    image_BCHW = torch.from_numpy(np.stack([picture(65, 49, seed=seed) for seed in (0, 1)])).permute(0, 3, 1, 2)
    prob_BLHW = torch.from_numpy(np.stack([smooth_prob(4, 65, 49, seed=seed) for seed in (5, 6)])).double()
    label_BHW = torch.full((2, 65, 49), IGNORE, dtype=torch.uint8)
    label_BHW[:, 20:50, 10:30] = 3
    case = (prob_BLHW, image_BCHW, label_BHW, torch.ones(2, 65, 49, dtype=torch.bool))
    ours = dense_energy(*(part.cuda() for part in case))
    torch.testing.assert_close(ours.cpu(), dense_energy(*case), rtol=1e-6, atol=0)
