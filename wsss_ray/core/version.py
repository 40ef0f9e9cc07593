"""The version of this package and the folder it lies in. No imports, so that asking for either costs nothing."""

from __future__ import annotations

from pathlib import Path

__version__ = "0.1.0"

PACKAGE = Path(__file__).resolve().parents[1]
"""The folder `wsss_ray` of this installation."""
