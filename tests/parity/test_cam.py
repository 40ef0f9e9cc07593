"""Class activation maps against what they are defined by, computed another way."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from wsss_ray.methods.cam import CamClassifier, CamLocalizer
from wsss_ray.methods.mdc import DilatedCam
from wsss_ray.nets.modules import set_dropout_keys
from wsss_ray.nets.small import SmallNet
from wsss_ray.ops.cam import anti_noise, merge_maps, merge_scales, normalise

TRUNK = SmallNet(widths=(8, 12), strides=(2, 1))


def network(**fields):
    torch.manual_seed(0)
    net = CamClassifier(trunk=TRUNK, **fields).build(4).double()
    for block in net.blocks:
        torch.nn.init.normal_(block[-1].weight)
    return net.eval()


def picture(size=24):
    return torch.randint(0, 256, (size, size, 3), generator=torch.Generator().manual_seed(1)).byte().numpy()


@pytest.mark.parametrize("hidden", [None, 6])
def test_the_map_is_the_gradient_of_the_score(hidden):
    """Grad-CAM with pooled gradients is CAM where a class layer follows global average pooling (Selvaraju et al., 2017)."""
    net = network(hidden=hidden)
    image = torch.rand(2, 3, 20, 20, dtype=torch.float64) * 255
    x = net.trunk(image)
    features = net.blocks[0][:-1](x).detach().requires_grad_()
    scores = F.linear(features.mean(dim=(-2, -1)), net.blocks[0][-1].weight[:, :, 0, 0])
    torch.testing.assert_close(net(image)[:, 0], scores)
    for k in range(4):
        (gradient,) = torch.autograd.grad(scores[:, k].sum(), features, retain_graph=True)
        weights = gradient.mean(dim=(-2, -1), keepdim=True) * features[0, 0].numel()
        torch.testing.assert_close(net.cams(image)[:, 0, k], (weights * features).sum(dim=1).detach())


def test_multi_scale_maps_are_the_mean_of_what_each_size_gives():
    net = network()
    images = [torch.rand(1, 3, side, side, dtype=torch.float64) * 255 for side in (24, 12, 36)]
    found = merge_scales(lambda image: net.cams(image)[:, 0], net.trunk, images)
    expected = []
    for image in images:
        raw = F.relu(net.cams(image)[:, 0])
        cells = raw.shape[-1]
        centre = (torch.arange(12) * 2 + 0.5) / 24  # of the features of the first size, as shares of the side
        place = ((centre * image.shape[-1] - 0.5) / 2).clamp(0, cells - 1)
        at = 2 * place / (cells - 1) - 1
        grid = torch.stack(torch.meshgrid(at, at, indexing="ij")[::-1], dim=-1).double()
        expected.append(F.grid_sample(raw, grid[None], mode="bilinear", align_corners=True, padding_mode="border"))
    torch.testing.assert_close(found, torch.stack(expected).mean(dim=0), rtol=0, atol=1e-5)
    largest = merge_scales(lambda image: net.cams(image)[:, 0], net.trunk, images, merge="max")
    torch.testing.assert_close(largest, torch.stack(expected).amax(dim=0), rtol=0, atol=1e-5)


def test_mirroring_an_image_mirrors_its_map():
    net, image = network().float(), picture(25)
    one = CamLocalizer(flip=True).localize(net, image, [0, 2], torch.Generator())
    other = CamLocalizer(flip=True).localize(net, image[:, ::-1].copy(), [0, 2], torch.Generator())
    torch.testing.assert_close(torch.from_numpy(one.peak_CHW), torch.from_numpy(other.peak_CHW).flip(-1), rtol=0, atol=1e-5)


def test_mirrored_maps_are_brought_to_the_grid_of_the_others():
    """A trunk that tells the column of each feature: the mean with the mirror image must tell the same column."""

    class Columns(torch.nn.Module):
        def centres(self, size):
            return 0.0, 8.0

    for width in (33, 40, 45, 48):
        image = torch.arange(width, dtype=torch.float64).expand(1, 1, 17, width)
        trunk = Columns()

        found = merge_scales(lambda x: x[:, :, ::8, ::8], trunk, [image], flip=True)
        inner = found[..., 1 : (width - 9) // 8]
        torch.testing.assert_close(inner, image[:, :, ::8, 8 : 8 * (inner.shape[-1] + 1) : 8], rtol=0, atol=1e-9)


def test_normalised_maps():
    maps = torch.tensor([[[-1.0, 2.0, 4.0]], [[-3.0, -2.0, -1.0]]])
    assert torch.equal(normalise(maps), torch.tensor([[[0, 0.5, 1]], [[0.0, 0, 0]]]))
    assert normalise(torch.zeros(0, 2, 2)).shape == (0, 2, 2)


def test_fusion_of_dilated_blocks():
    """H = H0 + 1/n sum H_i (MDC, 3.2), each divided by its maximum, and the sum again."""
    net, image = network(rates=(1, 2, 3), hidden=5).float(), picture()
    raw = net.cams(torch.from_numpy(image).permute(2, 0, 1)[None].float())[0][:, [1, 3]].detach()
    each = [normalise(block) for block in raw]
    fused = normalise(each[0] + (each[1] + each[2]) / 2)
    found = DilatedCam().localize(net, image, [1, 3], torch.Generator())
    torch.testing.assert_close(torch.from_numpy(found.peak_CHW), fused)
    average = DilatedCam(fusion="average").localize(net, image, [1, 3], torch.Generator())
    torch.testing.assert_close(torch.from_numpy(average.peak_CHW), normalise(sum(each) / 3))
    single = DilatedCam(blocks=(1,)).localize(net, image, [1, 3], torch.Generator())
    torch.testing.assert_close(torch.from_numpy(single.peak_CHW), each[1])
    assert torch.equal(anti_noise(raw[:1]), raw[0])
    classifier = CamClassifier(trunk=TRUNK, rates=(1, 2, 3))
    DilatedCam(blocks=(2,)).check(classifier)
    with pytest.raises(ValueError, match=r"blocks: \[3\], but the classifier has 3 blocks"):
        DilatedCam(blocks=(3,)).check(classifier)
    with pytest.raises(ValueError, match="Use kind: dilated_cam"):
        CamLocalizer().check(classifier)


def test_an_image_without_tags_has_no_maps():
    assert CamLocalizer(scales=(1.0, 0.5)).localize(network().float(), picture(), [], torch.Generator()).peak_CHW.shape[0] == 0


def test_the_loss_is_the_mean_over_the_blocks():
    from types import SimpleNamespace

    learner = CamClassifier(trunk=TRUNK, rates=(1, 2), hidden=5)
    net = learner.build(4).eval()
    image, tags = torch.rand(3, 3, 16, 16) * 255, torch.randint(0, 2, (3, 4)).float()
    set_dropout_keys(net, (1, 2, 3))
    batch = SimpleNamespace(image_BCHW=image, tags_BK=tags, keys_B=(1, 2, 3))
    expected = sum(F.multilabel_soft_margin_loss(logits, tags, reduction="none") for logits in net(image).unbind(dim=1)) / 2
    torch.testing.assert_close(learner.loss(net, batch)["classification"], expected)


def test_the_loss_is_the_printed_sum_over_classes_and_blocks():
    """Multi-Estimations, Eq. 1: L = - sum_c y_c log p_c + (1 - y_c) log (1 - p_c), p = sigmoid; each block adds its own."""
    from types import SimpleNamespace

    learner = CamClassifier(trunk=TRUNK, rates=(1, 2), hidden=5, over_classes="sum", over_blocks="sum")
    net = learner.build(4).eval().double()
    image, tags = torch.rand(3, 3, 16, 16, dtype=torch.float64) * 255, torch.randint(0, 2, (3, 4)).double()
    set_dropout_keys(net, (1, 2, 3))
    found = learner.loss(net, SimpleNamespace(image_BCHW=image, tags_BK=tags, keys_B=(1, 2, 3)))["classification"]
    expected = torch.zeros(3, dtype=torch.float64)
    for logits in net(image).unbind(dim=1):
        p = 1 / (1 + torch.exp(-logits))
        expected -= (tags * p.log() + (1 - tags) * (1 - p).log()).sum(dim=1)
    torch.testing.assert_close(found, expected)
    mean = CamClassifier(trunk=TRUNK, rates=(1, 2), hidden=5).loss(
        net, SimpleNamespace(image_BCHW=image, tags_BK=tags, keys_B=(1, 2, 3))
    )
    torch.testing.assert_close(8 * mean["classification"], found)  # four classes, two blocks


def test_new_layers_start_with_the_printed_deviation():
    """Multi-Estimations, 5.2: N(0, .01); He's for 3x3 layers of 1024 channels is sqrt(2 / (9 * 1024)) = .0147."""
    torch.manual_seed(0)
    wide = SmallNet(widths=(8, 256), strides=(2, 1))
    for std, expected in ((0.01, 0.01), (None, (2 / (9 * 256)) ** 0.5)):
        net = CamClassifier(trunk=wide, hidden=256, layers=2, hidden_std=std).build(4)
        for layer in (net.blocks[0][0], net.blocks[0][2]):
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.01)
            assert layer.bias.abs().max() == 0


def test_whole_channels_are_dropped_before_the_class_layer():
    torch.manual_seed(0)
    net = CamClassifier(trunk=TRUNK, dropout=0.5, whole_channels=True).build(4).train()
    set_dropout_keys(net, (7,))
    x_BCHW = net.blocks[0][0](torch.ones(1, 12, 5, 5))
    each = x_BCHW.flatten(2).unique(dim=2)
    assert each.shape == (1, 12, 1), "a channel is dropped or kept as a whole"
    assert set(each.flatten().tolist()) == {0.0, 2.0}


def test_maps_of_each_scale_may_be_normalised_before_they_are_merged():
    net = network()
    images = [torch.rand(1, 3, 24, 24, dtype=torch.float64) * 255, torch.rand(1, 3, 24, 24, dtype=torch.float64) * 25]
    raw = [net.cams(image)[:, 0] for image in images]
    found = merge_maps([(one, None) for one in raw], net.trunk, [(24, 24)] * 2, normalised=True)
    expected = sum(F.relu(one) / F.relu(one).amax(dim=(-2, -1), keepdim=True) for one in raw) / 2
    torch.testing.assert_close(found, expected)
    photo = picture()
    maps = [CamLocalizer(scales=(1.0, 0.5), normalise_each=each).localize(net.float(), photo, [1], 0) for each in (False, True)]
    assert abs(maps[0].peak_CHW - maps[1].peak_CHW).max() > 1e-3
