"""The whole way of a set of photographs, in and out again, by the real command line: `python -m tests.zoo.whole_way FOLDER OUT`.

FOLDER has images/, masks/ and tags.csv, such as the set of benchmarks/voc_animals. It and its twin in COCO's JSON go through
`init`, `check` and `submit --until seed`. The seeds are exported in every format and read back: by `import-masks`, and by `init`
as sets of their own. Each step prints its command and what it said, then what was compared. Twenty minutes on 2 cores.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tests.zoo.keeper import fresh, ingest
from tests.zoo.test_twin import write_twin
from wsss_ray.config.job import load_job
from wsss_ray.data.codecs import decode_gray
from wsss_ray.storage.shards import read_all
from wsss_ray.storage.store import RunStore

FORMATS = ("voc", "coco", "label-studio")
LONG = 3600.0  # seconds


def run(*typed: object, folder: Path) -> str:
    """Run a command, and print it with what it said; of its progress, only the last line of each kind."""
    said = fresh(*typed, folder=folder, timeout=LONG)
    print(f"$ wsss-ray {' '.join(map(str, typed))}")
    print("\n".join(line for line in said.splitlines() if "/s, " not in line and "loss " not in line) + "\n", flush=True)
    return said


def seeds(store: Path, job: Path) -> dict[str, bytes]:
    """The seed of every training image, as it is stored."""
    (stage,) = [stage for stage in load_job(job).plan() if stage.kind == "seed"]
    return {row["image_id"]: row["seed"] for row in read_all(RunStore(str(store)), stage, "seeds").to_pylist()}


def to_annotations(tasks: Path) -> None:
    """Accept every prediction, as a person does in Label Studio."""
    found = json.loads(tasks.read_text())
    for task in found:
        task["annotations"] = [{"result": task["predictions"][0]["result"]}] if task["predictions"] else []
    tasks.with_name("project.json").write_text(json.dumps(found))


def labels(folder: Path) -> dict[str, np.ndarray]:
    """The label maps in a folder, by path without ending."""
    return {str(path.relative_to(folder).with_suffix("")): np.array(Image.open(path)) for path in folder.rglob("*.png")}


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    return found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in expected)


def out_and_back(name: str, job: Path, photos: Path, out: Path) -> dict[str, np.ndarray]:
    """Export the seeds of a run in every format, read them back, and compare them. Returns them."""
    stored = {image_id: decode_gray(png) for image_id, png in seeds(out / "runs", job).items()}
    for form in FORMATS:
        run("export", load_job(job).name, "--format", form, "--out", f"{name}-{form}", folder=out)
    to_annotations(out / f"{name}-label-studio" / "tasks.json")
    assert same(labels(out / f"{name}-voc" / "SegmentationClass"), stored), "the files hold the seeds of the store"
    exports = {"voc": f"{name}-voc", "coco": f"{name}-coco/instances.json", "label-studio": f"{name}-label-studio/project.json"}
    for form, path in exports.items():
        run("import-masks", path, "--like", f"{name}-{form}", "--out", f"{name}-{form}-back", folder=out)
        assert same(labels(out / f"{name}-{form}-back"), stored), f"{form}: every pixel comes back"
    print(f"{name}: {len(stored)} label maps are equal in the store, in {', '.join(FORMATS)}, and read back\n")
    as_sets(name, photos, out, stored, ingest(job, out / "runs")["weak"])
    return stored


def as_sets(name: str, photos: Path, out: Path, stored: dict[str, np.ndarray], packed: list[dict]) -> None:
    """Read each export by `init` as a set of its own, pack it, and compare images, tags, sizes and labels."""
    root, exported = out / f"{name}-coco-set", out / f"{name}-voc"
    (root / "annotations").mkdir(parents=True)
    (root / "images").symlink_to(photos.resolve())
    shutil.copy(out / f"{name}-coco" / "instances.json", root / "annotations" / "instances_train.json")
    table = (photos, "--tags", exported / "tags.jsonl", "--masks", exported / "SegmentationClass")
    for form, given in {"coco": (root,), "voc": table}.items():
        run("init", *given, "--out", f"{name}-{form}.yaml", folder=out)
        rows = {
            row["image_id"]: row
            for split in ingest(out / f"{name}-{form}.yaml", out / f"{name}-{form}-store").values()
            for row in split
        }
        assert rows.keys() == {row["image_id"] for row in packed}, f"{form}: the same images"
        without = 0
        for row in packed:
            again, image_id = rows[row["image_id"]], row["image_id"]
            assert (again["height"], again["width"], again["image"]) == (row["height"], row["width"], row["image"]), image_id
            drawn = [tag for tag in row["tags"] if (stored[image_id] == 1 + tag).any()]
            assert again["tags"] == (drawn if form == "coco" else row["tags"]), image_id
            without += len(drawn) < len(row["tags"])
            assert np.array_equal(decode_gray(again["mask"]), stored[image_id]), image_id
        lost = f" but for {without} with a tag that has no pixel, which COCO cannot tell" if form == "coco" and without else ""
        print(f"{name} as {form}: {len(rows)} images with the same pixels, sizes, labels and tags{lost}\n")


def main(folder: Path, out: Path) -> None:
    """Take both sets the whole way."""
    out.mkdir(parents=True)
    photos = folder / "images"
    write_twin(photos, folder / "masks", folder / "tags.csv", out / "twin")
    (out / "twin" / "tags.csv").unlink()
    given = {"folder": (photos, "--tags", folder / "tags.csv", "--masks", folder / "masks"), "coco": (out / "twin",)}
    found = {}
    for name, where in given.items():
        job = out / f"{name}.yaml"
        run("init", *where, "--out", job.name, folder=out)
        if name == "coco":  # the twin has the ignored pixels as crowds
            job.write_text(job.read_text().replace("data:\n", "data:\n  crowd: ignore\n"))
        run("check", job.name, folder=out)
        run("submit", job.name, "--until", "seed", "--set", f"name={name}", folder=out)
        job.write_text("".join(f"name: {name}\n" if line.startswith("name:") else line for line in job.open()))
        found[name] = out_and_back(name, job, photos, out)
    assert same(found["coco"], found["folder"]), "the same seeds"
    print(f"the {len(found['coco'])} seeds of the folder and of its twin are equal, pixel by pixel")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
