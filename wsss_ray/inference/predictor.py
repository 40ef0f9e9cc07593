"""Wrap a trained segmenter in a torch module that also takes files and Pillow images. It needs no Ray."""

from __future__ import annotations

import copy
import io
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from wsss_ray.core.contracts import Inference
from wsss_ray.data.codecs import decode_rgb
from wsss_ray.data.images import Decoded, fitted, normalise_image, pixels, shrink
from wsss_ray.data.label_files import enlarged
from wsss_ray.engine.networks import for_inference
from wsss_ray.inference.trained import Trained

if TYPE_CHECKING:
    from wsss_ray.core.values import ImageArray, LabelArray


class Predictor(nn.Module):
    """A trained segmenter in evaluation mode: image_BCHW (RGB, 0..255) -> logits_BLHW.

    `predict` gives labels, made by the job's metric.

    Args:
        trained: The model.
        device: The device, such as "cuda:1". None takes a GPU if there is one.
        inference: The form of the network, such as "plain" for the network as it was trained. None takes the job's.

    Raises:
        ValueError: if the weights are missing or do not fit the network.

    Example:
        >>> model = wsss_ray.load("photos")
        >>> label_HW = model.predict("album/holiday.jpg")
    """

    def __init__(self, trained: Trained, *, device: str | None = None, inference: Inference | None = None) -> None:
        super().__init__()
        self.trained = trained
        self.net = _build(trained)
        self.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval().requires_grad_(False)
        for_inference(self.net, trained.segmenter.model_copy(update={"inference": inference} if inference else {}))

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the labels 0, 1, ..., background first."""
        return ("background", *self.trained.classes)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the network's logits_BLHW at the resolution of the image, at one scale and without a CRF."""
        return self.trained.segmenter.predict(self.net, image_BCHW)

    def predict(self, image: str | os.PathLike[str] | Image.Image | ImageArray) -> LabelArray:
        """Predict the labels of one image.

        The job's metric makes them, with its scales, mirror image and CRF. If a side is longer than the job's `data.max_side`,
        the image is shrunk first, as the training images were, and its labels are enlarged to its size.

        Args:
            image: A file, a Pillow image, or an RGB array (H, W, 3) of uint8.

        Returns:
            Labels (H, W) of uint8, in the size of the upright image.

        Raises:
            ValueError: if it is no image. The message is one line.
            OSError: if the file cannot be read.
        """
        return self.predict_pixels(self.pixels(image))

    def pixels(self, image: str | os.PathLike[str] | Image.Image | ImageArray) -> ImageArray:
        """Convert the argument of `predict` to upright RGB pixels (H, W, 3)."""
        if isinstance(image, str | os.PathLike):
            return decode_rgb(normalise_image(Path(image).read_bytes(), max_pixels=self.trained.max_pixels).image)
        if isinstance(image, Image.Image):
            return pixels(image, max_pixels=self.trained.max_pixels)
        if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3):
            is_array = isinstance(image, np.ndarray)
            found = f"{image.dtype} {image.shape}" if is_array else type(image).__name__
            raise ValueError(f"give a path, a Pillow image, or an RGB array (H, W, 3) of uint8, not {found}")
        if not image.size:
            raise ValueError(f"the image has no pixels: {image.shape}; expected (H, W, 3) with H and W of at least 1")
        return np.array(image)

    def without_crf(self) -> Predictor:
        """Return this predictor with a metric that applies no CRF, with the same network."""
        found = copy.copy(self)
        with suppress(ValueError):  # a metric that has none to switch off
            found.trained = self.trained.with_crf(False)
        return found

    def predict_pixels(self, image_HWC: ImageArray) -> LabelArray:
        """Predict labels like `predict`, from upright RGB pixels."""
        trained, (height, width) = self.trained, image_HWC.shape[:2]
        image_HWC = shrunk(image_HWC, trained.max_side)
        label_HW = trained.metric.predict(trained.segmenter, self.net, image_HWC)
        return enlarged(label_HW, height, width)


def shrunk(image_HWC: ImageArray, max_side: int | None) -> ImageArray:
    """Return the pixels that ingest would pack. It shrinks a larger image by the same code, with the same JPEG compression."""
    height, width = image_HWC.shape[:2]
    if fitted(height, width, max_side) == (height, width):
        return image_HWC
    whole = io.BytesIO()
    Image.fromarray(image_HWC).save(whole, format="PNG", compress_level=0)
    return decode_rgb(shrink(Decoded(whole.getvalue(), height, width), None, max_side)[0].image)


def _build(trained: Trained) -> nn.Module:
    """Build the network and load its weights. Nothing else is read or downloaded."""
    try:
        net = trained.segmenter.build(len(trained.classes))
        net.load_state_dict(load_tensors(trained.weights()))
    except SafetensorError as error:
        raise ValueError(f"{trained.title}: {trained.file} is damaged or no safetensors file: {error}") from error
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        why = lines[1] if len(lines) > 1 else lines[0]
        raise ValueError(f"{trained.title}: {trained.file} does not fit its network: {why[:300]}") from error
    return net
