"""LPIPS of two volumes (Zhang et al., 2018): how far they lie apart in the features of a network, level by level.

    d = sum over levels of mean over places of sum over channels of w (a / |a| - b / |b|)^2

with features a, b and weights w: of the published linear heads, or 1. Like feature networks both say their `name`,
`version` and what they read. Figures of different networks have nothing to do with one another.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch

from ..models import Segmenter3D
from .features import (
    PLANES,
    load_torchvision,
    pad_with_air,
    plane_slices,
    read_weights,
    volume_batches,
    weights_version,
    windowed,
)


__all__ = ["SegmenterLPIPS", "SliceLPIPS"]

# where a level ends in torchvision's `features`: after the last ReLU of each resolution
LEVELS = {"alexnet": (1, 4, 7, 9, 11), "vgg16": (3, 8, 15, 22, 29)}
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of the published heads; images are in [-1, 1]
LEAST_SIDE = 32  # pixels that the deepest level needs


def perceptual_distance(
    a: Sequence[torch.Tensor], b: Sequence[torch.Tensor], weights: Sequence[torch.Tensor] | None = None
) -> torch.Tensor:
    """The distance (B,) of two lists of features (B, C, ...), one a level; `weights` (C,) a level, 1 unless given."""
    total = torch.zeros(len(a[0]), dtype=torch.float64)
    for level, pair in enumerate(zip(a, b, strict=True)):
        one, other = (x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) for x in pair)
        apart = (one - other).square().flatten(2).mean(2)  # (B, C)
        apart = apart if weights is None else apart * weights[level].to(apart)
        total += apart.sum(1).double().cpu()
    return total


class SegmenterLPIPS:
    """LPIPS by the levels of a [`Segmenter3D`]'s way down: 3-D, made for CT, every channel weighing the same.

    Called with two volumes of one shape in HU, at the segmenter's spacing.

    Args:
        segmenter (`Segmenter3D`): moved to `device`, and set to evaluate.
        device (`str` or `torch.device`, defaults to `"cpu"`).
    """

    def __init__(self, segmenter: Segmenter3D, device: str | torch.device = "cpu"):
        self.network, self.device = segmenter.eval().to(device), device
        self.name = f"LPIPS, Segmenter3D's {len(segmenter.down)} levels"
        self.version = weights_version(segmenter)
        self.reads = f"HU of voxels of {segmenter.config.spacing:g} mm"

    @torch.no_grad()
    def __call__(self, a: np.ndarray, b: np.ndarray) -> float:
        pair = next(volume_batches([a, b], 2))
        levels: list[torch.Tensor] = []
        hooks = [
            block.register_forward_hook(lambda *call: levels.append(call[2].float())) for block in self.network.down
        ]
        try:
            self.network(pad_with_air(pair, 2 ** (len(hooks) - 1)).to(self.device))
        finally:
            for hook in hooks:
                hook.remove()
        return perceptual_distance([x[:1] for x in levels], [x[1:] for x in levels]).item()


class SliceLPIPS:
    """LPIPS by torchvision's AlexNet or VGG16, the mean over slices: the published metric where `heads` are its own.

    Called with two volumes of one shape in HU. Slices are as they are, in a lung, a soft tissue and a wide window.

    Args:
        name (`str`): "alexnet" or "vgg16".
        weights: a local file of that network's state, `.safetensors` or a pickle of tensors.
        heads (*optional*): a local file of the linear heads, as the `lpips` package has them (`alex.pth`, `vgg.pth`);
            every channel weighs the same unless given.
        planes (`Sequence[str]`, defaults to `("axial",)`): of "sagittal", "coronal" and "axial".
        num_slices (`int`, *optional*): evenly spread, of each plane; all unless given.
        device (`str` or `torch.device`, defaults to `"cpu"`).
        batch_size (`int`, defaults to 16): slices at a time.
    """

    def __init__(
        self,
        name: str,
        weights: str | os.PathLike,
        heads: str | os.PathLike | None = None,
        planes: Sequence[str] = ("axial",),
        num_slices: int | None = None,
        device: str | torch.device = "cpu",
        batch_size: int = 16,
    ):
        if name not in LEVELS:
            raise ValueError(f"name: got {name!r}, expected one of {', '.join(LEVELS)}.")
        if not planes or set(planes) - set(PLANES):
            raise ValueError(f"planes: got {planes!r}, expected of {', '.join(PLANES)}.")
        self.network = load_torchvision(name, weights).features.to(device)
        self.taps, self.heads = LEVELS[name], None if heads is None else _read_heads(heads, self.network, LEVELS[name])
        self.planes, self.num_slices, self.device, self.batch_size = tuple(planes), num_slices, device, batch_size
        self.name = f"LPIPS, torchvision {name}, {'every channel alike' if heads is None else 'linear heads'}"
        self.version = weights_version(self.network)
        self.reads = f"{num_slices or 'all'} slices, {', '.join(planes)}, in three windows"

    @torch.no_grad()
    def __call__(self, a: np.ndarray, b: np.ndarray) -> float:
        pair = next(volume_batches([a, b], 2))
        found = []
        for plane in self.planes:
            slices = (plane_slices(volume, plane, self.num_slices).split(self.batch_size) for volume in pair)
            for one, other in zip(*slices, strict=True):
                found.append(self.of_images(2 * windowed(one) - 1, 2 * windowed(other) - 1))
        return torch.cat(found).mean().item()

    @torch.no_grad()
    def of_images(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """The distance (B,) of images (B, 3, H, W) in [-1, 1], as the `lpips` package gives it."""
        if a.shape != b.shape or a.ndim != 4 or a.shape[1] != 3 or min(a.shape[2:]) < LEAST_SIDE:
            raise ValueError(
                f"a, b: got shapes {tuple(a.shape)} and {tuple(b.shape)}, expected one shape (B, 3, H, W) of at least "
                f"{LEAST_SIDE} x {LEAST_SIDE} pixels."
            )
        return perceptual_distance(self._levels(a), self._levels(b), self.heads)

    def _levels(self, images: torch.Tensor) -> list[torch.Tensor]:
        x = (images - images.new_tensor(SHIFT)[:, None, None]) / images.new_tensor(SCALE)[:, None, None]
        x, levels = x.to(self.device), []
        for place, layer in enumerate(self.network[: self.taps[-1] + 1]):
            x = layer(x)
            if place in self.taps:
                levels.append(x.clone())  # the next ReLU may work in place
        return levels


def _read_heads(path: str | os.PathLike, network: torch.nn.Sequential, taps: Sequence[int]) -> list[torch.Tensor]:
    """The weights (C,) of each level."""
    state = read_weights(path)
    names = [f"lin{level}.model.1.weight" for level in range(len(taps))]
    widths = [network[tap - 1].out_channels for tap in taps]
    shapes = [tuple(state[name].shape) if name in state else None for name in names]
    if shapes != [(1, width, 1, 1) for width in widths]:
        raise ValueError(f"{path}: got heads {dict(zip(names, shapes, strict=True))}, expected widths {widths}.")
    return [state[name].flatten() for name in names]
