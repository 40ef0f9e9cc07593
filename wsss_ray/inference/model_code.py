"""Write predict.py beside an exported network: the steps from a photograph to its labels, without this package.

A network alone is not the model: `predict` turns and shrinks a photograph, sums scores over scales and mirror images, and
enlarges the labels. The code does the same, from constants, and is compared with `predict` when it is written.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from wsss_ray.core.version import __version__
from wsss_ray.inference.trained import Trained, config_of
from wsss_ray.methods.common.segmentation import MultiScale
from wsss_ray.storage.atomic import replacing

if TYPE_CHECKING:
    from wsss_ray.core.values import ImageArray, LabelArray
    from wsss_ray.inference.exported_file import InputSizes, Written

CODE = "predict.py"


def write_code(trained: Trained, out: Path, file: str, sizes: InputSizes) -> None:
    """Write predict.py.

    Args:
        trained: The trained network.
        out: The folder of the exported network.
        file: The name of the exported network.
        sizes: The sizes that it takes.

    Raises:
        OSError: if the file cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("wsss_ray.inference", "."), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters["literal"] = repr
    steps = steps_of(trained)
    text = environment.get_template("model_predict.py.j2").render(
        file=file,
        classes=("background", *trained.classes),
        max_side=trained.max_side,
        step=sizes.step,
        fixed=sizes.fixed,
        exact=f" {differs(trained, sizes)}".rstrip(),
        **steps | ({"scales": (1.0,)} if sizes.fixed else {}),
    )
    with replacing(out / CODE) as target:
        target.write(text.encode())


def labels_of_code(out: Path, image: Path | ImageArray) -> LabelArray:
    """Label an image, a file or an array (H, W, 3), by the predict.py of a folder."""
    spec = importlib.util.spec_from_file_location("wsss_ray_exported_predict", out / CODE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    label_HW: LabelArray = module.predict(image if isinstance(image, Path) else Image.fromarray(image))
    return label_HW


def steps_of(trained: Trained) -> dict[str, Any]:
    """Return what the metric does around the network: scales, mirror images and whether a CRF follows."""
    metric = trained.metric
    if isinstance(metric, MultiScale):
        return {"scales": tuple(metric.scales), "flip": metric.flip, "crf": metric.crf is not None}
    return {"scales": (1.0,), "flip": False, "crf": False}


def metadata(trained: Trained, sizes: InputSizes) -> dict[str, str]:
    """Return the metadata of an exported file: how to make its input, and what its output means, as text by name."""
    side = "any size" if trained.max_side is None else f"shrunk to at most {trained.max_side} pixels a side"
    config = config_of(trained)
    return {
        "made_by": f"wsss-ray {__version__}",
        "input": f"image: float32 (batch, 3, height, width), RGB, 0 to 255, upright, {side}; {sizes}",
        "output": "logits: float32 (batch, labels, height, width)",
        "classes": json.dumps(["background", *trained.classes], ensure_ascii=False),
        "max_side": json.dumps(trained.max_side),
        "metric": json.dumps(config["metric"], ensure_ascii=False),
    }


def differs(trained: Trained, sizes: InputSizes | Written) -> str:
    """Say in a sentence where the code differs from the command; nothing if it does not."""
    if not isinstance(trained.metric, MultiScale):
        return f"The job's metric, {trained.metric.kind()}, is not in it: labels are those of the network at one scale."
    if sizes.fixed is not None:
        return "The network takes one size only, to which photographs are resized; so labels differ from the command's."
    if sizes.step > 1:
        return f"Photographs are resized to multiples of {sizes.step}; so labels differ a little from the command's."
    return ""
