"""Write and read the checkpoints of trainings, from which a training resumes at the exact step."""

from __future__ import annotations

import io
import pickle
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsss_ray.core.errors import DamagedFile, in_one_line, is_machine_failure, shown
from wsss_ray.core.plan import Stage
from wsss_ray.storage.finished import FileDigest
from wsss_ray.storage.sealed import problem_of, seal
from wsss_ray.storage.store import RunStore

if TYPE_CHECKING:
    import torch
    from torch import nn

_CHECKPOINT = re.compile(r"step-(\d{8,})\.pt")
KEPT = 2
"""Checkpoints of a training that stay in the store."""


@dataclass(frozen=True)
class Checkpoint:
    """The state from which a training continues. Random numbers are keyed by step and image, so none are stored.

    Attributes:
        step: The number of steps that are done.
        net: The state of the network.
        optimizer: The state of the optimiser.
        labels: The label maps, (B, H, W), that were made ahead for later steps, by step (see online_labels.py).
    """

    step: int
    net: dict[str, Any]
    optimizer: dict[str, Any]
    labels: dict[int, torch.Tensor]


def take_checkpoint(
    store: RunStore,
    stage: Stage,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    *,
    labels: dict[int, torch.Tensor] | None = None,
    written: dict[str, FileDigest] | None = None,
) -> Callable[[], None]:
    """Copy the present state of a training. The training may go on before it is written.

    Args:
        store: The store of the stage.
        stage: The train stage.
        net: The network, without a wrapper for distributed training.
        optimizer: The optimiser.
        step: The number of steps that are done.
        labels: The label maps that were made ahead for later steps, by step.
        written: Gets the digest of the file when it is written, by its path in the stage's folder.

    Returns:
        A function that writes the copy with its seal (see `storage/sealed.py`), and deletes all checkpoints but the last two.

    Example:
        >>> commit = take_checkpoint(store, stage, net, optimizer, step=100)
        >>> commit()
        >>> latest_step(store, stage)
        100
    """
    import torch

    buffer = io.BytesIO()
    state = {"step": step, "net": net.state_dict(), "optimizer": optimizer.state_dict(), "labels": labels or {}}
    torch.save(_plain(state), buffer)

    def commit() -> None:
        sha256, path = seal(buffer), _checkpoint_path(store, stage, step)
        data = buffer.getvalue()
        store.write(path, data)
        if written is not None:
            name = f"checkpoints/{path.rpartition('/')[2]}"
            written[name] = FileDigest(name, len(data), sha256)
        for older in steps(store, stage)[KEPT:]:
            with suppress(FileNotFoundError):  # a worker that outlived a killed run may delete it too
                store.delete(_checkpoint_path(store, stage, older))

    return commit


def _plain(value: Any) -> Any:
    """Rebuild a state so that equal states have equal bytes: pickle writes an object that occurs twice by a reference.

    Texts that were read from an earlier checkpoint are other objects than those of the code, and dictionaries may be shared.
    """
    if isinstance(value, dict):
        return {_plain(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(one) for one in value)
    return sys.intern(value) if type(value) is str else value


def steps(store: RunStore, stage: Stage) -> list[int]:
    """Return the steps of a training's checkpoints, latest first."""
    names = store.names(store.stage_path(stage, "checkpoints"))
    return sorted((int(found[1]) for name in names if (found := _CHECKPOINT.fullmatch(name))), reverse=True)


def latest_step(store: RunStore, stage: Stage) -> int:
    """Return the step of the last checkpoint that was written; 0 if there is none.

    Args:
        store: The store of the stage.
        stage: The train stage.
    """
    return next(iter(steps(store, stage)), 0)


def latest_path(store: RunStore, stage: Stage) -> str | None:
    """Return the path of the last checkpoint that was written; None if there is none."""
    step = latest_step(store, stage)
    return _checkpoint_path(store, stage, step) if step else None


def load_checkpoint(store: RunStore, stage: Stage, step: int, device: str) -> Checkpoint:
    """Load the checkpoint of a step.

    Args:
        store: The store of the stage.
        stage: The train stage.
        step: The step, as `latest_step` returns it.
        device: The device of the network's and the optimiser's tensors. `labels` stay on the CPU.

    Raises:
        FileNotFoundError: if there is no checkpoint of this step.
        DamagedFile: if it is damaged.
    """
    import torch

    path = _checkpoint_path(store, stage, step)
    data = store.read(path)
    wrong = problem_of(data)
    if wrong is not None:
        raise DamagedFile(f"{path}: is damaged ({wrong}). Submit again, which takes an older one.")
    try:
        state = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
        labels = {int(made_for): label_BHW.cpu() for made_for, label_BHW in state.get("labels", {}).items()}
        return Checkpoint(step=state["step"], net=state["net"], optimizer=state["optimizer"], labels=labels)
    except (pickle.UnpicklingError, EOFError, LookupError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        if is_machine_failure(error):
            raise
        raise DamagedFile(f"{path}: is no checkpoint of a training ({shown(in_one_line(error), 200)}). Delete it.") from error


def _checkpoint_path(store: RunStore, stage: Stage, step: int) -> str:
    return store.stage_path(stage, "checkpoints", f"step-{step:08d}.pt")
