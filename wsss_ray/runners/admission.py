"""Check before the start that the cluster can run a job, so that a job that cannot run fails at once and does not wait for ever.

The checks cover CPUs and GPUs for trainings, access to the store and the data from every machine (a folder that is not shared is
found here), the versions of the package and of the job's plug-ins, and disk space for the missing shards, by rough upper
estimates. The size of checkpoints is not estimated, because only the networks know it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from wsss_ray.config.resources import Node, Resources, training_share
from wsss_ray.config.run import Execution
from wsss_ray.core.plan import Stage
from wsss_ray.core.plugins import behind
from wsss_ray.core.version import __version__
from wsss_ray.data.source import DataSplit
from wsss_ray.engine.records import StageError, missing_shards
from wsss_ray.engine.shard_worker import data_split
from wsss_ray.preflight.estimate import free_disk
from wsss_ray.runners.cluster import resources
from wsss_ray.storage.documents import PROBE
from wsss_ray.storage.store import RunStore

_ANSWER_S = 120.0
_POLL_S = 1.0
_OBJECT_STORE = 70e6  # bytes; our rows are only shard numbers, but Ray needs some space to start
_MAP_BYTES = 30_000  # maps of an image: two tags, 41 x 41, maximum and mean in half precision
_FEATURE_BYTES = 1_000_000  # features of an image and of its mirror image, zeros packed
_LABEL_BYTES = 20_000  # a label map or a prediction as PNG


def admit(store: RunStore, stages: Sequence[Stage], run: Execution, have: Resources, *, probe: str) -> Resources:
    """Check that the missing stages of a plan can run here.

    If resources are missing, ask the cluster for machines and wait for them up to `run.wait_s`.

    Args:
        store: Run store.
        stages: Missing stages.
        run: The job's `run` block.
        have: Resources now.
        probe: Path of the run's `run.json`, just written. Every machine must see this version of it.

    Returns:
        The resources after the wait.

    Raises:
        StageError: if something is missing. The message says what, and how to fix it.

    Example:
        >>> with ray_session() as have:
        ...     have = admit(store, stages, job.run, have, probe=store.run_path(job.name, "run.json"))
    """
    ids = [stage.id for stage in stages]
    try:
        have = _wait_for_machines(stages, run, have)
        if 0 < have.object_store < _OBJECT_STORE:
            raise ValueError(
                f"Ray's object store has {have.object_store / 1e6:.0f} MB, at least {_OBJECT_STORE / 1e6:.0f} MB are needed; "
                "start Ray with a larger --object-store-memory"
            )
        _check_disk(store, stages)
        _check_machines(store, probe, stages, have.nodes)
    except ValueError as error:
        raise StageError(f"before the start: {error}", ids) from error
    return have


def _wait_for_machines(stages: Sequence[Stage], run: Execution, have: Resources) -> Resources:
    """Request the machines that the stages need, and wait for them. Raises ValueError if they do not come in time."""
    from ray.autoscaler.sdk import request_resources

    deadline, asked = time.monotonic() + (run.wait_s if have.grows else 0), False
    while True:
        try:
            if run.gpu and not have.gpus:
                raise ValueError("run.gpu: is true, but no machine has a GPU. Remove run.gpu, or add machines with GPUs.")
            if any(stage.kind == "train" for stage in stages):
                training_share(run, have)
        except ValueError:
            if time.monotonic() > deadline:
                if asked:
                    request_resources(bundles=[])
                raise
        else:
            if asked:
                request_resources(bundles=[])  # a request stays in force until the next one, and keeps machines up
            return have
        each = {"CPU": math.ceil(run.cpus_per_worker or 1), **({"GPU": 1} if run.gpu else {})}
        request_resources(bundles=[each] * (run.worker_range[0] * have.at_once) + [{"CPU": 1}])
        asked = True
        time.sleep(_POLL_S)
        have = replace(resources(), at_once=have.at_once)


def estimate_bytes(store: RunStore, stages: Sequence[Stage]) -> float:
    """Estimate roughly how many bytes the missing shards of stages take on disk at most."""
    total = 0.0
    for stage in stages:
        if stage.kind == "train":
            continue
        split = data_split(stage)
        each = {"ingest": 0, "features": _FEATURE_BYTES, "localize": _MAP_BYTES}.get(stage.kind, _LABEL_BYTES)
        whole = split.num_images * each + (split.num_bytes if stage.kind == "ingest" else 0)
        total += whole * len(missing_shards(store, stage)) / max(1, split.num_shards)
    return total


def look_from_here(store: RunStore, probe: str, submitted: float, ingests: Sequence[Stage]) -> str | None:
    """Return what is wrong with the store or the data as this machine sees them, or None."""
    try:
        seen = store.read_json(probe, PROBE)["submitted"]
    except OSError:
        seen = 0.0
    if seen < submitted:
        return f"does not see the store {store.uri}; give a folder that all machines share, or s3:// or gs://"
    for stage in ingests:
        split = stage.component
        assert isinstance(split, DataSplit)
        missing = next((path for path in split.samples if not Path(path).is_file()), None)
        if missing is not None:
            return f"does not see {missing} of {stage.name}; all machines must see the data under the same path"
    return None


def _check_disk(store: RunStore, stages: Sequence[Stage]) -> None:
    free, need = free_disk(store), estimate_bytes(store, stages)
    if free is not None and need > free:
        spared = estimate_bytes(store, [stage for stage in stages if stage.kind == "features"])
        without = f", or spare {spared / 1e9:.1f} GB by run.features: false" if spared else ""
        raise ValueError(
            f"the store {store.uri} has {free / 1e9:.1f} GB free, the missing stages may need {need / 1e9:.1f} GB; "
            f"free some, or put the store elsewhere by --store{without}"
        )


def _check_machines(store: RunStore, probe: str, stages: Sequence[Stage], nodes: Sequence[Node]) -> None:
    """Make every machine read the probe, look for some images and compare versions. Raises ValueError with the first problem."""
    submitted, ingests = store.read_json(probe, PROBE)["submitted"], [stage for stage in stages if stage.kind == "ingest"]
    problems = {"this machine": look_from_here(store, probe, submitted, ingests)}
    if len(nodes) > 1:
        needed = {name: plugin.version for name, plugin in behind(stage.component for stage in stages).items()}
        problems |= _ask_machines(store, probe, submitted, ingests, nodes, needed)
    for machine, problem in problems.items():
        if problem is not None:
            raise ValueError(f"{machine} {problem}")


def _ask_machines(
    store: RunStore, probe: str, submitted: float, ingests: Sequence[Stage], nodes: Sequence[Node], needed: Mapping[str, str]
) -> dict[str, str | None]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here, pickled = __version__, ray.cloudpickle.dumps(list(ingests))  # unpickled only where their plug-ins are installed

    def look() -> str | None:
        from wsss_ray.core.plugins import lacking
        from wsss_ray.core.version import __version__ as found  # the version on the machine that runs this

        if found != here:
            return f"has wsss-ray {found}, here is {here}; install one version on all machines"

        return lacking(needed) or look_from_here(store, probe, submitted, ray.cloudpickle.loads(pickled))

    asked = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node.id, soft=False)
        asked[node.address] = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(look).remote()
    ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=_ANSWER_S)
    answers: dict[str, str | None] = {}
    for address, reference in asked.items():
        machine = f"machine {address}"
        if reference not in ready:
            answers[machine] = f"does not answer within {_ANSWER_S:.0f} s; see `ray status`"
            continue
        try:
            answers[machine] = ray.get(reference)
        except (ray.exceptions.NodeDiedError, ray.exceptions.WorkerCrashedError, ray.exceptions.TaskUnschedulableError):
            continue  # a machine that leaves meanwhile is not used
        except ray.exceptions.RayError as error:
            what = str(error).strip().splitlines()[-1]
            answers[machine] = f"cannot run the package ({what}); install wsss-ray there, or submit by http://"
    return answers
