"""ResNet38: against a plain re-computation, its names and sizes, fixed batch norms, dropout of whole channels."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.unit.test_nets import images
from wsss_ray.core.contracts import Trunk
from wsss_ray.nets.modules import KeyedDropout, set_dropout_keys
from wsss_ray.nets.resnet38 import ResNet38
from wsss_ray.nets.small import SmallNet
from wsss_ray.nets.weights import Weights

THIN = ResNet38(width=1 / 32)
UNITS = [  # name, stride, dilations of its 3x3 convolutions
    *(("b2", 2, (1, 1)), ("b2_1", 1, (1, 1)), ("b2_2", 1, (1, 1))),
    *(("b3", 2, (1, 1)), ("b3_1", 1, (1, 1)), ("b3_2", 1, (1, 1))),
    *(("b4", 2, (1, 1)), *((f"b4_{n}", 1, (1, 1)) for n in range(1, 6))),
    *(("b5", 1, (1, 2)), ("b5_1", 1, (2, 2)), ("b5_2", 1, (2, 2))),
]


def lively(trunk, seed=0):
    """Batch norms that do something, as after a training."""
    rng = torch.Generator().manual_seed(seed)
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            shape = module.weight.shape
            module.weight.data = 0.5 + torch.rand(shape, generator=rng)
            module.bias.data = torch.randn(shape, generator=rng) / 4
            module.running_mean = torch.randn(shape, generator=rng) / 4
            module.running_var = 0.5 + torch.rand(shape, generator=rng)
    return trunk


def field_middle(trunk, size, cell):
    """The middle of the pixels that feature `cell` of the middle row depends on."""
    image = (200 + 50 * torch.rand(1, 3, size, size, dtype=torch.float64)).requires_grad_()  # bright: rectifiers let it pass
    features = trunk(image)
    mixed = features[0, :, features.shape[-1] // 2, cell] @ torch.linspace(1, 2, features.shape[1], dtype=torch.float64)
    (grad,) = torch.autograd.grad(mixed, image)
    seen = grad[0].abs().sum(dim=(0, 1)).nonzero().flatten()
    assert len(seen) < size // 2
    return (seen[0] + seen[-1]).item() / 2


def only_middles(trunk):
    """The same geometry with positive kernels, of one tap in the middle where they have a middle, and means for maxima."""
    for module in trunk.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
            elif isinstance(child, nn.Conv2d):
                side = child.kernel_size[0]
                keep = torch.ones(side, side) if side % 2 == 0 else nn.functional.pad(torch.ones(1, 1), (side // 2,) * 4)
                child.weight.data = torch.rand_like(child.weight) * keep / 50
    return trunk.double()


def test_equals_a_plain_recomputation():
    trunk = lively(THIN.build()).eval().double()
    state = trunk.state_dict()

    def conv(x, name, stride=1, dilation=1):
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=dilation * (weight.shape[-1] // 2), dilation=dilation)

    def act(x, name):
        mean, var, gamma, beta = (
            state[f"{name}.{part}"].view(-1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * gamma + beta).clamp(min=0)

    image = images(2, 65).double()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = conv((image / 255 - mean) / std, "conv1a")
    for name, stride, (first, second) in UNITS:
        a = act(x, f"{name}.bn_branch2a")
        skip = conv(a, f"{name}.conv_branch1", stride) if "_" not in name else x
        b = act(conv(a, f"{name}.conv_branch2a", stride, first), f"{name}.bn_branch2b1")
        x = skip + conv(b, f"{name}.conv_branch2b1", 1, second)
    for name in ("b6", "b7"):
        a = act(x, f"{name}.bn_branch2a")
        b = act(conv(a, f"{name}.conv_branch2a"), f"{name}.bn_branch2b1")
        c = act(conv(b, f"{name}.conv_branch2b1", 1, 4), f"{name}.bn_branch2b2")
        x = conv(a, f"{name}.conv_branch1") + conv(c, f"{name}.conv_branch2b2")
    expected = act(x, "bn7")
    with torch.inference_mode():
        found = trunk(image)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)  # float32 constants of the normalisation


def test_stride_8():
    trunk = THIN.build().eval()
    assert trunk.channels == 128
    with torch.inference_mode():
        assert trunk(images(1, 321)).shape == (1, 128, 41, 41)
        assert trunk(images(1, 320)).shape == (1, 128, 40, 40)


@pytest.mark.parametrize("size", [161, 150])
def test_centres(size):
    trunk = only_middles(THIN.build().eval())
    first, step = trunk.centres(size)
    assert [field_middle(trunk, size, cell) for cell in (8, 9)] == [first + 8 * step, first + 9 * step]


def test_names_and_sizes():
    """The network of jiwoon-ahn/psa has 105,070,912 parameters, counted there; with mxnet's classifier it is 109,167,912."""
    with torch.device("meta"):
        trunk = ResNet38().build()
    shapes = {name: tuple(value.shape) for name, value in trunk.named_parameters()}
    assert sum(value.numel() for value in trunk.parameters()) == 105_070_912
    assert shapes["conv1a.weight"] == (64, 3, 3, 3)
    assert shapes["b2.conv_branch1.weight"] == (128, 64, 1, 1)
    assert shapes["b4_5.conv_branch2b1.weight"] == (512, 512, 3, 3)
    assert shapes["b5_2.bn_branch2a.weight"] == (1024,)
    assert shapes["b5_2.conv_branch2a.weight"] == (512, 1024, 3, 3)
    assert shapes["b6.conv_branch2b2.weight"] == (2048, 1024, 1, 1)
    assert shapes["b7.conv_branch2b1.weight"] == (2048, 1024, 3, 3)
    assert shapes["bn7.weight"] == (4096,)
    units = {name.split(".")[0] for name in shapes}
    assert units == {"conv1a", *(name for name, _, _ in UNITS), "b6", "b7", "bn7"}
    assert len(shapes) == 1 + 15 * 6 + 4 + 2 * 10 + 2  # 15 units of two convolutions, 4 of them with a shortcut
    assert trunk.channels == 4096


def test_what_is_trained():
    trained = {
        frozen: {
            name for name, value in THIN.model_copy(update={"frozen": frozen}).build().named_parameters() if value.requires_grad
        }
        for frozen in ("none", "stem", "all")
    }
    convolutions = {name for name, value in THIN.build().named_parameters() if value.ndim == 4}
    assert trained["none"] == convolutions
    assert trained["all"] == set()
    assert trained["none"] - trained["stem"] == {name for name in convolutions if name.startswith(("conv1a", "b2"))}
    assert ResNet38().frozen == "stem"


def test_an_image_does_not_depend_on_its_batch_in_training():
    trunk = lively(THIN.build()).train().double()
    before = copy.deepcopy(trunk.state_dict())
    batch = images(3, 65).double()
    set_dropout_keys(trunk, (3, 5, 8))
    whole = trunk(batch)
    set_dropout_keys(trunk, (5,))
    torch.testing.assert_close(whole[1:2], trunk(batch[1:2]), atol=1e-9, rtol=1e-9)
    set_dropout_keys(trunk, (6,))
    assert not torch.allclose(whole[1:2], trunk(batch[1:2]), atol=1e-2)
    whole.mean().backward()
    assert all(torch.equal(before[name], value) for name, value in trunk.state_dict().items())
    assert all(value.grad is not None for value in trunk.parameters() if value.requires_grad), "DDP needs all used"
    assert not any(module.training for module in trunk.modules() if isinstance(module, nn.BatchNorm2d))
    rates = [module.p for module in trunk.modules() if isinstance(module, KeyedDropout) and module.training]
    assert rates == [0.3, 0.3, 0.5, 0.5]


@pytest.mark.parametrize("p", [0.3, 0.5])
def test_dropout_of_whole_channels(p):
    layer = KeyedDropout(p, whole_channels=True)
    layer.keys = tuple(range(40))
    y = layer(torch.full((40, 200, 3, 5), 2.0))
    assert (y == y[..., :1, :1]).all()
    assert (y[..., 0, 0] == 0).float().mean().item() == pytest.approx(p, abs=0.02)
    assert y[y != 0].unique().tolist() == pytest.approx([2 / (1 - p)])
    layer.keys = (7,)
    assert torch.equal(layer(torch.full((1, 200, 9, 9), 2.0))[0, :, 0, 0], y[7, :, 0, 0]), "whatever the map's size"
    assert "whole_channels" in repr(layer)
    assert "whole_channels" not in repr(KeyedDropout(p))


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.net."])
def test_loads_a_state_dict_of_the_psa_family(tmp_path, prefix):
    theirs = lively(THIN.build())
    old = {name: value for name, value in theirs.state_dict().items() if not name.endswith("num_batches_tracked")}
    state = {prefix + name: value for name, value in old.items()} | {f"{prefix}fc8.weight": torch.zeros(20, 128, 1, 1)}
    torch.save(state, tmp_path / "res38_cls.pth")
    ours = THIN.model_copy(update={"weights": Weights(source=str(tmp_path / "res38_cls.pth"))}).build()
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in old.items())


def test_weights_that_do_not_fit(tmp_path):
    path = tmp_path / "net.pth"
    torch.save(SmallNet().build().state_dict(), path)
    with pytest.raises(ValueError, match=r"(?s)weights.source: does not fit the network.*b2.conv_branch2a.weight"):
        THIN.model_copy(update={"weights": Weights(source=str(path))}).build()
    state = THIN.build().state_dict()
    del state["b4_3.bn_branch2a.running_var"]
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"(?s)does not fit the network.*b4_3.bn_branch2a.running_var"):
        THIN.model_copy(update={"weights": Weights(source=str(path))}).build()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weights": "imagenet"}, "no imagenet weights to download. Give none or the path of a file"),
        ({"weights": "a.params", "width": 0.5}, "Set weights: none"),
        ({"width": 0}, "greater than 0"),
        ({"frozen": "head"}, "'none', 'stem' or 'all'"),
    ],
)
def test_rejects(fields, message):
    with pytest.raises(ValueError, match=message):
        ResNet38.model_validate(fields)


def test_kind():
    assert isinstance(Trunk.model_validate({"kind": "resnet38", "weights": "a.params"}), ResNet38)
    assert ResNet38().weights == Weights()
