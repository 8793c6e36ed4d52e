"""How the mean latents of the classes vary from case to case, beside what label map and text say of a CT (Stage III).

    delta_c = sum_k eps_k W_kc,   eps ~ N(0, 1),   W_kc the principal components of what cases have beside it

Where z_t is noise alone, the U-Net answers with the middle of all cases that label map and text allow: of all scan
phases, of a full stomach and one of gas. White noise hides a voxel, not an organ, since the mean of a thousand cells
shows through it at once, so that the next step takes this middle for what is there. As in Stage I, then, the first
step decides, and x_0 is moved by delta there; the steps after it read what was decided and go on from it.
W is measured by `examples/measure_spread.py`; nothing here learns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import nn

from ..labels import NUM_CLASSES
from .strict_model import StrictModelMixin


__all__ = ["LatentSpread"]


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

    def forward(
        self,
        labels: torch.Tensor,  # (B, X, Y, Z) uint8 class ids
        normal: torch.Tensor,  # (B, K), eps
        size: Sequence[int],  # x, y, z
    ) -> torch.Tensor:
        """delta on the latent grid, (B, C, x, y, z) in float32; a cell gets the mean of its voxels'."""
        moves = torch.einsum("bk,knc->bnc", normal.float(), self.components.float())
        cells = [
            F.adaptive_avg_pool3d(move[item.long()].movedim(-1, 0), tuple(size))
            for move, item in zip(moves, labels, strict=True)
        ]
        return torch.stack(cells)
