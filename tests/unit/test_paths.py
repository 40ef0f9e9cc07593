"""Local paths of a job: the marks on the fields tell which they are, for the package's data sources and for anybody's own."""

from __future__ import annotations

from typing import Annotated

import pytest
import yaml

from tests.local import job_of
from tests.rendering import ROOT, render, rendered
from tests.shapes import Shapes, tiny_job
from wsss_ray.config.paths import local_paths, located
from wsss_ray.core.component import Component, LocalPath
from wsss_ray.inference.model_card import job_without_paths
from wsss_ray.reporting.history import attempts, begin_attempt
from wsss_ray.storage.store import RunStore

VOC = {
    "kind": "voc",
    "root": "/data/VOC2012",
    "train": "/home/me/lists/train.txt",
    "val": "~/lists/val.txt",
    "masks": "SegmentationClassAug",
    "saliency": "../Saliency",
}


class Palette(Component):
    """A part of a source, with a path of its own."""

    file: Annotated[str, LocalPath()] = "palette.png"


class PathShapes(Shapes):
    """A source of somebody else. Its paths are in fields of any name."""

    archive: Annotated[str, LocalPath()]
    index: Annotated[str, LocalPath(below="archive", unless=("all",))] = "all"
    more: Annotated[tuple[str, ...], LocalPath()] = ()
    palette: Palette = Palette()


def paths_of(data, **more):
    return dict(local_paths(job_of(tiny_job(data=data, run={"store": "s3://bucket/runs"}, **more))))


def test_absolute_paths_of_lists_are_paths_of_the_job():
    assert paths_of(VOC) == {
        "data.root": "/data/VOC2012",
        "data.train": "/home/me/lists/train.txt",
        "data.val": "~/lists/val.txt",
        "data.saliency": "/data/Saliency",
    }
    assert paths_of({"kind": "voc", "root": "VOC2012", "tags": "auto"}) == {"data.root": "VOC2012"}
    coco = {"kind": "coco", "root": "/coco", "train": "/lists/train.txt", "val_images": "val"}
    assert paths_of(coco) == {"data.root": "/coco", "data.train": "/lists/train.txt"}


def test_a_source_of_ones_own_marks_its_paths():
    assert paths_of({"kind": "path_shapes", "archive": "a.zip", "more": ["b", "/c"]}) == {
        "data.archive": "a.zip",
        "data.more.0": "b",
        "data.more.1": "/c",
        "data.palette.file": "palette.png",
    }
    found = paths_of({"kind": "path_shapes", "archive": "/a", "index": "/b/index", "palette": {"file": "/p.png"}})
    assert found == {"data.archive": "/a", "data.index": "/b/index", "data.palette.file": "/p.png"}


def test_a_located_job_works_in_another_folder_and_has_the_same_identity(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    job = job_of(tiny_job(data=VOC | {"root": "VOC2012"}))
    data = located(job).data
    assert (data.root, data.train, data.val) == (f"{tmp_path}/VOC2012", "/home/me/lists/train.txt", "/home/me/lists/val.txt")
    assert (data.masks, data.saliency, data.tags) == ("SegmentationClassAug", "../Saliency", "auto")
    assert data.identity() == job.data.identity()
    own = job_of(tiny_job(data={"kind": "path_shapes", "archive": "a.zip", "index": "i", "more": ["b"]}))
    data = located(own).data
    assert (data.archive, data.index, data.more) == (f"{tmp_path}/a.zip", "i", (f"{tmp_path}/b",))
    assert data.palette.file == f"{tmp_path}/palette.png"
    assert data.identity() == own.data.identity()


def test_a_list_outside_the_root_is_mounted_or_refused():
    args = ["--set", "run.store=/data/runs", "--set", "data.root=/data/VOC2012", "--set"]
    job = str(ROOT / "jobs/ficklenet.yaml")
    assert "data.train" in rendered("kuberay", job, *args, "data.train=/data/lists/train.txt")
    message = render("kuberay", job, *args, "data.train=/lists/train.txt", code=2)
    assert "data.train (/lists/train.txt) cannot be mounted as one folder" in message


@pytest.mark.parametrize("data", [VOC, {"kind": "path_shapes", "archive": "/home/me/a.zip", "more": ["/home/me/b"]}])
def test_a_card_tells_no_path(data, tmp_path):
    store = RunStore(str(tmp_path))
    spec = job_of(tiny_job(data=data, run={"store": "/home/me/runs"})).spec()
    begin_attempt(store, "tiny", {"name": "tiny", "stages": []}, yaml.safe_dump(spec))
    text = job_without_paths(store, attempts(store, "tiny")[0])
    assert "/home" not in text
    assert "~" not in text
    assert yaml.safe_load(text)["data"]["kind"] == data["kind"]


def test_a_card_tells_no_path_of_a_plug_in_that_is_not_installed(tmp_path):
    store = RunStore(str(tmp_path))
    spec = job_of(tiny_job(run={"store": "/home/me/runs"})).spec() | {"data": {"kind": "absent", "where": "/home/me/a"}}
    spec["method"]["classifier"]["weights"] = "/home/me/vgg.pth"
    begin_attempt(store, "tiny", {"name": "tiny", "stages": []}, yaml.safe_dump(spec))
    text = job_without_paths(store, attempts(store, "tiny")[0])
    assert "/home" not in text
    assert yaml.safe_load(text)["data"] == {"kind": "absent"}
    assert yaml.safe_load(text)["method"] == {"name": spec["method"]["name"]}


def test_every_marked_folder_is_a_field_of_its_component():
    job_of(tiny_job())  # imports every kind
    for kinds in Component.by_kind().values():
        for component in kinds:
            for name, field in component.model_fields.items():
                for mark in field.metadata:
                    if isinstance(mark, LocalPath) and mark.below:
                        assert mark.below in component.model_fields, f"{component}.{name}"
