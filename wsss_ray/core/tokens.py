"""Define trunks that also show their tokens: transformers with class tokens, patch tokens and the attention between them."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, NamedTuple

from wsss_ray.core.contracts import Trunk

if TYPE_CHECKING:
    from torch import Tensor, nn


class Tokens(NamedTuple):
    """The tokens of a batch of images after the last layer, and the attention of every layer.

    In these shapes, T are the class tokens, A the layers and N = T + H * W all tokens of an image: class tokens first, then the
    patches row by row.

    Attributes:
        class_BTC: class tokens.
        patch_BCHW: patch tokens as a feature map.
        attention_BANN: attention, averaged over the heads. Row i says how much token i reads of each token, and sums to 1.
    """

    class_BTC: Tensor
    patch_BCHW: Tensor
    attention_BANN: Tensor


class TokenTrunk(Trunk):
    """A transformer. As a plain trunk (`build`), its features are its patch tokens, so any head and any CAM works on it."""

    @abstractmethod
    def build_tokens(self, class_tokens: int) -> nn.Module:
        """Build the network with several class tokens, and load its weights, if it has any.

        Args:
            class_tokens: number T of class tokens, such as one for each class. Each starts from the pretrained one.

        Returns:
            A module image_BCHW (RGB, 0..255) -> `Tokens`. It has `channels` and `centres`, as `Trunk.build` describes them.

        Raises:
            ValueError: if the weights are missing or do not fit.

        Example:
            >>> net = TimmVit(name="deit_small_patch16_224").build_tokens(20)
            >>> net(torch.zeros(1, 3, 224, 224)).class_BTC.shape
            torch.Size([1, 20, 384])
        """
