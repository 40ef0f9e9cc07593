"""Configure CLIP (Radford et al., ICML 2021): two networks that score how well a text fits an image. open_clip builds it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from wsss_ray.core.component import Component, LocalPath
from wsss_ray.nets.weights import Weights, copy_weights, load_weights

if TYPE_CHECKING:
    from wsss_ray.nets.clip_net import ClipNet

_NAMES = ("none", "random")
_OF_OPENAI = ("input_resolution", "context_length", "vocab_size")  # entries of OpenAI's state dicts that are no weights
_SMALL: dict[str, dict[str, Any]] = {
    "vision_cfg": {"image_size": 32, "layers": 4, "width": 64, "head_width": 32, "patch_size": 4},
    "text_cfg": {"layers": 2, "width": 32, "heads": 2},
}


class ClipWeights(Weights):
    """Weights of CLIP by file: a state dict with OpenAI's names, as open_clip's files have. `random` is for tests.

    `none` stands for a file that is still to be named: a job with it can be planned, and stops when the network is built.
    """

    names: ClassVar[tuple[str, ...]] = _NAMES
    source: Annotated[str, LocalPath(unless=_NAMES)] = Field(
        default="none",
        min_length=1,
        description="A path to a state dict of the model in open_clip, with OpenAI's names (.pt, .pth, .safetensors). "
        "random: a small random network, for tests.",
    )


class Clip(Component):
    """CLIP with a vision transformer. It is frozen: nothing of it is trained.

    Example:
        >>> net = Clip(weights=ClipWeights(source="ViT-B-16.safetensors")).build(["a photo of a cat."], ["a photo of grass."])
    """

    model: str = Field(
        default="ViT-B-16-quickgelu",
        min_length=1,
        description="Name of the model in open_clip. OpenAI's weights need the models that end in -quickgelu.",
    )
    weights: ClipWeights = ClipWeights()

    def build(self, classes: Sequence[str], background: Sequence[str]) -> ClipNet:
        """Build the image tower with its weights, in evaluation mode, and compute the features of texts with the text tower.

        Args:
            classes: one text for each class.
            background: texts of what is no class.

        Raises:
            ValueError: if open_clip or the weights are missing, or do not fit.
        """
        if self.weights.source == "none":
            made = "A state dict of the model in open_clip, with OpenAI's names"
            raise ValueError(f"weights: CLIP needs its weights, and no file is given. Give the path of one. {made}, fits.")
        import torch

        open_clip = _open_clip()
        from wsss_ray.nets.clip_net import ClipNet

        config = open_clip.get_model_config(self.model)
        if config is None or not _is_plain(config):
            raise ValueError(
                f"model: {self.model!r} is no CLIP with a vision transformer of open_clip's own. Choose one, such as ViT-B-16."
            )
        quick = {"quick_gelu": config.get("quick_gelu", False)}
        if self.weights.source == "random":
            config = {"embed_dim": 16} | {name: config[name] | small for name, small in _SMALL.items()}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # every worker builds it for itself
            net = open_clip.CLIP(**{name: config[name] for name in ("embed_dim", "vision_cfg", "text_cfg")}, **quick)
        if self.weights.is_file:
            copy_weights(net, load_weights(self.weights), ignore=_OF_OPENAI)
        net.eval().requires_grad_(False)
        tokens = open_clip.tokenizer.SimpleTokenizer(context_length=net.context_length)
        with torch.no_grad():
            class_KD, background_JD = (net.encode_text(tokens(list(texts)), normalize=True) for texts in (classes, background))
        return ClipNet(net, class_KD=class_KD, background_JD=background_JD).eval()


def _is_plain(config: dict[str, Any]) -> bool:
    """Return True for a vision transformer and a text transformer that `ClipNet` can run step by step."""
    vision, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
    special = ("timm_model_name", "attentional_pool", "block_type", "final_ln_after_pool", "qk_norm", "pos_embed_type")
    is_vit = isinstance(vision.get("layers"), int) and not any(vision.get(name) for name in special)
    own_text = not any(text.get(name) for name in ("hf_model_name", "hf_tokenizer_name", "block_type"))
    return is_vit and own_text and set(config) <= {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}


def _open_clip() -> ModuleType:
    """Import open_clip. Raise ValueError if it is not installed."""
    from wsss_ray.nets.torchvision_safe import torchvision

    if find_spec("open_clip") is None:
        raise ValueError("open_clip: the package is not installed. Run: pip install 'wsss-ray[clip]'")
    torchvision()  # open_clip imports torchvision: load it safely first
    return import_module("open_clip")
