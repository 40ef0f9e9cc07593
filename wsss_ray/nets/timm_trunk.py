"""Any network of timm (PyTorch Image Models) that gives out its features, as a trunk."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from wsss_ray.core.contracts import Trunk
from wsss_ray.nets.weights import Weights, copy_weights, load_weights

if TYPE_CHECKING:
    from torch import nn


_DILATED_CELLS = "output_stride: dilated patches leave the middle of their cells; leave it out with alignment cell"


class Timm(Trunk):
    """One feature map of a timm model that supports `features_only`, normalised as its pretrained weights want it.

    The network always runs as in evaluation: batch norms are fixed, there is no dropout and no stochastic depth. Transformers
    with a fixed input size are built for any size where timm can do that; others are refused.

    Half a stride hangs on `alignment`: convolutions of odd size with padding on both sides put feature i at pixel i * stride
    (ResNet, RegNet, EfficientNet, MobileNet; of the tf_ ones only on sides of 32 m + 1); patches put it in the middle of its cell
    (ViT, Swin, ConvNeXt, and VGG with its 2x2 pools). By default that is told by the layers: cells where a convolution or a
    maximum moves by its whole size. Where the way is through other layers (the mean pools of DenseNet), say it.
    """

    name: str = Field(min_length=1, description="Of the model, as timm.list_models() has it; with a tag to pin its weights.")
    alignment: Literal["auto", "corner", "cell"] = Field(
        default="auto",
        description="Where features lie: at every stride-th pixel (corner), in the middle of cells of that size (cell).",
    )
    output_stride: int | None = Field(default=None, ge=1, description="Pixels per feature by dilation, if the model can do that.")
    out_index: int = Field(default=-1, description="Which of the model's feature maps; -1 is the last, the coarsest.")
    weights: Weights = Field(
        default=Weights(source="imagenet"), description="none, imagenet (the model's own in timm), or a file of a timm model."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Timm:
        if self.alignment == "cell" and self.output_stride is not None:
            raise ValueError(_DILATED_CELLS)
        return self

    def build(self) -> nn.Module:
        """See `Trunk.build`. ValueError if timm is missing, cannot build or run the model so, or the weights do not fit."""
        from wsss_ray.nets.modules import TimmTrunk

        timm = _timm()
        if not timm.is_model(self.name):
            raise ValueError(f"name is {self.name!r}, which timm {timm.__version__} does not know; timm.list_models() names all")
        loading: dict[str, Any] = {"pretrained": self.weights.source == "imagenet"}
        wanted = f"{self.name} with output_stride {self.output_stride} and out_index {self.out_index}"
        try:
            if self.weights.is_file:
                loading = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": self._checked_state(timm)}}
            net = self._create(timm, features_only=True, out_indices=(self.out_index,), **loading)
        except (TypeError, AssertionError, RuntimeError, NotImplementedError, IndexError, AttributeError) as error:
            raise ValueError(f"timm cannot build {wanted}: {type(error).__name__}: {error}") from error
        try:
            trunk = TimmTrunk(net, alignment=self.alignment)
        except (ValueError, AssertionError, RuntimeError) as error:
            raise ValueError(f"{wanted} does not take images of any size with alignment {self.alignment}: {error}") from error
        if trunk.alignment == "cell" and self.output_stride is not None:
            raise ValueError(_DILATED_CELLS)
        return trunk

    def _create(self, timm: ModuleType, **how: Any) -> Any:
        """The model, for images of any size. timm says how by trying: models take one of these arguments, or none."""
        fixed = timm.get_pretrained_cfg(self.name).fixed_input_size
        ways: list[dict[str, Any]] = [{"dynamic_img_size": True}, {"strict_img_size": False}] if fixed else []
        for way in ways:
            try:
                return timm.create_model(self.name, output_stride=self.output_stride, **way, **how)
            except TypeError:
                continue
        return timm.create_model(self.name, output_stride=self.output_stride, **how)

    def _checked_state(self, timm: ModuleType) -> dict[str, Any]:
        """The file's weights, complete: timm itself would start at random what is missing in it."""
        whole: nn.Module = self._create(timm, num_classes=0)
        heads = timm.get_pretrained_cfg(self.name).classifier or ()
        ignore = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
        copy_weights(whole, load_weights(self.weights), ignore=ignore)
        return whole.state_dict()


def _timm() -> ModuleType:
    from wsss_ray.nets.torchvision_safe import torchvision

    if find_spec("timm") is None:
        raise ValueError("the trunk timm needs the package timm; run: pip install 'wsss-ray[timm]'")
    torchvision()  # timm imports it
    return import_module("timm")
