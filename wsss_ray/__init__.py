"""Weakly supervised semantic segmentation from image-level tags, on a laptop or on a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsss_ray.core.version import __version__ as __version__
    from wsss_ray.inference.predictor import Predictor
else:

    def __getattr__(name: str) -> str:
        """Return `__version__`. It is not imported above, because importing `wsss_ray.core` takes a tenth of a second."""
        if name == "__version__":
            from wsss_ray.core.version import __version__

            return __version__
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load(
    run: str, store: str = "runs", device: str | None = None, *, model: str | None = None, crf: bool | None = None
) -> Predictor:
    """Load a trained segmenter as a torch module with `classes`, `predict(image)` and `forward(image_BCHW)`.

    Args:
        run: Name of a run, id of a train stage, or path of an exported folder. The path must contain a slash.
        store: Folder or URI of the run store. The training data need not be present.
        device: Device of the model, such as "cuda:1". Default: a GPU if there is one.
        model: Name of the stage that trained the segmenter. Default: the last one of the run.
        crf: True refines labels with a dense CRF, False does not. Default: as the job's metric does.

    Raises:
        ValueError: if the run, the model or a file is missing or does not fit. The message is one line.

    Example:
        >>> model = wsss_ray.load("photos")
        >>> label_HW = model.predict("album/holiday.jpg")
    """
    from wsss_ray.inference.predictor import Predictor
    from wsss_ray.inference.trained import find_trained

    return Predictor(find_trained(run, store, model).with_crf(crf), device=device)
