"""DSRG: Weakly-Supervised Semantic Segmentation Network with Deep Seeded Region Growing (Huang et al., CVPR 2018).

The segmentation stage of FickleNet. Every step grows the static seeds into the network's own CRF-refined prediction, trains on
the grown seeds (balanced seed loss) and towards the CRF (boundary loss). Values and orders of operations follow the authors'
released configuration where the paper leaves them out: four ASPP branches, softmax with a floor of 1e-4, the CRF on the reduced
grid with its spatial widths divided by 12.

Differences: their CRF takes the energy -p, ours -log p as the CRF is defined (`crf.unary: probability` is theirs). Its result is
a constant in the boundary loss, as in SEC's later revision. Their label grid aligns the corners of crop and features; here its
cells divide the crop evenly.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from wsss_ray.component import Component
from wsss_ray.contracts import Augment, Batch, Relabel, Segmenter, Trunk
from wsss_ray.data.transforms import Warp
from wsss_ray.nets.deeplab import Aspp, Head, build_segmenter
from wsss_ray.nets.vgg16 import Vgg16
from wsss_ray.ops.crf import DenseCrf
from wsss_ray.optim import Decay, Optimizer, Schedule, Sgd

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from wsss_ray.contracts import ImageArray, LabelArray, MapArray


class Background(Component):
    """Where a seed's background comes from."""

    @property
    def needs_saliency(self) -> bool:
        """See `SeedRule.needs_saliency`."""
        return False

    @abstractmethod
    def cues(self, peak_CHW: MapArray, saliency_HW: MapArray | None) -> NDArray[np.bool_]:
        """Background cues (H, W)."""


class SaliencyBackground(Background):
    """Pixels whose saliency in [0, 1] lies below `threshold` (DSRG; .06 as in the same family of papers)."""

    threshold: float = Field(default=0.06, gt=0, le=1)

    @property
    def needs_saliency(self) -> bool:
        """See `SeedRule.needs_saliency`."""
        return True

    def cues(self, peak_CHW: MapArray, saliency_HW: MapArray | None) -> NDArray[np.bool_]:
        """See `Background.cues`."""
        assert saliency_HW is not None
        return saliency_HW < self.threshold


class CamBackground(Background):
    """The complement of the localization maps: pixels where no class reaches `threshold`."""

    threshold: float = Field(default=0.2, gt=0, le=1)

    def cues(self, peak_CHW: MapArray, saliency_HW: MapArray | None) -> NDArray[np.bool_]:
        """See `Background.cues`."""
        import numpy as np

        return np.asarray(~(peak_CHW > self.threshold).any(axis=0), np.bool_)


class DsrgSegmenter(Segmenter):
    """DeepLab trained with the balanced seed loss, the boundary loss and seeded region growing (sections 3.1 to 3.3).

    Images with human masks add `full_weight` times their cross-entropy (FickleNet, Eq. 2 and 3).
    """

    trunk: Trunk = Vgg16(pool5=True)
    head: Head = Aspp()
    batch_size: int = Field(default=20, ge=1)
    steps: int | None = 8000
    augment: Augment = Warp(size=321)
    optimizer: Optimizer = Sgd(lr=5e-4, weight_decay=5e-4)
    schedule: Schedule = Decay(gamma=0.33, every_steps=1000)
    head_lr_scale: float = Field(default=10.0, gt=0)
    foreground_threshold: float = Field(default=0.85, ge=0, le=1, description="Probability above which a seed grows.")
    background_threshold: float = Field(default=0.99, ge=0, le=1, description="The same for background.")
    crf: DenseCrf = DenseCrf(scale=12.0)
    floor: float = Field(default=1e-4, ge=0, lt=0.01, description="Added to every probability.")
    full_weight: float = Field(default=2.0, ge=0, description="alpha of FickleNet's Eq. 2.")

    def build(self, num_classes: int) -> nn.Module:
        """See `Learner.build`."""
        return build_segmenter(self.trunk, self.head, num_classes)

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Terms seed and boundary, and full for images with human masks."""
        import torch

        from wsss_ray.nets.modules import set_dropout_keys
        from wsss_ray.ops import losses

        set_dropout_keys(net, batch.keys_B)
        logits_BLHW = net(batch.image_BCHW)
        prob_BLHW = losses.softmax_floor(logits_BLHW, self.floor)
        seeds_BHW = losses.shrink_labels(batch.seeds_BEHW[:, 0], logits_BLHW)
        grown, refined = zip(
            *(
                self._targets(*one)
                for one in zip(batch.image_BCHW, prob_BLHW.detach(), seeds_BHW, batch.tags_BK, strict=True)
            ),
            strict=True,
        )
        terms = {
            "seed": losses.seed_loss(prob_BLHW.log(), torch.stack(grown).to(prob_BLHW.device)),
            "boundary": losses.boundary_loss(prob_BLHW, torch.stack(refined).to(prob_BLHW.device)),
        }
        if batch.strong_B.any():
            full_B = losses.full_loss(logits_BLHW, seeds_BHW)
            terms["full"] = torch.where(batch.strong_B, self.full_weight * full_B, torch.zeros_like(full_B))
        return terms

    def _targets(self, image_CHW: Tensor, prob_LHW: Tensor, seeds_HW: Tensor, tags_K: Tensor) -> tuple[Tensor, Tensor]:
        """Grown seeds (bool) and the CRF's probabilities of one image, on the network's grid."""
        import numpy as np
        import torch

        from wsss_ray.ops.growing import grow

        small = torch.nn.functional.interpolate(image_CHW[None], prob_LHW.shape[1:], mode="bilinear", align_corners=False)[0]
        image_HWC = small.permute(1, 2, 0).round().clamp(0, 255).byte().cpu().numpy()
        refined = self.crf.refine(image_HWC, prob_LHW.float().cpu().numpy())
        refined = np.maximum(refined, max(self.floor, 1e-8))
        refined /= refined.sum(axis=0, keepdims=True)
        present = [0, *(int(tag) + 1 for tag in tags_K.nonzero().flatten())]
        grown = grow(
            refined,
            seeds_HW.cpu().numpy(),
            present,
            fg_threshold=self.foreground_threshold,
            bg_threshold=self.background_threshold,
        )
        return torch.from_numpy(grown), torch.from_numpy(refined.astype(np.float32))

    def predict(self, net: nn.Module, image_BCHW: Tensor) -> Tensor:
        """See `Segmenter.predict`."""
        logits: Tensor = net(image_BCHW)
        return logits

    def param_groups(self, net: nn.Module) -> list[dict[str, object]]:
        """New layers and biases faster than pretrained ones, no weight decay on biases."""
        from wsss_ray.nets.segnet import param_groups_deeplab

        return param_groups_deeplab(net, head_scale=self.head_lr_scale)


class DsrgRelabel(Relabel):
    """The trained segmenter's labels for the retrain stage: whole-image warps, summed scores, dense CRF on log p."""

    sizes: tuple[int, ...] = Field(default=(241, 321, 401), min_length=1, description="Sides of the warped squares.")
    flip: bool = False
    crf: DenseCrf | None = DenseCrf()
    only_tags: bool = Field(default=False, description="Allow only background and the image's tags.")

    def label(self, segmenter: Segmenter, net: nn.Module, image_HWC: ImageArray, classes: Sequence[int]) -> LabelArray:
        """See `Relabel.label`."""
        import numpy as np

        from wsss_ray.ops.multiscale import sum_logits

        logits_LHW = sum_logits(
            lambda image: segmenter.predict(net, image),
            image_HWC,
            sizes=[(size, size) for size in self.sizes],
            flip=self.flip,
            device=next(net.parameters()).device,
        )
        labels = [0, *(k + 1 for k in classes)] if self.only_tags else list(range(len(logits_LHW)))
        prob_CHW = logits_LHW[labels].softmax(dim=0).cpu().numpy()
        if self.crf is not None:
            prob_CHW = self.crf.refine(image_HWC, prob_CHW)
        label_HW: LabelArray = np.asarray(labels, np.uint8)[prob_CHW.argmax(axis=0)]
        return label_HW

