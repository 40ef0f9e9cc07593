"""The job file that `init` writes: every choice with its reason behind it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from wsss_ray.preflight.survey.sizes import JobSizes

_WIDTH = 48  # columns of values, behind which the comments begin


def job_text(
    *, name: str, heading: Sequence[str], kind: str, data: dict[str, Any], why: dict[str, str], sizes: JobSizes, num_images: int
) -> str:
    """The text of a job file.

    `heading` are lines about the data, `data` the fields of the `data:` block and `why` their comments.
    """
    top = [*(f"# {_line(text)}" for text in heading), f"name: {scalar(name)}"]
    blocks = (top, _method(sizes, num_images), _data(kind, data, why), _run(sizes))
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def scalar(value: Any) -> str:
    """A value as YAML on one line, whatever it holds."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1 << 30, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def run_name(text: str) -> str:
    """A name for a run from that of a folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")[:100].rstrip("-") or "own"


def _method(sizes: JobSizes, num_images: int) -> list[str]:
    small = sizes.side <= 160
    if sizes.gpu:
        trunk = f"{{kind: resnet, depth: 50, output_stride: {sizes.stride}, weights: imagenet}}"
        about = "trained with the rest; its weights are downloaded once"
        rate, dilation, hidden, scale = "1.0e-4", 4, 256, "10.0"
    else:
        trunk = f"{{kind: efficientnet_lite0, output_stride: {sizes.stride}, frozen: true}}"
        about = "fast enough for CPUs: nothing of it is trained; weights come with the package"
        rate, dilation, hidden, scale = "1.0e-3", 2, 64, "1.0"
    settled = "start values, not settled on a benchmark" if sizes.gpu or small else "settled on benchmarks/stamps"
    adam = f"{{kind: adam, lr: {rate}, decoupled: true, weight_decay: 1.0e-2}}"
    crf = "iterations: 5, bilateral_sxy: 50, bilateral_srgb: 5"
    head = f"{{kind: large_fov, dilation: {dilation}, hidden: {hidden}, dropout: 0.5}}"
    seen, labelled = round(sizes.epochs * num_images), round(sizes.label_epochs * num_images)
    return [
        "method:",
        _said("  name: ficklenet", "tags -> classifier -> maps -> seeds -> segmenter; `wsss-ray methods` lists others"),
        _said("  classifier:", f"rates and thresholds: {settled}"),
        _said(f"    trunk: {trunk}", about),
        "    kernel_size: 5",
        "    dropout_rate: 0.7",
        *([f"    head_lr_scale: {scale}"] if sizes.gpu else []),
        _said(f"    batch_size: {sizes.batch}", "images a step; run.micro_batch is what memory holds"),
        _said(f"    epochs: {sizes.epochs:g}", f"passes over {num_images} images: the network sees {seen}"),
        _said(f"    augment: {{kind: warp, size: {sizes.side}}}", "the whole image, so that all its tags are in it"),
        f"    optimizer: {adam}",
        "    schedule: {kind: one_cycle}",
        f"  localizer: {{selections: 200, dropout_rate: 0.7, size: {sizes.side}}}",
        "  seed_rule:",
        _said("    theta: 0.7", "look at the seeds in the report, then change it: only seeds and what follows run again"),
        "    background: {kind: cam_background, threshold: 0.35}",
        f"    crf: {{{crf}}}",
        "  segmenter:",
        f"    trunk: {trunk}",
        f"    head: {head}",
        f"    batch_size: {sizes.label_batch}",
        _said(f"    epochs: {sizes.label_epochs:g}", f"sees {labelled} images"),
        "    steps: null",
        f"    augment: {{kind: warp, size: {sizes.side}}}",
        f"    optimizer: {adam}",
        "    schedule: {kind: one_cycle}",
        f"    head_lr_scale: {scale}",
        f"    crf: {{scale: {sizes.stride}, {crf}}}",
        f"  relabel: {{sizes: [{sizes.side}], flip: true, crf: {{{crf}}}}}",
        _said("  retrain:", "the model that is scored, trained on the labels of the first"),
        f"    trunk: {trunk}",
        f"    head: {head}",
        f"    batch_size: {sizes.label_batch}",
        f"    epochs: {sizes.label_epochs:g}",
        "    steps: null",
        f"    augment: {{kind: random_crop, size: {sizes.side}, min_scale: 0.8, max_scale: 1.2}}",
        f"    optimizer: {adam}",
        "    schedule: {kind: one_cycle}",
        f"    head_lr_scale: {scale}",
        "    loss_at: image",
        "  metric: {scales: [1.0], flip: true, crf: null}",
    ]


def _data(kind: str, data: dict[str, Any], why: dict[str, str]) -> list[str]:
    lines = ["data:", f"  kind: {kind}"]
    for field, value in data.items():
        plain = list(value) if isinstance(value, tuple) else value
        lines.append(_said(f"  {field}: {scalar(plain)}", why.get(field, "")))
    return lines


def _run(sizes: JobSizes) -> list[str]:
    split = f"{sizes.workers} GPUs, one for each" if sizes.workers > 1 else "training processes"
    return [
        "run:",
        _said(f"  workers: {sizes.workers}", split),
        _said(f"  micro_batch: {sizes.micro_batch}", "images in memory at a time; lower it if that runs out: no number changes"),
        _said(f"  loader_workers: {sizes.loader_workers}", "processes that decode images ahead of the training"),
        _said("  max_bad_fraction: 0.05", "more images than this share that cannot be used end the run"),
    ]


def _said(line: str, comment: str) -> str:
    return f"{line:<{_WIDTH}}  # {_line(comment)}" if comment else line


def _line(text: str) -> str:
    """Text on one line of a comment, which may hold no control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
