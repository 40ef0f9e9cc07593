"""CLIP-ES: CLIP is Also an Efficient Segmenter (Lin et al., CVPR 2023). No classifier is trained: frozen CLIP makes the maps.

The scores of an image are a softmax over the texts of its tags and of a fixed set of backgrounds, so that classes compete with
each other and with what usually surrounds them. Grad-CAM of these scores gives the maps ("softmax-GradCAM"). Texts are chosen by
how sharply CLIP answers them: one prompt, with synonyms for some classes. The attention of CLIP's last layers, made doubly
stochastic, spreads each map inside the boxes of its strong regions ("class-aware attention-based affinity", CAA). A dense CRF
makes seeds of the maps. Pixels of which it is not sure are left out when the segmenter is trained ("confidence-guided loss",
CGL).

Where the paper is silent, values and the order of operations follow the authors' code: three rounds of normalisation, the boxes
of all regions, Grad-CAM at the output of the first norm of the last layer, and the mean of the patches as the feature of the
image.

Differences:
- In the authors' code, a box that reaches the last row or column of the map ends one cell before it. Here it does not.
- Regions are found in the map itself. Their code rounds it to 256 values first, and also takes the boxes of holes, which lie
  inside of other boxes.
- Their maps are enlarged to the image before the CRF by OpenCV; here, as all maps are, between the positions of the patches.
- CLIP runs in float32, not in float16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from wsss_ray.core import (
    Axis,
    Data,
    Given,
    Maps,
    Method,
    Metric,
    Refiner,
    SeedRule,
    SeedScore,
    Segmenter,
    Sgd,
    Stage,
    evaluate,
    evaluate_seeds,
    refine,
    seed,
    train,
)
from wsss_ray.data.transforms import RandomCrop
from wsss_ray.methods.common.chain import REFINE, refined
from wsss_ray.methods.common.seed_rules import CrfSeeds
from wsss_ray.methods.common.segmentation import MultiScale
from wsss_ray.methods.deeplab import DeeplabSegmenter
from wsss_ray.nets.clip import Clip
from wsss_ray.nets.deeplab import Aspp
from wsss_ray.nets.resnet import ResNet
from wsss_ray.nets.weights import Weights
from wsss_ray.ops.background import PowerBackground
from wsss_ray.ops.crf import DenseCrf

if TYPE_CHECKING:
    from torch import nn

    from wsss_ray.nets.clip_net import ClipNet

BACKGROUND = (
    "ground", "land", "grass", "tree", "building", "wall", "sky", "lake", "water", "river", "sea", "railway", "railroad",
    "keyboard", "helmet", "cloud", "house", "mountain", "ocean", "road", "rock", "street", "valley", "bridge", "sign",
)  # fmt: skip
"""What usually surrounds the classes of VOC, without the classes themselves."""

_CRF = DenseCrf(gaussian_sxy=1.0, bilateral_weight=4.0, bilateral_sxy=67.0, bilateral_srgb=3.0)


class ClipMaps(Refiner):
    """Softmax Grad-CAMs of CLIP, spread by its attention. The maps of an image need its tags and nothing else."""

    makes: ClassVar[Literal["maps", "seeds"]] = "maps"

    clip: Clip = Clip()
    synonyms: tuple[tuple[str, str], ...] = Field(
        default=(
            ("bird", "bird avian"),
            ("chair", "chair seat"),
            ("person", "person with clothes,people,human"),
            ("tvmonitor", "tvmonitor screen"),
        ),
        description="Pairs of a class of the data and its name in the texts, where they differ.",
    )
    background: tuple[str, ...] = Field(
        default=BACKGROUND, min_length=1, description="Names of backgrounds in the texts; those of classes are left out."
    )
    prompt: str = Field(default="a clean origami {}.", description="The text, with {} in the place of a name.")
    layers: int = Field(default=8, ge=1, description="Number of last layers whose attention is averaged for the affinity.")
    rounds: int = Field(default=3, ge=1, description="Times that the affinity's columns, then rows, are normalised.")
    power: int = Field(default=2, ge=0, description="Power t of the affinity; 0 leaves the maps as Grad-CAM makes them.")
    box_threshold: float = Field(
        default=0.4, ge=0, le=1, description="Share of a map's maximum above which a region gets a box; only boxes are spread."
    )

    @field_validator("prompt")
    @classmethod
    def _has_a_place(cls, value: str) -> str:
        if value.count("{}") != 1:
            raise ValueError(f"{value!r} must have {{}} once, in the place of a name. Put it there.")
        return value

    @property
    def reads(self) -> tuple[str, ...]:
        """Return nothing: image and tags are enough. See `Refiner.reads`."""
        return ()

    @property
    def has_network(self) -> bool:
        """Return True: CLIP. See `Refiner.has_network`."""
        return True

    def build(self, classes: Sequence[str]) -> nn.Module:
        """Build CLIP, with the texts of classes and backgrounds. See `Refiner.build`."""
        others, folded = dict(self.synonyms), {name.casefold() for name in classes}
        named = [others.get(name, name) for name in classes]
        background = [name for name in self.background if name.casefold() not in folded]
        if not background:
            raise ValueError("method.maps.background: all its names are classes of the data. Name what surrounds them.")
        texts = ([self.prompt.format(name) for name in names] for names in (named, background))
        try:
            return self.clip.build(*texts)
        except ValueError as error:
            raise ValueError(f"method.maps.clip.{error}") from error

    def refine(self, net: nn.Module | None, given: Given) -> Maps:
        """Make the maps of one image. See `Refiner.refine`."""
        import numpy as np
        import torch
        from PIL import Image

        from wsss_ray.ops.attention_affinity import balanced, boxes, spread_in_boxes
        from wsss_ray.ops.multiscale import to_tensor
        from wsss_ray.ops.tokens import stretch

        assert net is not None
        clip: ClipNet = net  # type: ignore[assignment]
        side = clip.patch_size
        rows, columns = (-(-length // side) for length in given.image_HWC.shape[:2])
        axes = {"rows": Axis(first=0.5 / rows, step=1 / rows), "columns": Axis(first=0.5 / columns, step=1 / columns)}
        if not given.classes:
            none_CHW = np.zeros((0, rows, columns), np.float32)
            return Maps((), peak_CHW=none_CHW, mean_CHW=none_CHW, **axes)
        whole = Image.fromarray(given.image_HWC).resize((side * columns, side * rows), Image.Resampling.BICUBIC)
        device = clip.class_KD.device
        views = clip(to_tensor(np.array(whole), device), torch.tensor(given.classes, device=device))
        cam_CHW = stretch(views.cam_CHW)
        if self.power:
            inside_CHW = torch.from_numpy(boxes(cam_CHW.cpu().numpy(), self.box_threshold)).to(device)
            affinity_NN = balanced(views.attention_ANN[-self.layers :].mean(dim=0), rounds=self.rounds)
            cam_CHW = stretch(spread_in_boxes(cam_CHW, affinity_NN, inside_CHW, power=self.power))
        found = cam_CHW.cpu().numpy()
        return Maps(given.classes, peak_CHW=found, mean_CHW=found, **axes)


class ClipEs(Method):
    """The chain of CLIP-ES: maps of frozen CLIP, seeds with pixels left out, DeepLab."""

    maps: Refiner = ClipMaps()
    refine: tuple[Refiner, ...] = Field(default=(), description=REFINE)
    seed_rule: SeedRule = CrfSeeds(background=PowerBackground(gamma=1.0), crf=_CRF, confidence=0.95)
    segmenter: Segmenter = DeeplabSegmenter(
        trunk=ResNet(depth=101, output_stride=8, weights=Weights(source="imagenet"), frozen=0),
        head=Aspp(hidden=None, dropout=0.0),
        batch_size=10,
        steps=20000,
        augment=RandomCrop(size=321, min_scale=0.5, max_scale=1.5),
        optimizer=Sgd(lr=2.5e-4, weight_decay=5e-4),
        input_scales=(1.0, 0.75, 0.5),
    )
    metric: Metric = MultiScale(scales=(1.0,), crf=_CRF)

    def plan(self, data: Data) -> Sequence[Stage]:
        """Plan maps, seeds, their refiners, segmenter and score."""
        maps = refined(self.refine, "maps", data, classifier=None, maps=refine(self.maps, data.weak, name="maps"))
        seeds = seed(self.seed_rule, maps, data.weak, saliency=data.saliency)
        seeds = refined(self.refine, "seeds", data, classifier=None, maps=maps, seeds=seeds)
        quality = [evaluate_seeds(SeedScore(), seeds, data.weak)] if data.weak_has_masks else []
        segmenter = train(self.segmenter, data.weak, seeds=(seeds,), strong=data.strong, name="segmenter")
        return (*quality, evaluate(self.metric, segmenter, data.val) if data.val else segmenter)
