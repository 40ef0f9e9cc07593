"""Name the version of this package and its folder. This module imports nothing heavy, so that reading them is quick."""

from __future__ import annotations

from pathlib import Path

__version__ = "0.1.0"

PACKAGE = Path(__file__).resolve().parents[1]
"""Folder `wsss_ray` of this installation."""
