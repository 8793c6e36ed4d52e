"""A small segmenter: CT in HU to the 21 classes, a residual U-Net of convolutions.

It is an instrument, not a stage of GuideGen: it reads generated CT, so that the label map it was painted on can be
compared, and its deepest features place a volume in a space where sets have distances. Norms act on each voxel's
channels alone, as in the autoencoder, so that crops and whole volumes give the same.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn

from ..labels import NUM_CLASSES
from .strict_model import StrictModelMixin
from .vq_model_3d import VQResBlock3D


__all__ = ["Segmenter3D", "Segmenter3DOutput"]

WINDOWS = ((-1500.0, 1500.0), (-1000.0, -400.0), (-150.0, 250.0))  # HU: everything, lung, soft tissue


@dataclass
class Segmenter3DOutput(BaseOutput):
    """
    Args:
        logits (`torch.Tensor` of shape `(B, num_classes, X, Y, Z)`).
        features (`torch.Tensor` of shape `(B, C, x, y, z)`): of the coarsest level.
    """

    logits: torch.Tensor
    features: torch.Tensor | None = None  # never None; accelerate rebuilds outputs from one dict of all fields


class Segmenter3D(StrictModelMixin):
    """
    Args:
        spacing (`float`, defaults to 6.0): edge in mm of the voxels that it was trained on.
        num_classes (`int`, defaults to 21).
        block_out_channels (`tuple[int, ...]`): widths of the levels; each after the first halves the grid.
    """

    @register_to_config
    def __init__(
        self,
        spacing: float = 6.0,
        num_classes: int = NUM_CLASSES,
        block_out_channels: tuple[int, ...] = (16, 32, 64, 96),
    ):
        super().__init__()
        widths = list(block_out_channels)
        self.conv_in = nn.Conv3d(len(WINDOWS), widths[0], 3, padding=1)
        self.down = nn.ModuleList(VQResBlock3D(w, w) for w in widths)
        self.shrink = nn.ModuleList(nn.Conv3d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(widths))
        self.grow = nn.ModuleList(nn.Conv3d(b, a, 1) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(VQResBlock3D(2 * w, w) for w in widths[:-1])
        self.conv_out = nn.Conv3d(widths[0], num_classes, 1)

    def forward(self, ct: torch.Tensor, return_dict: bool = True) -> Segmenter3DOutput | tuple[torch.Tensor, ...]:
        """CT in HU, (B, X, Y, Z) of any number type, its sides multiples of the coarsest cell."""
        factor = 2 ** len(self.shrink)
        if ct.ndim != 4 or any(n % factor for n in ct.shape[1:]):
            raise ValueError(f"ct: got shape {tuple(ct.shape)}, expected (B, X, Y, Z), multiples of {factor}.")
        ct = ct.float()
        x = torch.stack([2 * ((ct - low) / (high - low)).clamp(0, 1) - 1 for low, high in WINDOWS], dim=1)
        x = self.conv_in(x.to(self.dtype))
        skips = []
        for block, shrink in itertools.zip_longest(self.down, self.shrink):
            x = block(x)
            skips.append(x)
            x = x if shrink is None else shrink(x)
        features = skips.pop()
        for block, grow in zip(reversed(self.up), reversed(self.grow), strict=True):
            x = F.interpolate(grow(x), scale_factor=2.0, mode="nearest")
            x = block(torch.cat([x, skips.pop()], dim=1))
        logits = self.conv_out(x)
        return Segmenter3DOutput(logits=logits, features=features) if return_dict else (logits, features)

    @torch.no_grad()
    def segment(self, ct: torch.Tensor) -> torch.Tensor:
        """Class ids, (B, X, Y, Z) `uint8`."""
        return self(ct).logits.argmax(1).to(torch.uint8)
