"""A small version of every method, for tests: seconds on shapes, or on any data with `size` x `size` images."""

from __future__ import annotations

from typing import Any

import tests.shapes  # noqa: F401  the data set that tiny jobs name

ADAM = {"kind": "adam", "lr": 5e-3}
BACKGROUND = {"kind": "cam_background", "threshold": 0.3}
CRF = {"iterations": 2}


def tiny_method(name: str, *, size: int = 32, steps: int = 6, batch: int = 8) -> dict[str, Any]:
    """The `method` block of a job file: all its parts, few channels and few steps."""
    trunk = {"kind": "small_net", "widths": [8, 16], "strides": [2, 1]}
    head = {"kind": "large_fov", "dilation": 2, "hidden": 16, "dropout": 0.1}
    crop = {"kind": "random_crop", "size": size}
    budget = {"steps": steps, "epochs": None, "batch_size": batch, "optimizer": ADAM, "schedule": {"kind": "constant"}}
    fit = budget | {"trunk": trunk, "head": head, "augment": crop, "head_lr_scale": 1.0}
    cam = budget | {"kind": "cam_classifier", "trunk": trunk, "augment": crop, "head_lr_scale": 1.0, "hidden": 16, "dropout": 0.1}
    metric = {"scales": [1.0], "crf": None}
    dsrg = {
        "segmenter": fit | {"augment": {"kind": "warp", "size": size}, "crf": {"scale": 2, "iterations": 2}},
        "relabel": {"sizes": [size], "crf": CRF},
        "retrain": fit,
        "metric": metric,
    }
    rrm = fit | {
        "kind": "rrm_segmenter",
        "head": {"kind": "dilated_pair", "dilation": 2, "hidden": 16},
        "scales": [1.0, 0.5],
        "labels": {"crf": CRF, "background_floor": 0.3, "gamma": 4.0, "crf_floor": 0.3},
    }
    parts: dict[str, dict[str, Any]] = {
        "ficklenet": {
            "classifier": {k: v for k, v in cam.items() if k not in ("kind", "hidden", "dropout")} | {"kernel_size": 5},
            "localizer": {"size": None, "selections": 8},
            "seed_rule": {"background": BACKGROUND},
            **dsrg,
        },
        "dsrg": {"classifier": cam, "localizer": {"size": size}, "seed_rule": {"background": BACKGROUND}, **dsrg},
        "cam": {"classifier": cam, "seed_rule": {"theta": 0.4, "background": BACKGROUND}, "segmenter": fit, "metric": metric},
        "mdc": {
            "classifier": cam | {"rates": [1, 2]},
            "seed_rule": {"background": BACKGROUND},
            "segmenter": fit,
            "metric": metric,
        },
        "rrm": {
            "segmenter": rrm,
            "relabel": {"crf": CRF},
            "second": fit | {"kind": "deeplab_segmenter", "input_scales": [1.0, 0.5]},
            "metric": metric,
        },
        "multi_estimations": {
            "classifiers": [cam, cam | {"hidden": None}],
            "localizers": [{"kind": "cam_localizer"}, {"kind": "cam_localizer", "scales": [0.5]}],
            "seed_rules": [
                {"kind": "region_seeds", "share": 0.2, "background": BACKGROUND},
                {"kind": "crf_seeds", "background": BACKGROUND, "crf": CRF},
            ],
            "segmenter": fit,
            "metric": metric,
        },
        "noisy_masks": {"labels": 2, "segmenter": fit, "metric": metric},
        "deeplab": {"segmenter": fit, "metric": metric},
    }
    parts["seeds"] = {key: parts["ficklenet"][key] for key in ("classifier", "localizer", "seed_rule")}
    return {"name": name} | parts[name]


def tiny_job_of(name: str, **overrides: Any) -> dict[str, Any]:
    """A whole job on shapes."""
    run = {"checkpoint_every": 4, "log_every": 2}
    return {"name": f"tiny-{name}", "method": tiny_method(name), "data": {"kind": "shapes"}, "run": run} | overrides
