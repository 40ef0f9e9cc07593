"""Define what all packages share: components, the roles that parts of a method play, and the stages of a plan.

A method, a part or a trunk imports from here its base class, the values that pass between roles, the optimisers and schedules,
and the functions that plan stages:

    from wsss_ray.core import Data, Learner, Localizer, Method, SeedRule, Segmenter, Stage, evaluate, localize, seed, train

The rest is elsewhere: the base class of data sources in `wsss_ray.data.source`, networks in `wsss_ray.nets`, formulas, such as
losses and the dense CRF, in `wsss_ray.ops`.

Importing this package does not import torch, so that planning a job stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsss_ray.core.component import Component, LocalPath, NotIdentity, SinceThen
from wsss_ray.core.contracts import Augment, Classifier, Learner, OnlineSegmenter, Precision, Segmenter, Trunk
from wsss_ray.core.environment import AsWritten, fill
from wsss_ray.core.graph import Plan
from wsss_ray.core.method import Method
from wsss_ray.core.optim import Adam, Constant, Decay, OneCycle, Optimizer, Piecewise, Poly, Schedule, Sgd
from wsss_ray.core.plan import (
    Data,
    Stage,
    evaluate,
    evaluate_seeds,
    evaluate_tags,
    ingest,
    localize,
    refine,
    relabel,
    salient,
    seed,
    spoil,
    train,
)
from wsss_ray.core.randomness import random_key
from wsss_ray.core.refiner import Given, Refiner
from wsss_ray.core.rules import Localizer, MaskNoise, Metric, Relabel, SaliencyNet, SeedRule, SeedScore, TagScore
from wsss_ray.core.threshold import Recipe, Threshold
from wsss_ray.core.tokens import Tokens, TokenTrunk
from wsss_ray.core.values import IGNORE, Axis, Batch, Evidence, Maps

if TYPE_CHECKING:  # these need numpy, and a plan does not
    from wsss_ray.core.values import ExtraArray as ExtraArray
    from wsss_ray.core.values import ImageArray as ImageArray
    from wsss_ray.core.values import LabelArray as LabelArray
    from wsss_ray.core.values import MapArray as MapArray

__all__ = [
    "IGNORE",
    "Adam",
    "AsWritten",
    "Augment",
    "Axis",
    "Batch",
    "Classifier",
    "Component",
    "Constant",
    "Data",
    "Decay",
    "Evidence",
    "Given",
    "Learner",
    "LocalPath",
    "Localizer",
    "Maps",
    "MaskNoise",
    "Method",
    "Metric",
    "NotIdentity",
    "OneCycle",
    "OnlineSegmenter",
    "Optimizer",
    "Piecewise",
    "Plan",
    "Poly",
    "Precision",
    "Recipe",
    "Refiner",
    "Relabel",
    "SaliencyNet",
    "Schedule",
    "SeedRule",
    "SeedScore",
    "Segmenter",
    "Sgd",
    "SinceThen",
    "Stage",
    "TagScore",
    "Threshold",
    "TokenTrunk",
    "Tokens",
    "Trunk",
    "evaluate",
    "evaluate_seeds",
    "evaluate_tags",
    "fill",
    "ingest",
    "localize",
    "random_key",
    "refine",
    "relabel",
    "salient",
    "seed",
    "spoil",
    "train",
]
