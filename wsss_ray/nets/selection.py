"""The FickleNet classifier as a module: a trunk, and one S x S kernel per class on stochastically selected hidden units."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from wsss_ray.ops.selection import closed_form

Selection = Literal["stochastic", "general_dropout", "deterministic"]


def draw_keep(
    mode: Selection, *, key: int, n: int, size: int, height: int, width: int, rate: float, device: torch.device
) -> Tensor:
    """Keep masks keep_NDHW of one of the three modes of the paper's Table 6."""
    if mode == "deterministic":
        return closed_form.keep_all(n=n, kernel_size=size, height=height, width=width, device=device)
    sample = closed_form.sample_keep if mode == "stochastic" else closed_form.sample_dropout
    return sample(key=key, n=n, kernel_size=size, height=height, width=width, dropout_rate=rate, device=device)


class SelectionClassifier(nn.Module):
    """forward(image_BCHW, keys) -> logits_BK, the selection of each image drawn from its own key."""

    def __init__(self, trunk: nn.Module, *, num_classes: int, kernel_size: int, mode: Selection, rate: float) -> None:
        super().__init__()
        self.trunk, self.mode, self.rate = trunk, mode, rate
        channels: int = trunk.channels  # type: ignore[assignment]
        self.weight = nn.Parameter(torch.empty(num_classes, channels, kernel_size, kernel_size))
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, image_BCHW: Tensor, keys: tuple[int, ...]) -> Tensor:
        """Class scores before the sigmoid."""
        x_BKHW = self.trunk(image_BCHW)
        if self.mode == "stochastic":
            return closed_form.stochastic_logits(x_BKHW, self.weight, keys=keys, dropout_rate=self.rate)
        size, (height, width) = self.weight.shape[-1], x_BKHW.shape[-2:]
        keep = [
            draw_keep(self.mode, key=key, n=1, size=size, height=height, width=width, rate=self.rate, device=x_BKHW.device)
            for key in keys
        ]
        return closed_form.selection_logits(x_BKHW, self.weight, torch.cat(keep))
