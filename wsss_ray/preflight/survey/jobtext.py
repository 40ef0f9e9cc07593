"""Compose the job file that `init` writes, with the reason for every choice in a comment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from wsss_ray.nets.u2net import packaged
from wsss_ray.preflight.survey.sizes import JobSizes

_WIDTH = 48  # comments begin behind this column


def job_text(
    *,
    name: str,
    heading: Sequence[str],
    kind: str,
    data: dict[str, Any],
    why: dict[str, str],
    sizes: JobSizes,
    num_images: int,
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
    if sizes.networks.clip is not None:
        method = _by_clip(sizes, num_images)
    elif sizes.saliency is not None:
        method = _with_saliency(sizes, num_images)
    else:
        method = _plain(sizes, num_images) if sizes.plain else _without_saliency(sizes, num_images)
    blocks = (top, method, _data(kind, data, why, sizes), _run(sizes))
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def scalar(value: Any) -> str:
    """Write any value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1 << 30, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def run_name(text: str) -> str:
    """Make a valid name of a run from the name of a folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")[:100].rstrip("-") or "own"


_CRF = "crf: {iterations: 5, bilateral_sxy: 50, bilateral_srgb: 5}"


_LOOK = "look at the seeds in the report, then change it: only seeds and later stages run again"


def _by_clip(sizes: JobSizes, num_images: int) -> list[str]:
    parts = _Parts(sizes, num_images, "chosen on benchmarks/voc_animals")
    return [
        "method:",
        _said("  name: clip_es", "tags -> maps of CLIP -> seeds -> segmenter; no classifier is trained. Not measured here"),
        "  maps:",
        f"    clip: {scalar({'model': 'ViT-B-16-quickgelu', 'weights': str(sizes.networks.clip)})}",
        _said(
            "    background: [ground, grass, tree, sky, water, building, wall, floor]",
            "what surrounds your classes and is none of them",
        ),
        _said(
            "    # synonyms: [[tv, television screen]]",
            "names for the texts; without this field, those of CLIP-ES for VOC's classes",
        ),
        *_votes(sizes),
        "  seed_rule:",
        "    kind: crf_seeds",
        "    background: {kind: power_background, gamma: 1}",
        f"    {_CRF}",
        _said("    confidence: 0.95", "the segmenter does not learn pixels of which the CRF is less certain"),
        *parts.segmenter("segmenter", "    kind: deeplab_segmenter", augment="warp"),
        parts.metric(),
    ]


def _votes(sizes: JobSizes) -> list[str]:
    """Write the vote of SAM's masks on the seeds, if its weights are given."""
    networks = sizes.networks
    if networks.sam is None:
        return []
    cost = "seconds an image on a GPU" if sizes.gpu else "minutes an image without a GPU"
    return [
        _said("  refine:", f"SAM's masks vote on the seeds: {cost}. Not measured here"),
        "    - kind: segment_voting",
        f"      segments: {scalar({'kind': 'sam', 'variant': networks.sam_variant, 'weights': str(networks.sam)})}",
    ]


def _with_saliency(sizes: JobSizes, num_images: int) -> list[str]:
    rule = [
        _said("  seed_rule:", _LOOK),
        "    kind: crf_seeds",
        "    background: {kind: saliency_background}",
        _said("    salient_objects: true", "saliency tells where an object is, the map tells which one"),
        f"    {_CRF}",
    ]
    return _cam(sizes, num_images, rule)


def _plain(sizes: JobSizes, num_images: int) -> list[str]:
    rule = [
        "  seed_rule:",
        "    kind: threshold_seeds",
        _said("    theta: 0.2", _LOOK),
        "    background: {kind: cam_background, threshold: 0.2}",
    ]
    return _cam(sizes, num_images, rule)


def _cam(sizes: JobSizes, num_images: int, seed_rule: list[str]) -> list[str]:
    """Write the method `cam`, whose seeds are made by a rule."""
    parts = _Parts(sizes, num_images, "chosen on benchmarks/voc_animals")
    return [
        "method:",
        _said("  name: cam", "tags -> classifier -> maps -> seeds -> segmenter; `wsss-ray methods` lists others"),
        *parts.classifier("    hidden: null", kind="cam_classifier"),
        f"  localizer: {{size: {sizes.side}, flip: true}}",
        *_votes(sizes),
        *seed_rule,
        *parts.segmenter("segmenter", "    kind: deeplab_segmenter", augment="warp"),
        parts.metric(),
    ]


def _without_saliency(sizes: JobSizes, num_images: int) -> list[str]:
    parts = _Parts(sizes, num_images, "chosen on benchmarks/stamps")
    return [
        "method:",
        _said("  name: ficklenet", "tags -> classifier -> maps -> seeds -> segmenter; `wsss-ray methods` lists others"),
        *parts.classifier("    kernel_size: 5", "    dropout_rate: 0.7", kind="stochastic_classifier"),
        f"  localizer: {{selections: 200, dropout_rate: 0.7, size: {sizes.side}}}",
        *_votes(sizes),
        "  seed_rule:",
        _said("    theta: 0.7", _LOOK),
        "    background: {kind: cam_background, threshold: 0.35}",
        f"    {_CRF}",
        *parts.segmenter("segmenter", augment="warp", loss=f"    crf: {{scale: {sizes.stride}, {_CRF[6:]}"),
        f"  relabel: {{sizes: [{sizes.side}], flip: true, {_CRF}}}",
        *parts.segmenter("retrain", augment="random_crop", said="the final model, trained on labels of the first segmenter"),
        parts.metric(),
    ]


class _Parts:
    """The parts that both methods share, with the numbers that suit images and machine."""

    def __init__(self, sizes: JobSizes, num_images: int, settled: str) -> None:
        self.sizes, self.num_images = sizes, num_images
        self.settled = "start values, not chosen on a benchmark" if sizes.gpu or sizes.side <= 160 else settled
        if sizes.gpu:
            self.trunk = f"{{kind: resnet, depth: 50, output_stride: {sizes.stride}, weights: imagenet}}"
            self.about = "all of it is trained; its weights are downloaded once"
            rate, self.head, self.scale = "1.0e-4", "{kind: large_fov, dilation: 4, hidden: 256, dropout: 0.5}", "10.0"
        else:
            self.trunk = f"{{kind: efficientnet_lite0, output_stride: {sizes.stride}, frozen: true}}"
            self.about = "fast enough for CPUs, as it stays frozen; its weights come with the package"
            rate, self.head, self.scale = "1.0e-3", "{kind: large_fov, dilation: 2, hidden: 64, dropout: 0.5}", "1.0"
        self.adam = f"{{kind: adam, lr: {rate}, decoupled: true, weight_decay: 1.0e-2}}"

    def classifier(self, *more: str, kind: str) -> list[str]:
        """Write the classifier, with lines that are its own."""
        sizes = self.sizes
        seen = round(sizes.epochs * self.num_images)
        return [
            _said("  classifier:", f"rates and thresholds: {self.settled}"),
            f"    kind: {kind}",
            _said(f"    trunk: {self.trunk}", self.about),
            *more,
            f"    head_lr_scale: {self.scale}",
            _said(f"    batch_size: {sizes.batch}", "images per step; run.micro_batch limits how many are in memory at a time"),
            _said(f"    epochs: {sizes.epochs:g}", f"passes over {self.num_images} images: the network sees {seen}"),
            _said(f"    augment: {{kind: warp, size: {sizes.side}}}", "the whole image, so that it shows all its tags"),
            f"    optimizer: {self.adam}",
            "    schedule: {kind: one_cycle}",
        ]

    def segmenter(self, name: str, *more: str, augment: str, loss: str = "    loss_at: image", said: str = "") -> list[str]:
        """Write a segmenter, with lines that are its own."""
        sizes = self.sizes
        scale = ", min_scale: 0.8, max_scale: 1.2" if augment == "random_crop" else ""
        return [
            _said(f"  {name}:", said),
            *more,
            f"    trunk: {self.trunk}",
            f"    head: {self.head}",
            f"    batch_size: {sizes.label_batch}",
            _said(f"    epochs: {sizes.label_epochs:g}", f"sees {round(sizes.label_epochs * self.num_images)} images"),
            "    steps: null",
            f"    augment: {{kind: {augment}, size: {sizes.side}{scale}}}",
            f"    optimizer: {self.adam}",
            "    schedule: {kind: one_cycle}",
            f"    head_lr_scale: {self.scale}",
            loss,
        ]

    def metric(self) -> str:
        """Write how the model predicts."""
        return _said(f"  metric: {{scales: [1.0], flip: true, {_CRF}}}", "the CRF sharpens the edges of predictions")


def _data(kind: str, data: dict[str, Any], why: dict[str, str], sizes: JobSizes) -> list[str]:
    lines = ["data:", f"  kind: {kind}"]
    for field, value in data.items():
        plain = list(value) if isinstance(value, tuple) else value
        lines.append(_said(f"  {field}: {scalar(plain)}", why.get(field, "")))
    if sizes.saliency is not None:
        said = "marks what stands out in an image; it was trained on masks without classes"
        lines.append(_said(f"  saliency: {{kind: u2net, size: {sizes.saliency}}}", said))
    elif sizes.networks.clip is None:
        install = "pip install 'wsss-ray[saliency]', then " if packaged() is None else ""
        how = f", which take longer: {install}init with more time." if sizes.plain else f": {install}run init again."
        lines.append(f"  # For better seeds{how}")
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
