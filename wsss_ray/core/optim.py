"""Define optimisers and learning-rate schedules as components."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from wsss_ray.core.component import Component, SinceThen

if TYPE_CHECKING:
    from torch.optim import Optimizer as TorchOptimizer


class Optimizer(Component):
    """A torch optimiser and its settings."""

    lr: float = Field(gt=0, description="Learning rate before the schedule.")
    weight_decay: float = Field(default=0.0, ge=0)

    @abstractmethod
    def build(self, groups: list[dict[str, Any]]) -> TorchOptimizer:
        """Build the optimiser.

        Args:
            groups: groups of `Learner.param_groups`. `lr_scale` multiplies `lr`, `weight_decay` replaces the field's value.

        Returns:
            The optimiser. Every group of it has `base_lr`, which the schedule multiplies.

        Example:
            >>> Sgd(lr=0.1).build([{"params": net.parameters(), "lr_scale": 10.0}]).param_groups[0]["base_lr"]
            1.0
        """

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
        """Build SGD. See `Optimizer.build`."""
        from torch.optim import SGD

        return SGD(self._scaled(groups), momentum=self.momentum)


class Adam(Optimizer):
    """Adam with its default moments; `decoupled` makes it AdamW."""

    decoupled: bool = False

    def build(self, groups: list[dict[str, Any]]) -> TorchOptimizer:
        """Build Adam or AdamW. See `Optimizer.build`."""
        from torch.optim import Adam as TorchAdam
        from torch.optim import AdamW

        return (AdamW if self.decoupled else TorchAdam)(self._scaled(groups))


class Schedule(Component):
    """A factor on the learning rate that depends on the step."""

    @abstractmethod
    def factor(self, step: int, total: int, per_epoch: float) -> float:
        """Return the factor for one step.

        Args:
            step: the step, from 0 on.
            total: number of steps of the whole training.
            per_epoch: number of steps of one pass over the data.

        Example:
            >>> Decay(gamma=0.1, every_epochs=2.0).factor(step=250, total=1000, per_epoch=100.0)
            0.1
        """


class Constant(Schedule):
    """The factor 1 at every step."""

    def factor(self, step: int, total: int, per_epoch: float) -> float:
        """Return 1. See `Schedule.factor`."""
        return 1.0


class Poly(Schedule):
    """The factor (1 - step / total) ** power, the schedule of DeepLab."""

    power: float = Field(default=0.9, gt=0)
    every: Annotated[Literal["step", "epoch"], SinceThen()] = Field(
        default="step", description="Change the factor at every step, or only where an epoch begins (Multi-Estimations, 5.2)."
    )

    def factor(self, step: int, total: int, per_epoch: float) -> float:
        """Return the polynomial. See `Schedule.factor`."""
        if self.every == "epoch":
            return float((1 - math.floor(step / per_epoch) * per_epoch / total) ** self.power)
        return float((1 - step / total) ** self.power)


class Decay(Schedule):
    """A factor that is multiplied by `gamma` after every `every_epochs` epochs or `every_steps` steps. Give one of the two."""

    gamma: float = Field(gt=0, le=1)
    every_epochs: float | None = Field(default=None, gt=0)
    every_steps: int | None = Field(default=None, ge=1)
    times: Annotated[int | None, SinceThen()] = Field(default=None, ge=1, description="Largest number of drops; null: no limit.")

    def model_post_init(self, _context: Any) -> None:
        """Check that exactly one of the two lengths is given."""
        if (self.every_epochs is None) == (self.every_steps is None):
            found = "neither is set" if self.every_steps is None else "both are set"
            raise ValueError(f"every_epochs, every_steps: {found}. Give exactly one of every_epochs and every_steps.")

    def factor(self, step: int, total: int, per_epoch: float) -> float:
        """Return the power of `gamma`. See `Schedule.factor`."""
        every = self.every_steps if self.every_steps is not None else (self.every_epochs or 1) * per_epoch
        drops = math.floor(step / every)
        return float(self.gamma ** (drops if self.times is None else min(drops, self.times)))


class Piecewise(Schedule):
    """Factors that hold for `every_steps` steps each; the last one then stays. The result of population based training."""

    every_steps: int = Field(ge=1, description="Steps for which each factor holds.")
    factors: tuple[float, ...] = Field(min_length=1)

    def factor(self, step: int, total: int, per_epoch: float) -> float:
        """Return the factor of the interval. See `Schedule.factor`."""
        return self.factors[min(step // self.every_steps, len(self.factors) - 1)]


class OneCycle(Schedule):
    """A factor that rises linearly from 0 to 1, then falls to `final` by half a cosine."""

    warmup: float = Field(default=0.2, ge=0, lt=1, description="Share of the steps in which the factor rises.")
    final: float = Field(default=0.0, ge=0, le=1, description="Factor at the end.")

    def factor(self, step: int, total: int, per_epoch: float) -> float:
        """Return the rising or falling factor. See `Schedule.factor`."""
        rise = self.warmup * total
        if step < rise:
            return (step + 1) / (rise + 1)
        down = (step - rise) / max(1.0, total - rise)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * down))
