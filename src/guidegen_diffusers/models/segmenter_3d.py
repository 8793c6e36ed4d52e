"""A small segmenter: CT in HU to the 21 classes, a residual U-Net of convolutions.

It is an instrument, not a stage of GuideGen: it reads generated CT, so that the label map it was painted on can be
compared, its deepest features place a volume in a space where sets have distances, and what it measures of each
structure is what a classifier reads patients off. Norms act on each voxel's channels alone, as in the autoencoder, so
that crops and whole volumes give the same.
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
from .conv_3d import Conv3d
from .strict_model import StrictModelMixin
from .vq_model_3d import VQResBlock3D


__all__ = ["MEASURES", "Segmenter3D", "Segmenter3DOutput"]

WINDOWS = ((-1500.0, 1500.0), (-1000.0, -400.0), (-150.0, 250.0))  # HU: everything, lung, soft tissue
FEW = 1e-3  # voxels or cells: of what is not there, no mean is taken
MEASURES = 1 + len(WINDOWS) + 3  # of a structure: size, brightness, place; beside what lies around


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
        self.conv_in = Conv3d(len(WINDOWS), widths[0], 3, padding=1)
        self.down = nn.ModuleList(VQResBlock3D(w, w) for w in widths)
        self.shrink = nn.ModuleList(Conv3d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(widths))
        self.grow = nn.ModuleList(Conv3d(b, a, 1) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(VQResBlock3D(2 * w, w) for w in widths[:-1])
        self.conv_out = Conv3d(widths[0], num_classes, 1)

    def forward(self, ct: torch.Tensor, return_dict: bool = True) -> Segmenter3DOutput | tuple[torch.Tensor, ...]:
        """CT in HU, (B, X, Y, Z) of any number type, its sides multiples of the coarsest cell."""
        factor = 2 ** len(self.shrink)
        if ct.ndim != 4 or any(n % factor for n in ct.shape[1:]):
            raise ValueError(f"ct: got shape {tuple(ct.shape)}, expected (B, X, Y, Z), multiples of {factor}.")
        x = self.conv_in((2 * _windows(ct.float()) - 1).to(self.dtype))
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

    @torch.no_grad()
    def measure(self, ct: torch.Tensor, logits: torch.Tensor | None = None) -> torch.Tensor:
        """What a radiologist would name of each structure, (B, num_classes, MEASURES + num_classes).

        The logarithm of its voxels, and means over them of HU in windows, of place in the body, and of what lies
        around; a voxel counts by the probability that it is of the structure. `logits` are those of `ct`, where they
        are at hand.
        """
        logits = self(ct).logits if logits is None else logits
        share = logits.float().softmax(1)
        with torch.autocast(ct.device.type, enabled=False):  # sums over so many voxels need float32
            size = share.flatten(2).sum(2, keepdim=True).clamp(min=FEW).log()
            cells = F.avg_pool3d(share, 2, ceil_mode=True)  # fine enough for what lies around
            around = F.avg_pool3d(F.pad(cells, [1] * 6), 3, 1)
            means = [_means(share, _windows(ct.float())), _means(share, _places(share)), _means(cells, around)]
            return torch.cat([size, *means], 2)


def _windows(ct: torch.Tensor) -> torch.Tensor:
    """HU (B, X, Y, Z) in each of the windows, (B, len(WINDOWS), X, Y, Z) from 0 to 1."""
    return torch.stack([((ct - low) / (high - low)).clamp(0, 1) for low, high in WINDOWS], dim=1)


def _places(share: torch.Tensor) -> torch.Tensor:
    """(B, 3, X, Y, Z): where a voxel lies along each axis, in standard deviations of where organs lie."""
    body, places = 1 - share[:, 0] + 1e-6, []
    for axis in range(3):
        steps = torch.arange(body.shape[1 + axis], device=body.device, dtype=body.dtype)
        weight = body.sum([d for d in (1, 2, 3) if d != 1 + axis])
        weight = weight / weight.sum(1, keepdim=True)
        away = steps - (weight @ steps)[:, None]
        place = away / (weight * away**2).sum(1, keepdim=True).sqrt().clamp(min=1.0)
        places.append(place[:, :, None, None].movedim(1, 1 + axis).expand_as(body))
    return torch.stack(places, 1)


def _means(share: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """Means (B, N, C) of `shown` (B, C, x, y, z) over the structures of `share` (B, N, x, y, z)."""
    share, shown = share.flatten(2), shown.flatten(2)
    return share @ shown.transpose(1, 2) / share.sum(2, keepdim=True).clamp(min=FEW)
