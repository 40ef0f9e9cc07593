"""The report of a small store that is written with the real store: its figures, its safety, its size."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from wsss_ray.core.component import Component
from wsss_ray.core.graph import Plan
from wsss_ray.core.plan import Stage, ingest
from wsss_ray.core.values import IGNORE, Axis, Maps
from wsss_ray.data.codecs import encode_labels, encode_maps
from wsss_ray.data.source import Item, Raw, Source, Split, describe
from wsss_ray.ops.confusion import confusion, scores, sparse
from wsss_ray.reporting import report
from wsss_ray.reporting.report import pictures
from wsss_ray.reporting.report.markup import number
from wsss_ray.storage.shards import shard_path, write_shard
from wsss_ray.storage.store import RunStore

HOSTILE = "<script>alert('x')</script>\"&"
CLASSES = ("cat", "dog & bone", '<b onload="x">')
JOB = "method: {name: ficklenet}\nnote: '</code><img src=x>'\n"


class ReportPart(Component):
    """Stands for every component of the plan but the data."""

    title: str


class ReportSource(Source):
    """A list of images that the test writes itself."""

    shard_size: int = 4
    count: int = 10

    def class_names(self) -> tuple[str, ...]:
        return CLASSES

    def splits(self) -> tuple[Split, ...]:
        return ("weak", "val")

    def has_masks(self, split: Split) -> bool:
        return True

    def items(self, split: Split) -> list[Item]:
        return [Item(image_id=f"{split}_{i:02d}", tags=(i % len(CLASSES),)) for i in range(self.count)]

    def load(self, item: Item) -> Raw:
        raise OSError("not used")


def make_plan(title: str = "net", seed_rules: int = 2, count: int = 10) -> tuple[Plan, dict[str, Stage]]:
    source = ReportSource(count=count)
    weak, val = (ingest(describe(source, split), name=split) for split in ("weak", "val"))
    named = {"weak": weak, "val": val}

    def add(kind: str, name: str, **inputs: Stage) -> Stage:
        named[name] = Stage(kind, name, ReportPart(title=f"{title} {name}"), tuple(inputs.items()))  # type: ignore[arg-type]
        return named[name]

    classifier = add("train", "classifier", data=weak)
    maps = add("localize", "maps", data=weak, model=classifier)
    rules = [add("seed", f"seeds {i}", data=weak, maps=maps) for i in range(seed_rules)]
    checks = [add("evaluate", f"quality {i}", data=weak, seeds=rule) for i, rule in enumerate(rules)]
    segmenter = add("train", HOSTILE, data=weak, seeds=rules[0])
    return Plan.of([*checks, add("evaluate", "miou", data=val, model=segmenter)]), named


def draw(index: int, size: tuple[int, int]) -> tuple[bytes, np.ndarray]:
    """An image with a disc on it, and the disc's mask with an ignored rim."""
    height, width = size
    rng = np.random.default_rng(index)
    y, x = np.mgrid[:height, :width]
    radius = np.hypot((y - height * rng.uniform(0.35, 0.65)) / height, (x - width * rng.uniform(0.35, 0.65)) / width)
    label = index % len(CLASSES) + 1
    mask = np.where(radius < 0.25, label, np.where(radius < 0.27, IGNORE, 0)).astype(np.uint8)
    shade = np.stack([y / height * 90 + 60, x / width * 90 + 90, np.full(size, 140.0)], axis=-1) + rng.normal(0, 12, (*size, 3))
    image = np.where((mask == label)[..., None], shade * (1.2, 0.7, 0.4), shade).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue(), mask


def spoil(mask: np.ndarray, index: int, step: int) -> np.ndarray:
    """A label map that misses more of the disc the higher the index, undecided where it does."""
    made = np.where(mask == IGNORE, 0, mask).astype(np.uint8)
    made[: int(made.shape[0] * (0.3 + 0.04 * (index % 10))), :] = IGNORE if step else 0
    return made


def record(stage: Stage, store: RunStore, *, seconds: float = 1.5, metrics: dict | None = None, **counts: int) -> None:
    value = {"id": stage.id, "name": stage.name, "kind": stage.kind, "identity": stage.identity(), "inputs": []}
    value |= {"started": "2025-03-01T10:00:00+00:00", "finished": "2025-03-01T12:34:56+00:00", "seconds": seconds}
    value |= {"counts": {"errors": 0, "shards": 3} | counts, "metrics": {"scored": 10} | (metrics or {}), "git": "0123abc"}
    store.commit(stage, value | {"versions": {"torch": "2.11.0", "ray": "2.55.0"}, "machine": {"gpu": "H200", "cpus": 16}})


def log(steps: int) -> bytes:
    lines = []
    for i in range(steps):
        terms = {"seed": 2.0 / (1 + i / 20), "expand <b>": 0.8 / (1 + i / 40)}
        line = {"step": 20 * i, "epoch": i / 10, "loss": sum(terms.values()), "terms": terms, "lr": 1e-3 * (1 - i / steps)}
        lines.append(json.dumps(line | {"images_per_s": 80.0, "wait_share": 0.02}))
    return ("\n".join(lines) + '\n{"step": 1, "lo').encode()


def fill(store: RunStore, named: dict[str, Stage], *, size: tuple[int, int] = (48, 64), until: str = "") -> None:
    """Write all stages up to `until`."""
    drawn = {item.image_id: draw(i, size) for s in ("weak", "val") for i, item in enumerate(source_of(named).items(s))}
    for name, stage in named.items():
        if name == until:
            return
        data = stage if stage.kind == "ingest" else stage.input("data")
        items = data.component.source.items(data.component.split)  # type: ignore[attr-defined]
        total = np.zeros((len(CLASSES) + 1, len(CLASSES) + 2), np.int64)
        for shard in range(data.component.num_shards):  # type: ignore[attr-defined]
            rows = []
            for item in data.component.shard_items(items, shard):  # type: ignore[attr-defined]
                image, mask = drawn[item.image_id]
                index, row = int(item.image_id[-2:]), {"image_id": item.image_id}
                if stage.kind == "ingest":
                    row |= {"tags": list(item.tags), "height": size[0], "width": size[1], "image": image, "sha256": "0" * 64}
                    row |= {"mask": encode_labels(mask)}
                elif stage.kind == "localize":
                    hot = np.asarray(Image.fromarray((mask == item.tags[0] + 1).astype(np.float32)).resize((8, 6)))[None]
                    axis = Axis(first=0.125, step=0.25)
                    row |= encode_maps(Maps(item.tags, peak_CHW=hot, mean_CHW=hot, rows=axis, columns=axis))
                elif stage.kind == "seed":
                    failed = item.image_id == "weak_02" and name == "seeds 0"
                    row |= {"seed": None if failed else encode_labels(spoil(mask, index, 1 + int(name[-1:])))}
                elif stage.kind == "evaluate":
                    made = spoil(mask, index, 0 if stage.optional("model") else 1)
                    matrix = confusion(mask, made, len(CLASSES) + 1)
                    total += matrix
                    cells, counts = sparse(matrix)
                    prediction = encode_labels(made) if stage.optional("model") else None
                    row |= {"prediction": prediction, "cells": cells, "counts": counts}
                rows.append(row)
            schema = {"ingest": "images", "localize": "maps", "seed": "seeds", "evaluate": "scores"}.get(stage.kind)
            if schema:
                write_shard(store, stage, shard, schema, rows)
        if stage.kind == "train":
            store.write(store.stage_path(stage, "metrics.jsonl"), log(40))
            record(stage, store, seconds=7384.2, steps=12345, metrics={"final_loss": 0.25})
        elif name == "seeds 0":
            broken = {"image_id": "weak_02", "path": "/a/b.jpg", "reason": f"cannot read {HOSTILE}"}
            write_shard(store, stage, 0, "errors", [broken], folder="errors")
            record(stage, store, images=len(items), errors=1)
        elif stage.kind == "evaluate":
            found = scores(total)
            metrics = found.to_dict() | {"precision": 0.87654, "recall": 0.7, "confusion": total.tolist()}
            record(stage, store, images=len(items), metrics=metrics)
        else:
            record(stage, store, images=len(items))


def source_of(named: dict[str, Stage]) -> Source:
    return named["weak"].component.source  # type: ignore[attr-defined,no-any-return]


class Page(HTMLParser):
    """Checks that elements nest, and keeps texts and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = " ".join(self.texts)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "input"}:  # the only void elements in use; those of SVG are none
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    def values(self, attribute: str) -> list[str]:
        return [value for _, attrs in self.tags if (value := attrs.get(attribute)) is not None]


@pytest.fixture
def made(tmp_path) -> tuple[RunStore, Plan, dict[str, Stage]]:
    store = RunStore(str(tmp_path / "store"))
    plan, named = make_plan()
    fill(store, named)
    return store, plan, named


def test_names_every_stage_and_class_and_the_right_numbers(made) -> None:
    store, plan, _ = made
    page = Page(report.build(store, "run 1", plan, JOB).decode())
    for stage in plan:
        assert stage.name in page.text
        assert stage.id in page.text
    for name in (*CLASSES, "background", "ficklenet", "run 1", "torch", "2.55.0", "0123abc", "2 h 03 min", "12,345 steps"):
        assert name in page.text
    miou = store.record(plan.targets[-1])["metrics"]["miou"]
    assert f"{miou:.3f}" in page.texts
    assert "0.877" in page.texts
    assert "8 of 8" not in page.text
    assert f"{len(plan.stages)} of {len(plan.stages)}" in page.texts
    assert "learning rate 0.001 to 2.5e-05; 3.9 epochs; 80 images/s; 2.0 % of the time spent waiting for data" in page.text
    assert page.texts.count("10 of 10 images, lowest IoU first.") == 2
    assert JOB in page.text


def test_single_image_scores_are_those_of_the_confusion_matrix(made) -> None:
    store, plan, _ = made
    page = Page(report.build(store, "r", plan, JOB).decode())
    _, mask = draw(0, (48, 64))
    expected = number(scores(confusion(mask, spoil(mask, 0, 0), len(CLASSES) + 1)).miou)
    card = page.texts[page.texts.index("val_00") : page.texts.index("val_00") + 12]
    assert card[card.index("Prediction") + 1] == expected


def test_gallery_takes_the_worst_and_others_and_puts_the_worst_first(made) -> None:
    store, plan, named = made
    for name in ("weak", "val"):
        store.delete(shard_path(store, named[name], 2))
    text = Page(report.build(store, "r", plan, JOB, gallery=4).decode()).texts
    ious = {}
    for index in range(8):
        _, mask = draw(index, (48, 64))
        ious[f"val_{index:02d}"] = scores(confusion(mask, spoil(mask, index, 0), len(CLASSES) + 1)).miou
    shown = [t for t in text if t.startswith("val_")]
    assert shown == sorted(shown, key=ious.__getitem__)
    assert shown[:2] == sorted(ious, key=ious.__getitem__)[:2]
    assert {int(name[-2:]) % len(CLASSES) for name in shown} == set(range(len(CLASSES)))
    assert any(
        t.startswith("4 of 10 images, lowest IoU first: the 2 with the lowest IoU") and "among 8 in all 2 shards." in t
        for t in text
    )
    assert "failed" in Page(report.build(store, "r", plan, JOB, gallery=8).decode()).texts


def test_nothing_from_the_store_becomes_markup_and_nothing_points_outside(made) -> None:
    store, plan, _ = made
    html = report.build(store, HOSTILE, plan, JOB).decode()
    page = Page(html)
    assert HOSTILE in page.text
    assert not {"b onload", "link", "iframe", "form"} & {name for name, _ in page.tags}
    assert [attrs for name, attrs in page.tags if name == "script"] == [{"type": "application/json", "id": "data"}, {}]
    policy = next(attrs["content"] for name, attrs in page.tags if attrs.get("http-equiv"))
    script = html[html.rindex("<script>") + len("<script>") : html.rindex("</script>")]
    assert policy is not None
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert not any(f"'{word}'" in policy.partition("script-src")[2] for word in ("self", "unsafe-inline", "unsafe-eval"))
    assert not [attrs for _, attrs in page.tags if any(key.startswith("on") for key in attrs)]
    assert re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[\w+/=]+", "", html)) is None
    assert all(value.startswith("data:image/") for value in page.values("src"))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    inside = [value for value in page.values("href") if value[0] == "#"]
    assert all(value[1:] in ids for value in inside)
    beside = re.compile(r"\.\./\.\./stages/[\w-]+/(record\.json|metrics\.jsonl)")
    assert all(beside.fullmatch(value) for value in set(page.values("href")) - set(inside))


def test_an_empty_store_shows_every_stage_as_missing(tmp_path) -> None:
    plan, named = make_plan()
    page = Page(report.build(RunStore(str(tmp_path)), "r", plan, "not: [yaml").decode())
    assert page.texts.count("missing") >= len(plan.stages)
    assert "No step is logged." in page.texts
    assert all(name in page.text for name in (*named, *CLASSES))


@pytest.mark.parametrize("until", ["classifier", "maps", "seeds 0", "quality 0", "miou"])
def test_a_partly_finished_plan_shows_what_there_is(tmp_path, until: str) -> None:
    store = RunStore(str(tmp_path))
    plan, named = make_plan()
    fill(store, named, until=until)
    page = Page(report.build(store, "r", plan, JOB).decode())
    done = list(named).index(until)
    assert page.texts.count("done") == done
    assert f"{done} of {len(plan.stages)}" in page.texts
    assert "weak_00" in page.texts


def test_warnings_stand_at_the_top_in_words_with_what_to_do(made) -> None:
    store, plan, named = made
    assert "warnings" not in Page(report.build(store, "r", plan, JOB).decode()).values("id")
    lost = [[900, 0, 0, 0, 0], [40, 0, 0, 0, 0], [30, 0, 0, 0, 0], [30, 0, 0, 0, 0]]
    record(named["miou"], store, images=10, metrics=store.record(named["miou"])["metrics"] | {"confusion": lost})
    page = Page(report.build(store, "r", plan, JOB).decode())
    sections = [attrs["id"] for name, attrs in page.tags if name == "section"]
    assert sections[:2] == ["warnings", "results"]
    (line,) = [text for text in page.texts if text.startswith("mIoU 0.225 is no better than calling every pixel background")]
    assert line.endswith("train longer, give more images, or change the threshold of the seeds.")
    before = page.texts[page.texts.index(line) - 3 : page.texts.index(line)]
    assert before == ["Model on the validation images", " ", "miou"], "the stage, in words"


def test_same_store_same_bytes(made) -> None:
    store, plan, _ = made
    assert report.build(store, "r", plan, JOB) == report.build(RunStore(store.uri), "r", plan, JOB)


def test_stays_small_with_large_images_and_many_seed_stages(tmp_path) -> None:
    store = RunStore(str(tmp_path))
    plan, named = make_plan(seed_rules=9, count=12)
    fill(store, named, size=(300, 400))
    html = report.build(store, "r", plan, JOB)
    assert len(html) < 3_000_000
    for uri in Page(html.decode()).values("src"):
        with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as image:
            assert max(image.size) == pictures.LONG_SIDE
