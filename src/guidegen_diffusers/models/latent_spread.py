"""How the mean latents of the classes vary from case to case, beside what label map and text say of a CT (Stage III).

    m_c = mean of x_0 over cells, each with the square of its share of class c as its weight
    first step      x_0 += sum_c share_c delta_c,   delta_c = b_c + sum_k eps_k W_kc,   eps ~ N(0, 1)
    next steps      x_0 += sum_c share_c d_c,   d such that each m_c is what the first step made it

Where z_t is noise alone, the U-Net answers with the middle of all cases that label map and text allow: of all scan
phases, of a full stomach and one of gas. White noise hides a voxel, not an organ, since the mean of a thousand cells
shows through it at once, so that the next step takes this middle for what is there. As in Stage I, then, the first
step decides, and the later ones, which would draw back to the middle, keep what it decided.
W are the principal components of what cases have beside it, b is what is missing on average in the CT that comes out;
both are measured by `examples/measure_spread.py`; nothing here learns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import nn

from ..labels import NUM_CLASSES
from .strict_model import StrictModelMixin


__all__ = ["LatentSpread", "class_means", "class_shares", "move_to_means"]

_SEEN = 0.5  # cells of a class, by their weights; of fewer, a mean says nothing
_RIDGE = 0.01  # of how far classes answer, for those that lie in the same cells


class LatentSpread(StrictModelMixin):
    """
    Args:
        num_components (`int`, defaults to 12): K.
        latent_channels (`int`, defaults to 4): those of the autoencoder.
        num_classes (`int`, defaults to 21).
    """

    @register_to_config
    def __init__(self, num_components: int = 12, latent_channels: int = 4, num_classes: int = NUM_CLASSES):
        super().__init__()
        components = torch.zeros(num_components, num_classes, latent_channels)
        self.components = nn.Parameter(components, requires_grad=False)  # W, each as long as its standard deviation
        self.mean = nn.Parameter(torch.zeros(num_classes, latent_channels), requires_grad=False)  # b

    def forward(
        self,
        shares: torch.Tensor,  # (B, N, x, y, z), of `class_shares`
        normal: torch.Tensor,  # (B, K), eps
    ) -> torch.Tensor:
        """What the first step moves x_0 by, (B, C, x, y, z) in float32."""
        delta = self.mean.float() + torch.einsum("bk,knc->bnc", normal.float(), self.components.float())
        return _over_cells(delta, shares)


def class_shares(labels: torch.Tensor, size: Sequence[int], num_classes: int = NUM_CLASSES) -> torch.Tensor:
    """The share of each class in the voxels of each cell of a grid of `size`: (B, X, Y, Z) to (B, N, x, y, z)."""
    shares = [F.adaptive_avg_pool3d((labels == k).float(), tuple(size)) for k in range(num_classes)]
    return torch.stack(shares, 1)


def class_means(latents: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """m of latents (B, C, x, y, z), (B, N, C) in float32; NaN where a class is not there."""
    weights = shares.flatten(2) ** 2  # (B, N, V)
    total = weights.sum(-1, keepdim=True)
    return torch.where(total > _SEEN, weights @ latents.float().flatten(2).mT / total, torch.nan)


def move_to_means(latents: torch.Tensor, shares: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    """What to add to latents (B, C, x, y, z) for their class means to be `means` (B, N, C): one number a class.

    Classes share cells, so that the mean of one answers to the moves of all: d solves G d = means - m, with G the
    share of class k in the cells of class c. Classes that are not there do not move.
    """
    away = (means - class_means(latents, shares)).nan_to_num()
    flat = shares.flatten(2)
    answer = flat**2 @ flat.mT / (flat**2).sum(-1, keepdim=True).clamp(min=_SEEN)  # G, (B, N, N)
    answer = answer * ~means.isnan().any(-1, keepdim=True)
    ridge = _RIDGE * torch.eye(answer.shape[1], device=answer.device)
    return _over_cells(torch.linalg.solve(answer + ridge, away), shares)


def _over_cells(moves: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    return torch.einsum("bnc,bnxyz->bcxyz", moves, shares)
