"""wsss-ray: weakly supervised semantic segmentation from image-level tags, on a laptop or on a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsss_ray.core.version import __version__ as __version__
    from wsss_ray.inference.predictor import Predictor
else:

    def __getattr__(name: str) -> str:
        """Return the version. It is not imported above, because `wsss_ray.core` takes a tenth of a second to import."""
        if name == "__version__":
            from wsss_ray.core.version import __version__

            return __version__
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load(
    run: str, store: str = "runs", device: str | None = None, *, model: str | None = None, crf: bool | None = None
) -> Predictor:
    """Load a trained segmenter as a torch module with `classes`, `predict(image)` and `forward(image_BCHW)`.

    Args:
        run: a run of the store, the id of a train stage, or an exported folder (a path with a slash).
        store: folder or URI of the run store. The training data need not be there.
        device: such as "cuda:1"; by default a GPU if there is one.
        model: which segmenter of the run; by default the last that is trained.
        crf: with a dense CRF or without; by default as the job's metric has it.

    Raises:
        ValueError: in one line, if there is no such run, model or file, or if it does not fit.

    Example:
        >>> model = wsss_ray.load("photos")
        >>> label_HW = model.predict("album/holiday.jpg")
    """
    from wsss_ray.inference.predictor import Predictor
    from wsss_ray.inference.trained import find_trained

    return Predictor(find_trained(run, store, model).with_crf(crf), device=device)
