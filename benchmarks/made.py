"""Pictures and probabilities that are made, for benchmarks that need no file and no package of photographs."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional


def picture(height: int, width: int, *, seed: int) -> NDArray[np.uint8]:
    """image_HWC of smooth regions with edges and some noise, so that a lattice has about as many corners as for a photograph."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 6, 8, generator=rng)
    smooth = functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)[0]
    edges = functional.interpolate(torch.rand(1, 1, 4, 5, generator=rng), (height, width), mode="bilinear")[0] > 0.5
    noise = 0.02 * torch.randn(3, height, width, generator=rng)
    image_CHW = 255 * (smooth * 0.6 + 0.4 * edges + noise).clamp(0, 1)
    return np.ascontiguousarray(image_CHW.permute(1, 2, 0).byte().numpy())


def smooth_prob(labels: int, height: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    """prob_CHW that changes over about a seventh of the image."""
    score = 2 * torch.randn(1, labels, 7, 8, generator=torch.Generator().manual_seed(seed))
    prob = functional.interpolate(score, (height, width), mode="bicubic", align_corners=False)[0].softmax(dim=0)
    return np.asarray(prob.numpy())
