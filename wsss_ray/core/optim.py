"""Optimisers and learning-rate schedules as components."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from pydantic import Field

from wsss_ray.core.component import Component

if TYPE_CHECKING:
    from torch.optim import Optimizer as TorchOptimizer


class Optimizer(Component):
    """Builds a torch optimiser from parameter groups; a group's `lr_scale` multiplies `lr`."""

    lr: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)

    @abstractmethod
    def build(self, groups: list[dict[str, Any]]) -> TorchOptimizer:
        """The optimiser; every group carries `base_lr` for the schedule."""

    def _scaled(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        scaled = []
        for group in groups:
            rest = {key: value for key, value in group.items() if key != "lr_scale"}
            lr = self.lr * group.get("lr_scale", 1.0)
            scaled.append({"weight_decay": self.weight_decay} | rest | {"lr": lr, "base_lr": lr})
        return scaled


class Sgd(Optimizer):
    """Stochastic gradient descent with momentum."""

    momentum: float = Field(default=0.9, ge=0, lt=1)

    def build(self, groups: list[dict[str, Any]]) -> TorchOptimizer:
        """See `Optimizer.build`."""
        from torch.optim import SGD

        return SGD(self._scaled(groups), momentum=self.momentum)


class Adam(Optimizer):
    """Adam with its default moments; `decoupled` makes it AdamW."""

    decoupled: bool = False

    def build(self, groups: list[dict[str, Any]]) -> TorchOptimizer:
        """See `Optimizer.build`."""
        from torch.optim import Adam as TorchAdam
        from torch.optim import AdamW

        return (AdamW if self.decoupled else TorchAdam)(self._scaled(groups))


class Schedule(Component):
    """The factor on the learning rate at a step."""

    @abstractmethod
    def factor(self, step: int, total: int, per_epoch: float) -> float:
        """The factor for the 0-based `step` of `total`, where one pass over the data is `per_epoch` steps."""


class Constant(Schedule):
    """Factor 1 throughout."""

    def factor(self, step: int, total: int, per_epoch: float) -> float:
        """See `Schedule.factor`."""
        return 1.0


class Poly(Schedule):
    """(1 - step / total) ** power, as DeepLab trains."""

    power: float = Field(default=0.9, gt=0)

    def factor(self, step: int, total: int, per_epoch: float) -> float:
        """See `Schedule.factor`."""
        return float((1 - step / total) ** self.power)


class Decay(Schedule):
    """Multiply by `gamma` every so many epochs or steps (give one)."""

    gamma: float = Field(gt=0, le=1)
    every_epochs: float | None = Field(default=None, gt=0)
    every_steps: int | None = Field(default=None, ge=1)

    def model_post_init(self, _context: Any) -> None:
        """Check that exactly one of the two lengths is given."""
        if (self.every_epochs is None) == (self.every_steps is None):
            raise ValueError("give exactly one of every_epochs and every_steps")

    def factor(self, step: int, total: int, per_epoch: float) -> float:
        """See `Schedule.factor`."""
        every = self.every_steps if self.every_steps is not None else (self.every_epochs or 1) * per_epoch
        return float(self.gamma ** math.floor(step / every))


class Piecewise(Schedule):
    """One factor for every so many steps; the last one stays. What population based training finds is written like this."""

    every_steps: int = Field(ge=1)
    factors: tuple[float, ...] = Field(min_length=1)

    def factor(self, step: int, total: int, per_epoch: float) -> float:
        """See `Schedule.factor`."""
        return self.factors[min(step // self.every_steps, len(self.factors) - 1)]


class OneCycle(Schedule):
    """A linear rise from 0 over the first `warmup` of the steps, then half a cosine down to `final`."""

    warmup: float = Field(default=0.2, ge=0, lt=1)
    final: float = Field(default=0.0, ge=0, le=1)

    def factor(self, step: int, total: int, per_epoch: float) -> float:
        """See `Schedule.factor`."""
        rise = self.warmup * total
        if step < rise:
            return (step + 1) / (rise + 1)
        down = (step - rise) / max(1.0, total - rise)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * down))
