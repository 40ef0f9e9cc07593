"""The lattice, its CRF and the dense energy loss, against a naive lattice, pydensecrf and sums over all pairs of pixels.

The lattice approximates the sums of Gaussians, as Krähenbühl's does. On the photographs here its sums are 0.88 of the exact ones
in two dimensions and about half of them in five, where many corners of the lattice are missing; sums divided by those of ones, as
the CRF uses them, are off by 0.002 and 0.002 to 0.022 (root mean square). The dense energy and its gradient are 0.5 to 0.6 of the
exact ones; that factor aside, the gradient is off by 5 to 12 %.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.parity.naive_lattice import all_pairs, naive_filter, photo, smooth_prob
from wsss_ray.core.values import IGNORE
from wsss_ray.ops.crf import DenseCrf
from wsss_ray.ops.energy import dense_energy
from wsss_ray.ops.lattice import mean_field
from wsss_ray.ops.lattice.base import bilateral_features, spatial_features
from wsss_ray.ops.lattice.build import build_lattice
from wsss_ray.ops.lattice.compiled import CompiledLattice
from wsss_ray.ops.lattice.on_torch import TorchLattice

FORMS = [CompiledLattice, TorchLattice]

# --- the filter


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
def test_filter_equals_naive_lattice(dimensions, form):
    rng = np.random.default_rng(dimensions)
    features, values = rng.normal(0, 1.2, (72, dimensions)), rng.normal(size=(72, 2))
    filtered = form.build(torch.from_numpy(features)).filter(torch.from_numpy(values))
    np.testing.assert_allclose(filtered, naive_filter(features, values), rtol=1e-9, atol=1e-9)
    features[70:], values[70:] = 0, 0  # what the lattice adds to 70 points, as densecrf does
    filtered = form.build(torch.from_numpy(features)).filter(torch.from_numpy(values))[:70]
    assert torch.equal(form.build(torch.from_numpy(features[:70])).filter(torch.from_numpy(values[:70])), filtered)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("height", "width", "sxy"), [(1, 1, 4), (1, 7, 4), (13, 5, 2), (41, 41, 80 / 12), (63, 65, 80)])
def test_compiled_form_equals_torch_form(height, width, sxy, reverse):
    image = torch.from_numpy(photo(0, height, width))
    rng = torch.Generator().manual_seed(width)
    for features in (bilateral_features(image, sxy=sxy, srgb=13), spatial_features(height, width, sxy=sxy)):
        compiled, plain = CompiledLattice.build(features), TorchLattice.build(features)
        assert compiled.beside_VM2.shape[1] - 1 == len(plain.splat.start) - 1
        for columns in (0, 1, 3, 4, 6, 21):
            values = torch.rand(height * width, columns, generator=rng)
            ours, theirs = compiled.filter(values, reverse=reverse), plain.filter(values, reverse=reverse)
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
            ours = compiled.filter(values.double().T.contiguous().T, reverse=reverse)  # laid out by column
            torch.testing.assert_close(ours, plain.filter(values.double(), reverse=reverse), rtol=1e-6, atol=1e-6)
        ours = CompiledLattice.build(features.double()).filter(values.double(), reverse=reverse)
        theirs = TorchLattice.build(features.double()).filter(values.double(), reverse=reverse)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_form_follows_the_device():
    features = spatial_features(3, 5, sxy=2)
    assert isinstance(build_lattice(features), CompiledLattice)
    for wrong in (torch.ones(14, 2), torch.ones(16, 2), torch.ones(15)):
        with pytest.raises(ValueError, match="15 points"):
            build_lattice(features).filter(wrong)


@pytest.mark.parametrize(("dimensions", "share"), [(1, 0.921), (2, 0.882)])
def test_mass_without_missing_corners(dimensions, share):
    """Mass of the lattice's kernel over that of the Gaussian: alpha 2^V 1.5^(D/2) / sqrt(V) / (2 pi)^(D/2)."""
    corners = dimensions + 1
    mass = 2.0**corners / (1 + 2.0**-dimensions) * 1.5 ** (dimensions / 2) / math.sqrt(corners)
    assert mass / (2 * math.pi) ** (dimensions / 2) == pytest.approx(share, abs=1e-3)
    side = torch.arange(-8, 8, 0.05 if dimensions == 1 else 0.1, dtype=torch.float64)
    features = torch.cartesian_prod(*[side] * dimensions).reshape(-1, dimensions)
    filtered = build_lattice(features).filter(torch.ones(len(features), 1, dtype=torch.float64))[:, 0]
    inner = features.abs().amax(dim=1) < 2
    spacing = float(side[1] - side[0])
    assert filtered[inner].mean() * spacing**dimensions == pytest.approx(mass, rel=2e-3)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    ("sxy", "srgb", "share", "error"),
    [(3, None, (0.87, 0.89), 0.003), (80, 13, (0.48, 0.57), 0.005), (50, 15, (0.51, 0.61), 0.004), (65, 3, (0.42, 0.57), 0.025)],
)
def test_filter_approximates_gaussian_sums(which, sxy, srgb, share, error):
    image = torch.from_numpy(photo(which, 48, 64))
    features = bilateral_features(image, sxy=sxy, srgb=srgb) if srgb else spatial_features(48, 64, sxy=sxy)
    values = torch.rand(len(features), 2, generator=torch.Generator().manual_seed(0))
    values[:, 0] = 1
    ours, exact = build_lattice(features).filter(values).double(), all_pairs(features, values)
    assert share[0] < ours[:, 0].sum() / exact[:, 0].sum() < share[1]
    difference = ours[:, 1] / ours[:, 0] - exact[:, 1] / exact[:, 0]
    assert difference.square().mean().sqrt() < error


def test_reverse_is_the_adjoint_and_the_filter_nearly_symmetric():
    features = bilateral_features(torch.from_numpy(photo(1, 16, 20)), sxy=20, srgb=13).double()
    lattice, ones = build_lattice(features), torch.eye(len(features), dtype=torch.float64)
    forward, backward = lattice.filter(ones), lattice.filter(ones, reverse=True)
    torch.testing.assert_close(forward.T, backward, rtol=1e-12, atol=1e-12)
    assert 1e-3 < (forward - forward.T).norm() / forward.norm() < 0.15
    assert (forward >= 0).all()
    assert (forward.diagonal() > 0).all()


def test_columns_are_independent_and_runs_repeat():
    features = bilateral_features(torch.from_numpy(photo(0, 60, 81)), sxy=50, srgb=15)
    values = torch.rand(len(features), 21, generator=torch.Generator().manual_seed(3))
    filtered = build_lattice(features).filter(values)
    for columns in (slice(0, 1), slice(4, 7), slice(5, 21)):
        assert torch.equal(build_lattice(features).filter(values[:, columns]), filtered[:, columns])
    assert build_lattice(features).filter(values[:, :0]).shape == (len(features), 0)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert torch.equal(build_lattice(features).filter(values), filtered)
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(build_lattice(features).filter(values.double()).float(), filtered, rtol=1e-5, atol=1e-6)


def test_features_and_their_limits():
    image = torch.from_numpy(photo(0, 5, 7))
    features = bilateral_features(image, sxy=4, srgb=8)
    np.testing.assert_allclose(features[2 * 7 + 3], [3 / 4, 2 / 4, *(image[2, 3].numpy() / 8)])
    assert torch.equal(spatial_features(5, 7, sxy=4), features[:, :2])
    one = build_lattice(features[:1]).filter(torch.tensor([[2.0]]))
    same = build_lattice(features[:1].repeat(9, 1)).filter(torch.full((9, 1), 2.0))
    torch.testing.assert_close(same, 9 * one.repeat(9, 1))


@pytest.mark.parametrize("form", FORMS)
def test_points_that_no_lattice_holds(form):
    features = bilateral_features(torch.from_numpy(photo(0, 5, 7)), sxy=4, srgb=8)
    spoilt = [features.clone() for _ in range(3)]
    for one, (value, wrong) in enumerate(zip((math.nan, math.inf, 3e38), spoilt, strict=True)):
        wrong[11 * one + 1, one] = value
    for wrong in (features * 1e6, features[:, :2] * 1e8, features * math.nan, *spoilt):
        with pytest.raises(ValueError, match="too fine"):
            form.build(wrong)
    for wrong in (features[:0], features[0], features[:, :0]):
        with pytest.raises(ValueError, match="shape"):
            form.build(wrong)


# --- the CRF

PARAMETERS = [
    {},
    {"bilateral_sxy": 50, "bilateral_srgb": 5},
    {"bilateral_sxy": 49, "bilateral_srgb": 5, "bilateral_weight": 4},
    {"gaussian_sxy": 2, "gaussian_weight": 2, "bilateral_sxy": 65, "bilateral_srgb": 3, "bilateral_weight": 4},
    {"gaussian_sxy": 1, "bilateral_sxy": 67, "bilateral_srgb": 3, "bilateral_weight": 4},
    {"scale": 12, "unary": "probability"},
    {"gaussian_weight": 0, "iterations": 5},
    {"bilateral_weight": 0, "unary": "probability"},
]


@pytest.mark.parametrize("classes", [2, 3, 21])
@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
def test_crf_equals_pydensecrf(parameters, classes):
    image, prob = photo(0, 96, 128), smooth_prob(classes, 96, 128)
    expected = DenseCrf(backend="pydensecrf", **parameters).refine(image, prob)
    refined = DenseCrf(backend="lattice", **parameters).refine(image, prob)
    assert refined.dtype == np.float32
    assert (refined.argmax(0) == expected.argmax(0)).mean() >= 0.999
    np.testing.assert_allclose(refined, expected, atol=1e-3)
    assert (refined.argmax(0) != prob.argmax(0)).mean() > 0.01


@pytest.mark.parametrize(("height", "width"), [(41, 41), (94, 127), (95, 125)])
def test_crf_with_a_number_of_pixels_not_divisible_by_four(height, width):
    """densecrf then adds black pixels at the first position, which show where the image is dark there."""
    image, prob = photo(1, height, width), smooth_prob(3, height, width)
    refined, expected = DenseCrf(backend="lattice").refine(image, prob), DenseCrf(backend="pydensecrf").refine(image, prob)
    assert (refined.argmax(0) == expected.argmax(0)).mean() >= 0.999
    np.testing.assert_allclose(refined, expected, atol=1e-3)


def test_crf_on_hard_labels_equals_pydensecrf():
    image, prob = photo(1, 80, 100), smooth_prob(3, 80, 100)
    label = np.array([0, 7, 12], np.uint8)[prob.argmax(axis=0)]
    label[prob.max(axis=0) < 0.6] = IGNORE
    labels, refined = DenseCrf(backend="lattice").refine_labels(image, label, 0.7)
    expected_labels, expected = DenseCrf(backend="pydensecrf").refine_labels(image, label, 0.7)
    assert labels == expected_labels == (0, 7, 12)
    assert (refined.argmax(0) == expected.argmax(0)).mean() >= 0.999
    np.testing.assert_allclose(refined, expected, atol=1e-3)
    flipped = np.ascontiguousarray(image[:, ::-1])[:, ::-1]
    flipped.setflags(write=False)
    np.testing.assert_array_equal(DenseCrf(backend="lattice").refine_labels(flipped, label, 0.7)[1], refined)
    assert (DenseCrf(backend="lattice").refine(image, prob[:1]) == 1).all()
    assert DenseCrf(backend="lattice").refine_labels(image, np.full_like(label, IGNORE), 0.7)[1].shape == (0, 80, 100)


def test_label_sets_share_a_lattice_and_nothing_else():
    image = torch.from_numpy(photo(0, 60, 80))
    energies = [-torch.from_numpy(smooth_prob(classes, 60, 80, classes)).log() for classes in (3, 2, 1, 7)]
    energies.insert(1, energies[0][:0])
    how = dict(iterations=5, gaussian_sxy=3, gaussian_weight=3, bilateral_sxy=80, bilateral_srgb=13, bilateral_weight=10)
    together = mean_field.infer(image, energies, **how)
    for energy, prob in zip(energies, together, strict=True):
        assert torch.equal(prob, mean_field.infer(image, [energy], **how)[0])
        assert prob.shape == energy.shape
    assert (together[3] == 1).all()


HOW = dict(iterations=5, gaussian_sxy=3, gaussian_weight=3, bilateral_sxy=80, bilateral_srgb=13, bilateral_weight=10)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 6), (9, 7), (41, 41), (61, 67)])
@pytest.mark.parametrize("sets", [(2,), (21,), (40,), (3, 3, 3, 3, 3, 3), (1, 13, 0, 2, 17)], ids=str)
def test_compiled_inference_equals_the_plain_one(sets, height, width):
    image = torch.from_numpy(photo(1, height, width))
    rng = torch.Generator().manual_seed(len(sets))
    energies = [3 * torch.rand(classes, height, width, generator=rng) for classes in sets]
    kernels = [(spatial_features(height, width, sxy=3), 3), (bilateral_features(image, sxy=80, srgb=13), 10)]
    before = [energy.clone() for energy in energies]
    for some, steps, out in (
        (kernels, 5, {}),
        (kernels[:1], 2, {"bilateral_weight": 0}),
        (kernels[1:], 1, {"gaussian_weight": 0}),
        ([], 3, {"gaussian_weight": 0, "bilateral_weight": 0}),
        (kernels, 0, {}),
    ):
        ours = mean_field.infer(image, energies, **{**HOW, **out, "iterations": steps})
        plain = mean_field.mean_field(some, energies, steps)
        for one, other in zip(ours, plain, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=3e-4)  # steps amplify rounding where labels compete
    assert all(torch.equal(one, other) for one, other in zip(energies, before, strict=True))


def test_softmax_of_the_loops():
    energy = torch.linspace(0, 80, 60_000).reshape(3, 100, 200)[[1, 0, 2]]
    (prob,) = mean_field.infer(torch.zeros(100, 200, 3), [energy], **{**HOW, "iterations": 0})
    torch.testing.assert_close(prob, (-energy).softmax(dim=0), rtol=1e-6, atol=0)
    energy[0, 5, 7] = math.nan
    (prob,) = mean_field.infer(torch.zeros(100, 200, 3), [energy], **{**HOW, "iterations": 0})
    assert prob.isnan().sum() == 3
    (prob,) = mean_field.infer(torch.zeros(100, 200, 3), [energy], **HOW)
    assert prob[:, 5, 7].isnan().all()
    assert mean_field.infer(torch.zeros(100, 200, 3), [], **HOW) == []


def test_inference_repeats_whatever_runs_beside_it():
    pictures = [torch.from_numpy(photo(which, 45, 50 + which)) for which in (0, 1)]
    energies = [[-torch.from_numpy(smooth_prob(classes, 45, 50 + which)).log() for classes in (3, 21)] for which in (0, 1)]
    alone = [mean_field.infer(image, sets, **HOW) for image, sets in zip(pictures, energies, strict=True)]
    with ThreadPoolExecutor(4) as pool:
        runs = [(which, pool.submit(mean_field.infer, pictures[which], energies[which], **HOW)) for which in (0, 1) * 8]
        for which, run in runs:
            for one, other in zip(run.result(), alone[which], strict=True):
                assert torch.equal(one, other)


def test_energies_of_another_size_or_type():
    image, energy = torch.from_numpy(photo(0, 20, 30)), torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))
    for wrong in (energy[:, 1:], energy.reshape(3, -1), energy[0]):
        with pytest.raises(ValueError, match="20 x 30"):
            mean_field.infer(image, [energy, wrong], **HOW)
    (prob,) = mean_field.infer(image, [energy.double()], **HOW)  # goes through torch
    assert prob.dtype == torch.float64
    torch.testing.assert_close(prob.float(), mean_field.infer(image, [energy], **HOW)[0], rtol=0, atol=3e-4)
    turned = energy.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(mean_field.infer(image, [turned], **HOW)[0], mean_field.infer(image, [energy], **HOW)[0])


# --- the dense energy


@pytest.fixture
def energy_case():
    image = torch.from_numpy(np.stack([photo(0, 65, 49), photo(1, 65, 49)])).permute(0, 3, 1, 2)
    prob = torch.from_numpy(np.stack([smooth_prob(4, 65, 49, seed) for seed in (5, 6)])).double().requires_grad_()
    label = torch.full((2, 65, 49), IGNORE, dtype=torch.uint8)
    label[:, 20:50, 10:30] = 3
    valid = torch.ones(2, 65, 49, dtype=torch.bool)
    valid[1, :, 40:] = False
    return prob, image, label, valid


def energy_parts(prob, image, label, valid):
    """Per image at half size, by slices and means of four: features, p and gate."""
    half_prob = functional.avg_pool2d(prob, 2)
    h, w = half_prob.shape[-2:]
    image, label, valid = image[:, :, ::2, ::2][..., :h, :w], label[:, ::2, ::2][:, :h, :w], valid[:, ::2, ::2][:, :h, :w]
    gate = torch.where(label == IGNORE, 1.0, 1 - half_prob.detach().amax(dim=1)) * valid
    for one in range(len(prob)):
        features = bilateral_features(image[one].permute(1, 2, 0), sxy=50, srgb=15)
        yield features, (half_prob[one] * valid[one]).flatten(1).T, gate[one].flatten()[:, None]


def test_energy_against_all_pairs(energy_case):
    prob = energy_case[0]
    energy = dense_energy(*energy_case)
    for one, (features, p, gate) in enumerate(energy_parts(*energy_case)):
        ours = torch.autograd.grad(energy[one], prob, retain_graph=True)[0][one]
        by_lattice, by_pairs = build_lattice(features).filter(p.detach()), all_pairs(features, p.detach())
        (same,) = torch.autograd.grad((p * -2 * gate * by_lattice).sum(), prob, retain_graph=True)
        torch.testing.assert_close(energy[one], -(p * gate * by_lattice).sum())
        torch.testing.assert_close(ours, same[one])
        (exact,) = torch.autograd.grad((p * -2 * gate * by_pairs).sum(), prob, retain_graph=True)
        factor = float((ours * exact[one]).sum() / exact[one].square().sum())
        assert 0.45 < energy[one] / -(p * gate * by_pairs).sum() < 0.65
        assert 0.45 < factor < 0.65
        assert (ours - factor * exact[one]).norm() < 0.12 * ours.norm()


def test_energy_gradient_where_the_gate_is_even(energy_case):
    """With nothing labelled the gate is 1; the derivative then differs from the gradient by the filter's asymmetry only."""
    prob, image, label, _ = energy_case
    rest = image, torch.full_like(label, IGNORE), torch.ones_like(label, dtype=torch.bool)
    (gradient,) = torch.autograd.grad(dense_energy(prob, *rest).sum(), prob)
    direction = torch.rand(prob.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        slope = (dense_energy(prob + direction, *rest) - dense_energy(prob - direction, *rest)).sum() / 2  # exact for a square
    assert slope == pytest.approx(float((gradient * direction).sum()), rel=0.02)
    (derivative,) = torch.autograd.grad(
        sum(
            (p * -(lattice.filter(p.detach()) + lattice.filter(p.detach(), reverse=True))).sum()
            for features, p, _ in energy_parts(prob, *rest)
            for lattice in [build_lattice(features)]
        ),
        prob,
    )
    assert slope == pytest.approx(float((derivative * direction).sum()), rel=1e-9)
    assert (derivative - gradient).norm() / derivative.norm() < 0.05


def test_energy_of_one_pixel_by_hand():
    prob = torch.tensor([0.75, 0.25]).reshape(1, 2, 1, 1).requires_grad_()
    image, some, none = torch.zeros(1, 3, 1, 1), torch.ones(1, 1, 1, dtype=torch.uint8), torch.full((1, 1, 1), IGNORE)
    valid = torch.ones(1, 1, 1, dtype=torch.bool)
    free = dense_energy(prob, image, none, valid, scale=1)
    (gradient,) = torch.autograd.grad(free.sum(), prob)
    own = 1 / (1 + 2**-5)  # what of a corner's value returns to it
    assert free.item() == pytest.approx(-own * (0.75**2 + 0.25**2), rel=0.02)
    np.testing.assert_allclose(gradient.flatten(), [-own * 2 * 0.75, -own * 2 * 0.25], rtol=0.02)
    assert dense_energy(prob, image, some, valid, scale=1).item() == pytest.approx(0.25 * free.item())
    for label in (some, none):
        padding = dense_energy(prob, image, label, ~valid, scale=1)
        assert padding.item() == 0
        assert (torch.autograd.grad(padding.sum(), prob)[0] == 0).all()


def test_energy_of_an_image_alone_and_in_a_batch(energy_case):
    prob, *rest = (part.float() if part.is_floating_point() else part for part in energy_case)
    together = dense_energy(prob, *rest)
    assert together.shape == (2,)
    assert together.dtype == torch.float32
    (gradient,) = torch.autograd.grad(together.sum(), prob)
    for one in (0, 1):
        part = prob[one : one + 1].detach().requires_grad_()
        alone = dense_energy(part, *(value[one : one + 1] for value in rest))
        assert torch.equal(alone[0], together[one])
        assert torch.equal(torch.autograd.grad(alone.sum(), part)[0][0], gradient[one])


def test_energy_rewards_agreement_and_spares_the_settled(energy_case):
    prob, image, label, valid = energy_case
    certain = functional.one_hot(prob.argmax(dim=1), 4).permute(0, 3, 1, 2).double()
    settled = torch.zeros_like(label)
    ones = torch.zeros_like(certain)
    ones[:, 0] = 1
    assert (dense_energy(ones, image, settled, valid) == 0).all()  # all labelled and certain
    empty = torch.full_like(label, IGNORE)
    one_label, mixed = dense_energy(ones, image, empty, valid), dense_energy(certain, image, empty, valid)
    assert (one_label < mixed).all()
    assert (mixed < 0).all()
    assert 0.5 < -1e-7 * one_label[0].item() * (160 * 160 / (32 * 24)) ** 2 < 20  # RRM's weight and crop, an image as a whole
