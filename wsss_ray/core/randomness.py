"""Draw the keys of all random numbers from (job seed, purpose, epoch, image id), never from the worker or the clock."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def random_key(*parts: int | str) -> int:
    """Return a key of 63 bits. Equal parts give the same key on every machine.

    Example:
        >>> rng = np.random.default_rng(random_key(7, "noise", "2007_000032"))
    """
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@lru_cache(maxsize=4)
def epoch_order(num_images: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of the images in one epoch: a permutation of 0..num_images - 1, int64."""
    import numpy as np

    return np.random.default_rng(random_key(seed, "order", epoch)).permutation(num_images)
