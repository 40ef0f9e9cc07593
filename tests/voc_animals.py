"""Where the built set of animal photographs is, for tests that use it: in $VOC_ANIMALS, or beside the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("VOC_ANIMALS", Path(__file__).parents[2] / "shared/voc_animals"))
needs_it = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the set of benchmarks/voc_animals/build.py in $VOC_ANIMALS")
