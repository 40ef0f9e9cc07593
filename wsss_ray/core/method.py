"""The method: a paper as a component that plans stages."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wsss_ray.core.component import Component

if TYPE_CHECKING:
    from wsss_ray.core.plan import Data, Stage


class Method(Component):
    """A paper: its parts as fields, and the plan that connects them. One file in `wsss_ray/methods/`, named as in job files."""

    tag = "name"

    @classmethod
    def kind(cls) -> str:
        """The method's name: that of its file."""
        return cls.__module__.rpartition(".")[2]

    @abstractmethod
    def plan(self, data: Data) -> Sequence[Stage]:
        """The stages that the user wants made, the scored model last; what they read is found from them."""
