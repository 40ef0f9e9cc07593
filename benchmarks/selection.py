"""Stochastic selection: the closed form against the paper's map expansion, in one run, at the paper's size.

    python -m benchmarks.selection [--threads 2] [--selections 200] [--expanded 3]

512 x 41 x 41 features, 9 x 9 windows, p = 0.9; localization for two tags, training for a batch of 10 and 20 classes. The expanded
route is timed on a few selections and scaled, for all 200 take a quarter of an hour.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from tests.parity.naive_selection import autograd_cams, expanded_logits
from wsss_ray.ops.selection import sample_keep, selection_cams, selection_logits

SIZE = {"kernel_size": 9, "height": 41, "width": 41, "dropout_rate": 0.9}
CHANNELS, CLASSES, BATCH = 512, 20, 10


def timed(work: Callable[[], torch.Tensor], repeats: int = 1) -> tuple[float, torch.Tensor]:
    """The best of several times in seconds, and the result."""
    best, result = float("inf"), torch.empty(0)
    for _ in range(repeats):
        began = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - began)
    return best, result


def train_head(form: Callable[..., torch.Tensor], x_BKHW: torch.Tensor, weight: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Forward and backward of the head; returns the gradient of the kernels."""
    x, w = x_BKHW.clone().requires_grad_(), weight.clone().requires_grad_()
    torch.autograd.backward(form(x, w, keep).sum())
    assert w.grad is not None
    return w.grad


def row(name: str, ours: float, theirs: float, difference: float) -> None:
    """One line of the table."""
    print(f"| {name} | {ours:.3f} s | {theirs:.1f} s | {theirs / ours:.0f} | {difference:.1e} |")


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--selections", type=int, default=200)
    parser.add_argument("--expanded", type=int, default=3, help="selections that the expanded route is timed on")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rng = torch.Generator().manual_seed(0)
    x_BKHW = torch.randn(BATCH, CHANNELS, 41, 41, generator=rng).relu()
    weight = torch.randn(CLASSES, CHANNELS, 9, 9, generator=rng) / 200
    print("| | closed form | map expansion | ratio | largest relative difference |")
    print("|---|---|---|---|---|")

    keep_BDHW = sample_keep(n=BATCH, generator=rng, **SIZE)
    ours, a = timed(lambda: train_head(selection_logits, x_BKHW, weight, keep_BDHW), repeats=3)
    theirs, b = timed(lambda: train_head(expanded_logits, x_BKHW, weight, keep_BDHW))
    row(f"training the head, batch of {BATCH}", ours, theirs, float((a - b).abs().max() / b.abs().max()))

    def localize() -> torch.Tensor:
        rng = torch.Generator().manual_seed(1)
        return selection_cams(x_BKHW[0], weight[:2], sample_keep(n=options.selections, generator=rng, **SIZE))

    few = sample_keep(n=options.expanded, generator=torch.Generator().manual_seed(1), **SIZE)
    ours, a = timed(localize, repeats=3)
    theirs, b = timed(lambda: autograd_cams(expanded_logits, x_BKHW[0], weight[:2], few))
    theirs *= options.selections / options.expanded
    difference = float((a[: options.expanded] - b).abs().max() / b.abs().max())
    row(f"{options.selections} localization maps of one image", ours, theirs, difference)


if __name__ == "__main__":
    main()
