"""Build the networks of trainings, bring them into the form that computes, and save and load their weights as safetensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from wsss_ray.core.component import Component
from wsss_ray.core.contracts import Learner
from wsss_ray.core.errors import REPAIR, DamagedFile
from wsss_ray.core.plan import Stage
from wsss_ray.core.randomness import random_key
from wsss_ray.data.source import DataSplit
from wsss_ray.nets.frozen import FrozenTrunk
from wsss_ray.nets.fused import fused, parts_of, real_numbers_in_float32
from wsss_ray.nets.weights import Weights
from wsss_ray.storage.finished import WEIGHTS, FileDigest, compare
from wsss_ray.storage.shards import digests_of
from wsss_ray.storage.store import Identified, RunStore

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


def _in_bfloat16(forward: Callable[..., Any], device_type: str) -> Callable[..., Any]:
    def faster(*inputs: Tensor) -> Any:
        with torch.autocast(device_type, torch.bfloat16):
            return real_numbers_in_float32(forward(*inputs))

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
    net.load_state_dict(read_weights(store, stage))
    return net.to(device).eval()


def read_weights(store: RunStore, stage: Identified) -> dict[str, Tensor]:
    """Read the weights of a train stage, and compare them with the digest in its record.

    Args:
        store: The store of the stage.
        stage: The train stage.

    Raises:
        FileNotFoundError: if it is not trained yet.
        DamagedFile: if the weights are damaged.
    """
    path = store.stage_path(stage, WEIGHTS)
    data = store.read(path)
    compare(digests_of(store, stage).get(WEIGHTS), data, path)
    try:
        tensors: dict[str, Tensor] = load_tensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedFile(f"{path}: is damaged ({error}). {REPAIR}") from error
    return tensors


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
    state = read_weights(store, stage)
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


def save_model(store: RunStore, stage: Stage, net: nn.Module) -> FileDigest:
    """Write the final weights as model.safetensors, and return the file's digest. Equal tensors give equal bytes.

    Args:
        store: The store of the stage.
        stage: The train stage.
        net: The network, without a wrapper for distributed training.

    Raises:
        OSError: if the file cannot be written. An older one is then kept.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    data = save_tensors(tensors)
    store.write(store.stage_path(stage, WEIGHTS), data)
    return FileDigest.of(WEIGHTS, data)
