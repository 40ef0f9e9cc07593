"""Compose the job file that `init` writes, with the reason for every choice in a comment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from wsss_ray.preflight.survey.sizes import JobSizes

_WIDTH = 48  # comments begin behind this column


def job_text(
    *, name: str, heading: Sequence[str], kind: str, data: dict[str, Any], why: dict[str, str], sizes: JobSizes, num_images: int
) -> str:
    """Compose a job file.

    Args:
        name: The name of the run.
        heading: Lines about the data.
        kind: The kind of the data source.
        data: The fields of the `data:` block.
        why: Comments by field of the `data:` block.
        sizes: The numbers that suit images and machine.
        num_images: The size of the training set.
    """
    top = [*(f"# {_line(text)}" for text in heading), f"name: {scalar(name)}"]
    blocks = (top, _method(sizes, num_images), _data(kind, data, why), _run(sizes))
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def scalar(value: Any) -> str:
    """Write any value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1 << 30, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def run_name(text: str) -> str:
    """Make a valid name of a run from the name of a folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")[:100].rstrip("-") or "own"


def _method(sizes: JobSizes, num_images: int) -> list[str]:
    small = sizes.side <= 160
    if sizes.gpu:
        trunk = f"{{kind: resnet, depth: 50, output_stride: {sizes.stride}, weights: imagenet}}"
        about = "all of it is trained; its weights are downloaded once"
        rate, dilation, hidden, scale = "1.0e-4", 4, 256, "10.0"
    else:
        trunk = f"{{kind: efficientnet_lite0, output_stride: {sizes.stride}, frozen: true}}"
        about = "fast enough for CPUs, as it stays frozen; its weights come with the package"
        rate, dilation, hidden, scale = "1.0e-3", 2, 64, "1.0"
    settled = "start values, not chosen on a benchmark" if sizes.gpu or small else "chosen on benchmarks/stamps"
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
        _said(f"    batch_size: {sizes.batch}", "images per step; run.micro_batch limits how many are in memory at a time"),
        _said(f"    epochs: {sizes.epochs:g}", f"passes over {num_images} images: the network sees {seen}"),
        _said(f"    augment: {{kind: warp, size: {sizes.side}}}", "the whole image, so that it shows all its tags"),
        f"    optimizer: {adam}",
        "    schedule: {kind: one_cycle}",
        f"  localizer: {{selections: 200, dropout_rate: 0.7, size: {sizes.side}}}",
        "  seed_rule:",
        _said("    theta: 0.7", "look at the seeds in the report, then change it: only seeds and later stages run again"),
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
        _said("  retrain:", "the final model, which is scored; trained on labels of the first segmenter"),
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
        _said(f"  micro_batch: {sizes.micro_batch}", "images in memory at a time; lower it if memory runs out: same results"),
        _said(f"  loader_workers: {sizes.loader_workers}", "processes that decode images ahead of the training"),
        *([] if sizes.gpu else [_said("  inference: fused", "the frozen trunk runs once per image, and its features are kept")]),
        _said("  max_bad_fraction: 0.05", "the run ends if more than this share of the images cannot be used"),
    ]


def _said(line: str, comment: str) -> str:
    return f"{line:<{_WIDTH}}  # {_line(comment)}" if comment else line


def _line(text: str) -> str:
    """Replace control characters, which a comment may not hold, and so keep the text on one line."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
