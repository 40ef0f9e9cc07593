"""Trained networks in the store: weights as safetensors, and training checkpoints that resume at the exact step."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from wsss_ray.contracts import Learner
from wsss_ray.data.source import DataSplit
from wsss_ray.plan import Stage
from wsss_ray.randomness import random_key
from wsss_ray.store import RunStore

_KEPT = 2


def build_model(stage: Stage) -> nn.Module:
    """The network of a train stage as it starts: pretrained parts loaded, the rest drawn from the job's seed."""
    learner, split = stage.component, stage.input("data").component
    assert isinstance(learner, Learner)
    assert isinstance(split, DataSplit)
    assert stage.seed is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_key(stage.seed, "init"))
        return learner.build(len(split.classes))


def load_model(store: RunStore, stage: Stage, device: str) -> nn.Module:
    """The trained network of a train stage, in eval mode. Raises FileNotFoundError if it is not trained yet."""
    net = build_model(stage)
    net.load_state_dict(load_tensors(store.read(store.stage_path(stage, "model.safetensors"))))
    return net.to(device).eval()


def start_from(net: nn.Module, store: RunStore, stage: Stage) -> None:
    """Load the weights of another train stage: all of them, or those of the trunk where the heads differ.

    Raises ValueError if the trunks differ.
    """
    state = load_tensors(store.read(store.stage_path(stage, "model.safetensors")))
    own = net.state_dict()
    shared = {name: tensor for name, tensor in state.items() if name in own and own[name].shape == tensor.shape}
    whole = len(shared) == len(own)
    missing = [] if whole else [name for name in own if name.startswith("trunk.") and name not in shared]
    if missing or not shared:
        raise ValueError(f"cannot start from the weights of {stage.name}: the trunks differ (at {(missing or ['trunk'])[0]})")
    net.load_state_dict({name: t for name, t in shared.items() if whole or name.startswith("trunk.")}, strict=whole)


def save_model(store: RunStore, stage: Stage, net: nn.Module) -> None:
    """Write the final weights; equal tensors give equal bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    store.write(store.stage_path(stage, "model.safetensors"), save_tensors(tensors))


@dataclass(frozen=True)
class Checkpoint:
    """All that a training needs to go on after `step`. Random numbers are keyed by step and image, so none are in here."""

    step: int
    net: dict[str, Any]
    optimizer: dict[str, Any]


def save_checkpoint(store: RunStore, stage: Stage, net: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Commit a checkpoint and drop all but the last two."""
    buffer = io.BytesIO()
    torch.save({"step": step, "net": net.state_dict(), "optimizer": optimizer.state_dict()}, buffer)
    folder = store.stage_path(stage, "checkpoints")
    store.write(f"{folder}/step-{step:08d}.pt", buffer.getvalue())
    for name in [name for name in store.names(folder) if name.startswith("step-")][:-_KEPT]:
        store.delete(f"{folder}/{name}")


def latest_checkpoint(store: RunStore, stage: Stage, device: str) -> Checkpoint | None:
    """The last checkpoint that was committed, if any."""
    folder = store.stage_path(stage, "checkpoints")
    names = [name for name in store.names(folder) if name.startswith("step-")]
    if not names:
        return None
    state = torch.load(io.BytesIO(store.read(f"{folder}/{names[-1]}")), map_location=device, weights_only=True)
    return Checkpoint(step=state["step"], net=state["net"], optimizer=state["optimizer"])
