"""VGG16 (Simonyan and Zisserman, ICLR 2015) as a fully convolutional trunk at stride 8 (DeepLab, SEC, DSRG)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from wsss_ray.core.contracts import Trunk
from wsss_ray.nets.weights import Weights, copy_weights, load_weights

if TYPE_CHECKING:
    from torch import Tensor, nn


class Vgg16(Trunk):
    """VGG16 up to conv5_3: 512 channels, 321 x 321 -> 41 x 41.

    Pools 1 to 3 are 3x3 with stride 2 and padding 1 (2x2 would give 40 x 40), pool 4 has stride 1, conv5 is dilated by 2. State
    dicts of torchvision's vgg16 fit as they are; their classifier is left out.
    """

    weights: Weights = Field(default=Weights(source="imagenet"), description="none, imagenet (torchvision's), or a file.")
    pool5: bool = Field(default=False, description="Add pool5 and pool5a (3x3 maximum, 3x3 mean, stride 1), as DeepLab has.")
    width: float = Field(default=1.0, gt=0, le=1, description="Multiplies all channel counts; for tests, without weights only.")

    @model_validator(mode="after")
    def _full_width(self) -> Vgg16:
        if self.width != 1.0 and self.weights.source != "none":
            raise ValueError("width other than 1 has no pretrained weights; set weights: none")
        return self

    def build(self) -> nn.Module:
        """See `Trunk.build`. ValueError if the weights are missing or do not fit."""
        from wsss_ray.nets.modules import vgg16_trunk

        trunk = vgg16_trunk(width=self.width, pool5=self.pool5)
        if state := load_weights(self.weights, imagenet=_imagenet):
            copy_weights(trunk, state, ignore=("classifier.",))
        return trunk

    def hidden_layers(self, hidden: int) -> dict[str, Tensor]:
        """The hidden layers of ImageNet's classifier, reduced as DeepLab does it (see `segnet.decimate`)."""
        from wsss_ray.nets.segnet import decimate

        return decimate(load_weights(self.weights, imagenet=_imagenet), hidden)


def _imagenet() -> dict[str, Tensor]:
    from wsss_ray.nets.torchvision_safe import torchvision

    state: dict[str, Tensor] = torchvision().models.VGG16_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
    return state
