"""Start: processor time until a command has answered, each in a process of its own.

    python -m benchmarks --only start [--full]

The help, the plans of the demo and of data sets of 20,000 images (a folder with a table, and VOC's layout with an XML for each
image, at first sight and again), a sweep's plan, and the submit of a job that is done. Processor seconds, which on an idle
machine are the seconds that one waits, and on a busy one are still nearly the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.measure import Row, Timing
from benchmarks.scale import encoded, tiny_method
from tests.local import job_of, run_plan
from wsss_ray.storage.store import RunStore

IMAGES, DONE = 20_000, {False: 2_000, True: 20_000}
ROUNDS = 5
NAMES = ("cat", "dog", "person")
_BOX = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>7</xmax><ymax>7</ymax></bndbox>"
_OBJECT = f"<object><name>{{}}</name><pose>Left</pose><truncated>1</truncated><difficult>0</difficult>{_BOX}</object>"
_XML = "<annotation><filename>{}.jpg</filename><size><width>8</width><height>8</height><depth>3</depth></size>{}</annotation>"


def processor_s(command: list[str], environment: Mapping[str, str]) -> float:
    """Processor seconds of a command and what it starts. Raises RuntimeError with its output if it fails."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{' '.join(command)}: {output.read().decode()}")
    return usage.ru_utime + usage.ru_stime


def timed(forms: Mapping[str, list[str]], environment: Mapping[str, str]) -> dict[str, Timing]:
    """Every command in turns, so that a busy machine slows all alike; a first round does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(1 + ROUNDS):
        for name, command in forms.items():
            taken = processor_s(command, environment)
            if turn:
                seconds[name].append(taken)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def folder(root: Path, count: int) -> dict[str, Any]:
    """The `data` block of a folder of images with masks and a table."""
    image, mask = _pictures("PNG")
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    with (root / "tags.csv").open("w") as table:
        table.write("image,tags\n")
        for number in range(count):
            (root / f"images/{number:06d}.png").write_bytes(image)
            (root / f"masks/{number:06d}.png").write_bytes(mask)
            table.write(f"{number:06d}.png,{NAMES[number % 3]};{NAMES[number % 2]}\n")
    return {"kind": "folder", "root": f"{root}/images", "tags": f"{root}/tags.csv", "masks": f"{root}/masks"}


def voc(root: Path, count: int) -> dict[str, Any]:
    """The `data` block of a folder in VOC's layout, its tags in an XML for each image."""
    image, mask = _pictures("JPEG")
    for name in ("JPEGImages", "Annotations", "SegmentationClassAug", "ImageSets/SegmentationAug"):
        (root / name).mkdir(parents=True)
    for number in range(count):
        (root / f"JPEGImages/{number:06d}.jpg").write_bytes(image)
        (root / f"SegmentationClassAug/{number:06d}.png").write_bytes(mask)
        objects = "".join(_OBJECT.format(NAMES[(number + place) % 3]) for place in range(1 + number % 4))
        (root / f"Annotations/{number:06d}.xml").write_text(_XML.format(number, objects))
    names = "\n".join(f"{number:06d}" for number in range(count))
    (root / "ImageSets/SegmentationAug/train_aug.txt").write_text(names)
    return {"kind": "voc", "root": str(root), "val": None}


def _pictures(form: str) -> tuple[bytes, bytes]:
    rng, mask_HW = np.random.default_rng(0), np.zeros((8, 8), np.uint8)
    mask_HW[2:6, 2:6] = 1
    return encoded(rng.integers(0, 255, (8, 8, 3)).astype(np.uint8), form), encoded(mask_HW, "PNG")


def written(root: Path, name: str, data: dict[str, Any], **more: Any) -> Path:
    """A job file."""
    path = root / f"{name}.yaml"
    method = tiny_method(widths=[4, 4], size=16, selections=1)
    path.write_text(yaml.safe_dump({"name": name, "method": method, "data": data, "run": {"store": f"{root}/runs"}} | more))
    return path


def submit_in_process(path: Path) -> None:
    """Make all stages of a job in this process, and its report by one submit."""
    job = job_of(yaml.safe_load(path.read_text()))
    run_plan(RunStore(job.run.store), job.plan())


def rows(full: bool) -> Iterator[Row]:
    """The figures of goal 8, in seconds."""
    demo = Path(__file__).parent.parent / "jobs" / "demo.yaml"
    ours = [sys.executable, "-m", "wsss_ray"]
    with tempfile.TemporaryDirectory(prefix="wsss-start-") as place:
        root = Path(place)
        environment = {"XDG_CACHE_HOME": f"{root}/cache"}
        made: dict[str, Callable[[Path, int], dict[str, Any]]] = {"folder": folder, "voc": voc}
        many = {name: written(root, name, make(root / name, IMAGES)) for name, make in made.items()}
        first = processor_s([*ours, "plan", str(many["voc"])], environment)
        thetas = {"method.seed_rule.theta": {"grid": [0.2, 0.3, 0.4, 0.5]}}
        sweep = written(root, "sweep", yaml.safe_load(many["voc"].read_text())["data"], sweep={"space": thetas})
        done = {name: written(root, f"{name}-done", make(root / f"{name}-done", DONE[full])) for name, make in made.items()}
        for path in done.values():
            submit_in_process(path)
        forms = {
            "imports": [sys.executable, "-c", "import pydantic, typer"],
            "help": [*ours, "--help"],
            "demo": [*ours, "plan", str(demo), "--store", f"{root}/none"],
            **{f"plan {name}": [*ours, "plan", str(path)] for name, path in many.items()},
            "plan sweep": [*ours, "plan", str(sweep)],
            **{f"submit {name}": [*ours, "submit", str(path)] for name, path in done.items()},
        }
        found = timed(forms, environment)
    base = found.pop("imports")
    told = {
        "help": ("wsss-ray --help", 0.5),
        "demo": ("plan of jobs/demo.yaml", 1.0),
        "plan folder": (f"plan of {IMAGES:,} images, folder and table", 1.0),
        "plan voc": (f"plan of {IMAGES:,} images, VOC's layout, seen before", 1.0),
        "plan sweep": ("plan of a sweep of 4 trials on them", None),
        "submit folder": (f"submit of a job that is done, {DONE[full]:,} images, folder", 2.0),
        "submit voc": (f"submit of a job that is done, {DONE[full]:,} images, VOC's layout", 2.0),
    }
    for name, (what, bound) in told.items():
        against = f"{base} (import pydantic, typer)"
        yield Row("8", f"{what}: processor s", str(found[name]), against, found[name].median, bound)
    what = f"plan of {IMAGES:,} images, VOC's layout, at first sight: processor s"
    yield Row("8", what, f"{first:.2f} s", str(base), first)
