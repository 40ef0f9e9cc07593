"""Stochastic selection (FickleNet): the compiled loops against the paper's map expansion, a forward pass and a training step.

    python -m benchmarks --only selection [--full]

Full: 512 x 41 x 41 features of an image of 321 x 321, 9 x 9 windows, p = 0.9, N = 200, two tags; training of a batch of 10 and 20
classes. Small: 161 x 161, N = 50, a batch of 2. The expanded route is timed on a few selections and scaled: all 200 take a
quarter of an hour.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measure import Row, in_turns
from tests.parity.naive_selection import autograd_cams, expanded_logits
from wsss_ray.nets.vgg16 import Vgg16
from wsss_ray.nets.weights import Weights
from wsss_ray.ops.selection.closed_form import sample_keep, selection_cams, selection_logits, stochastic_cams, stochastic_logits

CLASSES, WINDOW, RATE = 20, 9, 0.9


@dataclass(frozen=True)
class Size:
    """The sizes of one run."""

    image: int
    selections: int
    batch: int
    expanded: int
    rounds: int


FULL, SMALL = Size(image=321, selections=200, batch=10, expanded=3, rounds=5), Size(161, 50, 2, 1, 3)


def rows(full: bool) -> Iterator[Row]:
    """Inference, its memory, the training head, and its share of a training step; on a GPU too where there is one."""
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for row in _rows(FULL if full else SMALL, torch.device(device)):
            yield row if full else replace(row, bound=None)  # the goals are for the real sizes


def _rows(size: Size, device: torch.device) -> Iterator[Row]:
    trunk = Vgg16(weights=Weights(source="none")).build().to(device)
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(size.batch, 3, size.image, size.image, generator=rng).to(device)
    with torch.inference_mode():
        height, width = trunk(images[:1]).shape[2:]
    x_BKHW = torch.randn(size.batch, 512, height, width, generator=rng).relu().to(device)
    weight = (torch.randn(CLASSES, 512, WINDOW, WINDOW, generator=rng) / 200).to(device)
    place = f"{size.selections} maps of two tags, 512 x {height} x {width}, {device.type}"
    draw = dict(kernel_size=WINDOW, height=height, width=width, dropout_rate=RATE, device=device)

    def fused() -> Tensor:
        return torch.cat(list(stochastic_cams(x_BKHW[0], weight[:2], key=1, n=size.selections, dropout_rate=RATE)))

    def plain(n: int) -> Tensor:
        return selection_cams(x_BKHW[0], weight[:2], sample_keep(key=1, n=n, **draw))  # type: ignore[arg-type]

    def expanded() -> Tensor:
        keep_NDHW = sample_keep(key=1, n=size.expanded, **draw)  # type: ignore[arg-type]
        return autograd_cams(expanded_logits, x_BKHW[0], weight[:2], keep_NDHW)

    def forward() -> None:
        with torch.inference_mode():
            trunk(images[:1])

    whole = fused()
    for other in (plain(size.selections), expanded()):
        assert (whole[: len(other)] - other).abs().max() <= 1e-4 * other.abs().max(), "the forms differ"
    timed = in_turns(
        {"fused": _on(device, fused), "plain": _on(device, lambda: plain(size.selections)), "forward": _on(device, forward)},
        rounds=size.rounds,
    )
    ours = timed["fused"]
    yield Row("1", place, str(ours), f"VGG16 forward {timed['forward']}", ours.median / timed["forward"].median, 0.5)
    yield Row("1", place, str(ours), f"masks and products {timed['plain']}", timed["plain"].median / ours.median, more=True)
    slow = in_turns({"": _on(device, expanded)}, rounds=1, warm=0)[""].times(size.selections / size.expanded)
    yield Row("1", place, str(ours), f"expansion {slow} (scaled)", slow.median / ours.median, 1000, more=True)
    if device.type == "cpu" and (extra := _extra_memory(fused)) is not None:
        yield Row("1", "memory above the features, MB", f"{extra:.0f}", "", extra, 100)

    keys = list(range(size.batch))
    keep_BDHW = torch.cat([sample_keep(key=key, n=1, **draw) for key in keys])  # type: ignore[arg-type]
    forms: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "head": lambda x, w: stochastic_logits(x, w, keys=keys, dropout_rate=RATE),
        "expanded": lambda x, w: expanded_logits(x, w, keep_BDHW),
        "plain": lambda x, w: selection_logits(x, w, keep_BDHW),
    }

    def gradient(name: str) -> Tensor:
        x, w = x_BKHW.clone().requires_grad_(), weight.clone().requires_grad_()
        torch.autograd.backward(forms[name](x, w).sum())
        assert w.grad is not None
        return w.grad

    def step() -> None:
        w = weight.clone().requires_grad_()
        trunk.zero_grad()
        torch.autograd.backward(forms["head"](trunk(images), w).sum())

    a, b = gradient("head"), gradient("expanded")
    assert (a - b).abs().max() <= 1e-4 * b.abs().max(), "the forms differ"
    head = in_turns({"": _on(device, lambda: gradient("head"))}, rounds=4 * size.rounds)[""]
    others = in_turns({"expanded": _on(device, lambda: gradient("expanded")), "step": _on(device, step)}, rounds=1, warm=0)
    slow, whole_step = others["expanded"], others["step"]
    what = f"head, forward and backward, batch of {size.batch}, {device.type}"
    yield Row("2", what, str(head), f"expansion {slow}", slow.median / head.median, 300, more=True)
    yield Row("2", what, str(head), f"training step of VGG16 {whole_step}", head.median / whole_step.median, 0.05)


def _on(device: torch.device, work: Callable[[], object]) -> Callable[[], None]:
    """The work and, on a GPU, its end."""

    def done() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return done


def _extra_memory(work: Callable[[], object]) -> float | None:
    """By how many MB the process's memory rises at its highest while the work is done; None where Linux does not say."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return None

    def read(field: str) -> float:
        (line,) = (line for line in status.read_text().splitlines() if line.startswith(field))
        return float(line.split()[1]) / 1024

    ctypes.CDLL(None).malloc_trim(0)  # what earlier work has freed goes back first, or it would be used again unseen
    reset.write_text("5")  # the highest so far is forgotten
    before = read("VmRSS")
    work()
    return read("VmHWM") - before
