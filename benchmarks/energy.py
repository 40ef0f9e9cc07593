"""The dense energy loss on one core: compiled loops against the lattice in torch, and against the step of training that holds it.

    python -m benchmarks --only energy [--full]

RRM's: a batch of 4 crops of 321 x 321, the energy of 21 labels at 160 x 160, forward and backward. Of the step only ResNet38's
forward and backward is counted: that of one crop times 4, or without --full that of 81 x 81 pixels times 63.
"""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from benchmarks.crf import photograph
from benchmarks.made import smooth_prob
from benchmarks.measure import Row, in_turns
from wsss_ray.core.values import IGNORE
from wsss_ray.nets.resnet38 import ResNet38
from wsss_ray.ops import energy
from wsss_ray.ops.lattice.on_torch import TorchLattice

SIDE, BATCH, LABELS = 321, 4, 21


def case() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Probabilities that want a gradient, images, labels and what is valid."""
    image_BCHW = torch.from_numpy(np.stack([photograph(one % 2, SIDE, SIDE) for one in range(BATCH)])).permute(0, 3, 1, 2)
    prob_BLHW = torch.from_numpy(np.stack([smooth_prob(LABELS, SIDE, SIDE, seed=one) for one in range(BATCH)]))
    label_BHW = torch.full((BATCH, SIDE, SIDE), IGNORE, dtype=torch.uint8)
    label_BHW[:, 50:200, 60:150] = 3
    return prob_BLHW.requires_grad_(), image_BCHW, label_BHW, torch.ones(BATCH, SIDE, SIDE, dtype=torch.bool)


def rows(full: bool) -> Iterator[Row]:
    """The energy by itself, and its share of a step."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        prob_BLHW, *rest = case()

        def compiled() -> Tensor:
            (gradient,) = torch.autograd.grad(energy.dense_energy(prob_BLHW, *rest).sum(), prob_BLHW)
            return gradient

        def plain() -> Tensor:
            with patch.object(energy, "build_lattice", TorchLattice.build):
                return compiled()

        times = in_turns({"compiled": compiled, "plain": plain}, rounds=7 if full else 4)
        far = float((compiled() - plain()).abs().max() / plain().abs().max())
        what = f"energy, {LABELS} labels, {BATCH} crops of {SIDE}: gradients within {far:.1e} of the largest"
        ratio = min(times["plain"].seconds) / min(times["compiled"].seconds)
        yield Row("4", what, str(times["compiled"]), f"in torch {times['plain']}", ratio, more=True)

        side = SIDE if full else 81
        trunk = ResNet38().build().eval()  # without dropout, which wants keys
        image_BCHW = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))

        def crop() -> None:
            trunk(image_BCHW).mean().backward()

        one = in_turns({"energy": compiled, "crop": crop}, rounds=2, warm=0 if full else 1)
        step = one["crop"].times(BATCH * SIDE**2 / side**2)
        share = min(one["energy"].seconds) / (min(one["energy"].seconds) + min(step.seconds))
        what = "its share of energy and ResNet38"
        yield Row("4", what, str(one["energy"]), f"ResNet38 {step}", share, 0.3)
    finally:
        torch.set_num_threads(threads)
