"""Build VGG16 (Simonyan and Zisserman, ICLR 2015) as a fully convolutional trunk at stride 8 (DeepLab, SEC, DSRG)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from wsss_ray.core.contracts import Trunk
from wsss_ray.nets.weights import Weights, copy_weights, load_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsss_ray.nets.modules import ConvTrunk


class Vgg16(Trunk):
    """VGG16 up to conv5_3: 512 channels, 321 x 321 -> 41 x 41.

    Pools 1 to 3 are 3x3 with stride 2 and padding 1; 2x2 pools would give 40 x 40. Pool 4 has stride 1, and conv5 is dilated by
    2. State dicts of torchvision's vgg16 fit without changes; their classifier is ignored.
    """

    weights: Weights = Field(
        default=Weights(source="imagenet"), description="none, imagenet (from torchvision), or a path to a file."
    )
    pool5: bool = Field(
        default=False, description="Add DeepLab's pool5 and pool5a: a 3x3 max pooling and a 3x3 mean pooling with stride 1."
    )
    width: float = Field(default=1.0, gt=0, le=1, description="Factor for all channel counts. For tests, without weights only.")

    @model_validator(mode="after")
    def _full_width(self) -> Vgg16:
        if self.width != 1.0 and self.weights.source != "none":
            raise ValueError("width: only width 1 has pretrained weights. Set weights: none.")
        return self

    def build(self) -> nn.Module:
        """Build the trunk. See `Trunk.build`.

        Raises:
            ValueError: if the weights are missing or do not fit.
        """
        return self._built(conv4=False)

    def build_levels(self) -> tuple[nn.Module, tuple[int, ...]]:
        """Build the trunk with the features of conv4_3 and conv5_3. See `Trunk.build_levels`."""
        trunk = self._built(conv4=True)
        return trunk, (trunk.channels // 2,) * 2

    def _built(self, *, conv4: bool) -> ConvTrunk:
        from wsss_ray.nets.modules import vgg16_trunk

        trunk = vgg16_trunk(width=self.width, pool5=self.pool5, conv4=conv4)
        if state := load_weights(self.weights, imagenet=_imagenet):
            copy_weights(trunk, state, ignore=("classifier.",))
        return trunk

    def hidden_layers(self, hidden: int) -> dict[str, Tensor]:
        """Return fc6 and fc7 from the classifier of the weights, reduced as DeepLab does (see `segnet.decimate`)."""
        from wsss_ray.nets.segnet import decimate

        return decimate(load_weights(self.weights, imagenet=_imagenet), hidden)


def _imagenet() -> dict[str, Tensor]:
    from wsss_ray.nets.torchvision_safe import torchvision

    state: dict[str, Tensor] = torchvision().models.VGG16_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
    return state
