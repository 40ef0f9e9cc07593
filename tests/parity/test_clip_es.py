"""CLIP-ES against numpy: softmax Grad-CAM without automatic differentiation, the affinity in loops, the texts by open_clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax

from tests.parity.naive_vit import attention_of, layer_norm, quick_gelu
from wsss_ray.core import IGNORE, Axis, Data, Given, Maps, SeedScore, Stage
from wsss_ray.methods.clip_es import BACKGROUND, ClipEs, ClipMaps
from wsss_ray.methods.common.seed_rules import CrfSeeds
from wsss_ray.nets.clip import Clip, ClipWeights
from wsss_ray.nets.torchvision_safe import torchvision
from wsss_ray.ops.attention_affinity import balanced, boxes, spread_in_boxes
from wsss_ray.ops.background import PowerBackground
from wsss_ray.ops.grid import enlarge

RULE = ClipMaps(clip=Clip(weights=ClipWeights(source="random")))
CLASSES = ("bird", "boat", "cat")


@pytest.fixture(scope="module")
def open_clip():
    torchvision()
    return pytest.importorskip("open_clip", reason="needs wsss-ray[clip]")


@pytest.fixture(scope="module")
def net(open_clip):
    """A small random CLIP, with weights so large that its answers differ between images and texts."""
    found = RULE.build(CLASSES).double()
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=rng, dtype=torch.float64) * 0.15)
    return found


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(4).integers(0, 256, (32, 32, 3)).astype(np.uint8)


def through(weights, x, normed, heads=2):
    """A layer of CLIP in numpy, its first norm done already. Returns its output and the attention, averaged over the heads."""
    attention, read = attention_of(
        normed, np.split(weights["attn.in_proj_weight"], 3), np.split(weights["attn.in_proj_bias"], 3), heads
    )
    x = x + read @ weights["attn.out_proj.weight"].T + weights["attn.out_proj.bias"]
    hidden = layer_norm(x, weights["ln_2.weight"], weights["ln_2.bias"], eps=1e-5) @ weights["mlp.c_fc.weight"].T
    hidden = quick_gelu(hidden + weights["mlp.c_fc.bias"])
    return x + hidden @ weights["mlp.c_proj.weight"].T + weights["mlp.c_proj.bias"], attention.mean(0)


def by_numpy(net, image_HWC, tags):
    """Grad-CAMs, attention and probabilities. A gradient is a difference quotient, for all patches of a channel at once."""
    visual = net.visual
    x = visual._embeds(net.normalize(torch.from_numpy(image_HWC).permute(2, 0, 1)[None].double()))[0].detach().numpy()
    layers = [{n: p.detach().numpy() for n, p in block.named_parameters()} for block in visual.transformer.resblocks]
    shown = []
    for weights in layers[:-1]:
        x, attention = through(weights, x, layer_norm(x, weights["ln_1.weight"], weights["ln_1.bias"], eps=1e-5))
        shown.append(attention[1:, 1:])
    last = layers[-1]
    normed = layer_norm(x, last["ln_1.weight"], last["ln_1.bias"], eps=1e-5)
    texts = np.concatenate([net.class_KD.numpy()[list(tags)], net.background_JD.numpy()])
    post = [part.detach().numpy() for part in (visual.ln_post.weight, visual.ln_post.bias, visual.proj)]

    def probability(given):
        y, attention = through(last, x, given)
        feature = layer_norm(y, *post[:2], eps=1e-5)[1:].mean(0) @ post[2]
        return softmax(float(net.logit_scale) * texts @ (feature / np.linalg.norm(feature)))[: len(tags)], attention

    step = 1e-5
    slope = np.zeros((len(tags), normed.shape[1]))
    for channel in range(normed.shape[1]):
        moved = np.zeros_like(normed)
        moved[1:, channel] = step
        slope[:, channel] = (probability(normed + moved)[0] - probability(normed - moved)[0]) / (2 * step * (len(normed) - 1))
    found, attention = probability(normed)
    cams = np.maximum(normed[1:] @ slope.T, 0).T.reshape(len(tags), 8, 8)
    return cams, np.stack([*shown, attention[1:, 1:]]), found


@pytest.mark.parametrize("tags", [(0,), (1, 2), (0, 1, 2)])
def test_grad_cams_are_those_of_numpy(net, image, tags):
    views = net(torch.from_numpy(image).permute(2, 0, 1)[None].double(), torch.tensor(tags))
    cams, attention, probability = by_numpy(net, image, tags)
    np.testing.assert_allclose(views.probability_C, probability, rtol=1e-9)
    np.testing.assert_allclose(views.attention_ANN, attention, atol=1e-12)
    assert cams.max() > 0
    np.testing.assert_allclose(views.cam_CHW, cams, atol=1e-7 * cams.max() + 1e-12, rtol=1e-4)


def caa(cam, attention, *, layers, rounds, power, threshold):
    """The affinity of one map, entry by entry."""
    mean = attention[-layers:].mean(0)
    count = len(mean)
    for _ in range(rounds):
        mean = np.array([[mean[i, j] / mean[:, j].sum() for j in range(count)] for i in range(count)])
        mean = np.array([[mean[i, j] / mean[i].sum() for j in range(count)] for i in range(count)])
    mean = np.linalg.matrix_power((mean + mean.T) / 2, power)
    strong = {(int(r), int(c)) for r, c in zip(*np.nonzero((cam >= threshold * cam.max()) & (cam > 0)), strict=True)}
    inside = np.zeros(cam.shape, bool)
    while strong:
        region, waiting = set(), [strong.pop()]
        while waiting:
            r, c = waiting.pop()
            region.add((r, c))
            near = {(r + a, c + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & strong
            strong -= near
            waiting += near
        tall, wide = zip(*region, strict=True)
        inside[min(tall) : max(tall) + 1, min(wide) : max(wide) + 1] = True
    return (mean @ (cam * inside).ravel()).reshape(cam.shape)


def stretched(map_HW):
    return (map_HW - map_HW.min()) / (map_HW.max() - map_HW.min())


@pytest.mark.parametrize("changes", [{}, {"layers": 2, "rounds": 1, "power": 1, "box_threshold": 0.7}, {"power": 0}], ids=str)
def test_the_maps_of_an_image_are_those_of_numpy(net, image, changes):
    rule = RULE.model_copy(update=changes)
    cams, attention, _ = by_numpy(net, image, (0, 2))
    how = {"layers": rule.layers, "rounds": rule.rounds, "power": rule.power, "threshold": rule.box_threshold}
    expected = [stretched(caa(stretched(cam), attention, **how) if rule.power else cam) for cam in cams]
    maps = rule.refine(net.float(), Given(image, (0, 2), key=0))
    net.double()
    assert maps.classes == (0, 2)
    assert maps.rows == maps.columns == Axis(first=0.5 / 8, step=1 / 8)
    np.testing.assert_allclose(maps.peak_CHW, expected, atol=2e-3)


def test_images_of_other_sizes_have_resized_embeddings(net):
    visual, grid = net.visual, (5, 11)
    with torch.no_grad():
        blank = net.normalize.mean.view(1, 3, 1, 1).expand(1, 3, 20, 44).double()
        before = []
        hook = visual.ln_pre.register_forward_pre_hook(lambda _, given: before.append(given[0]))
        found = net(blank, torch.tensor([1]))
        hook.remove()
        cell = Axis(first=1 / 16, step=1 / 8)
        place = enlarge(visual.positional_embedding[1:].t().reshape(1, 64, 8, 8), *grid, cell, cell)
    assert found.cam_CHW.shape == (1, *grid)
    torch.testing.assert_close(before[0][0, 1:].t().reshape(1, 64, *grid), place, atol=1e-6, rtol=1e-5)
    odd = RULE.refine(net.float(), Given(np.zeros((18, 41, 3), np.uint8), (1,), key=0))
    net.double()
    assert odd.peak_CHW.shape == (1, 5, 11), "sides are rounded up to whole patches"


def test_a_class_is_not_its_own_background(open_clip):
    """Folders of one's own are named tree or bridge, too: a class would compete with its own name."""
    found = RULE.build(("Tree", "cat"))
    assert len(found.background_JD) == len(RULE.background) - 1
    with pytest.raises(ValueError, match=r"method.maps.background: all its names are classes of the data"):
        RULE.model_copy(update={"background": ("tree",)}).build(("Tree", "cat"))


def test_texts_are_those_of_open_clip(open_clip):
    found = RULE.build(CLASSES)
    assert torch.equal(RULE.build(CLASSES).visual.proj, found.visual.proj), "the small random network is always the same"
    torch.manual_seed(0)
    theirs = open_clip.CLIP(
        16,
        {"image_size": 32, "layers": 4, "width": 64, "head_width": 32, "patch_size": 4},
        {"context_length": 77, "vocab_size": 49408, "layers": 2, "width": 32, "heads": 2},
        quick_gelu=True,
    ).eval()
    tokens = open_clip.get_tokenizer("ViT-B-16")
    with torch.no_grad():
        texts = ["a clean origami bird avian.", "a clean origami boat.", "a clean origami cat."]
        torch.testing.assert_close(found.class_KD, theirs.encode_text(tokens(texts), normalize=True))
        ground = theirs.encode_text(tokens([f"a clean origami {name}." for name in BACKGROUND]), normalize=True)
        torch.testing.assert_close(found.background_JD, ground)
    assert not hasattr(found, "token_embedding"), "the text tower is not kept"


def test_an_image_without_tags_has_no_maps(net):
    assert RULE.refine(net, Given(np.zeros((32, 20, 3), np.uint8), (), key=0)).peak_CHW.shape == (0, 8, 5)


def test_weights_are_read_from_a_file(open_clip, tmp_path):
    config = open_clip.get_model_config("ViT-S-32-alt")
    torch.manual_seed(0)
    theirs = open_clip.CLIP(**{name: config[name] for name in ("embed_dim", "vision_cfg", "text_cfg")}).eval()
    file = tmp_path / "clip.pt"
    torch.save(theirs.half().state_dict() | {"vocab_size": torch.tensor(49408)}, file)
    clip = Clip(model="ViT-S-32-alt", weights=ClipWeights(source=str(file)))
    net = clip.build(["a cat"], ["grass"])
    assert torch.equal(net.visual.conv1.weight, theirs.visual.conv1.weight.float())
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert clip.identity() == clip.model_copy(update={"weights": ClipWeights(source=str(file), sha256=None)}).identity()
    with pytest.raises(ValueError, match=r"method.maps.clip.weights.source: does not fit the network"):
        ClipMaps(clip=clip.model_copy(update={"model": "ViT-B-32"})).build(("cat",))


@pytest.mark.parametrize(
    ("model", "says"),
    [("RN50", "is no CLIP with a vision transformer"), ("coca_ViT-B-32", "is no CLIP"), ("nothing", "is no CLIP")],
)
def test_other_models_are_refused(open_clip, model, says):
    with pytest.raises(ValueError, match=f"model: '{model}' {says}"):
        Clip(model=model, weights=ClipWeights(source="random")).build(["a"], ["b"])


# --- without open_clip


def test_messages_say_what_is_missing(monkeypatch):
    with pytest.raises(ValueError, match=r"method.maps.clip.weights: CLIP needs its weights, and no file is given"):
        ClipMaps().build(("cat",))
    monkeypatch.setattr("wsss_ray.nets.clip.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'wsss-ray\[clip\]'"):
        RULE.build(CLASSES)
    with pytest.raises(ValueError, match=r"must have {} once"):
        ClipMaps(prompt="a photo")


def test_a_plan_trains_no_classifier():
    weak, val = (Stage("ingest", name, SeedScore(), seed=place) for place, name in enumerate(("weak", "val")))
    quality, score = ClipEs().plan(Data(("bird", "dog"), weak, val, weak_has_masks=True))
    maps = quality.input("seeds").input("maps")
    assert maps.component == ClipMaps()
    assert [role for role, _ in maps.inputs] == ["data"]
    assert [stage.name for stage in (score.input("model"), quality, score)] == ["segmenter", "seed_quality", "miou"]


def test_sinkhorn_boxes_and_powers_by_hand():
    rng = np.random.default_rng(0)
    even = balanced(torch.from_numpy(rng.random((6, 6))), rounds=60)
    torch.testing.assert_close(even.sum(0), torch.ones(6, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(even, even.t())
    map_HW = np.array([[0.0, 0.9, 0.0, 0.1], [0.5, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    expected = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1]], bool)
    np.testing.assert_array_equal(boxes(map_HW[None], 0.4)[0], expected)
    np.testing.assert_array_equal(boxes(np.zeros((1, 2, 2)), 0.4), np.zeros((1, 2, 2), bool))
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    one, both = torch.tensor([[[1.0, 2.0]]]), torch.ones(1, 1, 2, dtype=torch.bool)
    torch.testing.assert_close(spread_in_boxes(one, swap, both, power=1), torch.tensor([[[2.0, 1.0]]]))
    torch.testing.assert_close(spread_in_boxes(one, swap, torch.tensor([[[True, False]]]), power=2), torch.tensor([[[1.0, 0.0]]]))


def test_pixels_of_low_confidence_are_undecided():
    cell = Axis(first=1 / 6, step=1 / 3)
    line = np.array([[[0.02, 0.5, 0.97]]], np.float32)
    maps = Maps((4,), line, line, Axis(0.5, 1.0), cell)
    image = np.zeros((1, 3, 3), np.uint8)
    rule = CrfSeeds(background=PowerBackground(gamma=1.0), crf=None, confidence=0.95)
    assert rule.seed(image, maps, None).tolist() == [[0, IGNORE, 5]]
    assert rule.by_threshold is None
    plain = CrfSeeds(background=PowerBackground(gamma=1.0), crf=None)
    assert plain.seed(image, maps, None).tolist() == [[0, 0, 5]]
    assert "confidence" not in plain.identity(), "seeds of before keep their ids"
