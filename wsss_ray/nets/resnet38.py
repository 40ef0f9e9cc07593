"""ResNet38: Model A1 of Wu, Shen and van den Hengel, "Wider or Deeper" (Pattern Recognition 2019, arXiv 1611.10080).

As PSA (Ahn and Kwak, CVPR 2018) and the methods after it use it: stride 8, dilations instead of the last two strides, dropout of
whole channels in the last two units. The ImageNet weights are a file of the authors' (itijyou/ademxapp,
`ilsvrc-cls_rna-a1_cls1000_ep-0001.params`), for which there is no lasting address to load it from.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from wsss_ray.core.contracts import Trunk
from wsss_ray.nets.weights import Weights, copy_weights, load_weights

if TYPE_CHECKING:
    from torch import Tensor, nn


class ResNet38(Trunk):
    """ResNet38 without its classifier: 4096 channels, 321 x 321 -> 41 x 41. Batch norms are fixed.

    State dicts of PSA and its relatives (`res38_cls.pth`) fit as they are, whatever stands before the names; their classifiers
    are left out. So does mxnet's `.params` file.
    """

    weights: Weights = Field(default=Weights(), description="none, or a file: a state dict, or the authors' mxnet .params.")
    frozen: Literal["none", "stem", "all"] = Field(
        default="stem",
        description="What is not trained. The stem is conv1a and the b2 units: PSA's choice; RRM's released network has none.",
    )
    width: float = Field(default=1.0, gt=0, le=1, description="Multiplies all channel counts; for tests, without weights only.")

    @classmethod
    def kind(cls) -> str:
        """The name in job files."""
        return "resnet38"

    @model_validator(mode="after")
    def _consistent(self) -> ResNet38:
        if self.weights.source == "imagenet":
            raise ValueError("weights: resnet38 has no imagenet weights to download; give none or the path of a file")
        if self.width != 1.0 and self.weights.source != "none":
            raise ValueError("width other than 1 has no pretrained weights; set weights: none")
        return self

    def build(self) -> nn.Module:
        """See `Trunk.build`. ValueError if the weights are missing or do not fit."""
        from wsss_ray.nets.mxnet_params import resnet38_names
        from wsss_ray.nets.residual import WideResNet

        trunk = WideResNet(width=self.width, frozen=self.frozen)
        if state := load_weights(self.weights):
            if self.weights.source.endswith(".params"):
                state = resnet38_names(state)
            copy_weights(trunk, _own(state, trunk.state_dict()))
        return trunk


def _own(state: dict[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """What of `state` belongs to the trunk, without the prefix that a wrapper or a whole network put before it."""
    first = "conv1a.weight"
    prefix = next((key.removesuffix(first) for key in state if key.endswith(first)), "")
    return {name: state[prefix + name] for name in names if prefix + name in state}
