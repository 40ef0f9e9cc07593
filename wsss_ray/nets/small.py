"""Build a small trunk for small images and tests. It trains in seconds on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from wsss_ray.core.contracts import Trunk
from wsss_ray.nets.weights import Weights, copy_weights, load_weights

if TYPE_CHECKING:
    from torch import nn


class SmallNet(Trunk):
    """Trunk of 3x3 convolutions with group norm and ReLU. By default it has six of them at stride 4: 64 x 64 -> 16 x 16."""

    widths: tuple[int, ...] = Field(default=(24, 32, 48, 64, 96, 96), min_length=1, description="Channels of each layer.")
    strides: tuple[int, ...] = Field(default=(1, 2, 1, 2, 1, 1), min_length=1, description="Stride of each layer.")
    weights: Weights = Field(default=Weights(), description="none, or a path to a file.")

    @model_validator(mode="after")
    def _consistent(self) -> SmallNet:
        if len(self.widths) != len(self.strides):
            raise ValueError(f"strides: has {len(self.strides)} entries, widths {len(self.widths)}. Give one of each per layer.")
        if min(*self.widths, *self.strides) < 1:
            raise ValueError("widths, strides: every entry must be at least 1.")
        if self.weights.source == "imagenet":
            raise ValueError("weights: small_net has no imagenet weights. Give none or a file.")
        return self

    def build(self) -> nn.Module:
        """Build the trunk. See `Trunk.build`.

        Raises:
            ValueError: if the weights are missing or do not fit.
        """
        from wsss_ray.nets.modules import small_trunk

        trunk = small_trunk(widths=self.widths, strides=self.strides)
        if state := load_weights(self.weights):
            copy_weights(trunk, state)
        return trunk
