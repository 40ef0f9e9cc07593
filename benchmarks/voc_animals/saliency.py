"""Hold U2-Net's saliency maps to the masks of the training images, at several sizes.

    python -m benchmarks.voc_animals.saliency OUT [--every 16]

Prints the time of an image on one core, and how well saliency above .5 covers all objects together.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.accuracy import table
from wsss_ray.core.values import IGNORE
from wsss_ray.nets.u2net import U2Net

FORMS: dict[str, dict[str, Any]] = {
    "320, as trained": {"size": 320},
    "320, bfloat16": {"size": 320, "precision": "bfloat16"},
    "256": {"size": 256},
    "224": {"size": 224},
    "192": {"size": 192},
    "160": {"size": 160},
    "128": {"size": 128},
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="OUT", help="the built benchmark")
    parser.add_argument("--every", type=int, default=16, help="use every n-th training image")
    options = parser.parse_args()
    with (options.data / "tags.csv").open(newline="") as stream:
        names = [Path(row["image"]).stem for row in csv.DictReader(stream) if row["split"] == "train"][:: options.every]
    images = [np.array(Image.open(options.data / "images" / f"{name}.jpg").convert("RGB")) for name in names]
    masks = [np.asarray(Image.open(options.data / "masks" / f"{name}.png")) for name in names]
    torch.set_num_threads(1)
    rows = []
    for name, fields in FORMS.items():
        rule = U2Net(**fields)
        net = rule.build()
        rule.saliency(net, images[:1])
        began = time.perf_counter()
        maps = [rule.saliency(net, [image_HWC])[0] for image_HWC in images]
        seconds = (time.perf_counter() - began) / len(images)
        both = found = there = 0
        for map_HW, mask_HW in zip(maps, masks, strict=True):
            salient_HW, object_HW, scored_HW = map_HW > 0.5, mask_HW > 0, mask_HW != IGNORE
            both += int((salient_HW & object_HW & scored_HW).sum())
            found += int((salient_HW & scored_HW).sum())
            there += int((object_HW & scored_HW).sum())
        figures = (both / (found + there - both), both / found, both / there)
        rows.append([name, f"{1000 * seconds:.0f} ms", *(f"{value:.3f}" for value in figures)])
    print(f"{len(images)} images\n\n{table(['time of an image', 'IoU', 'precision', 'recall'], rows)}")


if __name__ == "__main__":
    main()
