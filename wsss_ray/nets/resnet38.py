"""Build ResNet38: Model A1 of Wu, Shen and van den Hengel, "Wider or Deeper" (Pattern Recognition 2019, arXiv 1611.10080).

PSA (Ahn and Kwak, CVPR 2018) and later methods use this variant: stride 8, dilations instead of the last two strides, and dropout
of whole channels in the last two units. The authors publish the ImageNet weights as a file (itijyou/ademxapp,
`ilsvrc-cls_rna-a1_cls1000_ep-0001.params`). That file has no permanent address, so this package cannot download it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from wsss_ray.core.contracts import Trunk
from wsss_ray.nets.weights import Weights, copy_weights, load_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsss_ray.nets.residual import WideResNet


class ResNet38(Trunk):
    """ResNet38 without its classifier: 4096 channels, 321 x 321 -> 41 x 41. Batch norms are fixed.

    The state dicts of PSA and related methods (`res38_cls.pth`) and the authors' mxnet `.params` file fit without changes. A
    prefix before the names and the classifiers are ignored.
    """

    weights: Weights = Field(
        default=Weights(), description="none, or a path to a file: a state dict, or the authors' mxnet .params file."
    )
    frozen: Literal["none", "stem", "all"] = Field(
        default="stem",
        description="Parts that are not trained. The stem is conv1a and the b2 units. PSA freezes the stem, RRM's code nothing.",
    )
    width: float = Field(default=1.0, gt=0, le=1, description="Factor for all channel counts. For tests, without weights only.")

    @classmethod
    def kind(cls) -> str:
        """Return the name in job files."""
        return "resnet38"

    @model_validator(mode="after")
    def _consistent(self) -> ResNet38:
        if self.weights.source == "imagenet":
            raise ValueError("weights: resnet38 has no imagenet weights to download. Give none or the path of a file.")
        if self.width != 1.0 and self.weights.source != "none":
            raise ValueError("width: only width 1 has pretrained weights. Set weights: none.")
        return self

    def build(self) -> nn.Module:
        """Build the trunk. See `Trunk.build`.

        Raises:
            ValueError: if the weights are missing or do not fit.
        """
        return self._built(())

    def build_levels(self) -> tuple[nn.Module, tuple[int, ...]]:
        """Build the trunk with the features before b5 and b6 (PSA's conv4 and conv5), and the last. See `Trunk.build_levels`."""
        trunk = self._built(("b5", "b6"))
        return trunk, tuple(trunk.level_channels)

    def _built(self, levels: tuple[str, ...]) -> WideResNet:
        from wsss_ray.nets.mxnet_params import resnet38_names
        from wsss_ray.nets.residual import WideResNet

        trunk = WideResNet(width=self.width, frozen=self.frozen, levels=levels)
        if state := load_weights(self.weights):
            if self.weights.source.endswith(".params"):
                state = resnet38_names(state)
            copy_weights(trunk, _own(state, trunk.state_dict()))
        return trunk


def _own(state: dict[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Select the parameters of the trunk and remove the prefix that a wrapper or a larger network put before their names."""
    first = "conv1a.weight"
    prefix = next((key.removesuffix(first) for key in state if key.endswith(first)), "")
    return {name: state[prefix + name] for name in names if prefix + name in state}
