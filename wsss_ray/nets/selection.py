"""Build FickleNet's classifier: a trunk, and one S x S kernel per class on stochastically selected hidden units."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from wsss_ray.ops.selection import closed_form

Selection = Literal["stochastic", "general_dropout", "deterministic"]


def draw_keep(
    mode: Selection, *, key: int, n: int, size: int, height: int, width: int, rate: float, device: torch.device
) -> Tensor:
    """Draw keep masks for one of the three modes of the paper's Table 6.

    Args:
        mode: how hidden units are selected.
        key: 64-bit key of the random stream.
        n: number of selections N.
        size: side S of the window, odd.
        height: rows of the feature map.
        width: columns of the feature map.
        rate: dropout rate in [0, 1]; without effect for "deterministic".
        device: device that draws.

    Returns:
        keep_NDHW, bool, for D = S * S offsets (see `closed_form.sample_keep`).

    Raises:
        ValueError: if a random mode gets an even window or a rate outside [0, 1].

    Example:
        >>> keep = draw_keep("stochastic", key=7, n=4, size=3, height=5, width=6, rate=0.9, device=torch.device("cpu"))
        >>> keep.shape
        torch.Size([4, 9, 5, 6])
    """
    if mode == "deterministic":
        return closed_form.keep_all(n=n, kernel_size=size, height=height, width=width, device=device)
    sample = closed_form.sample_keep if mode == "stochastic" else closed_form.sample_dropout
    return sample(key=key, n=n, kernel_size=size, height=height, width=width, dropout_rate=rate, device=device)


class SelectionClassifier(nn.Module):
    """Classifier `forward(image_BCHW, keys)` -> logits_BK that draws the selection of each image from the image's key.

    Args:
        trunk: module image_BCHW -> features_BCHW, as `Trunk.build` returns it.
        num_classes: number of classes K.
        kernel_size: side S of the window, odd.
        mode: how hidden units are selected in training (Table 6).
        rate: dropout rate in [0, 1].

    Example:
        >>> net = SelectionClassifier(SmallNet().build(), num_classes=20, kernel_size=9, mode="stochastic", rate=0.9)
        >>> net(torch.rand(2, 3, 64, 64), keys=(17, 42)).shape
        torch.Size([2, 20])
    """

    def __init__(self, trunk: nn.Module, *, num_classes: int, kernel_size: int, mode: Selection, rate: float) -> None:
        super().__init__()
        self.trunk, self.mode, self.rate = trunk, mode, rate
        channels: int = trunk.channels  # type: ignore[assignment]
        self.weight = nn.Parameter(torch.empty(num_classes, channels, kernel_size, kernel_size))
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, image_BCHW: Tensor, keys: tuple[int, ...]) -> Tensor:
        """Return logits_BK, the class scores before the sigmoid."""
        x_BKHW = self.trunk(image_BCHW)
        if self.mode == "stochastic":
            return closed_form.stochastic_logits(x_BKHW, self.weight, keys=keys, dropout_rate=self.rate)
        size, (height, width) = self.weight.shape[-1], x_BKHW.shape[-2:]
        keep = [
            draw_keep(self.mode, key=key, n=1, size=size, height=height, width=width, rate=self.rate, device=x_BKHW.device)
            for key in keys
        ]
        return closed_form.selection_logits(x_BKHW, self.weight, torch.cat(keep))

    def mean_logits(self, image_BCHW: Tensor) -> Tensor:
        """Return the mean of the logits over all selections, (B, K).

        The logits are linear in the keep mask, so their mean is that of the mask: 1 - rate, and 1 for what is always kept.
        """
        x_BKHW, size = self.trunk(image_BCHW), self.weight.shape[-1]
        mean_SS = torch.full((size, size), 1.0 if self.mode == "deterministic" else 1.0 - self.rate, device=self.weight.device)
        if self.mode == "stochastic":
            mean_SS[size // 2, size // 2] = 1.0
        batch, _, height, width = x_BKHW.shape
        keep = closed_form.keep_all(n=batch, kernel_size=size, height=height, width=width, device=x_BKHW.device)
        return closed_form.selection_logits(x_BKHW, self.weight * mean_SS, keep)
