"""Loops that numba compiles for the machine they run on, once; kept beside the source, or in the user's cache folder.

Compiled without fast-math, so that additions stay in the order in which they are written and results do not depend on the width
of a machine's vectors. The interpreter lock is released: threads may run them side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function of arrays and numbers at its first call. Functions that it calls must lie in the same file."""
    try:
        kept: Callable[P, R] = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # neither the package's folder nor a cache folder can be written
        kept = numba.njit(nogil=True, error_model="numpy")(function)
    return kept
