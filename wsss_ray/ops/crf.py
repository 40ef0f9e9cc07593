"""Refine class probabilities with the fully connected CRF of Krähenbühl and Koltun (NIPS 2011).

    E(x) = sum_i psi_i(x_i) + sum_{i<j} [x_i != x_j] * ( w_g exp(-|p_i - p_j|^2 / 2 s_g^2)
                                                       + w_b exp(-|p_i - p_j|^2 / 2 s_b^2 - |I_i - I_j|^2 / 2 s_rgb^2) )

The positions p are in pixels and the colours I in 0..255. Only the given classes take part: twenty absent classes would cost time
and change nothing but rounding.

`backend: lattice` is this package's implementation (mean_field.py). On a CPU it runs compiled loops on one core and releases the
interpreter lock. For three labels it takes a third of pydensecrf's time or less (benchmarks/crf.py). Its first call on a machine
compiles the loops, which takes about 13 s. On a GPU it uses torch. `backend: pydensecrf` holds the interpreter lock: run it in
processes, never in threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from wsss_ray.core.component import Component
from wsss_ray.core.values import IGNORE

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from wsss_ray.core.values import ImageArray, LabelArray, MapArray

_FLOOR = 1e-5


class DenseCrf(Component):
    """Dense CRF with Potts compatibility and mean-field inference. The defaults are those of DSRG.

    Settings of other methods (gaussian weight / sxy, bilateral weight / sxy / srgb):

        SEC, DSRG             3 / 3   10 / 80 / 13    in training on the 41 x 41 grid with `scale` 12
        IRN                   3 / 3   10 / 50 / 5     on hard labels, confidence 0.7
        DeepLab v1 LargeFOV   3 / 3    4 / 49 / 5
        DeepLab v2 VGG16      2 / 2    4 / 65 / 3
        DeepLab v2 MSc        3 / 3    5 / 50 / 3
        deeplab-pytorch       3 / 1    4 / 67 / 3

    Example:
        >>> image_HWC = np.zeros((4, 4, 3), np.uint8)
        >>> DenseCrf(iterations=5).refine(image_HWC, np.full((2, 4, 4), 0.5)).shape
        (2, 4, 4)
    """

    iterations: int = Field(default=10, ge=1, description="Number of mean-field steps.")
    gaussian_sxy: float = Field(default=3.0, gt=0, description="Standard deviation of the smoothness kernel in pixels.")
    gaussian_weight: float = Field(default=3.0, ge=0, description="Weight of the smoothness kernel; 0 switches it off.")
    bilateral_sxy: float = Field(default=80.0, gt=0, description="Standard deviation of the appearance kernel in pixels.")
    bilateral_srgb: float = Field(
        default=13.0, gt=0, description="Standard deviation of the appearance kernel in colour values 0..255."
    )
    bilateral_weight: float = Field(default=10.0, ge=0, description="Weight of the appearance kernel; 0 switches it off.")
    scale: float = Field(default=1.0, gt=0, description="Divisor of both sxy. DSRG uses 12 on a grid 8 times smaller.")
    unary: Literal["log", "probability"] = Field(
        default="log",
        description="Unary energy. log: -log p; probability: -p, as in DSRG's released training.",
    )
    backend: Literal["pydensecrf", "lattice"] = Field(
        default="lattice",
        description="lattice: compiled loops on one CPU core, or torch on the caller's GPU; pydensecrf: one CPU core.",
    )

    @model_validator(mode="after")
    def _installed(self) -> DenseCrf:
        if self.backend == "pydensecrf" and find_spec("pydensecrf") is None:
            raise ValueError(
                "backend is 'pydensecrf', which is not installed; run `pip install 'wsss-ray[crf]'`, or take backend: lattice"
            )
        return self

    def refine(self, image_HWC: ImageArray, prob_CHW: MapArray, *, device: torch.device | str = "cpu") -> MapArray:
        """Compute class probabilities after the CRF.

        Args:
            image_HWC: uint8 RGB, at the resolution of `prob_CHW`; may be read-only.
            prob_CHW: probabilities of the C classes that take part, of any float type; clipped at 1e-5.
            device: device on which `lattice` computes; pydensecrf uses the CPU only.

        Returns:
            prob_CHW, float32. It sums to 1 over C; with one class it is 1 everywhere.

        Raises:
            ValueError: if the image is not uint8 RGB of the size of the maps.

        Example:
            >>> label_HW = DenseCrf().refine(image_HWC, prob_CHW).argmax(axis=0)
        """
        return self.refine_all(image_HWC, [prob_CHW], device=device)[0]

    def refine_all(
        self, image_HWC: ImageArray, probs: Sequence[MapArray], *, device: torch.device | str = "cpu"
    ) -> list[MapArray]:
        """Refine several label sets of one image. They share a lattice and do not influence each other.

        Args:
            image_HWC: uint8 RGB; may be read-only.
            probs: one prob_CHW per label set, as for `refine`.
            device: device on which `lattice` computes.

        Returns:
            One prob_CHW per label set, as `refine` returns it.

        Raises:
            ValueError: if the image is not uint8 RGB of the size of the maps.

        Example:
            >>> low_CHW, high_CHW = DenseCrf().refine_all(image_HWC, [prob_CHW, other_CHW])
        """
        import numpy as np

        clipped = [np.clip(np.asarray(prob_CHW, np.float32), _FLOOR, 1.0) for prob_CHW in probs]
        energies = [-np.log(prob_CHW) if self.unary == "log" else -prob_CHW for prob_CHW in clipped]
        return self._infer(image_HWC, energies, device)

    def refine_labels(
        self, image_HWC: ImageArray, label_HW: LabelArray, confidence: float, *, device: torch.device | str = "cpu"
    ) -> tuple[tuple[int, ...], MapArray]:
        """Compute the probabilities of the labels in a hard label map after the CRF.

        A labelled pixel starts with the probability `confidence` for its label; the rest is spread evenly over the other labels.
        An `IGNORE` pixel starts with equal probabilities. `unary` has no effect.

        Args:
            image_HWC: uint8 RGB.
            label_HW: labels with `IGNORE`.
            confidence: probability in (0, 1).
            device: device on which `lattice` computes; pydensecrf uses the CPU only.

        Returns:
            The C labels present in ascending order, without `IGNORE`, and their prob_CHW, float32. Both are empty if no pixel has
            a label.

        Raises:
            ValueError: if `confidence` is outside (0, 1), or the image is not uint8 RGB of the size of the labels.

        Example:
            >>> labels, prob_CHW = DenseCrf().refine_labels(image_HWC, label_HW, 0.7)
            >>> refined_HW = np.asarray(labels, np.uint8)[prob_CHW.argmax(axis=0)]
        """
        import numpy as np

        if not 0.0 < confidence < 1.0:
            raise ValueError(f"confidence: must lie between 0 and 1, got {confidence}.")
        labels = np.unique(label_HW[label_HW != IGNORE])
        own_CHW = label_HW == labels[:, None, None]
        count = max(1, len(labels))
        other = (1.0 - confidence) / max(1, count - 1)
        prob_CHW = np.where(own_CHW, confidence, np.where(label_HW == IGNORE, 1.0 / count, other))
        return tuple(labels.tolist()), self._infer(image_HWC, [-np.log(prob_CHW)], device)[0]

    def _infer(
        self, image_HWC: ImageArray, energies: Sequence[NDArray[np.floating]], device: torch.device | str
    ) -> list[MapArray]:
        """Check the image, and infer probabilities from unary energies with the chosen backend."""
        import numpy as np

        for energy_CHW in energies:
            height, width = energy_CHW.shape[1:]
            if image_HWC.shape != (height, width, 3) or image_HWC.dtype != np.uint8:
                raise ValueError(
                    f"image_HWC: shape {image_HWC.shape} and type {image_HWC.dtype} do not fit maps of {height} x {width}. "
                    "Give uint8 RGB of the same size."
                )
        if all(len(energy_CHW) < 2 for energy_CHW in energies):
            return [np.ones(energy_CHW.shape, np.float32) for energy_CHW in energies]
        if self.backend == "lattice":
            return self._infer_lattice(image_HWC, energies, device)
        return [self._infer_pydensecrf(image_HWC, energy_CHW) for energy_CHW in energies]

    def _infer_pydensecrf(self, image_HWC: ImageArray, energy_CHW: NDArray[np.floating]) -> MapArray:
        """Infer probabilities with pydensecrf."""
        import numpy as np
        from pydensecrf.densecrf import DenseCRF2D

        classes, height, width = energy_CHW.shape
        if classes < 2:
            return np.ones(energy_CHW.shape, np.float32)
        crf = DenseCRF2D(width, height, classes)
        crf.setUnaryEnergy(np.array(energy_CHW, np.float32, order="C").reshape(classes, -1))
        if self.gaussian_weight > 0:
            crf.addPairwiseGaussian(sxy=self.gaussian_sxy / self.scale, compat=self.gaussian_weight)
        if self.bilateral_weight > 0:
            crf.addPairwiseBilateral(
                sxy=self.bilateral_sxy / self.scale,
                srgb=self.bilateral_srgb,
                rgbim=np.array(image_HWC, order="C"),  # a copy: pydensecrf rejects read-only arrays
                compat=self.bilateral_weight,
            )
        return np.array(crf.inference(self.iterations), np.float32).reshape(classes, height, width)

    def _infer_lattice(
        self, image_HWC: ImageArray, energies: Sequence[NDArray[np.floating]], device: torch.device | str
    ) -> list[MapArray]:
        """Infer probabilities with the permutohedral lattice."""
        import numpy as np
        import torch

        from wsss_ray.ops.lattice import mean_field

        probs = mean_field.infer(
            torch.from_numpy(np.array(image_HWC, order="C")).to(device),  # a copy: torch warns about read-only arrays
            [torch.from_numpy(np.array(energy_CHW, np.float32, order="C")).to(device) for energy_CHW in energies],
            iterations=self.iterations,
            gaussian_sxy=self.gaussian_sxy / self.scale,
            gaussian_weight=self.gaussian_weight,
            bilateral_sxy=self.bilateral_sxy / self.scale,
            bilateral_srgb=self.bilateral_srgb,
            bilateral_weight=self.bilateral_weight,
        )
        return [np.asarray(prob_CHW.cpu().numpy()) for prob_CHW in probs]
