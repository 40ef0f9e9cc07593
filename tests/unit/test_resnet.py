"""torchvision's ResNets as trunks."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from tests.unit.test_nets import images
from tests.unit.test_resnet38 import field_middle, lively, only_middles
from wsss_ray.core.contracts import Trunk
from wsss_ray.nets.resnet import ResNet
from wsss_ray.nets.torchvision_safe import torchvision
from wsss_ray.nets.weights import Weights

PLAIN = ResNet(weights="none")
STAGES = ("layer1", "layer2", "layer3", "layer4")


def shallow(trunk):
    """Only the first block of each stage, where the strides are."""
    for stage in STAGES:
        setattr(trunk, stage, getattr(trunk, stage)[:1])
    return trunk


def test_planning_needs_no_torch():
    lines = ["import sys", *(f"import wsss_ray.nets.{name}" for name in ("resnet", "resnet38", "timm_trunk"))]
    lines.append("print([m for m in ('torch', 'torchvision', 'timm') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def theirs():
    """torchvision's network, strides undiminished."""
    return lively(torchvision().models.resnet50(weights=None)).eval()


@pytest.fixture(scope="module")
def file(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(theirs.state_dict(), path)
    return str(path)


@pytest.mark.parametrize("stride", [8, 16])
def test_equals_torchvisions_own_forward(file, stride):
    """Up to layer4, in float64: torchvision normalises, dilates and pools the same weights itself."""
    net = torchvision().models.resnet50(weights=None, replace_stride_with_dilation=[False, stride == 8, True]).double().eval()
    net.load_state_dict(torch.load(file, weights_only=True))
    seen = []
    net.layer4.register_forward_hook(lambda _module, _args, output: seen.append(output))
    trunk = ResNet(weights=file, output_stride=stride).build().double()
    image = images(1, 33).double()
    with torch.inference_mode():
        features = trunk(image)
        net(torchvision().transforms.functional.normalize(image / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    side = 32 // stride + 1
    assert features.shape == (1, trunk.channels, side, side) == (1, 2048, side, side)
    torch.testing.assert_close(features, seen[0], atol=1e-4 * seen[0].std().item(), rtol=1e-5)


def test_dilation_keeps_the_features(theirs, file):
    """A dropped stride computes more positions; at the old ones nothing changes, and the next block looks as far as before."""
    trunk = ResNet(weights=file).build()
    x = torch.rand(1, 1024, 6, 6)
    fine, coarse = trunk.layer4, theirs.layer4
    with torch.inference_mode():
        first = coarse[0](x)
        double = first.repeat_interleave(2, -1).repeat_interleave(2, -2)
        torch.testing.assert_close(fine[1](double)[..., ::2, ::2], coarse[1](first), atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(fine[0](x)[..., ::2, ::2], first, atol=1e-3, rtol=1e-3)


def test_names_are_torchvisions():
    with torch.device("meta"):
        for depth, count in ((50, 25_557_032), (101, 44_549_160)):  # as torchvision documents them, classifier included
            net = getattr(torchvision().models, f"resnet{depth}")(weights=None)
            trunk = ResNet(depth=depth, weights="none").build()
            shapes = {name: value.shape for name, value in net.state_dict().items() if not name.startswith("fc.")}
            assert {name: value.shape for name, value in trunk.state_dict().items()} == shapes
            assert sum(value.numel() for value in trunk.parameters()) + 2048 * 1000 + 1000 == count


@pytest.mark.parametrize(("stride", "size"), [(8, 97), (16, 97), (16, 112)])
def test_centres(stride, size):
    trunk = only_middles(shallow(PLAIN.model_copy(update={"output_stride": stride}).build()))
    first, step = trunk.centres(size)
    assert step == stride
    assert field_middle(trunk, size, 3) == first + 3 * step


def test_batch_norm_is_fixed():
    trunk = lively(PLAIN.model_copy(update={"frozen": 2}).build()).train()
    before = copy.deepcopy(trunk.state_dict())
    batch = images(2, 17)
    whole = trunk(batch)
    scale = whole.detach().std().item()
    torch.testing.assert_close(whole[1:], trunk(batch[1:]), atol=1e-4 * scale, rtol=1e-4)
    whole.mean().backward()
    assert all(torch.equal(before[name], value) for name, value in trunk.state_dict().items())
    assert not any(module.training for module in trunk.modules() if isinstance(module, nn.BatchNorm2d))
    trained = {name for name, value in trunk.named_parameters() if value.requires_grad}
    expected = {name for name, value in trunk.named_parameters() if value.ndim == 4 and not name.startswith(("conv1", "layer1"))}
    assert trained == expected
    assert all(value.grad is not None for value in trunk.parameters() if value.requires_grad), "DDP needs all used"


@pytest.mark.parametrize(("frozen", "first"), [(0, "conv1.weight"), (1, "layer1.0.conv1.weight"), (4, "layer4.0.conv1.weight")])
def test_what_is_trained(frozen, first):
    with torch.device("meta"):
        trunk = PLAIN.model_copy(update={"frozen": frozen}).build()
    assert next(name for name, value in trunk.named_parameters() if value.requires_grad) == first


def test_all_can_be_frozen():
    with torch.device("meta"):
        assert not any(value.requires_grad for value in PLAIN.model_copy(update={"frozen": 5}).build().parameters())


def test_in_a_job_file():
    assert ResNet().weights == Weights(source="imagenet")
    assert isinstance(Trunk.model_validate({"kind": "resnet", "depth": 101, "output_stride": 8}), ResNet)
    with pytest.raises(ValueError, match="50 or 101"):
        ResNet(depth=34)


def test_weights_of_another_depth(file):
    with pytest.raises(ValueError, match=r"(?s)weights.source: does not fit the network.*layer3.6.conv1.weight"):
        ResNet(depth=101, weights=file).build()
