"""Name stages in words, for people who read a report. This is the only place that does: a name without words stays as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAMES = {
    "images-weak": "Training images",
    "images-strong": "Training images with masks",
    "images-val": "Validation images",
    "saliency": "Saliency maps",
    "features": "Features of the frozen trunk",
    "classifier": "Classifier",
    "maps": "Localization maps",
    "affinity_labels": "Confident labels for the affinities",
    "affinity": "Affinity network",
    "clip_maps": "Localization maps of CLIP",
    "affinity_walk": "Maps after the random walk",
    "seeds": "Seeds",
    "segment_voting": "Seeds after the vote of segments",
    "labels": "Labels with noise",
    "segmenter": "Segmenter",
    "relabel": "Labels by the segmenter",
    "retrain": "Segmenter trained on these labels",
    "second": "Second segmenter",
    "tag_quality": "Classifier on the validation images",
    "joint_tag_quality": "Tags of the segmenter on the validation images",
    "quality": "Seeds against the masks",
    "seed_quality": "Seeds against the masks",
    "relabel_quality": "Labels by the segmenter against the masks",
    "first_miou": "First model on the validation images",
    "miou": "Model on the validation images",
}
_KINDS = {
    "ingest": "images",
    "saliency": "saliency maps",
    "features": "features",
    "train": "training",
    "classify": "score of tags",
    "localize": "localization maps",
    "seed": "labels",
    "evaluate": "score",
}
_SCORES = {
    "quality": "mIoU of the seeds",
    "seed_quality": "mIoU of the seeds",
    "relabel_quality": "mIoU of the labels by the segmenter",
    "first_miou": "mIoU of the first model",
    "miou": "mIoU of the model",
}
FIGURES = {"miou": "mIoU", "precision": "precision", "recall": "recall", "coverage": "coverage"}
"""The figures of label maps that tables and charts show, and their names."""

_NUMBERED = re.compile(r"(.+)-(\d+(?:\.\d+)*)")


def stage_words(name: str) -> str:
    """Return the words for the name of a stage, with its number if it has one; the name itself if no words are known.

    Example:
        >>> stage_words("seed_quality"), stage_words("maps-2.1"), stage_words("my_stage")
        ('Seeds against the masks', 'Localization maps 2.1', 'my_stage')
    """
    return _words(name, _NAMES)


def score_words(name: str) -> str:
    """Return the words for the score that a sweep ranks by, from the name of its stage.

    Example:
        >>> score_words("miou"), score_words("quality-1.2"), score_words("my_score")
        ('mIoU of the model', 'mIoU of the seeds 1.2', 'my_score')
    """
    return _words(name, _SCORES)


def _words(name: str, known: Mapping[str, str]) -> str:
    numbered = _NUMBERED.fullmatch(name)
    if name in known or numbered is None or numbered[1] not in known:
        return known.get(name, name)
    return f"{known[numbered[1]]} {numbered[2]}"


def kind_words(kind: str) -> str:
    """Return the words for a kind of stage; the kind itself if no words are known.

    Example:
        >>> kind_words("localize"), kind_words("my_kind")
        ('localization maps', 'my_kind')
    """
    return _KINDS.get(kind, kind)
