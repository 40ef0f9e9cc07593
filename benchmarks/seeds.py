"""Seed generation end to end: decode, network, stochastic selections, dense CRF, writing; through Ray and without it.

    python -m benchmarks --only seeds [--full]

All forms use the same operators on the same cores with one thread per process, and make the same seeds:

    ours        localize and seed stages through Ray Data, from the first actor's start to the committed records
    bare pool   a process per core; each takes whole images from file to PNG. From the start of the processes
    published   the way of most repositories: one process localizes with all threads and writes a file per image; a pool of
                processes then reads the images and those files for the CRF

The overlap of devices is shown with one core in the place of a GPU: an actor for the network, which Ray takes to be on a GPU,
and one for the CRF.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

from benchmarks.measure import Row
from wsss_ray.storage.shards import list_shards, read_shard


@dataclass(frozen=True)
class Size:
    """The sizes of one run."""

    images: int
    height: int
    width: int
    shard: int
    network: float
    warp: int
    selections: int


FULL, SMALL = Size(600, 188, 250, 10, 0.5, 225, 200), Size(48, 94, 125, 4, 0.25, 129, 50)


def photographs(root: Path, size: Size) -> None:
    """Crops of two real photographs as JPEG, and a table with one or two tags each."""
    from sklearn.datasets import load_sample_images

    photos, rng = load_sample_images().images, np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    lines = ["image,tags"]
    for index in range(size.images):
        photo = photos[index % len(photos)]
        top, left = rng.integers(photo.shape[0] - size.height), rng.integers(photo.shape[1] - size.width)
        Image.fromarray(photo[top : top + size.height, left : left + size.width]).save(root / f"images/{index:05d}.jpg")
        lines.append(f"{index:05d}.jpg,{'flower' if index % 2 else 'temple'}{'|sky' if index % 3 == 0 else ''}")
    (root / "tags.csv").write_text("\n".join(lines) + "\n")


def job_spec(root: Path, size: Size, store: str, **run: Any) -> dict[str, Any]:
    """FickleNet's seeds of an untrained classifier: what they show does not matter here."""
    return {
        "name": "seeds",
        "method": {
            "name": "seeds",
            "classifier": {
                "kind": "stochastic_classifier",
                "steps": 0,
                "trunk": {"kind": "vgg16", "weights": "none", "width": size.network},
            },
            "localizer": {"kind": "stochastic_grad_cam", "selections": size.selections, "size": size.warp},
            "seed_rule": {
                "kind": "threshold_seeds",
                "background": {"kind": "cam_background", "threshold": 0.2},
                "crf": {"iterations": 10},
            },
        },
        "data": {"kind": "folder", "root": str(root / "images"), "tags": str(root / "tags.csv"), "shard_size": size.shard},
        "run": {"store": store} | run,
    }


def rows(full: bool) -> Iterator[Row]:
    """Images per second against both baselines, and the overlap of the two stages."""
    size = FULL if full else SMALL
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        photographs(root, size)
        prepared = _Prepared(root, size)
        ours, seeds = prepared.through_ray()
        pool = _pool(root, size, cores)
        published = _published(root, size, cores)
        for index, png in _seeds_of(root / "pool"):
            assert seeds[index] == png, f"another seed of image {index}"
        what = f"{size.images} images of {size.width} x {size.height} on {cores} cores, images per second"
        rates = [f"{size.images / seconds:.2f}" for seconds in (ours, pool, published)]
        yield Row("5", what, rates[0], f"bare pool {rates[1]}", pool / ours, 0.9 if full else None, more=True)
        yield Row("5", what, rates[0], f"published practice {rates[2]}", published / ours, more=True)
        with core_for_a_gpu():
            alone = [prepared.through_ray(image_workers=1, only=name)[0] for name in ("maps", "seeds")]
            both = prepared.through_ray(image_workers=1)[0]
        what = "network on one core, CRF on another, s"
        longer = f"the longer alone ({alone[0]:.0f} and {alone[1]:.0f})"
        yield Row("5", what, f"{both:.0f}", longer, both / max(alone), 1.15 if full else None)


class _Prepared:
    """The data ingested and the classifier built, in a store that every timed run copies."""

    def __init__(self, root: Path, size: Size) -> None:
        from tests.local import run_plan

        self.root, self.size = root, size
        self.store, self.plan, _ = self._open("prepared")
        run_plan(self.store, self.plan, last="classifier")
        self.maps: Path | None = None

    def _open(self, name: str, **run: Any) -> tuple[Any, Any, Any]:
        from wsss_ray.config.job import JobConfig, register
        from wsss_ray.storage.store import RunStore

        register()
        job = JobConfig.model_validate(job_spec(self.root, self.size, str(self.root / name), **run))
        return RunStore(job.run.store), job.plan(), job.run

    def through_ray(self, only: str | None = None, **run: Any) -> tuple[float, dict[int, bytes]]:
        """Seconds that the stages take, Ray having been started, and the seeds by image number."""
        from wsss_ray.reporting.progress import Display
        from wsss_ray.runners.cluster import ray_session

        source = self.maps if only == "seeds" and self.maps else self.root / "prepared"
        target = self.root / "timed"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
        store, plan, execution = self._open("timed", **run)
        stages = [stage for stage in plan if stage.name in ("maps", "seeds") and (only is None or stage.name == only)]
        with ray_session() as have, redirect_stdout(io.StringIO()):
            from wsss_ray.runners.shards import run_shards

            began = time.perf_counter()
            run_shards(store, stages, execution, have, Display())
            seconds = time.perf_counter() - began
        if only == "maps":
            self.maps = self.root / "with-maps"
            shutil.copytree(target, self.maps)
        found = {}
        for stage in stages:
            if stage.name == "seeds":
                for shard in list_shards(store, stage):
                    for row in read_shard(store, stage, shard, "seeds"):
                        found[int(row["image_id"][:5])] = row["seed"]
        return seconds, found


class OnACore:
    """A `ShardOperator` that computes on a CPU wherever Ray has put it."""

    def __init__(self, store: Any, stages: Any, device: str, batch: int | None = None, gpu_share: float = 1.0) -> None:
        from wsss_ray.runners.shards import ShardOperator

        self.operator = ShardOperator(store, stages, "cpu")

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Make the shards that the row names."""
        return self.operator(row)


@contextmanager
def core_for_a_gpu() -> Iterator[None]:
    """Private Rays have a GPU that is none, so that networks and the rest are made by operators of their own."""
    from wsss_ray.runners import shards

    with patch.dict(os.environ, RAY_OVERRIDE_RESOURCES='{"GPU": 1}'), patch.object(shards, "ShardOperator", OnACore):
        yield


class _Operators:
    """What one process of the baselines holds: the components, the network, and each image's tags."""

    def __init__(self, root: Path, size: Size, threads: int) -> None:
        import torch

        from wsss_ray.config.job import JobConfig, register
        from wsss_ray.engine.networks import load_model
        from wsss_ray.storage.store import RunStore

        torch.set_num_threads(threads)
        register()
        job = JobConfig.model_validate(job_spec(root, size, str(root / "prepared")))
        by_name = {stage.name: stage for stage in job.plan()}
        self.root, self.maps, self.seeds = root, by_name["maps"], by_name["seeds"]
        self.net = load_model(RunStore(job.run.store), by_name["classifier"], "cpu")
        names = sorted({tag for line in self.lines() for tag in line[1].split("|")})
        self.tags = {int(line[0][:5]): sorted(names.index(tag) for tag in line[1].split("|")) for line in self.lines()}

    def lines(self) -> list[list[str]]:
        return [line.split(",") for line in (self.root / "tags.csv").read_text().splitlines()[1:]]

    def image(self, index: int) -> Any:
        return np.asarray(Image.open(self.root / f"images/{index:05d}.jpg").convert("RGB"))

    def localize(self, index: int, image_HWC: Any) -> Any:
        from wsss_ray.core.randomness import random_key

        key = random_key(self.maps.seed or 0, "localize", f"{index:05d}")
        return self.maps.component.localize(self.net, image_HWC, self.tags[index], key)  # type: ignore[attr-defined]

    def seed(self, index: int, image_HWC: Any, maps: Any, folder: str) -> None:
        from wsss_ray.data.codecs import decode_maps, encode_labels, encode_maps

        label_HW = self.seeds.component.seed(image_HWC, decode_maps(encode_maps(maps)), None)  # type: ignore[attr-defined]
        (self.root / folder / f"{index:05d}.png").write_bytes(encode_labels(label_HW))


_HELD: list[_Operators] = []


def _hold(root: Path, size: Size, threads: int) -> None:
    _HELD.append(_Operators(root, size, threads))


def _whole(index: int) -> None:
    (held,) = _HELD
    image_HWC = held.image(index)
    held.seed(index, image_HWC, held.localize(index, image_HWC), "pool")


def _only_seed(index: int) -> None:
    import pickle

    (held,) = _HELD
    maps = pickle.loads((held.root / f"published-maps/{index:05d}.pkl").read_bytes())
    held.seed(index, held.image(index), maps, "published")


def _pool(root: Path, size: Size, cores: int) -> float:
    (root / "pool").mkdir()
    began = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(cores, _hold, (root, size, 1)) as pool:
        pool.map(_whole, range(size.images), chunksize=size.shard)
    return time.perf_counter() - began


def _published(root: Path, size: Size, cores: int) -> float:
    (root / "published-maps").mkdir()
    (root / "published").mkdir()
    began = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    one = context.Process(target=_localize_all, args=(root, size, cores))
    one.start()
    one.join()
    with context.Pool(cores, _hold, (root, size, 1)) as pool:
        pool.map(_only_seed, range(size.images), chunksize=1)
    return time.perf_counter() - began


def _localize_all(root: Path, size: Size, threads: int) -> None:
    import pickle

    held = _Operators(root, size, threads)
    for index in range(size.images):
        maps = held.localize(index, held.image(index))
        (root / f"published-maps/{index:05d}.pkl").write_bytes(pickle.dumps(maps))


def _seeds_of(folder: Path) -> Iterator[tuple[int, bytes]]:
    for file in sorted(folder.iterdir()):
        yield int(file.stem), file.read_bytes()
