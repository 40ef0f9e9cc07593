"""Refiners: per-image stages that join whatever they name, with a network or without one."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from PIL import Image
from torch import nn

from tests.local import job_of, run_plan, stage_named
from tests.shapes import Shapes, tiny_job
from wsss_ray.core import Given, Refiner, refine, relabel
from wsss_ray.core.graph import Plan, one_pipeline, reseed
from wsss_ray.core.plan import Stage
from wsss_ray.data.codecs import decode_extra, decode_gray, decode_maps, encode_extra
from wsss_ray.data.extra_files import normalise_extra
from wsss_ray.data.stages import stages_of
from wsss_ray.engine.shard_worker import needs_model
from wsss_ray.engine.workers import worker_class
from wsss_ray.storage.shards import read_shard, write_shard
from wsss_ray.storage.store import RunStore


class Halved(Refiner):
    """Half of the maps, where the saliency and a segment are; a draw in the first pixel shows the key."""

    makes: ClassVar[Literal["maps", "seeds"]] = "maps"

    @property
    def reads(self) -> tuple[str, ...]:
        return ("maps", "saliency", "parts")

    def refine(self, net: Any, given: Given) -> Any:
        assert net is None
        assert given.maps is not None
        assert given.saliency_HW is not None
        assert given.seed_HW is None
        assert given.extra["parts"].shape == given.image_HWC.shape[:2] == given.saliency_HW.shape
        half_CHW = given.maps.peak_CHW / 2
        half_CHW[:, 0, 0] = np.random.default_rng(given.key).random()
        half_CHW[:, -1, -1] = given.extra["parts"].max() / 1000
        return replace(given.maps, peak_CHW=half_CHW, mean_CHW=half_CHW)


class Counted(Refiner):
    """A network of its own over several images at a time; its labels are the number of images that it got."""

    makes: ClassVar[Literal["maps", "seeds"]] = "seeds"

    @property
    def reads(self) -> tuple[str, ...]:
        return ("seeds",)

    @property
    def has_network(self) -> bool:
        return True

    def build(self, classes: Sequence[str]) -> nn.Module:
        return nn.Conv2d(3, 1, 1).eval()

    def refine(self, net: Any, given: Given) -> Any:
        assert isinstance(net, nn.Module)
        assert given.seed_HW is not None
        return np.minimum(given.seed_HW, 1)


class Wrong(Counted):
    """Results that are no labels, of the kind of the image's last digit."""

    @property
    def has_network(self) -> bool:
        return False

    def refine(self, net: Any, given: Given) -> Any:
        assert given.seed_HW is not None
        found: list[Any] = [given.seed_HW, given.seed_HW.astype(np.int64), given.seed_HW[1:], None, "labels"]
        return found[given.key % 5]


class ByModel(Counted):
    """The network of a train stage."""

    @property
    def reads(self) -> tuple[str, ...]:
        return ("seeds", "model")

    @property
    def has_network(self) -> bool:
        return False

    def refine(self, net: Any, given: Given) -> Any:
        assert not net.training
        assert sum(parameter.numel() for parameter in net.parameters()) > 100
        return given.seed_HW


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A store with maps and seeds of the shapes, their data with saliency, and an extra input whose files lie in a folder."""
    folder = tmp_path_factory.mktemp("refine")
    parts = folder / "parts"
    source = Shapes(saliency=True, extra=[{"name": "parts", "folder": str(parts)}])
    for place, item in enumerate(source.items("weak")):
        (parts / item.image_id).parent.mkdir(parents=True, exist_ok=True)
        value_HW = np.full((32, 32), 300 + place, np.uint16)
        Image.fromarray(value_HW).save(parts / f"{item.image_id}.png")
    store = RunStore(str(folder / "runs"))
    job = job_of(tiny_job() | {"data": source})
    data = stages_of(job.data)
    plan = job.plan(data)
    run_plan(store, plan, last="seeds")
    return store, plan, data


def rows(store: RunStore, stage: Stage, schema: str) -> list[dict[str, Any]]:
    return [row for shard in range(3) for row in read_shard(store, stage, shard, schema)]


def made(store: RunStore, stage: Stage, *needed: Stage) -> Stage:
    """The stage, with the job's seed, made together with what it reads that is not there."""
    (target,) = reseed((stage,), 0)
    run_plan(store, Plan.of([target]))
    return target


def test_maps_with_saliency_and_an_extra_input(begun):
    store, plan, data = begun
    maps = stage_named(plan, "maps")
    stage = made(store, refine(Halved(), data.weak, maps=maps, saliency=data.saliency, extra=data.extra, name="halved"))
    assert stage.kind == "localize"
    assert [role for role, _ in stage.inputs] == ["data", "maps", "saliency", "extra.parts"]
    before, after = rows(store, maps, "maps"), rows(store, stage, "maps")
    assert [row["image_id"] for row in after] == [row["image_id"] for row in before]
    draws = set()
    for place, (old, new) in enumerate(zip(before, after, strict=True)):
        old_CHW, new_CHW = decode_maps(old).peak_CHW, decode_maps(new).peak_CHW
        np.testing.assert_allclose(new_CHW[:, 1:-1], old_CHW[:, 1:-1] / 2, atol=1e-3)
        np.testing.assert_allclose(new_CHW[:, -1, -1], (300 + place) / 1000, atol=1e-3)
        draws.add(float(new_CHW[0, 0, 0]))
    assert len(draws) == len(before)


def test_what_reads_maps_reads_refined_ones(begun):
    store, plan, data = begun
    seeds, maps = stage_named(plan, "seeds"), stage_named(plan, "maps")
    halved = refine(Halved(), data.weak, maps=maps, saliency=data.saliency, extra=data.extra, name="halved")
    again = replace(seeds, inputs=tuple((role, halved if role == "maps" else stage) for role, stage in seeds.inputs))
    stage = made(store, again)
    assert stage.id != seeds.id
    assert one_pipeline(stage.input("maps"), stage)
    found = [decode_gray(row["seed"]) for row in rows(store, stage, "seeds")]
    assert sum((one != 0).sum() for one in found) < sum((decode_gray(r["seed"]) != 0).sum() for r in rows(store, seeds, "seeds"))


def test_a_network_of_its_own_gets_batches(begun, tmp_path):
    store, plan, data = begun
    (stage,) = reseed((refine(Counted(), data.weak, seeds=stage_named(plan, "seeds"), name="counted"),), 0)
    assert needs_model(stage)
    alone = made(store, stage)
    worker = worker_class(stage)(store, replace(stage, name="batched", seed=1), batch=4)
    assert worker(0) == 8
    assert rows(store, alone, "seeds")[:8] == read_shard(store, replace(stage, seed=1), 0, "seeds")
    assert {label for row in rows(store, alone, "seeds") for label in np.unique(decode_gray(row["seed"]))} <= {0, 1}


def test_the_network_of_a_stage(begun):
    store, plan, data = begun
    classifier, seeds = stage_named(plan, "classifier"), stage_named(plan, "seeds")
    stage = made(store, refine(ByModel(), data.weak, seeds=seeds, model=classifier, name="same"))
    assert needs_model(stage)
    assert [row["seed"] for row in rows(store, stage, "seeds")] == [row["seed"] for row in rows(store, seeds, "seeds")]


def test_a_wrong_result_is_an_error_of_its_image(begun, tmp_path):
    store, plan, data = begun
    (stage,) = reseed((refine(Wrong(), data.weak, seeds=stage_named(plan, "seeds"), name="wrong"),), 0)
    worker = worker_class(stage)(store, stage)
    for shard in range(3):
        worker(shard)
    found = rows(store, stage, "seeds")
    reasons = [error["reason"] for shard in range(3) for error in read_shard(store, stage, shard, "errors", folder="errors")]
    assert len(reasons) == sum(row["seed"] is None for row in found) > 0
    assert len(reasons) < len(found)
    kinds = {"int64 (32, 32)", "uint8 (31, 32)", "NoneType", "str"}
    assert all(any(kind in reason for kind in kinds) for reason in reasons)
    assert "wrong.refine returned" in reasons[0]


def test_an_image_that_failed_before_is_named(begun):
    store, plan, data = begun
    seeds = stage_named(plan, "seeds")
    broken = replace(seeds, seed=7)  # another id; its rows are nulls
    for shard in range(3):
        write_shard(store, broken, shard, "seeds", [row | {"seed": None} for row in read_shard(store, seeds, shard, "seeds")])
    (stage,) = reseed((refine(Counted(), data.weak, seeds=broken, name="counted"),), 0)
    stage = replace(stage, inputs=(("data", stage.input("data")), ("seeds", broken)))
    worker = worker_class(stage)(store, stage)
    worker(0)
    (first, *_) = read_shard(store, stage, 0, "errors", folder="errors")
    assert first["reason"] == "has no seeds; see the errors of the stage that makes them"


def test_what_a_refiner_reads_must_be_there(begun):
    _, plan, data = begun
    maps, seeds = stage_named(plan, "maps"), stage_named(plan, "seeds")
    with pytest.raises(ValueError, match=r"halved reads saliency, and there is none. Set data.saliency"):
        refine(Halved(), data.weak, maps=maps, extra=data.extra, name="halved")
    with pytest.raises(
        ValueError, match=r"halved reads parts, and there is none. Set data.extra to \[\{name: parts, folder: FOLDER\}\]"
    ):
        refine(Halved(), data.weak, maps=maps, saliency=data.saliency, name="halved")
    with pytest.raises(ValueError, match=r"by_model reads model, and there is none. Give the stage to refine\(\) as model."):
        refine(ByModel(), data.weak, seeds=seeds, name="same")
    assert (
        refine(Counted(), data.weak, maps=maps, seeds=seeds, name="a").id
        == refine(Counted(), data.weak, seeds=seeds, name="b").id
    )


def test_a_plan_stops_after_refined_seeds_and_before_pseudo_labels(begun):
    _, plan, data = begun
    seeds, segmenter = stage_named(plan, "seeds"), stage_named(plan, "segmenter")
    better = refine(ByModel(), data.weak, seeds=seeds, model=stage_named(plan, "classifier"), name="better")
    labels = relabel(stage_named(plan, "relabel").component, segmenter, data.weak)
    whole = Plan.of([better, labels])
    assert [stage.name for stage in whole.cut("seed") if stage.kind == "seed"] == ["seeds", "better"]


class FromSeeds(Halved):
    """Maps from label maps, which no chain of stages has yet."""

    @property
    def reads(self) -> tuple[str, ...]:
        return ("seeds",)


def job_with(*refiners, **method):
    named = {"refine": [{"kind": kind} for kind in refiners]} if refiners else {}
    return job_of(tiny_job() | {"method": tiny_job()["method"] | named | method})


def test_a_job_names_refiners_in_order():
    """Those of seeds follow the seeds, each reads the one before, and the network is the classifier's if they plan no other."""
    plan = job_with("by_model", "counted", "by_model").plan()
    first, counted, last = (stage_named(plan, name) for name in ("by_model", "counted", "by_model-2"))
    assert first.input("seeds") == stage_named(plan, "seeds")
    assert counted.input("seeds") == first
    assert last.input("seeds") == counted
    assert first.input("model") == last.input("model") == stage_named(plan, "classifier")
    assert stage_named(plan, "segmenter").input("seeds") == stage_named(plan, "seed_quality").input("seeds") == last
    before = {stage.name: stage.id for stage in job_with().plan()}
    assert before["seeds"] == stage_named(plan, "seeds").id


def test_a_job_names_a_refiner_whose_inputs_are_not_there():
    with pytest.raises(ValueError, match=r"halved reads saliency, and there is none. Set data.saliency"):
        job_with("halved").plan()
    with pytest.raises(ValueError, match=r"method.refine: from_seeds makes maps from seeds, which are made later. Name one that"):
        job_with("from_seeds").plan()
    with pytest.raises(ValueError, match=r"kind is 'nothing', allowed: .*affinity_walk.*segment_voting"):
        job_with("nothing")


def test_extra_inputs_keep_their_values():
    value_HW = np.arange(24, dtype=np.uint16).reshape(4, 6) * 2800
    assert (decode_extra(encode_extra(value_HW)) == value_HW).all()
    stored = normalise_extra(encode_extra(value_HW), height=4, width=6)
    assert (decode_extra(stored) == value_HW).all()
    halved = decode_extra(normalise_extra(encode_extra(value_HW), height=2, width=3, max_side=3))
    assert set(halved.ravel()) <= set(value_HW.ravel())
    with pytest.raises(ValueError, match="the extra input is 6x4, its image 5x4"):
        normalise_extra(encode_extra(value_HW), height=4, width=5)
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(buffer, format="PNG")
    with pytest.raises(ValueError, match="the extra input is of mode RGB; save it as a gray PNG"):
        normalise_extra(buffer.getvalue(), height=4, width=6)


def test_an_extra_input_that_is_not_there(tmp_path):
    source = Shapes(extra=[{"name": "parts", "folder": str(tmp_path / "none")}])
    with pytest.raises(ValueError, match=r"data.extra: parts: .*none is not a folder; give the folder of the PNG files"):
        stages_of(source)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"data.extra: parts: .*weak/0000.png is missing; every training image needs one"):
        stages_of(source)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([{"name": "maps", "folder": "a"}], "'maps' is the name of another input; give another name"),
        ([{"name": "a", "folder": "a"}, {"name": "a", "folder": "b"}], "'a' is listed twice; give another name"),
        ([{"name": "A b", "folder": "a"}], "String should match pattern"),
    ],
)
def test_names_of_extra_inputs(extra, message):
    with pytest.raises(ValueError, match=message):
        Shapes(extra=extra)


def test_a_changed_extra_file_makes_another_stage(begun, tmp_path):
    _, _, data = begun
    stage = data.extra["parts"]
    assert data.weak.id == stages_of(Shapes(saliency=True)).weak.id
    folder = tmp_path / "parts"
    for place, item in enumerate(Shapes().items("weak")):
        (folder / item.image_id).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32), 300 + (place if place else 7), np.uint16)).save(
            folder / f"{item.image_id}.png", compress_level=0
        )
    other = stages_of(Shapes(saliency=True, extra=[{"name": "parts", "folder": str(folder)}]))
    assert other.extra["parts"].id != stage.id


def test_a_stage_of_extra_inputs_is_packed_like_its_images(begun):
    store, _, data = begun
    stage = data.extra["parts"]
    (stage,) = reseed((stage,), 0)
    if not store.is_done(stage):
        run_plan(store, Plan.of([stage]))
    found = rows(store, stage, "extra")
    assert [int(decode_extra(row["extra"]).max()) for row in found] == list(range(300, 324))
