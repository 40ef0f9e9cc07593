"""The heads of DeepLab: LargeFOV (Chen et al., ICLR 2015) and ASPP (TPAMI 2017)."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from pydantic import Field

from wsss_ray.component import Component
from wsss_ray.contracts import Trunk

if TYPE_CHECKING:
    from wsss_ray.nets.segnet import AtrousHead, SegNet


class Head(Component):
    """From a trunk's features to the scores of every label."""

    hidden: int | None

    @abstractmethod
    def build(self, channels: int, num_labels: int) -> AtrousHead:
        """A module features_BCHW -> logits_BLHW at the same resolution."""


class LargeFov(Head):
    """One branch with a large field of view; dilation 12 as DeepLab and SEC have it."""

    dilation: int = Field(default=12, ge=1, description="Of fc6, a 3x3 convolution.")
    hidden: int = Field(default=1024, ge=1, description="Channels of fc6 and fc7.")
    dropout: float = Field(default=0.5, ge=0, lt=1, description="Behind fc6 and fc7.")

    def build(self, channels: int, num_labels: int) -> AtrousHead:
        """See `Head.build`."""
        from wsss_ray.nets.segnet import AtrousHead

        rates = (self.dilation,)
        return AtrousHead(channels=channels, num_labels=num_labels, rates=rates, hidden=self.hidden, dropout=self.dropout)


class Aspp(Head):
    """Branches with several dilations, their scores summed: four of LargeFOV's (VGG16; what DSRG released), or plain ones.

    With `hidden` null a branch is one dilated 3x3 convolution (DeepLab v2 on ResNet). That one has no dropout: set it to 0 for
    DeepLab's own; DSRG's authors advise 0.5 on ResNet (speedinghzl/DSRG#3).
    """

    rates: tuple[int, ...] = Field(default=(6, 12, 18, 24), min_length=1, description="Dilation of each branch.")
    hidden: int | None = Field(default=1024, ge=1, description="Channels of fc6 and fc7; null for one convolution per branch.")
    dropout: float = Field(default=0.5, ge=0, lt=1, description="Behind fc6 and fc7, or before the only convolution.")

    def build(self, channels: int, num_labels: int) -> AtrousHead:
        """See `Head.build`."""
        from wsss_ray.nets.segnet import AtrousHead

        return AtrousHead(channels=channels, num_labels=num_labels, rates=self.rates, hidden=self.hidden, dropout=self.dropout)


def build_segmenter(trunk: Trunk, head: Head, num_classes: int) -> SegNet:
    """A trunk with a head for `num_classes` and background, the head's hidden layers pretrained where the trunk has them."""
    from wsss_ray.nets.segnet import SegNet

    body = trunk.build()
    net = SegNet(body, head.build(body.channels, num_classes + 1))  # type: ignore[arg-type]
    if head.hidden is not None and (state := trunk.hidden_layers(head.hidden)):
        net.head.start_hidden(state)
    return net
