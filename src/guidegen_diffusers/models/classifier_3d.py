"""A small classifier: CT in HU to age, sex, race and tumour site at once, one trunk with a head for each.

It is an instrument, not a stage of GuideGen: it reads generated CT, so that the patient who was asked for and the one
who was painted can be compared. The trunk is the segmenter's way down; a head reads it place by place on a coarse grid
that spans the volume, as a site is a place.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn

from ..prompts import AGES, RACES, SEXES, SITES
from .segmenter_3d import WINDOWS
from .strict_model import StrictModelMixin
from .vq_model_3d import ChannelNorm, VQResBlock3D


__all__ = ["ATTRIBUTES", "Classifier3D", "Classifier3DOutput"]

ATTRIBUTES = {"age": AGES, "sex": SEXES, "race": RACES, "site": SITES}  # what is read, and the values in order
PLACES = (4, 3, 6)  # cells that a volume is summed up in


@dataclass
class Classifier3DOutput(BaseOutput):
    """Logits `(B, number of values)` of each attribute, in the order of `ATTRIBUTES`."""

    age: torch.Tensor
    sex: torch.Tensor | None = None  # never None; accelerate rebuilds outputs from one dict of all fields
    race: torch.Tensor | None = None
    site: torch.Tensor | None = None


class Classifier3D(StrictModelMixin):
    """
    Args:
        spacing (`float`, defaults to 6.0): edge in mm of the voxels that it was trained on.
        block_out_channels (`tuple[int, ...]`): widths of the levels; each after the first halves the grid.
        place_channels (`int`, defaults to 32): numbers that a head sees of each place.
    """

    @register_to_config
    def __init__(
        self,
        spacing: float = 6.0,
        block_out_channels: tuple[int, ...] = (16, 32, 64, 96),
        place_channels: int = 32,
    ):
        super().__init__()
        widths = list(block_out_channels)
        self.conv_in = nn.Conv3d(len(WINDOWS), widths[0], 3, padding=1)
        self.down = nn.ModuleList(VQResBlock3D(w, w) for w in widths)
        self.shrink = nn.ModuleList(nn.Conv3d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(widths))
        self.norm_out = ChannelNorm(widths[-1])
        self.conv_out = nn.Conv3d(widths[-1], place_channels, 1)
        size = place_channels * math.prod(PLACES)
        self.heads = nn.ModuleDict({name: nn.Linear(size, len(values)) for name, values in ATTRIBUTES.items()})

    def forward(self, ct: torch.Tensor, return_dict: bool = True) -> Classifier3DOutput | tuple[torch.Tensor, ...]:
        """CT in HU of whole torsos, (B, X, Y, Z) of any number type."""
        if ct.ndim != 4:
            raise ValueError(f"ct: got shape {tuple(ct.shape)}, expected (B, X, Y, Z).")
        ct = ct.float()
        x = torch.stack([2 * ((ct - low) / (high - low)).clamp(0, 1) - 1 for low, high in WINDOWS], dim=1)
        x = self.conv_in(x.to(self.dtype))
        for block, shrink in itertools.zip_longest(self.down, self.shrink):
            x = block(x)
            x = x if shrink is None else shrink(x)
        x = F.silu(self.conv_out(F.silu(self.norm_out(x))))
        x = F.adaptive_max_pool3d(x, PLACES).flatten(1)
        # without the root a step of Adam on so wide a layer throws the logits about, and nothing is learned
        x = F.layer_norm(x, x.shape[1:]) / math.sqrt(x.shape[1])
        logits = {name: head(x) for name, head in self.heads.items()}
        return Classifier3DOutput(**logits) if return_dict else tuple(logits.values())

    @torch.no_grad()
    def classify(self, ct: torch.Tensor) -> list[dict[str, str]]:
        """The likeliest value of every attribute, a dict for each CT of (B, X, Y, Z)."""
        logits = self(ct)
        best = {name: logits[name].argmax(1).tolist() for name in ATTRIBUTES}
        return [{name: values[best[name][i]] for name, values in ATTRIBUTES.items()} for i in range(len(ct))]
