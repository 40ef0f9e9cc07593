"""The heads of DeepLab: LargeFOV (Chen et al., ICLR 2015) and ASPP (TPAMI 2017); and the one of RRM."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from pydantic import Field

from wsss_ray.core.component import Component
from wsss_ray.core.contracts import Trunk

if TYPE_CHECKING:
    from wsss_ray.nets.segnet import AtrousHead, SegNet


class Head(Component):
    """From a trunk's features to the scores of every label."""

    hidden: int | None

    @property
    def pretrained_width(self) -> int | None:
        """Channels of the hidden layers that a VGG classifier's fc6 and fc7 can start (`Trunk.hidden_layers`), if any."""
        return self.hidden

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
        from wsss_ray.nets.segnet import AtrousHead, fov_branch

        return AtrousHead([fov_branch(channels, num_labels, rate=self.dilation, hidden=self.hidden, dropout=self.dropout)])


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
        from wsss_ray.nets.segnet import AtrousHead, fov_branch

        return AtrousHead(
            [fov_branch(channels, num_labels, rate=rate, hidden=self.hidden, dropout=self.dropout) for rate in self.rates]
        )


class DilatedPair(Head):
    """Two dilated 3x3 convolutions (RRM's segmentation branch: dilation 12, 512 channels between them)."""

    dilation: int = Field(default=12, ge=1)
    hidden: int = Field(default=512, ge=1, description="Channels between the two.")

    @property
    def pretrained_width(self) -> int | None:
        """None: there is nothing to start them from."""
        return None

    def build(self, channels: int, num_labels: int) -> AtrousHead:
        """See `Head.build`."""
        from wsss_ray.nets.segnet import AtrousHead, pair_branch

        return AtrousHead([pair_branch(channels, num_labels, rate=self.dilation, hidden=self.hidden)])


def build_segmenter(trunk: Trunk, head: Head, num_classes: int, *, scales: tuple[float, ...] = (1.0,)) -> SegNet:
    """A trunk with a head for `num_classes` and background, the head's hidden layers pretrained where the trunk has them."""
    from wsss_ray.nets.segnet import MultiInputSegNet, SegNet

    body = trunk.build()
    top = head.build(body.channels, num_classes + 1)  # type: ignore[arg-type]
    net = SegNet(body, top) if scales == (1.0,) else MultiInputSegNet(body, top, scales=scales)
    if head.pretrained_width is not None and (state := trunk.hidden_layers(head.pretrained_width)):
        net.head.start_hidden(state)
    return net
