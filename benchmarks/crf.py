"""The dense CRF on one core: compiled loops against pydensecrf, in turns, on scikit-learn's two photographs.

    python -m benchmarks --only crf [--full]

Ten iterations, DSRG's parameters (and IRN's, whose lattice has nine times as many corners), lattices built each time. Agreement
is over all pixels. The probabilities are smooth random ones, as a network's maps are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks.made import smooth_prob
from benchmarks.measure import Row, in_turns
from wsss_ray.ops.crf import DenseCrf
from wsss_ray.ops.lattice import mean_field

IRN = {"bilateral_sxy": 50.0, "bilateral_srgb": 5.0}
SETS, LABELS = 12, 3


def photograph(which: int, height: int, width: int) -> NDArray[np.uint8]:
    """A temple (0) or a flower before a dark ground (1)."""
    image = Image.fromarray(load_sample_images().images[which])
    return np.array(image.resize((width, height), Image.Resampling.BILINEAR))


def row(
    goal: str,
    size: tuple[int, int],
    *,
    labels: int = LABELS,
    which: int = 0,
    rounds: int,
    bound: float | None = None,
    **fields: Any,
) -> Row:
    """One image and one label set."""
    image, prob = photograph(which, *size), smooth_prob(labels, *size)
    ours, theirs = DenseCrf(backend="lattice", **fields), DenseCrf(backend="pydensecrf", **fields)
    forms = {"ours": lambda: ours.refine(image, prob), "theirs": lambda: theirs.refine(image, prob)}
    times = in_turns(forms, rounds=rounds)
    what = f"CRF, {size[1]} x {size[0]}, {labels} labels, {fields or 'DSRG'}: {agreement([forms['ours']()], [forms['theirs']()])}"
    ratio = min(times["theirs"].seconds) / min(times["ours"].seconds)
    return Row(goal, what, str(times["ours"]), f"pydensecrf {times['theirs']}", ratio, bound, more=True)


def row_of_sets(goal: str, size: tuple[int, int], *, rounds: int, bound: float | None = None, **fields: Any) -> Row:
    """Twelve label sets of one image on one pair of lattices."""
    image, probs = photograph(0, *size), [smooth_prob(LABELS, *size, seed=seed) for seed in range(SETS)]
    crf = DenseCrf(backend="pydensecrf", **fields)
    energies = [torch.from_numpy(-np.log(np.maximum(prob, 1e-5))) for prob in probs]
    names = ("iterations", "gaussian_sxy", "gaussian_weight", "bilateral_sxy", "bilateral_srgb", "bilateral_weight")
    how = {name: getattr(crf, name) for name in names}

    def ours() -> list[NDArray[np.float32]]:
        return [prob.numpy() for prob in mean_field.infer(torch.from_numpy(image), energies, **how)]

    def theirs() -> list[NDArray[np.float32]]:
        return [crf.refine(image, prob) for prob in probs]

    times = in_turns({"ours": ours, "theirs": theirs}, rounds=rounds)
    what = f"CRF, {size[1]} x {size[0]}, {SETS} sets of {LABELS} labels, {fields or 'DSRG'}: {agreement(ours(), theirs())}"
    ratio = min(times["theirs"].seconds) / min(times["ours"].seconds)
    return Row(goal, what, str(times["ours"]), f"pydensecrf {SETS} times {times['theirs']}", ratio, bound, more=True)


def agreement(ours: Sequence[NDArray[np.float32]], theirs: Sequence[NDArray[np.float32]]) -> str:
    """Share of equal labels, and the largest difference of a probability."""
    same = np.mean([np.mean(one.argmax(axis=0) == other.argmax(axis=0)) for one, other in zip(ours, theirs, strict=True)])
    far = max(float(np.abs(one - other).max()) for one, other in zip(ours, theirs, strict=True))
    return f"{100 * same:.4g} % of labels equal, probabilities within {far:.1e}"


def rows(full: bool) -> Iterator[Row]:
    """Ratios of the quickest runs: pydensecrf's time by ours."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        size, rounds = ((375, 500), 7) if full else ((188, 250), 3)
        goals: tuple[float | None, float | None] = (1.5, 4.0) if full else (None, None)
        for which in (0, 1):
            yield row("3", size, which=which, rounds=rounds, bound=goals[0])
        yield row("3", size, rounds=rounds, **IRN)
        yield row("3", size, labels=21, rounds=rounds)
        yield row_of_sets("3", size, rounds=max(2, rounds // 2), bound=goals[1])
        yield row_of_sets("3", size, rounds=max(2, rounds // 2), **IRN)
        yield row("3", (41, 41), labels=21, rounds=5 * rounds, scale=12.0)
        yield row("3", (100, 100), rounds=5 * rounds)
    finally:
        torch.set_num_threads(threads)
