"""Build a trunk from any timm network (PyTorch Image Models) that supports feature extraction."""

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


_DILATED_CELLS = "output_stride: dilated patches leave the middle of their cells. Remove it with alignment cell."


class Timm(Trunk):
    """Trunk that returns one feature map of a timm model with `features_only` support.

    Images are normalised as the pretrained weights require. The network always runs in evaluation mode: batch norms are fixed,
    and there is no dropout and no stochastic depth. Transformers with a fixed input size are built for any size if timm can do
    so; others are rejected.

    A wrong `alignment` shifts the features by half a stride. Convolutions of odd size with padding on both sides put feature i at
    pixel i * stride (ResNet, RegNet, EfficientNet, MobileNet; for the tf_ models only on sides of 32 m + 1). Patches put it in
    the middle of its cell (ViT, Swin, ConvNeXt, and VGG with its 2x2 pools). By default, the layers decide: "cell" if a
    convolution or a max pooling has a stride equal to its kernel size. Set `alignment` yourself if other layers reduce the size,
    such as the mean pools of DenseNet.
    """

    name: str = Field(
        min_length=1, description="Name of the model in timm.list_models(). Add a tag (name.tag) to choose certain weights."
    )
    alignment: Literal["auto", "corner", "cell"] = Field(
        default="auto",
        description="Position of the features. corner: at every stride-th pixel; cell: in the middle of cells of that size.",
    )
    output_stride: int | None = Field(
        default=None, ge=1, description="Pixels per feature, reached by dilation if the model supports it."
    )
    out_index: int = Field(default=-1, description="Index of the feature map; -1 is the last and coarsest.")
    weights: Weights = Field(
        default=Weights(source="imagenet"),
        description="none, imagenet (the model's pretrained weights in timm), or a path to a file of a timm model.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Timm:
        if self.alignment == "cell" and self.output_stride is not None:
            raise ValueError(_DILATED_CELLS)
        return self

    def build(self) -> nn.Module:
        """Build the trunk. See `Trunk.build`.

        Raises:
            ValueError: if timm is missing, if it cannot build or run the model with these fields, or if the weights do not fit.
        """
        from wsss_ray.nets.wrapped import TimmTrunk

        timm = timm_package()
        if not timm.is_model(self.name):
            raise ValueError(f"name: timm {timm.__version__} has no model {self.name!r}. timm.list_models() lists all names.")
        loading: dict[str, Any] = {"pretrained": self.weights.source == "imagenet"}
        wanted = f"{self.name} with output_stride {self.output_stride} and out_index {self.out_index}"
        try:
            if self.weights.is_file:
                loading = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": self._checked_state(timm)}}
            net = self._create(timm, features_only=True, out_indices=(self.out_index,), **loading)
        except (TypeError, AssertionError, RuntimeError, NotImplementedError, IndexError, AttributeError) as error:
            why = f"{type(error).__name__}: {error}"
            raise ValueError(f"name: timm cannot build {wanted}: {why}. Change these fields or choose another model.") from error
        try:
            trunk = TimmTrunk(net, alignment=self.alignment)
        except (ValueError, AssertionError, RuntimeError) as error:
            refused = f"{wanted} does not accept images of every size with alignment {self.alignment}: {error}"
            raise ValueError(f"name: {refused}. Choose another alignment or another model.") from error
        if trunk.alignment == "cell" and self.output_stride is not None:
            raise ValueError(_DILATED_CELLS)
        return trunk

    def _create(self, timm: ModuleType, **how: Any) -> Any:
        """Create the model for images of any size. A model accepts one of two arguments for this, or none: try them in order."""
        fixed = timm.get_pretrained_cfg(self.name).fixed_input_size
        ways: list[dict[str, Any]] = [{"dynamic_img_size": True}, {"strict_img_size": False}] if fixed else []
        for way in ways:
            try:
                return timm.create_model(self.name, output_stride=self.output_stride, **way, **how)
            except TypeError:
                continue
        return timm.create_model(self.name, output_stride=self.output_stride, **how)

    def _checked_state(self, timm: ModuleType) -> dict[str, Any]:
        """Load the file's weights and check that none is missing. timm itself would initialise missing weights at random."""
        whole: nn.Module = self._create(timm, num_classes=0)
        copy_weights(whole, load_weights(self.weights), ignore=classifier_prefixes(timm, self.name))
        return whole.state_dict()


def classifier_prefixes(timm: ModuleType, name: str) -> tuple[str, ...]:
    """Return the prefixes of the names of a model's class layers in a file of its weights.

    Example:
        >>> classifier_prefixes(timm_package(), "resnet50d")
        ('fc.',)
    """
    heads = timm.get_pretrained_cfg(name).classifier or ()
    return tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))


def timm_package() -> ModuleType:
    """Import timm.

    Raises:
        ValueError: if it is not installed.

    Example:
        >>> timm_package().is_model("resnet50d")
        True
    """
    from wsss_ray.nets.torchvision_safe import torchvision

    if find_spec("timm") is None:
        raise ValueError("timm: the package is not installed. Run: pip install 'wsss-ray[timm]'")
    torchvision()  # timm imports torchvision: load it safely first
    return import_module("timm")
