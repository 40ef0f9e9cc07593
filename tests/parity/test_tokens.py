"""Token trunks: tokens and attention against numpy and against timm's own output."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.parity.naive_vit import vit
from tests.unit.test_nets import images
from wsss_ray.core import Tokens, TokenTrunk, Trunk
from wsss_ray.methods.cam import CamClassifier, CamLocalizer
from wsss_ray.nets.fused import fused
from wsss_ray.nets.timm_trunk import Timm
from wsss_ray.nets.timm_vit import TimmVit
from wsss_ray.nets.torchvision_safe import torchvision
from wsss_ray.nets.weights import Weights

torchvision()
timm = pytest.importorskip("timm", reason="needs wsss-ray[timm]")
TINY = TimmVit(name="test_vit", weights="none")


def lively(net):
    """Random weights everywhere: biases and embeddings too, which start at 0."""
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=rng) * 0.1)
    return net


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The weights of a whole classifier of timm."""
    path = tmp_path_factory.mktemp("weights") / "vit.pth"
    torch.save(lively(timm.create_model("test_vit")).state_dict(), path)
    return Weights(source=str(path))


def weights_of(net):
    return {name: value.detach().numpy() for name, value in net.net.state_dict().items()}


def test_tokens_and_attention_are_those_of_numpy(file):
    trunk = TINY.model_copy(update={"weights": file}).build_tokens(3).double()
    side = timm.get_pretrained_cfg("test_vit").input_size[-1]
    image = images(1, side).double()
    with torch.inference_mode():
        tokens = trunk(image)
        given = trunk.normalize(image)[0].numpy()
    x, attention = vit(given, weights_of(trunk), side=16, heads=2)
    cells = side // 16
    assert tokens.attention_BANN.shape == (1, 6, 3 + cells**2, 3 + cells**2)
    np.testing.assert_allclose(tokens.attention_BANN[0], attention, atol=1e-12)
    np.testing.assert_allclose(tokens.class_BTC[0], x[:3], atol=1e-10)
    np.testing.assert_allclose(tokens.patch_BCHW[0].reshape(64, -1).T, x[3:], atol=1e-10)
    assert np.ptp(attention, axis=-1).max() > 1e-2, "attention that is no mean says something"


@pytest.mark.parametrize("size", [(160, 160), (64, 64), (75, 49)])
def test_features_are_those_of_timm_at_any_size(file, size):
    """Padding to whole patches and resized positional embeddings included."""
    theirs = Timm(name="test_vit", alignment="cell", weights=file).build().double()
    ours = TINY.model_copy(update={"weights": file})
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 255
    with torch.inference_mode():
        expected, plain, tokens = theirs(image), ours.build().double()(image), ours.build_tokens(1).double()(image)
    assert expected.std() > 1e-2
    torch.testing.assert_close(plain, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tokens.patch_BCHW, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tokens.attention_BANN.sum(-1), torch.ones_like(tokens.attention_BANN[..., 0]))


def test_the_class_token_is_that_of_timm(file):
    theirs = timm.create_model("test_vit", pretrained=False, num_classes=0).eval().double()
    state = torch.load(file.source)
    theirs.load_state_dict({name: value for name, value in state.items() if not name.startswith("head.")})
    theirs.norm = torch.nn.Identity()
    trunk = TINY.model_copy(update={"weights": file}).build_tokens(1).double()
    image = images(2, theirs.pretrained_cfg["input_size"][-1]).double()
    with torch.inference_mode():
        expected = theirs.forward_features(trunk.normalize(image))[:, :1]
        torch.testing.assert_close(trunk(image).class_BTC, expected, atol=1e-5, rtol=1e-5)


def test_class_tokens_start_as_copies_of_the_pretrained_one_or_apart(file):
    copies = TINY.model_copy(update={"weights": file}).build_tokens(4).net.cls_token[0]
    apart = TINY.build_tokens(4).net.cls_token[0]
    assert torch.equal(copies, copies[:1].repeat(4, 1))
    assert (apart[0] - apart[1]).abs().max() > 1e-3


@pytest.mark.parametrize("form", ["fused", "bfloat16"])
def test_tokens_come_out_of_quicker_forms_in_float32(form):
    trunk = lively(TINY.build_tokens(2)).eval()
    image = images(2, 64)
    with torch.inference_mode():
        plain = trunk(image)
        quick = fused(trunk, form)(image)
    assert isinstance(quick, Tokens)
    for one, other in zip(plain, quick, strict=True):
        assert other.dtype == torch.float32
        torch.testing.assert_close(other, one, atol=1e-5 if form == "fused" else 0.3, rtol=0.05)


def test_every_parameter_learns_and_nothing_is_random():
    for trunk in (TINY.build_tokens(2).train(), TINY.build().train()):
        state = torch.get_rng_state()
        found = trunk(images(2, 48))
        assert torch.equal(torch.get_rng_state(), state)
        tensors = found[:2] if isinstance(found, Tokens) else (found,)
        sum((tensor**2).sum() for tensor in tensors).backward()
        assert all(parameter.grad is not None for parameter in trunk.parameters())


def test_cams_work_on_its_patch_tokens():
    torch.manual_seed(0)
    net = CamClassifier(trunk=TINY.model_copy(update={"patch_size": 8})).build(3).eval()
    image = np.random.default_rng(0).integers(0, 256, (40, 52, 3)).astype(np.uint8)
    maps = CamLocalizer(scales=(1.0, 0.5), flip=True).localize(net, image, (0, 2), key=0)
    assert maps.peak_CHW.shape == (2, 5, 7)
    assert maps.rows.first == pytest.approx(4 / 40)
    assert maps.columns.step == pytest.approx(8 / 52)


def test_it_is_a_trunk_that_a_job_names():
    trunk = Trunk.model_validate("timm_vit:test_vit")
    assert isinstance(trunk, TokenTrunk)
    assert trunk.name == "test_vit"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_such_net", "has no model 'no_such_net'"),
        ("resnet18", "cannot build resnet18 as a vision transformer"),
        ("test_vit2", "does not have exactly one class token"),
        ("deit3_small_patch16_224", None),
        ("vit_small_patch16_rope_224", "Choose"),
        ("deit_tiny_distilled_patch16_224", "does not have exactly one class token"),
    ],
)
def test_networks_that_it_cannot_run_are_refused(name, says):
    trunk = TimmVit(name=name, weights="none")
    if says is None:
        assert trunk.build_tokens(2).class_tokens == 2
        return
    with pytest.raises(ValueError, match=f"name: .*{says}"):
        trunk.build_tokens(2)


def test_without_timm_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr("wsss_ray.nets.timm_trunk.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'wsss-ray\[timm\]'"):
        TINY.build_tokens(2)


def test_checkpoints_of_deit_hold_their_weights_under_model(file, tmp_path):
    state = torch.load(file.source)
    torch.save({"model": state, "epoch": 300}, tmp_path / "deit.pth")
    trunk = TINY.model_copy(update={"weights": Weights(source=str(tmp_path / "deit.pth"))}).build()
    assert torch.equal(trunk.net.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"])


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"weights\.source: does not fit the network"):
        TINY.model_copy(update={"weights": Weights(source=str(tmp_path / "a.pth"))}).build()
