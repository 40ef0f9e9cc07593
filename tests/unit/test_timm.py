"""timm's networks as trunks, on the tiny ones that timm has for tests."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from torch import nn

from tests.unit.test_nets import images
from tests.unit.test_resnet38 import field_middle, lively, only_middles
from wsss_ray.core.contracts import Trunk
from wsss_ray.nets.small import SmallNet
from wsss_ray.nets.timm_trunk import Timm
from wsss_ray.nets.torchvision_safe import torchvision
from wsss_ray.nets.weights import Weights

CORNER = Timm(name="test_resnet", alignment="corner", weights="none")
CELL = Timm(name="test_convnext", alignment="cell", weights="none")
VIT = Timm(name="test_vit", alignment="cell", weights="none")
SWIN = Timm(name="swin_tiny_patch4_window7_224", alignment="cell", weights="none", out_index=1)


@pytest.fixture(scope="module")
def timm():
    torchvision()
    return pytest.importorskip("timm", reason="needs wsss-ray[timm]")


@pytest.mark.parametrize(
    ("config", "shape", "stride"),
    [
        (CORNER, (1, 96, 11, 8), 32),
        (CORNER.model_copy(update={"output_stride": 8}), (1, 96, 41, 31), 8),
        (CORNER.model_copy(update={"out_index": 2}), (1, 48, 41, 31), 8),
        (CELL, (1, 64, 11, 8), 32),
        (VIT, (1, 64, 21, 16), 16),
        (SWIN, (1, 192, 41, 31), 8),
    ],
    ids=str,
)
def test_images_of_any_size(timm, config, shape, stride):
    trunk = config.build().train()
    with torch.inference_mode():
        features = trunk(torch.rand(1, 3, 321, 241) * 255)
    assert features.shape == shape
    assert (trunk.channels, trunk.stride) == (shape[1], stride)
    assert features.is_contiguous()


REGNET = Timm(name="regnetx_002", alignment="corner", weights="none")


@pytest.mark.parametrize(
    ("config", "size"),
    [(REGNET, 225), (REGNET, 210), (REGNET.model_copy(update={"output_stride": 8}), 97), (CELL, 224), (CELL, 213)],
    ids=["corner", "corner, even side", "corner at stride 8", "cell", "cell, no multiple"],
)
def test_centres(timm, config, size):
    trunk = config.build()
    for module in trunk.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    trunk = only_middles(trunk)
    first, step = trunk.centres(size)
    for cell in (4, 5):
        assert field_middle(trunk, size, cell) == first + cell * step


@pytest.mark.parametrize("config", [CORNER, CELL, VIT], ids=lambda config: config.name)
def test_weights_of_timms_own_network(timm, tmp_path, config):
    """A file of the whole classifier; its features, of an image of the size that the model was made for, are timm's own."""
    torch.manual_seed(0)
    theirs = lively(timm.create_model(config.name)).eval().double()
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    trunk = config.model_copy(update={"weights": Weights(source=str(tmp_path / "net.pth"))}).build().double()
    cfg = theirs.pretrained_cfg
    image = images(2, cfg["input_size"][-1]).double()
    mean, std = (torch.tensor(cfg[name], dtype=torch.float64).view(3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        found = trunk(image)
        (expected,) = theirs.forward_intermediates(
            (image / 255 - mean) / std, indices=[len(theirs.feature_info) - 1], intermediates_only=True
        )
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_channels_last_features_are_turned(timm):
    trunk = SWIN.build()
    image = images(1, 64)
    with torch.inference_mode():
        last = trunk.net(trunk.normalize(image))[-1]
        assert last.shape == (1, 8, 8, 192)
        assert torch.equal(trunk(image), last.permute(0, 3, 1, 2))


@pytest.mark.parametrize("config", [CORNER, VIT, SWIN], ids=lambda config: config.name)
def test_batch_norm_is_fixed_and_nothing_is_random(timm, config):
    trunk = lively(config.build()).train()
    before = copy.deepcopy(trunk.state_dict())
    batch = images(3, 64)
    state = torch.get_rng_state()
    whole = trunk(batch)
    torch.testing.assert_close(whole[1:2], trunk(batch[1:2]), atol=1e-4, rtol=1e-3)
    assert torch.equal(torch.get_rng_state(), state)
    whole.mean().backward()
    assert all(torch.equal(before[name], value) for name, value in trunk.state_dict().items())
    norms = [module for module in trunk.modules() if isinstance(module, nn.BatchNorm2d)]
    fixed = {id(parameter) for module in norms for parameter in module.parameters()}
    assert bool(norms) == (config is CORNER)
    for parameter in trunk.parameters():
        assert parameter.requires_grad == (id(parameter) not in fixed)
        assert (parameter.grad is not None) == parameter.requires_grad, "DDP needs all used"


def test_what_no_feature_depends_on_is_not_trained(timm):
    trunk = Timm(name="hrnet_w18_small", alignment="cell", weights="none").build()
    trunk(images(1, 64)).mean().backward()
    assert any(parameter.grad is None for parameter in trunk.parameters())
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in trunk.parameters())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "no_such_net", "alignment": "cell"}, "name: timm .* has no model 'no_such_net'"),
        ({"name": "test_resnet", "alignment": "corner", "out_index": 7}, "timm cannot build .* out_index 7: IndexError"),
        ({"name": "test_vit", "alignment": "corner", "output_stride": 8}, "timm cannot build .*output_stride 8 .*: TypeError"),
        ({"name": "vgg11", "alignment": "corner", "output_stride": 8, "weights": "a.pt"}, "timm cannot build .*: AssertionError"),
        ({"name": "test_vit.no_such_tag", "alignment": "cell"}, "timm cannot build .*Invalid pretrained tag"),
        ({"name": "test_convnext", "alignment": "corner"}, r"alignment corner: .* 129 x 129 has features \(1, 64, 4, 4\), not"),
        ({"name": "mixer_s32_224", "alignment": "cell"}, "does not accept images of every size .* doesn't match model"),
    ],
)
def test_refused_when_built(timm, fields, message):
    with pytest.raises(ValueError, match=message):
        Timm.model_validate({"weights": "none"} | fields).build()


def test_weights_that_do_not_fit(timm, tmp_path):
    """timm itself would leave at random what a file lacks."""
    path = str(tmp_path / "net.pth")
    torch.save(SmallNet().build().state_dict(), path)
    with pytest.raises(ValueError, match=r"weights.source: does not fit the network"):
        CORNER.model_copy(update={"weights": Weights(source=path)}).build()
    state = timm.create_model("test_resnet").state_dict()
    del state["layer2.0.conv1.weight"]
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"(?s)weights.source: does not fit the network.*layer2.0.conv1.weight"):
        CORNER.model_copy(update={"weights": Weights(source=path)}).build()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "x", "alignment": "middle"}, "'corner' or 'cell'"),
        ({"name": "x", "alignment": "cell", "output_stride": 8}, "Remove it with alignment cell"),
    ],
)
def test_rejects(fields, message):
    with pytest.raises(ValueError, match=message):
        Timm.model_validate(fields)


def test_in_a_job_file():
    config = Trunk.model_validate({"kind": "timm", "name": "resnet50.a1_in1k", "alignment": "corner"})
    assert isinstance(config, Timm)
    assert config.weights == Weights(source="imagenet")


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # as if it were not installed
    with pytest.raises(ValueError, match=r"pip install 'wsss-ray\[timm\]'"):
        CORNER.build()


@pytest.mark.parametrize(
    ("name", "alignment"),
    [("resnet18d", "corner"), ("mobilenetv3_small_050", "corner"), ("convnext_atto", "cell"), ("vgg11", "cell")],
)
def test_the_layers_tell_where_features_lie(name, alignment):
    trunk = Trunk.model_validate(f"timm:{name}").model_copy(update={"weights": Weights()})
    assert isinstance(trunk, Timm)
    assert trunk.build().alignment == alignment


def test_patches_found_by_their_layers_are_not_dilated():
    with pytest.raises(ValueError, match="dilated patches"):
        Timm(name="convnext_atto", output_stride=16, weights=Weights()).build()
