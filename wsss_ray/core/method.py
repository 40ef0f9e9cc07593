"""Define the method: a paper as a component that plans stages."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wsss_ray.core.component import Component

if TYPE_CHECKING:
    from wsss_ray.core.plan import Data, Stage


class Method(Component):
    """A paper: its parts are fields, and its plan connects them.

    One method is one file, in `wsss_ray/methods/` or in a plug-in. A job file picks it by the name of this file.
    """

    tag = "name"

    @classmethod
    def kind(cls) -> str:
        """Return the method's name: the name of its file."""
        return cls.__module__.rpartition(".")[2]

    @abstractmethod
    def plan(self, data: Data) -> Sequence[Stage]:
        """Plan the stages of the method.

        Args:
            data: the data of the job.

        Returns:
            The stages that the user wants, with the scored model last. The stages that these read follow from them.

        Raises:
            ValueError: if the parts do not fit together, or the data lacks something. Name the field in the message.

        Example:
            def plan(self, data):
                classifier = train(self.classifier, data.weak, name="classifier")
                seeds = seed(self.seed_rule, localize(self.localizer, classifier, data.weak), data.weak)
                segmenter = train(self.segmenter, data.weak, seeds=(seeds,), name="segmenter")
                return (evaluate(self.metric, segmenter, data.val),) if data.val else (segmenter,)
        """
