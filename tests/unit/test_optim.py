"""Schedules by hand, and that groups keep their own rates."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from wsss_ray.core.optim import Adam, Constant, Decay, OneCycle, Poly, Sgd


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        (Constant(), 7, 1.0),
        (Poly(power=0.9), 0, 1.0),
        (Poly(power=0.9), 50, 0.5**0.9),
        (Poly(power=2.0), 99, 0.01**2),
        (Decay(gamma=0.5, every_epochs=10), 39, 1.0),  # 4 steps an epoch
        (Decay(gamma=0.5, every_epochs=10), 40, 0.5),
        (Decay(gamma=0.5, every_epochs=10), 80, 0.25),
        (Decay(gamma=0.33, every_steps=30), 59, 0.33),
        (Decay(gamma=0.33, every_steps=30), 60, 0.33**2),
        (OneCycle(warmup=0.2), 0, 1 / 21),
        (Poly(power=0.9, every="epoch"), 7, (1 - 4 / 100) ** 0.9),  # step 7 is in the second epoch, which begins at step 4
        (Poly(power=0.9, every="epoch"), 3, 1.0),
        (Decay(gamma=0.1, every_epochs=6), 49, 0.01),
        (Decay(gamma=0.1, every_epochs=6, times=1), 49, 0.1),  # 12 epochs: MDC prints one drop, after 6
        (Decay(gamma=0.1, every_epochs=6, times=1), 23, 1.0),
        (OneCycle(warmup=0.2), 20, 1.0),
        (OneCycle(warmup=0.2), 60, 0.5),
        (OneCycle(warmup=0.0, final=0.1), 0, 1.0),
        (OneCycle(warmup=0.5, final=0.2), 75, 0.6),
    ],
    ids=str,
)
def test_factor(schedule, step, expected):
    assert schedule.factor(step, 100, 4.0) == pytest.approx(expected)


@pytest.mark.parametrize("fields", [{}, {"every_epochs": 1, "every_steps": 2}])
def test_decay_wants_one_length(fields):
    found = "both are" if fields else "neither is"
    told = f"every_epochs, every_steps: {found} set. Give exactly one of every_epochs and every_steps"
    with pytest.raises(ValidationError, match=told):
        Decay(gamma=0.5, **fields)


@pytest.mark.parametrize(
    ("optimizer", "kind"),
    [
        (Sgd(lr=0.1, momentum=0.8, weight_decay=0.01), torch.optim.SGD),
        (Adam(lr=0.1, weight_decay=0.01), torch.optim.Adam),
        (Adam(lr=0.1, weight_decay=0.01, decoupled=True), torch.optim.AdamW),
    ],
)
def test_groups_scale_the_rate_and_may_drop_the_decay(optimizer, kind):
    a, b = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    built = optimizer.build([{"params": [a]}, {"params": [b], "lr_scale": 20.0, "weight_decay": 0.0}])
    assert type(built) is kind
    assert [g["lr"] for g in built.param_groups] == [g["base_lr"] for g in built.param_groups] == pytest.approx([0.1, 2.0])
    assert [g["weight_decay"] for g in built.param_groups] == [0.01, 0.0]


def test_sgd_takes_the_momentum_step():
    p = torch.nn.Parameter(torch.tensor([1.0]))
    built = Sgd(lr=0.1, momentum=0.5, weight_decay=0.1).build([{"params": [p]}])
    for _ in range(2):
        p.grad = torch.tensor([1.0])
        built.step()
    # v1 = 1 + .1; p1 = 1 - .11; v2 = .55 + 1 + .089; p2 = p1 - .1639
    assert p.item() == pytest.approx(0.89 - 0.1639)
