"""Compile loops with numba, once per machine. The result is cached next to the source or in the user's cache folder.

Fast-math is off: additions keep their order in the source, so results do not depend on a machine's vector width. Compiled loops
release the interpreter lock, so several threads can run them at the same time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function of arrays and numbers at its first call.

    Args:
        function: function to compile. Functions that it calls must be in the same file.

    Returns:
        The compiled function.

    Example:
        >>> @compiled
        ... def total(values_N):
        ...     result = 0.0
        ...     for value in values_N:
        ...         result += value
        ...     return result
        >>> total(np.ones(3))
        3.0
    """
    try:
        kept: Callable[P, R] = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # neither the package's folder nor a cache folder is writable
        kept = numba.njit(nogil=True, error_model="numpy")(function)
    return kept
