"""Save and load trained networks as safetensors, and training checkpoints that resume at the exact step."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from wsss_ray.core.component import Component
from wsss_ray.core.contracts import Learner
from wsss_ray.core.plan import Stage
from wsss_ray.core.randomness import random_key
from wsss_ray.data.source import DataSplit
from wsss_ray.nets.frozen import FrozenTrunk
from wsss_ray.nets.fused import fused, parts_of
from wsss_ray.nets.weights import Weights
from wsss_ray.storage.store import RunStore

KEPT = 2
"""Checkpoints of a training that stay in the store."""

ComponentT = TypeVar("ComponentT", bound=Component)


def build_model(stage: Stage, *, pretrained: bool = True) -> nn.Module:
    """Build the network of a train stage as it starts: pretrained weights are loaded, the rest is drawn from the job's seed.

    Args:
        stage: The train stage, with a seed.
        pretrained: False reads and downloads no file, for a network whose weights are all replaced afterwards.

    Raises:
        ValueError: if the pretrained weights are missing or do not fit.
    """
    learner, split = stage.component, stage.input("data").component
    assert isinstance(learner, Learner)
    assert isinstance(split, DataSplit)
    assert stage.seed is not None
    if not pretrained:
        learner = _without_weights(learner)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_key(stage.seed, "init"))
        return learner.build(len(split.classes))


def use_bfloat16(net: nn.Module, device: torch.device) -> None:
    """Make the parts of a network (trunk, head, blocks) compute in bfloat16 and return float32.

    Weights and gradients stay float32, as in torch's autocast. So do the losses and all that a network computes between its
    parts (closed forms, upsampling). bfloat16 has the range of float32, so no loss needs scaling. Parameters keep their names.
    A trunk of `freeze_trunk` stays as it is: its features are those of the learner's form of inference in any precision.

    Args:
        net: The network, which is changed in place.
        device: The device that it computes on.
    """
    for part in parts_of(net):
        if not isinstance(part.forward, FrozenTrunk):
            part.forward = _in_bfloat16(part.forward, device.type)


def freeze_trunk(net: nn.Module, learner: Learner, *, threads: int) -> FrozenTrunk | None:
    """Make the frozen trunk of a network work image by image and in the learner's form of inference, in training too.

    Args:
        net: The network, which is changed in place. Its weights keep their names.
        learner: The learner of the network.
        threads: Images that are computed at a time on a CPU.

    Returns:
        The function that now runs the trunk; None if no trunk is frozen (see `Learner.frozen_trunk`), and nothing has changed.
    """
    if learner.frozen_trunk is None:
        return None
    trunk: nn.Module = net.trunk  # type: ignore[assignment]
    trunk.forward = frozen = FrozenTrunk(trunk, learner.inference, threads=threads)
    return frozen


def for_inference(net: nn.Module, learner: Learner) -> FrozenTrunk | None:
    """Bring a trained network into its learner's form of inference. It must not be trained or saved afterwards.

    Args:
        net: The network in evaluation mode and on its device; it is changed in place.
        learner: The learner of the network.

    Returns:
        The function that runs the frozen trunk; None if no trunk is frozen.
    """
    trunk: nn.Module | None = net.trunk if learner.frozen_trunk is not None else None  # type: ignore[assignment]
    frozen = FrozenTrunk(trunk, learner.inference, keep=False) if trunk is not None else None
    for part in parts_of(net):
        part.forward = frozen if part is trunk else fused(part, learner.inference)  # type: ignore[assignment]
    return frozen


def _in_bfloat16(forward: Callable[..., Tensor], device_type: str) -> Callable[..., Tensor]:
    def faster(*inputs: Tensor) -> Tensor:
        with torch.autocast(device_type, torch.bfloat16):
            return forward(*inputs).float()

    return faster


def load_model(store: RunStore, stage: Stage, device: str) -> nn.Module:
    """Load the trained network of a train stage, in eval mode.

    Args:
        store: The store of the stage.
        stage: The train stage.
        device: The device of the network, such as "cpu" or "cuda:0".

    Raises:
        FileNotFoundError: if it is not trained yet.

    Example:
        >>> net = load_model(store, stage, "cpu")
    """
    net = build_model(stage, pretrained=False)
    net.load_state_dict(load_tensors(store.read(store.stage_path(stage, "model.safetensors"))))
    return net.to(device).eval()


def _without_weights(component: ComponentT) -> ComponentT:
    """Copy a component with every `Weights` in it set to none."""
    changed = {
        name: Weights() if isinstance(value, Weights) else _without_weights(value)
        for name, value in component
        if isinstance(value, Component)
    }
    return component.model_copy(update=changed)


def start_from(net: nn.Module, store: RunStore, stage: Stage) -> None:
    """Load the weights of another train stage: the trunk, and each further part (head, blocks) with the same shapes in both.

    Args:
        net: The network that gets the weights.
        store: The store of the other stage.
        stage: The other stage.

    Raises:
        FileNotFoundError: if the other stage is not trained yet.
        ValueError: if the trunks differ.
    """
    state = load_tensors(store.read(store.stage_path(stage, "model.safetensors")))
    own = net.state_dict()
    differ = [name for name in own if name not in state or state[name].shape != own[name].shape]
    other_parts = {name.partition(".")[0] for name in differ}
    shared = {name: state[name] for name in own if name.partition(".")[0] not in other_parts}
    if "trunk" in other_parts or not shared:
        where = (differ or ["trunk"])[0]
        raise ValueError(
            f"cannot start from the weights of {stage.name}: the trunks differ (at {where}); give both the same trunk"
        )
    net.load_state_dict(shared, strict=not differ)


def save_model(store: RunStore, stage: Stage, net: nn.Module) -> None:
    """Write the final weights as model.safetensors. Equal tensors give equal bytes.

    Args:
        store: The store of the stage.
        stage: The train stage.
        net: The network, without a wrapper for distributed training.

    Raises:
        OSError: if the file cannot be written. An older one is then kept.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    store.write(store.stage_path(stage, "model.safetensors"), save_tensors(tensors))


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
) -> Callable[[], None]:
    """Copy the present state of a training. The training may go on before it is written.

    Args:
        store: The store of the stage.
        stage: The train stage.
        net: The network, without a wrapper for distributed training.
        optimizer: The optimiser.
        step: The number of steps that are done.
        labels: The label maps that were made ahead for later steps, by step.

    Returns:
        A function that writes the copy, and deletes all checkpoints but the last two.

    Example:
        >>> commit = take_checkpoint(store, stage, net, optimizer, step=100)
        >>> commit()
        >>> latest_step(store, stage)
        100
    """
    buffer = io.BytesIO()
    state = {"step": step, "net": net.state_dict(), "optimizer": optimizer.state_dict(), "labels": labels or {}}
    torch.save(state, buffer)

    def commit() -> None:
        store.write(_checkpoint_path(store, stage, step), buffer.getvalue())
        folder = store.stage_path(stage, "checkpoints")
        for name in [name for name in store.names(folder) if name.startswith("step-")][:-KEPT]:
            with suppress(FileNotFoundError):  # a worker that outlived a killed run may delete it too
                store.delete(f"{folder}/{name}")

    return commit


def latest_step(store: RunStore, stage: Stage) -> int:
    """Return the step of the last checkpoint that was written; 0 if there is none.

    Args:
        store: The store of the stage.
        stage: The train stage.
    """
    names = [name for name in store.names(store.stage_path(stage, "checkpoints")) if name.startswith("step-")]
    if not names:
        return 0
    return int(names[-1].removeprefix("step-").removesuffix(".pt"))


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
    """
    data = store.read(_checkpoint_path(store, stage, step))
    state = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    labels = {int(made_for): label_BHW.cpu() for made_for, label_BHW in state.get("labels", {}).items()}
    return Checkpoint(step=state["step"], net=state["net"], optimizer=state["optimizer"], labels=labels)


def _checkpoint_path(store: RunStore, stage: Stage, step: int) -> str:
    return store.stage_path(stage, "checkpoints", f"step-{step:08d}.pt")
