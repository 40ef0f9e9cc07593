"""Run CLIP's image tower step by step: its last layer with gradients, and the attention of every layer."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss_ray.nets.modules import Normalize

_MEAN = (0.48145466 * 255, 0.4578275 * 255, 0.40821073 * 255)
_STD = (0.26862954 * 255, 0.26130258 * 255, 0.27577711 * 255)


class ClipViews(NamedTuple):
    """What `ClipNet` shows of one image: Grad-CAMs of its tags, and the attention of every layer.

    Attributes:
        cam_CHW: Grad-CAMs on the grid of patches, at least 0 and not normalised.
        attention_ANN: attention between patches of every layer, averaged over the heads.
        probability_C: softmax of the texts of the tags and of the background, for the tags.
    """

    cam_CHW: Tensor
    attention_ANN: Tensor
    probability_C: Tensor


class ClipNet(nn.Module):
    """CLIP's image tower with the features of texts.

    Args:
        net: open_clip's CLIP with a vision transformer; its text tower is dropped.
        class_KD: features of the text of each class, of length 1.
        background_JD: features of the texts of the background, of length 1.
    """

    class_KD: Tensor
    background_JD: Tensor
    logit_scale: Tensor

    def __init__(self, net: Any, *, class_KD: Tensor, background_JD: Tensor) -> None:
        super().__init__()
        assert all(block.attn.batch_first for block in net.visual.transformer.resblocks), "open_clip's layout of tokens changed"
        self.visual: Any = net.visual
        self.normalize = Normalize(_MEAN, _STD)
        self.patch_size: int = net.visual.patch_size[0]
        self.register_buffer("class_KD", class_KD)
        self.register_buffer("background_JD", background_JD)
        self.register_buffer("logit_scale", net.logit_scale.detach().exp())

    def forward(self, image_1CHW: Tensor, tags_C: Tensor) -> ClipViews:
        """Make the softmax Grad-CAMs of the tags of one image.

        Args:
            image_1CHW: the image (RGB, 0..255), its sides multiples of the patches' side.
            tags_C: its tags (0-based), int64.
        """
        grid = (image_1CHW.shape[2] // self.patch_size, image_1CHW.shape[3] // self.patch_size)
        with torch.no_grad():
            x_1NC, attention = self._embedded(image_1CHW, grid), []
            *first, last = self.visual.transformer.resblocks
            for block in first:
                x_1NC, attention_NN = _through(block, x_1NC, block.ln_1(x_1NC))
                attention.append(attention_NN)
            normed_1NC = last.ln_1(x_1NC)
            text_TD = torch.cat([self.class_KD[tags_C], self.background_JD])
        with torch.enable_grad():
            normed_1NC = normed_1NC.detach().requires_grad_()
            y_1NC, attention_NN = _through(last, x_1NC, normed_1NC)
            image_1D = self.visual.ln_post(y_1NC)[:, 1:].mean(dim=1) @ self.visual.proj
            logits_1T = self.logit_scale * F.normalize(image_1D, dim=-1) @ text_TD.t()
            probability_C = logits_1T.softmax(dim=-1)[0, : len(tags_C)]
            cams = [
                self._cam(torch.autograd.grad(one, normed_1NC, retain_graph=True)[0], normed_1NC, grid) for one in probability_C
            ]
        cam_CHW = torch.stack(cams) if cams else normed_1NC.new_zeros(0, *grid)
        return ClipViews(cam_CHW.detach(), torch.stack([*attention, attention_NN.detach()]), probability_C.detach())

    def _cam(self, gradient_1NC: Tensor, normed_1NC: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return the Grad-CAM of one tag: features weighted by their mean gradient over the patches (Selvaraju et al., 2017)."""
        weight_C = gradient_1NC[0, 1:].mean(dim=0)
        return (normed_1NC[0, 1:] @ weight_C).relu().view(grid)

    def _embedded(self, image_1CHW: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return all tokens before the first layer. The positional embeddings are resized bilinearly."""
        visual = self.visual
        patch_1CHW = visual.conv1(self.normalize(image_1CHW))
        place_NC = visual.positional_embedding
        own_1CHW = place_NC[1:].t().reshape(1, -1, *visual.grid_size)
        resized_1CHW = F.interpolate(own_1CHW, size=grid, mode="bilinear", align_corners=False)
        patch_1NC = (patch_1CHW + resized_1CHW).flatten(2).transpose(1, 2)
        class_11C = (visual.class_embedding + place_NC[0]).expand(1, 1, -1)
        embedded_1NC: Tensor = visual.ln_pre(torch.cat([class_11C, patch_1NC], dim=1))
        return embedded_1NC


def _through(block: Any, x_1NC: Tensor, normed_1NC: Tensor) -> tuple[Tensor, Tensor]:
    """Run a layer whose first norm is computed already. Returns its output, and the attention between patches (N - 1, N - 1)."""
    read_1NC, attention_1NN = block.attn(normed_1NC, normed_1NC, normed_1NC, need_weights=True)
    x_1NC = x_1NC + block.ls_1(read_1NC)
    return x_1NC + block.ls_2(block.mlp(block.ln_2(x_1NC))), attention_1NN[0, 1:, 1:]
