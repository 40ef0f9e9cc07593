"""Trained networks as files for other programs: torch.export, ONNX, safetensors. Each is compared with the network on an image.

The network is written, not the metric behind it: image_BCHW (RGB, 0..255, float32) to logits_BLHW of the same size, one scale, no
CRF. Height, width and batch stay open where the network can be traced so. A file is written under another name, read back by what
will read it, and only renamed when its labels are the network's.
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
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from wsss_ray.data.codecs import decode_rgb
from wsss_ray.data.images import normalise_image
from wsss_ray.inference.predictor import Predictor, shrunk
from wsss_ray.inference.trained import CONFIG, WEIGHTS, Trained, config_of, find_trained
from wsss_ray.ops.multiscale import resize_image, to_tensor
from wsss_ray.storage.atomic import replacing
from wsss_ray.storage.schemas import check_schema
from wsss_ray.storage.store import RunStore

if TYPE_CHECKING:
    from wsss_ray.core.contracts import ImageArray

ModelForm = Literal["torch", "onnx", "safetensors"]
FILES: dict[ModelForm, str] = {"torch": "model.pt2", "onnx": "model.onnx", "safetensors": WEIGHTS}

MOST_DIFFERENT = 1e-4
"""The share of pixels whose label may differ."""

_STEP = 32  # of which all sides between the layers of an EfficientNet are whole
_SAME = "Conv2dDynamicSamePadding"  # efficientnet_lite_pytorch's: formulas of the size that grow with every layer

_Run = Callable[[Tensor], "np.ndarray[Any, np.dtype[np.float32]]"]


class _EvenSame(nn.Conv2d):
    """TensorFlow's padding where the stride divides the sides: then it is the same for every size."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The convolution of the padded input."""
        pads: list[int] = []
        for kernel, dilation, stride in reversed(list(zip(self.kernel_size, self.dilation, self.stride, strict=True))):
            total = max(0, (kernel - 1) * dilation + 1 - stride)
            pads += [total // 2, total - total // 2]
        padded = nn.functional.pad(x_BCHW, pads)
        return nn.functional.conv2d(padded, self.weight, self.bias, tuple(self.stride), 0, self.dilation, self.groups)


class NotTheSame(ValueError):
    """A file whose labels are not the network's."""


@dataclass(frozen=True)
class InputSizes:
    """Which images a file takes: sides of any length, multiples of `step`, or only `fixed` (height, width), one at a time."""

    step: int = 1
    fixed: tuple[int, int] | None = None

    def __str__(self) -> str:
        """In words."""
        if self.fixed is not None:
            return f"one image of {self.fixed[0]}x{self.fixed[1]} (height x width)"
        return "any height, width and batch" if self.step == 1 else f"any batch, height and width multiples of {self.step}"

    def fit(self, image_HWC: ImageArray) -> ImageArray:
        """The upper left part of an image, of a size that is taken."""
        height, width = self.fixed or (side // self.step * self.step for side in image_HWC.shape[:2])
        return np.ascontiguousarray(image_HWC[:height, :width])


@dataclass(frozen=True)
class Written:
    """What was written, and how it compares: `sizes_compared` are (images, height, width)."""

    file: str
    takes: str
    largest_difference: float
    pixels: int
    pixels_different: int
    sizes_compared: tuple[tuple[int, int, int], ...]
    step: int = 1
    fixed: tuple[int, int] | None = None


def export_model(trained: Trained, out: Path, *, form: ModelForm, image_HWC: ImageArray, overwrite: bool = False) -> Written:
    """Write the network and `config.json` below `out`; the card is `model_card.write_card`'s.

    Raises ValueError if the folder holds files and `overwrite` is not given, if packages are missing, if the network cannot be
    traced, or if the file's labels differ from the network's on more than `MOST_DIFFERENT` of the pixels; OSError.
    """
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise ValueError(f"{out} holds files already; give another folder by --out, or write into it by --overwrite")
    if form == "onnx":
        _onnx()
    net = Predictor(trained, device="cpu")
    out.mkdir(parents=True, exist_ok=True)
    why = ""
    for sizes in [InputSizes()] if form == "safetensors" else _attempts(net, image_HWC):
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=out) as folder:
            try:
                run = _WRITERS[form](net, Path(folder), sizes)
                written = _compared(net, run, FILES[form], sizes, image_HWC)
            except (NotTheSame, OSError):
                if sizes.fixed is not None or form == "safetensors":
                    raise
                continue
            except Exception as error:  # noqa: BLE001  the tracers raise what they like; the next attempt asks less of them
                why = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
                continue
            os.replace(Path(folder, FILES[form]), out / FILES[form])
        with replacing(out / CONFIG) as file:
            text = json.dumps(config_of(trained) | {"exported": asdict(written)}, indent=2, ensure_ascii=False)
            file.write(f"{text}\n".encode())
        return written
    raise ValueError(f"{trained.title}: --format {form} cannot hold this network: {why[:300]}")


def example_image(store: RunStore, trained: Trained, image: Path | None = None) -> ImageArray:
    """The pixels to compare on: of a file, or of the first image that the model was scored or trained on. Raises ValueError."""
    if image is not None:
        data = normalise_image(image.read_bytes(), max_pixels=trained.max_pixels).image
        return shrunk(decode_rgb(data), trained.max_side)
    for record in (trained.scored, store.record_by_id(trained.id)):
        data_id = dict(record["inputs"])["data"] if record else None
        folder = store.path("stages", data_id, "shards") if data_id else ""
        for name in store.names(folder) if folder else ():
            with store.fs.open_input_file(f"{folder}/{name}") as stream:
                file = pq.ParquetFile(stream)
                check_schema(file.schema_arrow, "images", name)
                for batch in file.iter_batches(batch_size=1, columns=["image"]):
                    return decode_rgb(batch.to_pylist()[0]["image"])
    raise ValueError(f"{trained.title}: the images of the run are not in the store any more; give one by --image FILE")


def _attempts(net: Predictor, image_HWC: ImageArray) -> Iterator[InputSizes]:
    """What to ask of a tracer, the best first."""
    yield InputSizes(step=_STEP) if any(type(module).__name__ == _SAME for module in net.modules()) else InputSizes()
    yield InputSizes(fixed=(image_HWC.shape[0], image_HWC.shape[1]))


def _program(net: Predictor, sizes: InputSizes) -> torch.export.ExportedProgram:
    """The network traced, on an image of noise."""
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


def _write_torch(net: Predictor, folder: Path, sizes: InputSizes) -> _Run:
    path = folder / FILES["torch"]
    with _quiet():
        torch.export.save(_program(net, sizes), path)
        module = torch.export.load(path).module()
    return lambda image_BCHW: module(image_BCHW).detach().numpy()


def _write_onnx(net: Predictor, folder: Path, sizes: InputSizes) -> _Run:
    onnx, runtime = _onnx()
    path = folder / FILES["onnx"]
    with _quiet():
        program = _program(net, sizes)
        made = torch.onnx.export(program, (), dynamo=True, verbose=False, input_names=["image"], output_names=["logits"])
        assert made is not None
        made.save(path)
        model = onnx.load(path)
        _name_sides(model)
        onnx.checker.check_model(model)
        onnx.save(model, path)
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda image_BCHW: session.run(None, {"image": image_BCHW.numpy()})[0]


def _write_safetensors(net: Predictor, folder: Path, sizes: InputSizes) -> _Run:
    (folder / WEIGHTS).write_bytes(net.trained.weights())
    (folder / CONFIG).write_text(json.dumps(config_of(net.trained)), encoding="utf-8")
    again = Predictor(find_trained(f"{folder}/"), device="cpu")
    return lambda image_BCHW: again(image_BCHW).numpy()


_WRITERS: dict[ModelForm, Callable[[Predictor, Path, InputSizes], _Run]] = {
    "torch": _write_torch,
    "onnx": _write_onnx,
    "safetensors": _write_safetensors,
}


def _compared(net: Predictor, run: _Run, file: str, sizes: InputSizes, image_HWC: ImageArray) -> Written:
    """How the file's logits differ from the network's: on the image, and, where sizes are open, on it squeezed, and on a pair.

    Raises NotTheSame.
    """
    found = Written(file, str(sizes), 0.0, 0, 0, (), step=sizes.step, fixed=sizes.fixed)
    for image_BCHW in _examples(sizes, image_HWC):
        with torch.inference_mode():
            ours = net(image_BCHW).numpy()
        theirs = run(image_BCHW)
        if ours.shape != theirs.shape or not np.isfinite(theirs).all():
            raise NotTheSame(f"{file}: gives {theirs.shape} or what is not finite, not {ours.shape}; nothing was written")
        different = int((ours.argmax(1) != theirs.argmax(1)).sum())
        found = replace(
            found,
            largest_difference=max(found.largest_difference, float(np.abs(ours - theirs).max())),
            pixels=found.pixels + ours[:, 0].size,
            pixels_different=found.pixels_different + different,
            sizes_compared=(*found.sizes_compared, (len(ours), *ours.shape[2:])),
        )
    if found.pixels_different > MOST_DIFFERENT * found.pixels:
        raise NotTheSame(
            f"{file}: its labels differ from the network's on {found.pixels_different} of {found.pixels} pixels (allowed: "
            f"{MOST_DIFFERENT:g} of them; largest difference of logits {found.largest_difference:.2g}); nothing was written"
        )
    return found


def _examples(sizes: InputSizes, image_HWC: ImageArray) -> Iterator[Tensor]:
    least = [max(side, sizes.step) for side in image_HWC.shape[:2]]
    whole = resize_image(image_HWC, *least) if least != list(image_HWC.shape[:2]) else image_HWC
    device = torch.device("cpu")
    image_1CHW = to_tensor(sizes.fit(whole), device)
    yield image_1CHW
    if sizes.fixed is None:
        height, width = (max(sizes.step, round(side * share)) for side, share in zip(least, (0.7, 1.2), strict=True))
        yield to_tensor(sizes.fit(resize_image(whole, height, width)), device)
        yield torch.cat([image_1CHW, image_1CHW.flip(-1)])


def _name_sides(model: Any) -> None:
    """Call the open sides of the input batch, height and width, there and in all that follows from them."""
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
    """Without the deprecation warnings that torch's exporters cause in torch itself and in onnxscript."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        warnings.filterwarnings("ignore", message="No complete tensor found", category=UserWarning)  # it is there, as a view
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(onnxscript|onnx_ir|torch\.onnx)\b")
        yield


def _onnx() -> Sequence[Any]:
    try:
        for name in ("onnxscript", "onnx", "onnxruntime"):
            import_module(name)
    except ImportError as error:
        raise ValueError("--format onnx needs onnx, onnxscript and onnxruntime; run `pip install 'wsss-ray[onnx]'`") from error
    return import_module("onnx"), import_module("onnxruntime")
