"""What the first step of a sampling decides for the later ones: how large each class will be, and where the class that
is drawn whole will lie.

Where x_t tells nothing, f = p(x_0 | x_t) is what the condition says, and it is at its best there; long steps, which
take a joint law for a product, drift from it. Later steps keep the numbers. The place follows f, as the anatomy around
it takes shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F


__all__ = ["Layout", "spread_volumes"]

_LEAST = 1e-3  # what is nowhere likelier is what a network leaves to anything anywhere, and no piece
_FARTHEST = 8.0  # nats that a voxel far from a piece's place is worth less


@dataclass
class Layout:
    """
    Of one item.

    Args:
        volumes (`torch.Tensor` of shape `(N,)`): voxels of each class.
        piece (`int`): voxels of the whole class.
        place (`torch.Tensor` of shape `(3,)`, *optional*): where they lie, in voxels; None where there are none.
    """

    volumes: torch.Tensor
    piece: int = 0
    place: torch.Tensor | None = None

    @classmethod
    def decide(cls, volumes: torch.Tensor, f: torch.Tensor, whole_class: int, pick: torch.Tensor) -> Layout:
        """A place for the whole class, of f (X, Y, Z), in proportion to f times what f expects around it.

        There is none where f expects less than a voxel of likely places. `pick` is uniform in [0, 1), (1,) float64.
        """
        shown, voxels = torch.where(f >= _LEAST, f, 0), max(round(volumes[whole_class].item()), 1)
        if shown.sum() < 1:
            return cls(volumes)
        cumulative = (shown * _smooth(shown, max(_radius(voxels) / 2, 1.0))).flatten().cpu().double().cumsum(0)
        place = torch.searchsorted(cumulative, pick * cumulative[-1], right=True).clamp(max=f.numel() - 1)
        return cls(volumes, voxels, torch.stack(torch.unravel_index(place, f.shape), -1)[0].to(f))

    def follow(self, f: torch.Tensor) -> None:
        """Move the place to the mean of f around it, seen through a Gaussian."""
        if not self.piece:
            return
        near = f * torch.exp(-0.5 * self._square_distance(f) / max(_radius(self.piece), 2.0) ** 2)
        if near.sum() > 0:
            means = [near.sum([d for d in range(3) if d != axis]) @ _steps(f, axis) for axis in range(3)]
            self.place = torch.stack(means) / near.sum()

    def draw_piece(self, f: torch.Tensor) -> torch.Tensor:
        """Where x_0 is the whole class, (X, Y, Z) boolean: one piece around the place.

        Voxels of highest log-odds are taken, each less a penalty for its distance from the place; it has a ceiling, so
        that what f is sure of is taken wherever it is.
        """
        drawn = torch.zeros(f.numel(), dtype=torch.bool, device=f.device)
        if self.piece:
            away = self._square_distance(f) / _radius(self.piece) ** 2
            score = f.clamp(1e-9, 1 - 1e-6).logit() - away.clamp(max=_FARTHEST)
            drawn[score.flatten().topk(self.piece).indices] = True
        return drawn.view(f.shape)

    def _square_distance(self, f: torch.Tensor) -> torch.Tensor:
        x, y, z = ((_steps(f, axis) - self.place[axis]).square() for axis in range(3))
        return x[:, None, None] + y[:, None] + z


def spread_volumes(volumes: torch.Tensor, spread: torch.Tensor, normal: torch.Tensor) -> torch.Tensor:
    """Volumes (N,) drawn around those expected, which stay their means.

    `spread` (N, 2) are standard deviations of log-volumes, of what all classes have in common and of each one's own;
    `normal` is (1 + N,). Classes without a spread share what is left of the voxels.
    """
    away = spread[:, 0] * normal[0] + spread[:, 1] * normal[1:]
    drawn = volumes * (away - spread.square().sum(1) / 2).exp()
    rest = spread.sum(1) == 0
    drawn[rest] *= (volumes.sum() - drawn[~rest].sum()).clamp(min=0) / drawn[rest].sum()
    return drawn


def _steps(f: torch.Tensor, axis: int) -> torch.Tensor:
    return torch.arange(f.shape[axis], device=f.device, dtype=f.dtype)


def _radius(voxels: int) -> float:
    """Of a ball of so many voxels, in voxels."""
    return (0.75 * voxels / math.pi) ** (1 / 3)


def _smooth(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """(X, Y, Z) blurred by a Gaussian, in voxels; what lies outside counts 0."""
    reach = math.ceil(3 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=x.device) / sigma) ** 2)
    x = x[None, None]
    for dim in (2, 3, 4):
        sizes = [-1 if d == dim else 1 for d in range(5)]
        x = F.conv3d(x, (kernel / kernel.sum()).view(sizes), padding=[reach if d == dim else 0 for d in (2, 3, 4)])
    return x[0, 0]
