"""Segmentation heads, keyed dropout and parameter groups."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.test_nets import TINY_VGG, images
from wsss_ray.core.optim import Sgd
from wsss_ray.nets.deeplab import Aspp, Head, LargeFov, build_segmenter
from wsss_ray.nets.modules import KeyedDropout, random_bits, set_dropout_keys
from wsss_ray.nets.segnet import SegNet, decimate, param_groups_deeplab
from wsss_ray.nets.small import SmallNet
from wsss_ray.nets.vgg16 import Vgg16


@pytest.mark.parametrize("head", [LargeFov(hidden=8), Aspp(hidden=8), Aspp(hidden=None)])
def test_heads(head):
    torch.manual_seed(0)
    module = head.build(16, 5).eval()
    x = torch.rand(2, 16, 9, 7)
    branches = list(module.branches)
    torch.testing.assert_close(module(x), sum(branch(x) for branch in branches))
    assert module(x).shape == (2, 5, 9, 7)
    convs = [[m for m in branch if isinstance(m, nn.Conv2d)] for branch in branches]
    assert tuple(c[0].dilation[0] for c in convs) == ((head.dilation,) if isinstance(head, LargeFov) else head.rates)
    scores = torch.cat([c[-1].weight.flatten() for c in convs])
    assert scores.std().item() == pytest.approx(0.01, rel=0.25)
    assert all((c[-1].bias == 0).all() for c in convs)
    assert isinstance(Head.model_validate(head.spec()), type(head))


# --- keyed dropout


def splitmix64(state):
    while True:
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        yield z ^ (z >> 31)


def test_random_bits_are_splitmix64():
    published = splitmix64(1234567)  # the vector of the reference implementation
    assert [next(published) for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    for key, stream in ((0, 0), (2**63 - 1, 5), (-7, 1)):
        words = splitmix64(next(splitmix64((next(splitmix64(key % 2**64)) + stream) % 2**64)))
        expected = np.array([next(words) for _ in range(3)], np.uint64).view(np.int16)[:10]
        assert random_bits((key,), stream=stream, count=10, device=torch.device("cpu"))[0].tolist() == expected.tolist()


def test_random_bits_stay_as_they_are():
    """Equal bits keep trainings equal, byte for byte."""
    keys, cpu = (17, 42, 2**63 + 5, -3), torch.device("cpu")
    assert random_bits(keys, stream=3, count=6, device=cpu).tolist() == [
        [-12928, 27485, -21763, 26118, 4626, -1138],
        [2407, -12575, 17391, 30642, 32312, 1751],
        [13720, 781, -18965, 3295, 11294, -19465],
        [5292, 13145, -23653, -22423, 13074, 1895],
    ]
    many = random_bits(keys, stream=7, count=40001, device=cpu).contiguous().numpy().tobytes()
    assert hashlib.sha256(many).hexdigest() == "295ce5d28463a9fdb422f72367e83eeddc94ccf339f07c272e720056d4152643"
    assert random_bits((), stream=0, count=3, device=cpu).shape == (0, 3)


def test_random_bits_are_even():
    bits = random_bits(tuple(range(64)), stream=0, count=4096, device=torch.device("cpu")).numpy().view(np.uint16)
    counts = np.bincount(bits.ravel() >> 8, minlength=256)
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 350  # chi squared, 255 degrees of freedom: p about 1e-4
    single = np.unpackbits(bits.view(np.uint8)).reshape(-1, 16).mean(axis=0)
    assert np.abs(single - 0.5).max() < 0.01
    rows = np.corrcoef(bits[:8].astype(float))
    assert np.abs(rows - np.eye(8)).max() < 0.08


def test_dropout_of_an_image_depends_on_its_key_only():
    layer = KeyedDropout(0.5)
    x = torch.ones(3, 4, 6, 6)
    layer.keys = (11, 2**62, 13)
    state = torch.get_rng_state()
    whole = layer(x)
    layer.keys = (2**62,)
    assert torch.equal(layer(x[:1]), whole[1:2])
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(whole[0], whole[1])


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_expected_value(p):
    layer = KeyedDropout(p)
    layer.keys = tuple(range(20))
    x = torch.full((20, 8, 20, 20), 3.0, requires_grad=True)
    y = layer(x)
    assert y.mean().item() == pytest.approx(3.0, rel=0.03)
    assert (y == 0).float().mean().item() == pytest.approx(p, abs=0.01)
    assert y[y != 0].unique().tolist() == pytest.approx([3 / (1 - p)])
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach() / 3)


def test_dropout_needs_keys_in_training_only():
    layer, x = KeyedDropout(0.5), torch.ones(2, 1, 3, 3)
    assert layer.eval()(x) is x
    with pytest.raises(AssertionError, match="set_dropout_keys"):
        layer.train()(x)
    layer.keys = (1,)
    with pytest.raises(AssertionError, match="1 dropout keys for 2 images"):
        layer(x)
    assert KeyedDropout(0.0)(x) is x


def test_dropout_keys_reach_every_layer_of_a_wrapped_network():
    net = SegNet(SmallNet(widths=(8,), strides=(4,)).build(), LargeFov(hidden=64, dropout=0.5).build(8, 3)).train()
    wrapped = nn.Sequential(net)  # as DistributedDataParallel: one module around it
    set_dropout_keys(wrapped, (5, 6))
    first, second = [module for module in net.modules() if isinstance(module, KeyedDropout)]
    ones = torch.ones(2, 64, 5, 5)
    assert not torch.equal(first(ones), second(ones))
    batch = images(2, 20)
    logits = wrapped(batch)
    assert logits.shape == (2, 3, 5, 5)
    assert torch.equal(wrapped(batch), logits)
    set_dropout_keys(wrapped, (6,))
    torch.testing.assert_close(wrapped(batch[1:]), logits[1:], atol=1e-6, rtol=1e-5)
    set_dropout_keys(wrapped, (7, 8))
    assert not torch.equal(wrapped(batch), logits)


# --- parameter groups


def test_param_groups():
    net = SegNet(TINY_VGG.build(), LargeFov(hidden=8).build(32, 3))
    groups = param_groups_deeplab(net, net.head.new_parameters())
    assert [(g["lr_scale"], g.get("weight_decay"), len(g["params"])) for g in groups] == [
        (1.0, None, 13),
        (2.0, 0.0, 13),
        (10.0, None, 3),
        (20.0, 0.0, 3),
    ]
    assert all(parameter.ndim == 1 for g in groups[1::2] for parameter in g["params"])
    everything = [id(parameter) for g in groups for parameter in g["params"]]
    assert sorted(everything) == sorted(map(id, net.parameters()))
    built = Sgd(lr=0.1, weight_decay=5e-4).build(groups).param_groups
    assert [(g["lr"], g["weight_decay"]) for g in built] == [(0.1, 5e-4), (0.2, 0.0), (1.0, 5e-4), (2.0, 0.0)]


def classifier_state(units, channels):
    generator = torch.Generator().manual_seed(0)
    shapes = {"0.weight": (units, channels * 49), "0.bias": (units,), "3.weight": (units, units), "3.bias": (units,)}
    return {f"classifier.{name}": torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_hidden_layers_are_every_nth_unit_and_every_third_tap():
    state = classifier_state(16, 32)
    found = decimate(state, 4)
    assert found["fc6.weight"].shape == (4, 32, 3, 3)
    assert found["fc7.weight"].shape == (4, 4, 1, 1)
    windows = state["classifier.0.weight"].view(16, 32, 7, 7)
    assert found["fc6.weight"][2, 5, 1, 2] == windows[8, 5, 3, 6]
    assert found["fc7.weight"][1, 3, 0, 0] == state["classifier.3.weight"][4, 12]
    assert found["fc6.bias"].tolist() == state["classifier.0.bias"][::4].tolist()
    assert decimate(state, 5) == decimate({}, 4) == {}


def test_pretrained_hidden_layers_take_the_trunks_rate():
    class Pretrained(Vgg16):
        def hidden_layers(self, hidden):
            return decimate(classifier_state(16, 64), hidden)

    net = build_segmenter(Pretrained(weights="none", width=0.125), Aspp(rates=(1, 2), hidden=4), num_classes=2)
    first, second = (branch[0].weight for branch in net.head.branches)
    assert torch.equal(first, second)
    groups = param_groups_deeplab(net, net.head.new_parameters())
    assert [(g["lr_scale"], len(g["params"])) for g in groups] == [(1.0, 13 + 4), (2.0, 13 + 4), (10.0, 2), (20.0, 2)]
    assert {p.shape for p in groups[2]["params"]} == {(3, 4, 1, 1)}
    assert net.eval()(images(1, 32)).shape == (1, 3, 5, 5)
    assert not [name for name in net.state_dict() if "new" in name]


def test_param_groups_leave_out_what_is_frozen():
    net = SegNet(TINY_VGG.build().requires_grad_(False), Aspp(hidden=None, rates=(1,)).build(32, 3))
    groups = param_groups_deeplab(net, net.head.new_parameters(), head_scale=5, bias_scale=3)
    assert [(g["lr_scale"], len(g["params"])) for g in groups] == [(5.0, 1), (15.0, 1)]
