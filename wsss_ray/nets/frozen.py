"""Run a frozen trunk image by image, and use features that were computed before.

The features of an image then depend on nothing but the image, the weights and the form of the trunk: not on the other images of a
batch, nor on the number of threads or workers. So it does not matter which of them are computed and which are read.
"""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from wsss_ray.core.contracts import Inference
from wsss_ray.nets.fused import fused

if TYPE_CHECKING:
    from wsss_ray.core.values import ImageArray

Find = Callable[[bytes], Tensor | None]
"""Look up features_CHW by the key of an image."""


class FrozenTrunk:
    """The function image_BCHW -> features_BCHW of a frozen trunk, without gradients.

    Args:
        trunk: module with pretrained weights.
        form: form of inference, "fused" or "bfloat16".
        threads: images that are computed at a time on a CPU, with one thread each.
        keep: leave the trunk as it is, for a network that is saved later, and bring a copy into this form.

    A copy, or one that was pickled, has one thread and looks nothing up. Its features are the same.

    Example:
        >>> net.trunk.forward = FrozenTrunk(net.trunk, "fused", threads=2)
        >>> net(image_BCHW)
    """

    def __init__(self, trunk: nn.Module, form: Inference, *, threads: int = 1, keep: bool = True) -> None:
        self.salt = _digest([form.encode(), *(_bytes(tensor) for _, tensor in sorted(trunk.state_dict().items()))])
        self._run = fused((copy.deepcopy(trunk) if keep else trunk).eval().requires_grad_(False), form)
        self._pool = _single_threads(threads) if threads > 1 else None
        self._given: tuple[Tensor, Tensor] | None = None
        self.find: Find | None = None
        self.computed = 0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pool": None, "_given": None, "find": None}

    def give(self, image_BCHW: Tensor, features_BCHW: Tensor) -> None:
        """Set the features of a batch. The next call with this tensor returns them."""
        self._given = (image_BCHW, features_BCHW)  # the images are kept so that no other tensor gets their memory

    def __call__(self, image_BCHW: Tensor) -> Tensor:
        """Return features_BCHW, those that are known already or else new ones."""
        given, self._given = self._given, None
        if given is not None and given[0].data_ptr() == image_BCHW.data_ptr() and given[0].shape == image_BCHW.shape:
            return given[1]
        images = torch.split(image_BCHW.detach(), 1)
        run = self._pool.map if self._pool is not None and image_BCHW.device.type == "cpu" else map
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the order of sums depends on it
        try:
            return torch.cat(list(run(self._one, images)))
        finally:
            torch.set_num_threads(threads)

    def key(self, image_HWC: ImageArray) -> bytes:
        """Return the key of an image, uint8 RGB, by which its features are found."""
        return view_key(self.salt, image_HWC)

    def _one(self, image_1CHW: Tensor) -> Tensor:
        if self.find is not None:
            pixel_HWC = image_1CHW[0].permute(1, 2, 0)
            image_HWC = pixel_HWC.to(torch.uint8)
            if torch.equal(image_HWC.float(), pixel_HWC):
                found = self.find(self.key(image_HWC.cpu().numpy()))
                if found is not None:
                    return found.to(image_1CHW.device)[None]
        with torch.no_grad():
            self.computed += 1
            features_1CHW: Tensor = self._run(image_1CHW)
            return features_1CHW


def view_key(salt: bytes, image_HWC: ImageArray) -> bytes:
    """Return the key of an image for a trunk with this `FrozenTrunk.salt`: 16 bytes, a hash of all pixels.

    Example:
        >>> len(view_key(b"trunk", np.zeros((8, 8, 3), np.uint8)))
        16
    """
    return _digest([salt, np.asarray(image_HWC.shape, np.int64).tobytes(), np.ascontiguousarray(image_HWC)])


def give_features(net: nn.Module, image_BCHW: Tensor, features_BCHW: Tensor | None) -> None:
    """Hand the known features of a batch to the frozen trunk of a network, before the network is called.

    Args:
        net: network, without a wrapper for distributed training.
        image_BCHW: the images that the network is called with.
        features_BCHW: their features; None does nothing.
    """
    trunk = getattr(getattr(net, "trunk", None), "forward", None)
    if features_BCHW is not None and isinstance(trunk, FrozenTrunk):
        trunk.give(image_BCHW, features_BCHW)


def _single_threads(count: int) -> ThreadPoolExecutor:
    """Start threads in which torch uses one thread each."""
    before, started = torch.get_num_threads(), threading.Barrier(count + 1)

    def begin() -> None:
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="trunk", initializer=begin)
    for _ in range(count):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(before)  # torch keeps the last number for threads that it starts later
    return pool


def _digest(parts: Iterable[Any]) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(part)
    return found.digest()


def _bytes(tensor: Tensor) -> Any:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy() if tensor.ndim else b""
