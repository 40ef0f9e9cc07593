"""Find the weights of CLIP and SAM that `init` can use: a file that the user names, or one that is offered."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_SAM_NAME = re.compile(r"vit_[bhl]", re.IGNORECASE)
_FOR = {
    "clip": ("open_clip", "maps by CLIP, about a second an image on one core; no classifier is trained"),
    "sam": ("segment_anything", "SAM's masks vote on the seeds; minutes an image without a GPU"),
}


@dataclass(frozen=True)
class Networks:
    """Files with the weights of networks that were trained on other data.

    Attributes:
        clip: A state dict of OpenAI's CLIP ViT-B/16, whose maps take the place of a classifier's.
        sam: A file of SAM's authors. SAM's masks vote on the seeds.
    """

    clip: Path | None = None
    sam: Path | None = None

    @property
    def sam_variant(self) -> str:
        """Return the size of SAM, which its authors' files have in their names. Raises ValueError if this one does not."""
        found = _SAM_NAME.search(self.sam.name if self.sam is not None else "")
        if found is None:
            raise ValueError(
                f"--sam {self.sam}: its name does not tell the size of SAM; rename it to have vit_b, vit_l or vit_h in it"
            )
        return found.group().lower()


def checked(networks: Networks) -> Networks:
    """Return the networks with absolute paths.

    Raises:
        ValueError: if a file is not there or of unknown size, or the package that builds its network is not installed.
    """
    files: dict[str, Path | None] = {}
    for name, (package, _) in _FOR.items():
        file: Path | None = getattr(networks, name)
        if file is not None and not file.is_file():
            what = "is a folder" if file.is_dir() else "there is no such file"
            raise ValueError(f"--{name} {file}: {what}; give the file with the weights")
        if file is not None and find_spec(package) is None:
            raise ValueError(f"--{name}: needs the package {package}. Run: pip install 'wsss-ray[{name}]'")
        files[name] = file.absolute() if file is not None else None
    found = Networks(**files)
    if found.sam is not None:
        _ = found.sam_variant
    return found


def offers(networks: Networks) -> Iterator[str]:
    """Say which networks have weights on this machine that are not used.

    Args:
        networks: The networks that are used.
    """
    for name, (package, what) in _FOR.items():
        file = next(_at_hand(name), None)
        if file is not None and getattr(networks, name) is None:
            first = "" if find_spec(package) is not None else f" (after pip install 'wsss-ray[{name}]')"
            yield f"--{name} {shlex.quote(str(file))}{first}: {what}"


def _at_hand(name: str) -> Iterator[Path]:
    """List files with the weights of a network here, and where the packages that download them keep them."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # Path.home() may raise
    hub = Path(os.environ.get("HF_HOME") or cache / "huggingface") / "hub"
    torch_home = Path(os.environ.get("TORCH_HOME") or cache / "torch")
    places = {
        "clip": [
            (Path(), "ViT-B-16.safetensors"),
            (Path(), "ViT-B-16-quickgelu*.safetensors"),
            (hub, "models--timm--vit_base_patch16_clip_224.openai/snapshots/*/open_clip_model.safetensors"),
        ],
        "sam": [(Path(), "sam_vit_[bhl]*.pth"), (torch_home / "hub" / "checkpoints", "sam_vit_[bhl]*.pth")],
    }
    for folder, pattern in places[name]:
        yield from sorted(file for file in folder.glob(pattern) if file.is_file())
