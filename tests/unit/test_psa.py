"""PSA's parts: labels of confident pixels, the network on several layers, the walk of a method's maps, its place in a job."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.local import job_of
from tests.shapes import tiny_job
from wsss_ray.core import IGNORE, Axis, Batch, Given, Maps
from wsss_ray.core.component import Component
from wsss_ray.methods import methods
from wsss_ray.methods.common.seed_rules import CrfSeeds, ThresholdSeeds
from wsss_ray.methods.psa import AffinityLabels, AffinityLearner, AffinityWalk
from wsss_ray.nets.resnet38 import ResNet38
from wsss_ray.nets.small import SmallNet
from wsss_ray.nets.vgg16 import Vgg16
from wsss_ray.ops import affinity, grid
from wsss_ray.ops.background import CamBackground, PowerBackground
from wsss_ray.ops.crf import DenseCrf
from wsss_ray.ops.seeds import resize_maps

LEARNER = AffinityLearner(trunk=SmallNet(widths=(8, 16), strides=(2, 2)), radius=3)
CELLS = Axis(first=1 / 16, step=1 / 8)


def maps_of(map_CHW, mean_CHW=None, classes=None):
    mean_CHW = map_CHW if mean_CHW is None else mean_CHW
    return Maps(classes or tuple(range(len(map_CHW))), peak_CHW=map_CHW, mean_CHW=mean_CHW, rows=CELLS, columns=CELLS)


def image_of(seed=0, size=(32, 32)):
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)


def net_of(learner=LEARNER):
    torch.manual_seed(0)
    return learner.build(2).eval()


def test_confident_pixels_are_those_of_the_two_crfs():
    """Objects by the strong background, background by the weak one, the rest undecided: here without a CRF's change."""
    row = np.array([[0.02, 0.1, 0.2, 0.6, 0.9]], np.float32)
    image_HWC = np.zeros((1, 5, 3), np.uint8)
    axes = {"rows": Axis(first=0.5, step=1.0), "columns": Axis(first=0.1, step=0.2)}
    maps = Maps((6,), peak_CHW=row[None], mean_CHW=row[None], **axes)
    still = DenseCrf(iterations=1, gaussian_weight=0, bilateral_weight=0)
    label_HW = AffinityLabels(gammas=(4.0, 24.0), crf=still).seed(image_HWC, maps, None)
    strong, weak = (1 - row[0]) ** 4, (1 - row[0]) ** 24
    expected = np.where(weak > row[0], 0, np.where(row[0] > strong, 7, IGNORE))
    assert label_HW[0].tolist() == expected.tolist() == [0, IGNORE, IGNORE, 7, 7]


@pytest.mark.parametrize(
    ("trunk", "channels"),
    [(ResNet38(width=1 / 32), (16, 32, 128)), (Vgg16(weights="none", width=1 / 16), (32, 32)), (SmallNet(), (96,))],
)
def test_a_trunk_of_several_layers_ends_in_its_own_features(trunk, channels):
    plain, (whole, found) = trunk.build().eval(), trunk.build_levels()
    assert found == channels
    assert whole.channels == sum(channels)
    whole.load_state_dict(plain.state_dict())
    image_BCHW = torch.rand(1, 3, 65, 65) * 255
    with torch.inference_mode():
        all_BCHW, last_BCHW = whole.eval()(image_BCHW), plain(image_BCHW)
    torch.testing.assert_close(all_BCHW[:, -channels[-1] :], last_BCHW)
    assert all_BCHW.shape[1] == sum(channels)
    if len(channels) > 1:
        assert not torch.equal(all_BCHW[:, : channels[0]], all_BCHW[:, -channels[0] :])
    net = AffinityLearner(trunk=trunk).build(3).eval()
    assert net(image_BCHW).shape == (1, sum((64, 128, 256)[-len(channels) :]), *last_BCHW.shape[-2:])


def test_too_few_widths_for_the_layers_of_a_trunk():
    with pytest.raises(ValueError, match=r"widths: has 1 entries, the trunk 2 layers. Give one for each."):
        AffinityLearner(trunk=Vgg16(weights="none", width=1 / 16), widths=(8,)).build(3)


def test_the_weights_of_the_loss_are_those_of_the_code():
    """A quarter of Eq. 7: L_bg / 4 + L_fg / 4 + L_neg / 2."""
    net, image_BCHW = net_of(), torch.rand(2, 3, 32, 32) * 255
    label_BEHW = torch.from_numpy(np.random.default_rng(1).choice(np.array([0, 1, 2, 255], np.uint8), (2, 1, 32, 32)))
    ones = torch.ones(2, 32, 32, dtype=torch.bool)
    batch = Batch(("a", "b"), image_BCHW, torch.ones(2, 2), label_BEHW, torch.zeros(2, dtype=torch.bool), ones, keys_B=(1, 2))
    feature_BFHW, offsets = net(image_BCHW), affinity.pair_offsets(3)
    label_BHW = grid.at_features(label_BEHW[:, 0], feature_BFHW.shape[-2:], *grid.axes(net.trunk, 32, 32))
    parts = affinity.pair_losses(affinity.affinities(feature_BFHW, offsets, distance="mean"), label_BHW, offsets)
    terms = LEARNER.loss(net, batch)
    for name, part, share in zip(("background", "foreground", "negative"), parts, (4, 4, 2), strict=True):
        torch.testing.assert_close(terms[name], part / share)


def walked(walk, given):
    return walk.refine(net_of(walk.network), given)


def test_a_walk_of_no_steps_keeps_the_odds_of_maps_and_background():
    """2^0 steps with a beta that lets nothing pass: the walk stays where it is, and only the odds are taken."""
    map_CHW = np.random.default_rng(0).random((2, 8, 8), np.float32)
    walk = AffinityWalk(network=LEARNER, log_steps=0, beta=1e6, alpha=2.0)
    found = walked(walk, Given(image_of(), (0, 1), 0, maps=maps_of(map_CHW)))
    rows = columns = Axis(first=0.5 / 32, step=4 / 32)  # where this trunk has its features
    assert (found.rows, found.columns) == (rows, columns)
    there_CHW = resize_maps(map_CHW, 32, 32, CELLS, CELLS)[:, ::4, ::4]  # the pixels under the features
    background_HW = (1 - there_CHW.max(axis=0)) ** 2
    np.testing.assert_allclose(found.peak_CHW, there_CHW / (there_CHW + background_HW), atol=2e-3)


def test_half_is_the_argmax_of_classes_and_walked_background():
    """What exceeds .5 exceeds the background: seeds by a threshold of .5, and of the crf's scores, are the argmax of the walk."""
    map_CHW, image_HWC = np.random.default_rng(3).random((2, 8, 8), np.float32) / 2, image_of(3)
    walk = AffinityWalk(network=LEARNER, log_steps=2, alpha=3.0)
    found = walked(walk, Given(image_HWC, (0, 1), 0, maps=maps_of(map_CHW)))
    net, offsets = net_of(), affinity.pair_offsets(3)
    with torch.inference_mode():
        features = net(torch.from_numpy(image_HWC).permute(2, 0, 1)[None].float())
        matrix = affinity.transitions(affinity.affinities(features, offsets, distance="mean")[0], offsets, beta=8)
        axes = grid.axes(net.trunk, 32, 32)
        there_CHW = grid.resample(torch.from_numpy(map_CHW), (8, 8), source=(CELLS, CELLS), target=axes)
        scores_LHW = torch.cat([(1 - there_CHW.amax(dim=0, keepdim=True)) ** 3, there_CHW])
        best_HW = affinity.random_walk(scores_LHW, matrix, steps=4).argmax(dim=0).numpy()
    assert 0 < (best_HW == 0).mean() < 1
    at_features = Maps((0, 1), peak_CHW=found.peak_CHW, mean_CHW=found.mean_CHW, rows=CELLS, columns=CELLS)
    small_HWC = image_HWC[::4, ::4]
    half = ThresholdSeeds(theta=0.5, background=CamBackground(threshold=0.5))
    assert (half.seed(small_HWC, at_features, None) == best_HW).all()
    assert (CrfSeeds(background=PowerBackground(gamma=1), crf=None).seed(small_HWC, at_features, None) == best_HW).all()


def test_several_estimates_walk_with_one_background_and_keep_their_order():
    rng = np.random.default_rng(5)
    peak_CHW = rng.random((2, 8, 8), np.float32)
    mean_CHW = peak_CHW * rng.random((2, 8, 8), np.float32)
    walk = AffinityWalk(network=LEARNER, log_steps=3, alpha=4.0)
    both = walked(walk, Given(image_of(), (0, 1), 0, maps=maps_of(peak_CHW, mean_CHW)))
    alone = walked(walk, Given(image_of(), (0, 1), 0, maps=maps_of(peak_CHW)))
    np.testing.assert_allclose(both.peak_CHW, alone.peak_CHW, atol=1e-6)
    assert (both.mean_CHW < both.peak_CHW).all()
    assert both.mean_CHW.min() >= 0
    assert both.peak_CHW.max() <= 1


def test_images_of_any_size_and_without_tags_share_a_batch():
    walk = AffinityWalk(network=LEARNER, log_steps=2)
    given = [
        Given(image_of(1), (0,), 0, maps=maps_of(np.random.default_rng(1).random((1, 8, 8), np.float32))),
        Given(image_of(2, (20, 44)), (), 0, maps=maps_of(np.zeros((0, 8, 8), np.float32))),
        Given(image_of(3), (2, 1), 0, maps=maps_of(np.random.default_rng(2).random((2, 8, 8), np.float32), classes=(2, 1))),
    ]
    net = net_of()
    batched = walk.refine_batch(net, given)
    assert [one.peak_CHW.shape for one in batched] == [(1, 8, 8), (0, 5, 11), (2, 8, 8)]
    assert [one.classes for one in batched] == [(0,), (), (2, 1)]
    for one, alone in zip(batched, (walk.refine(net, single) for single in given), strict=True):
        np.testing.assert_allclose(one.peak_CHW, alone.peak_CHW, atol=1e-5)


def test_a_constant_background_stays_what_it_is():
    """A walk keeps what is the same everywhere, so a class exceeds .5 where its walked map exceeds the background."""
    map_1HW = np.random.default_rng(8).random((1, 8, 8), np.float32)
    given = Given(image_of(), (1,), 0, maps=maps_of(map_1HW, classes=(1,)))
    odds_1HW = walked(AffinityWalk(network=LEARNER, log_steps=3, alpha=4.0, background=0.4), given).peak_CHW
    plain_1HW = 0.4 * odds_1HW / (1 - odds_1HW)
    other_1HW = walked(AffinityWalk(network=LEARNER, log_steps=3, background=0.1), given).peak_CHW
    np.testing.assert_allclose(other_1HW, plain_1HW / (plain_1HW + 0.1), atol=1e-5)
    assert map_1HW.min() < plain_1HW.min() < plain_1HW.max() < map_1HW.max()


def plan_of(name, **method):
    return job_of(tiny_job() | {"data": {"kind": "shapes", "saliency": True}, "method": {"name": name} | method}).plan()


@pytest.mark.parametrize("name", ["cam", "ficklenet", "dsrg", "mdc", "seeds", "mctformer", "clip_es"])
def test_a_job_names_a_walk_after_any_methods_maps(name):
    walk = {"kind": "affinity_walk", "network": {"trunk": {"kind": "small_net"}, "steps": 4, "epochs": None}}
    stages = {stage.name: stage for stage in plan_of(name, refine=[walk])}
    labels, affinity, walked = stages["affinity_labels"], stages["affinity"], stages["affinity_walk"]
    assert labels.input("maps") == walked.input("maps") == stages["maps"]
    assert affinity.input("seeds") == labels
    assert walked.input("model") == affinity
    assert stages["seeds"].input("maps") == walked
    assert {stage.name: stage.id for stage in plan_of(name)}["maps"] == stages["maps"].id, "what comes before stays"


def test_every_estimate_of_multi_estimations_walks_by_itself():
    walk = {"kind": "affinity_walk", "network": {"trunk": {"kind": "small_net"}}}
    plan = plan_of("multi_estimations", refine=[walk])
    names = [stage.name for stage in plan]
    assert len(set(names)) == len(names)
    assert sum(name.startswith("affinity_walk-") for name in names) == 6
    seeds = [stage for stage in plan if stage.name.startswith("seeds-")]
    assert len({stage.input("maps").id for stage in seeds}) == 6
    assert all(stage.input("maps").name.startswith("affinity_walk-") for stage in seeds)


def test_the_network_may_start_from_the_classifier():
    plan = plan_of("psa", refine=[{"kind": "affinity_walk", "network_init": "classifier"}])
    stages = {stage.name: stage for stage in plan}
    assert stages["affinity"].input("init") == stages["classifier"]
    assert {stage.name: stage for stage in plan_of("psa")}["affinity"].optional("init") is None


def test_a_method_without_a_classifier_has_none_to_start_from():
    with pytest.raises(ValueError, match=r"network_init is classifier, and this method trains none. Set network_init to trunk"):
        plan_of("clip_es", refine=[{"kind": "affinity_walk", "network_init": "classifier"}])


def test_every_default_of_mctformers_walk_is_of_its_code():
    method = methods()["mctformer"]()
    (walk,) = method.refine
    assert (walk.background, walk.beta, 2**walk.log_steps, walk.labels.gammas) == (0.39, 8, 64, (1, 12))
    assert (walk.network.epochs, walk.network.optimizer.lr, walk.network.augment.size) == (5, 0.01, 448)
    assert (method.seed_rule.theta, method.seed_rule.background.threshold, method.seed_rule.crf) == (0.5, 0.5, None)


def test_every_default_is_of_psa():
    walk = methods()["psa"]().refine[0]
    assert isinstance(walk, Component)
    assert (walk.alpha, walk.beta, 2**walk.log_steps, walk.network.radius, walk.labels.gammas) == (16, 8, 256, 5, (4, 24))
