"""The README of an exported model: what it knows, what it was trained and scored on, how to use it, where it ends. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from wsss_ray.config.job import JobConfig
from wsss_ray.config.paths import local_paths
from wsss_ray.engine.records import versions
from wsss_ray.inference.trained import Trained, job_yaml
from wsss_ray.storage.atomic import replacing
from wsss_ray.storage.shards import read_all
from wsss_ray.storage.store import RunStore

if TYPE_CHECKING:
    from wsss_ray.inference.export_model import Written

_HIDDEN = "(a path)"


def write_card(store: RunStore, trained: Trained, written: Written, out: Path) -> None:
    """Write README.md. Raises ValueError on records that were edited by hand; OSError."""
    with replacing(out / "README.md") as file:
        file.write(card(store, trained, written).encode())


def card(store: RunStore, trained: Trained, written: Written) -> str:
    """The card as Markdown. Paths of the job and the data are not in it."""
    record = store.record_by_id(trained.id)
    assert record is not None
    parts = [
        f"# {trained.run}: {trained.stage}",
        f"A semantic segmentation network for {len(trained.classes)} classes and background, trained by wsss-ray as the job "
        f"below says. Stage `{trained.id}`.",
        "## How to use it",
        _usage(written),
        "## Classes",
        "| label | class |\n|---|---|\n"
        + "\n".join(f"| {label} | {_cell(name)} |" for label, name in enumerate(("background", *trained.classes))),
        "## Training data",
        _data(store, trained, record),
        "## Score",
        _score(trained),
        "## The file",
        f"`{written.file}` takes {written.takes}. It was compared with the network in torch on {_sizes(written)} (images x "
        f"height x width): largest difference of logits {written.largest_difference:.2g}; the label differs on "
        f"{written.pixels_different} of {written.pixels} pixels. {_versions(record)}",
        "## Limits",
        _LIMITS,
        "## Licence",
        _LICENCE,
        "## The job",
        f"```yaml\n{_job(store, trained)}```",
    ]
    return "\n\n".join(parts) + "\n"


_LIMITS = """\
- Every pixel gets one of the classes above. What is none of them is background or, worse, the most similar class.
- Labels learnt from tags are weak at borders and at what always appears together (boats and water, trains and rails).
- The score holds for images like those that it was measured on. On others (cameras, places, seasons) expect less, and measure.
- It was checked for no use where an error harms people."""

_LICENCE = """\
wsss-ray is under Apache-2.0; that says nothing about these weights. They derive from the training images, from their tags, and
from the pretrained weights that the job names (`weights`), each with terms of its own: look them up before you pass it on."""

_PIXELS = """\
import numpy as np
{imports}
from PIL import Image

picture = Image.open("photo.jpg").convert("RGB"){fixed}
image = np.asarray(picture, dtype=np.float32).transpose(2, 0, 1)[None]  # (1, 3, height, width), RGB, 0..255{fitted}
{run}
label_HW = logits.argmax(1)[0]
"""


def _usage(written: Written) -> str:
    if written.file.endswith(".safetensors"):
        code = 'import wsss_ray\n\nmodel = wsss_ray.load("./")  # this folder\nlabel_HW = model.predict("photo.jpg")\n'
        rest = "or `wsss-ray predict ./ photo.jpg --out labels`. Both scale, mirror and smooth as the job's metric does."
        return f"```python\n{code}```\n\n{rest}"
    step, fixed = written.step, written.fixed
    whole = f"\nimage = image[..., : image.shape[2] // {step} * {step}, : image.shape[3] // {step} * {step}]"
    code = _PIXELS.format(
        imports="import torch" if written.file.endswith(".pt2") else "import onnxruntime",
        fixed=f".resize(({fixed[1]}, {fixed[0]}))" if fixed else "",
        fitted=whole if step > 1 else "",
        run='logits = torch.export.load("model.pt2").module()(torch.from_numpy(image))'
        if written.file.endswith(".pt2")
        else 'logits = onnxruntime.InferenceSession("model.onnx").run(None, {"image": image})[0]',
    )
    return f"```python\n{code}```\n\nThe network alone: one scale, no mirror image, no CRF. wsss-ray is not needed."


def _data(store: RunStore, trained: Trained, record: Mapping[str, Any]) -> str:
    inputs = dict(record["inputs"])
    data = store.record_by_id(inputs["data"])
    assert data is not None
    counts = _tags(store, inputs["data"])
    roles = Counter(role for role, _ in record["inputs"])
    learnt = [f"label maps that the job made ({roles['seeds']} per image)"] if roles["seeds"] else []
    learnt += ["human masks"] if roles["strong"] else []
    lines = [f"{data['counts']['images']} images, learnt from {' and '.join(learnt) or 'their tags'}."]
    if counts:
        rows = "\n".join(f"| {_cell(name)} | {counts[place]} |" for place, name in enumerate(trained.classes))
        lines.append(f"| tag | images |\n|---|---|\n{rows}")
    return "\n\n".join(lines)


def _tags(store: RunStore, stage_id: str) -> Counter[int]:
    """How many images have each tag; empty if the images are not in the store any more."""
    try:
        found = read_all(store, _Stage(stage_id), "images", columns=["tags"])["tags"]
    except (OSError, ValueError):
        return Counter()
    return Counter(tag for tags in found.to_pylist() for tag in tags)


class _Stage:
    """A stage known by its id alone."""

    def __init__(self, stage_id: str) -> None:
        self.id = stage_id


def _score(trained: Trained) -> str:
    if trained.scored is None:
        return "It was not scored: the run has no images with masks to score on, or its score is not made yet."
    metrics = trained.scored["metrics"]
    how = yaml.safe_dump(trained.metric.spec(), sort_keys=False, default_flow_style=True, width=1000).strip()
    rows = "\n".join(
        f"| {_cell(name)} | {'-' if value is None else f'{value:.3f}'} |"
        for name, value in zip(("background", *trained.classes), metrics.get("iou", ()), strict=False)
    )
    miou = "-" if metrics["miou"] is None else f"{metrics['miou']:.3f}"
    said = f"mIoU {miou} on {metrics['scored']} images with masks (`{trained.scored['name']}`), labels made by `{how}`."
    return said + (f"\n\n| class | IoU |\n|---|---|\n{rows}" if rows else "")


def _versions(record: Mapping[str, Any]) -> str:
    trained = record.get("versions", {})
    packages = ("wsss-ray", "torch", "torchvision", "numpy", "pillow")
    named = ", ".join(f"{name} {trained[name]}" for name in packages if name in trained)
    now = versions()
    commit = f" at commit {record['git']}" if record.get("git") else ""
    return f"Trained with {named or 'unknown versions'}{commit}; exported with wsss-ray {now['wsss-ray']}, torch {now['torch']}."


def _job(store: RunStore, trained: Trained) -> str:
    """The job without the places of files."""
    if not store.exists(store.run_path(trained.run, "job.yaml")):
        return "# not in the store\n"
    job = job_yaml(store, trained.run)
    try:
        hidden = [field for field, _ in local_paths(JobConfig.model_validate(job))]
    except ValueError:  # a data source of the user's own that is not installed here
        hidden, job["data"] = ["run.store"], {"kind": job.get("data", {}).get("kind")}
    job.get("run", {})["store"] = _HIDDEN
    for field in hidden:
        block: Any = job
        *path, last = field.split(".")
        for name in path:
            block = block[int(name) if isinstance(block, list) else name]
        block[last] = _HIDDEN
    return yaml.safe_dump(job, sort_keys=False, allow_unicode=True)


def _sizes(written: Written) -> str:
    return ", ".join("x".join(map(str, size)) for size in written.sizes_compared)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
