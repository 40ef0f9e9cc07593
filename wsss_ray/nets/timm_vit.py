"""Build a trunk with tokens and attention from a vision transformer of timm, such as DeiT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from wsss_ray.core.tokens import TokenTrunk
from wsss_ray.nets.timm_trunk import classifier_prefixes, timm_package
from wsss_ray.nets.weights import Weights, copy_weights, load_weights

if TYPE_CHECKING:
    from torch import nn

_SPREAD = 0.02  # of class tokens without pretrained weights, as in MCTformer and DeiT


class TimmVit(TokenTrunk):
    """Vision transformer of timm with one class token: ViT, DeiT, or the image tower of CLIP.

    `timm` makes a plain trunk of these models too. This one also shows tokens and attention, to methods that read them. Images
    may have any size: the positional embeddings are resized.
    """

    name: str = Field(
        default="deit_small_patch16_224",
        min_length=1,
        description="Name of the model in timm.list_models(). Add a tag (name.tag) to choose certain weights.",
    )
    patch_size: int | None = Field(
        default=None, ge=1, description="Side of a patch in pixels; null: the model's. timm resizes pretrained filters."
    )
    weights: Weights = Field(
        default=Weights(source="imagenet"),
        description="none, imagenet (the model's pretrained weights in timm), or a path to a file of a timm model or of DeiT.",
    )

    def build(self) -> nn.Module:
        """Build the trunk with its patch tokens as features. See `Trunk.build`.

        Raises:
            ValueError: see `build_tokens`.
        """
        return self._built(None)

    def build_tokens(self, class_tokens: int) -> nn.Module:
        """Build the trunk with tokens and attention. See `TokenTrunk.build_tokens`.

        Raises:
            ValueError: if timm is missing, if the model is no plain vision transformer, or if the weights do not fit.
        """
        return self._built(class_tokens)

    def _built(self, class_tokens: int | None) -> nn.Module:
        timm = timm_package()
        from wsss_ray.nets.vit import VitFeatures, VitTokens

        if not timm.is_model(self.name):
            raise ValueError(f"name: timm {timm.__version__} has no model {self.name!r}. timm.list_models() lists all names.")
        how: dict[str, Any] = {"patch_size": self.patch_size} if self.patch_size is not None else {}
        try:
            net = timm.create_model(
                self.name, pretrained=self.weights.source == "imagenet", num_classes=0, dynamic_img_size=True, **how
            )
        except (TypeError, AssertionError, RuntimeError, NotImplementedError, AttributeError) as error:
            why = f"{type(error).__name__}: {error}"
            raise ValueError(
                f"name: timm cannot build {self.name} as a vision transformer: {why}. Choose another model."
            ) from error
        if self.weights.is_file:
            copy_weights(net, load_weights(self.weights), ignore=classifier_prefixes(timm, self.name))
        try:
            if class_tokens is None:
                return VitFeatures(net)
            return VitTokens(net, class_tokens=class_tokens, spread=_SPREAD if self.weights.source == "none" else 0.0)
        except ValueError as error:
            raise ValueError(f"name: {self.name} cannot show its tokens: {error}. Choose a ViT or DeiT.") from error
