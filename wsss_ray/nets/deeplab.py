"""Configure segmentation heads: DeepLab's LargeFOV (Chen et al., ICLR 2015) and ASPP (TPAMI 2017), and the head of RRM."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from pydantic import Field

from wsss_ray.core.component import Component
from wsss_ray.core.contracts import Trunk

if TYPE_CHECKING:
    from wsss_ray.nets.segnet import AtrousHead, SegNet


class Head(Component):
    """Segmentation head: maps the features of a trunk to a score for every label."""

    hidden: int | None

    @property
    def pretrained_width(self) -> int | None:
        """Return the channels of fc6 and fc7 if a VGG classifier can initialise them (see `Trunk.hidden_layers`), else None."""
        return self.hidden

    @abstractmethod
    def build(self, channels: int, num_labels: int) -> AtrousHead:
        """Build the head.

        Args:
            channels: channels of the features.
            num_labels: number of labels L, background included.

        Returns:
            A module features_BCHW -> logits_BLHW at the same resolution.

        Example:
            >>> LargeFov().build(512, 21).eval()(torch.rand(1, 512, 41, 41)).shape
            torch.Size([1, 21, 41, 41])
        """


class LargeFov(Head):
    """Head with one branch and a large field of view. DeepLab and SEC use dilation 12."""

    dilation: int = Field(default=12, ge=1, description="Dilation of fc6, a 3x3 convolution.")
    hidden: int = Field(default=1024, ge=1, description="Channels of fc6 and fc7.")
    dropout: float = Field(default=0.5, ge=0, lt=1, description="Dropout probability after fc6 and fc7.")

    def build(self, channels: int, num_labels: int) -> AtrousHead:
        """Build the head. See `Head.build`."""
        from wsss_ray.nets.segnet import AtrousHead, fov_branch

        return AtrousHead([fov_branch(channels, num_labels, rate=self.dilation, hidden=self.hidden, dropout=self.dropout)])


class Aspp(Head):
    """Head that sums the scores of branches with different dilations.

    By default it has four LargeFOV branches, as for VGG16 and as DSRG released it. With `hidden` null, each branch is one dilated
    3x3 convolution, as in DeepLab v2 on ResNet. DeepLab v2 uses no dropout there: set `dropout` to 0 to match it. The authors of
    DSRG advise 0.5 on ResNet (speedinghzl/DSRG#3).
    """

    rates: tuple[int, ...] = Field(default=(6, 12, 18, 24), min_length=1, description="Dilation of each branch.")
    hidden: int | None = Field(default=1024, ge=1, description="Channels of fc6 and fc7; null for one convolution per branch.")
    dropout: float = Field(
        default=0.5, ge=0, lt=1, description="Dropout probability after fc6 and fc7, or before the only convolution."
    )

    def build(self, channels: int, num_labels: int) -> AtrousHead:
        """Build the head. See `Head.build`."""
        from wsss_ray.nets.segnet import AtrousHead, fov_branch

        return AtrousHead(
            [fov_branch(channels, num_labels, rate=rate, hidden=self.hidden, dropout=self.dropout) for rate in self.rates]
        )


class DilatedPair(Head):
    """Head with two dilated 3x3 convolutions. RRM's segmentation branch uses dilation 12 and 512 channels between them."""

    dilation: int = Field(default=12, ge=1, description="Dilation of both convolutions.")
    hidden: int = Field(default=512, ge=1, description="Channels between the two convolutions.")

    @property
    def pretrained_width(self) -> int | None:
        """Return None: no pretrained weights fit these layers."""
        return None

    def build(self, channels: int, num_labels: int) -> AtrousHead:
        """Build the head. See `Head.build`."""
        from wsss_ray.nets.segnet import AtrousHead, pair_branch

        return AtrousHead([pair_branch(channels, num_labels, rate=self.dilation, hidden=self.hidden)])


def build_segmenter(trunk: Trunk, head: Head, num_classes: int, *, scales: tuple[float, ...] = (1.0,)) -> SegNet:
    """Build a segmentation network with pretrained weights.

    The head's hidden layers start from the trunk's classifier if it has weights of that width (see `Trunk.hidden_layers`).

    Args:
        trunk: trunk to build.
        head: head to build.
        num_classes: number of object classes K; the network scores K + 1 labels.
        scales: sizes of the input to run the network on, relative to the image; (1.0,) for the image only.

    Returns:
        A `SegNet`, or a `MultiInputSegNet` for other `scales` than (1.0,).

    Raises:
        ValueError: if the weights are missing or do not fit.

    Example:
        >>> net = build_segmenter(SmallNet(), LargeFov(hidden=64), 20).eval()
        >>> net(torch.rand(1, 3, 64, 64)).shape
        torch.Size([1, 21, 16, 16])
    """
    from wsss_ray.nets.segnet import MultiInputSegNet, SegNet

    body = trunk.build()
    top = head.build(body.channels, num_classes + 1)  # type: ignore[arg-type]
    net = SegNet(body, top) if scales == (1.0,) else MultiInputSegNet(body, top, scales=scales)
    if head.pretrained_width is not None and (state := trunk.hidden_layers(head.pretrained_width)):
        net.head.start_hidden(state)
    return net
