"""Export trained networks for other programs, as files of torch.export, ONNX or safetensors.

A file holds the network without the metric: image_BCHW (RGB, 0..255, float32) -> logits_BLHW of the same size, at one scale,
without a CRF. Height, width and batch are dynamic if the network can be traced that way. Each file is written under a temporary
name and read back by the library that users read it with. It gets its name only if its labels agree with the network's. Beside a
file for other programs lies `predict.py` with the steps from a photograph to its labels (`model_code.py`).
"""

from __future__ import annotations

import copy
import json
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from wsss_ray.data.codecs import decode_rgb
from wsss_ray.data.images import normalise_image
from wsss_ray.inference.exported_file import InputSizes, NotTheSame, Run, Written, compared
from wsss_ray.inference.model_code import labels_of_code, metadata, write_code
from wsss_ray.inference.predictor import Predictor, shrunk
from wsss_ray.inference.trained import CONFIG, WEIGHTS, Trained, config_of, find_trained
from wsss_ray.storage.atomic import replacing
from wsss_ray.storage.finished import StageId
from wsss_ray.storage.shards import count_rows, present_shards, read_rows
from wsss_ray.storage.store import RunStore

if TYPE_CHECKING:
    from wsss_ray.core.values import ImageArray

ModelForm = Literal["torch", "onnx", "safetensors"]
FILES: dict[ModelForm, str] = {"torch": "model.pt2", "onnx": "model.onnx", "safetensors": WEIGHTS}

_STEP = 32  # of a trunk that does not tell its stride
_SAME = "Conv2dDynamicSamePadding"  # of efficientnet_lite_pytorch. When traced, its padding formulas get longer with every layer.


class _EvenSame(nn.Conv2d):
    """A convolution with TensorFlow's padding for sides that the stride divides: then it is the same for every size."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Convolve the padded input."""
        pads: list[int] = []
        for kernel, dilation, stride in reversed(list(zip(self.kernel_size, self.dilation, self.stride, strict=True))):
            total = max(0, (kernel - 1) * dilation + 1 - stride)
            pads += [total // 2, total - total // 2]
        padded = nn.functional.pad(x_BCHW, pads)
        return nn.functional.conv2d(padded, self.weight, self.bias, tuple(self.stride), 0, self.dilation, self.groups)


def export_model(trained: Trained, out: Path, *, form: ModelForm, image_HWC: ImageArray, overwrite: bool = False) -> Written:
    """Write the network and `config.json` below a folder. `model_card.write_card` writes the model card.

    The file must give the network's labels on `image_HWC`. `overwrite` allows a folder that holds files.

    Raises:
        ValueError: if the folder holds files and `overwrite` is False, if packages are missing, if the network cannot be
            traced, or if the labels differ on more than `MOST_DIFFERENT` of the pixels.
        OSError: if a file cannot be written.
    """
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise ValueError(f"{out} holds files already; give another folder by --out, or write into it by --overwrite")
    if form == "onnx":
        _onnx()
    net = Predictor(trained, device="cpu", inference="plain")
    out.mkdir(parents=True, exist_ok=True)
    why = ""
    for sizes in [InputSizes()] if form == "safetensors" else _attempts(net, image_HWC):
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=out) as folder:
            try:
                run = _WRITERS[form](net, Path(folder), sizes)
                written = compared(net, run, FILES[form], sizes, image_HWC)
            except (NotTheSame, OSError):
                if sizes.fixed is not None or form == "safetensors":
                    raise
                continue
            except Exception as error:  # noqa: BLE001  tracers raise any type of error; the next attempt asks less of them
                why = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
                continue
            os.replace(Path(folder, FILES[form]), out / FILES[form])
        if form != "safetensors":
            write_code(trained, out, FILES[form], sizes)
            written = replace(written, code_different=_different(net, out, image_HWC))
        with replacing(out / CONFIG) as file:
            text = json.dumps(config_of(trained) | {"exported": asdict(written)}, indent=2, ensure_ascii=False)
            file.write(f"{text}\n".encode())
        return written
    raise ValueError(f"{trained.title}: --format {form} cannot hold this network: {why[:300]}")


def example_image(store: RunStore, trained: Trained, image: Path | None = None) -> ImageArray:
    """Read the image to compare on: a file, or the first image that the model was scored on or else trained on.

    Raises:
        ValueError: if the file is no image, or if the store does not hold the images of the run.
    """
    if image is not None:
        data = normalise_image(image.read_bytes(), max_pixels=trained.max_pixels).image
        return shrunk(decode_rgb(data), trained.max_side)
    for record in (trained.scored, store.record_by_id(trained.id)):
        data_id = dict(record["inputs"])["data"] if record else None
        split = StageId(data_id or "")
        for shard in present_shards(store, split) if data_id else ():
            if count_rows(store, split, shard):
                return decode_rgb(read_rows(store, split, shard, "images", [0], ["image"])[0]["image"])
    raise ValueError(f"{trained.title}: the images of the run are no longer in the store; give one by --image FILE")


def _different(net: Predictor, out: Path, image_HWC: ImageArray) -> tuple[int, int]:
    """Compare predict.py with `predict` without a CRF. Return the number of pixels with other labels, and of all pixels."""
    expected_HW = net.without_crf().predict_pixels(image_HWC)
    return int((labels_of_code(out, image_HWC) != expected_HW).sum()), expected_HW.size


def _attempts(net: Predictor, image_HWC: ImageArray) -> Iterator[InputSizes]:
    """Yield the sizes to ask a tracer for, the most general first."""
    # all feature maps of an EfficientNet have whole sides if the image's sides are multiples of the trunk's stride
    stride = getattr(getattr(net.trained.segmenter, "trunk", None), "output_stride", _STEP)
    yield InputSizes(step=stride) if any(type(module).__name__ == _SAME for module in net.modules()) else InputSizes()
    yield InputSizes(fixed=(image_HWC.shape[0], image_HWC.shape[1]))


def _program(net: Predictor, sizes: InputSizes) -> torch.export.ExportedProgram:
    """Trace the network on an image of noise."""
    if sizes.fixed is not None:
        return torch.export.export(net, (torch.rand(1, 3, *sizes.fixed) * 255,), strict=False)
    dynamic = torch.export.Dim.DYNAMIC
    sides: Any = (dynamic, dynamic)
    if sizes.step > 1:
        sides = tuple(sizes.step * torch.export.Dim(name, min=1, max=1024) for name in ("rows", "columns"))
        net = copy.deepcopy(net)
        for module in net.modules():
            if type(module).__name__ == _SAME:
                module.__class__ = _EvenSame
    example = torch.rand(2, 3, 64, 96) * 255
    shapes = ({0: dynamic, 2: sides[0], 3: sides[1]},)
    return torch.export.export(net, (example,), dynamic_shapes=shapes, strict=False)


def _write_torch(net: Predictor, folder: Path, sizes: InputSizes) -> Run:
    path = folder / FILES["torch"]
    with _quiet():
        torch.export.save(_program(net, sizes), path, extra_files=metadata(net.trained, sizes))
        module = torch.export.load(path).module()
    return lambda image_BCHW: module(image_BCHW).detach().numpy()


def _write_onnx(net: Predictor, folder: Path, sizes: InputSizes) -> Run:
    onnx, runtime = _onnx()
    path = folder / FILES["onnx"]
    with _quiet():
        program = _program(net, sizes)
        made = torch.onnx.export(program, (), dynamo=True, verbose=False, input_names=["image"], output_names=["logits"])
        assert made is not None
        made.save(path)
        model = onnx.load(path)
        _name_sides(model)
        onnx.helper.set_model_props(model, metadata(net.trained, sizes))
        onnx.checker.check_model(model)
        onnx.save(model, path)
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda image_BCHW: session.run(None, {"image": image_BCHW.numpy()})[0]


def _write_safetensors(net: Predictor, folder: Path, sizes: InputSizes) -> Run:
    (folder / WEIGHTS).write_bytes(net.trained.weights())
    (folder / CONFIG).write_text(json.dumps(config_of(net.trained)), encoding="utf-8")
    again = Predictor(find_trained(f"{folder}/"), device="cpu", inference="plain")
    return lambda image_BCHW: again(image_BCHW).numpy()


_WRITERS: dict[ModelForm, Callable[[Predictor, Path, InputSizes], Run]] = {
    "torch": _write_torch,
    "onnx": _write_onnx,
    "safetensors": _write_safetensors,
}


def _name_sides(model: Any) -> None:
    """Name the dynamic dimensions of the input batch, height and width, also in all dimensions that depend on them."""
    given = model.graph.input[0].type.tensor_type.shape.dim
    names: dict[str, str] = {}
    for place, name in ((0, "batch"), (2, "height"), (3, "width")):
        if re.fullmatch(r"\w+", given[place].dim_param):
            names[given[place].dim_param] = name
    if not names:
        return
    pattern = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in names))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = pattern.sub(lambda found: names[found[0]], dim.dim_param)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the deprecation warnings that torch's exporters cause in torch itself and in onnxscript."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        warnings.filterwarnings("ignore", message="No complete tensor found", category=UserWarning)  # it is, as a view
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(onnxscript|onnx_ir|torch\.onnx)\b")
        yield


def _onnx() -> Sequence[Any]:
    try:
        for name in ("onnxscript", "onnx", "onnxruntime"):
            import_module(name)
    except ImportError as error:
        raise ValueError("--format onnx needs onnx, onnxscript and onnxruntime; run `pip install 'wsss-ray[onnx]'`") from error
    return import_module("onnx"), import_module("onnxruntime")
