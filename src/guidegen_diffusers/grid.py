"""A voxel grid in the world: a shape and a RAS affine. Label maps are brought onto a grid by majority vote."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .labels import NUM_CLASSES


__all__ = ["Grid", "check_affine"]


def check_affine(affine: np.ndarray, what: str = "affine") -> np.ndarray:
    """The same affine as float64, or an error: 4 x 4, finite, invertible, last row 0 0 0 1."""
    affine = np.asarray(affine, dtype=np.float64)
    if affine.shape != (4, 4):
        raise ValueError(f"{what}: got shape {affine.shape}, expected a 4 x 4 voxel-to-world matrix in mm.")
    if not np.isfinite(affine).all() or not np.allclose(affine[3], (0, 0, 0, 1)):
        raise ValueError(f"{what}: got {affine.tolist()}, expected finite numbers with a last row of 0 0 0 1.")
    if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise ValueError(f"{what}: got a singular matrix {affine.tolist()}, expected three independent axes.")
    return affine


@dataclass(frozen=True, eq=False)
class Grid:
    """`shape` voxels X, Y, Z whose indices `affine` takes to millimetres (x to the right, y anterior, z superior)."""

    shape: tuple[int, int, int]
    affine: np.ndarray

    @classmethod
    def centered(cls, shape: Sequence[int], spacing: float, center: Sequence[float] = (0.0, 0.0, 0.0)) -> Grid:
        """An isotropic RAS grid around `center` (mm)."""
        affine = np.diag([spacing, spacing, spacing, 1.0])
        affine[:3, 3] = np.asarray(center) - (np.asarray(shape) - 1) / 2 * spacing
        return cls(tuple(int(n) for n in shape), affine)

    @property
    def center(self) -> np.ndarray:
        """The middle of the volume in mm."""
        return (self.affine @ [*((np.asarray(self.shape) - 1) / 2), 1.0])[:3]

    @property
    def spacing(self) -> np.ndarray:
        """Voxel sizes in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def resample_labels(self, labels: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """A label map on `affine` brought onto this grid, background where it does not reach.

        Each voxel asks the nearest source voxel at evenly spread points inside it, about one for every source voxel
        that it covers, and takes the majority; in a tie its centre decides (the lowest id would favour background over
        small organs and tumours). On the same grid this is the identity.
        """
        to_source = np.linalg.inv(affine) @ self.affine
        source_spacing = np.linalg.norm(affine[:3, :3], axis=0).min()
        points = [int(np.clip(np.ceil(s / source_spacing - 1e-3), 1, 8)) for s in self.spacing]
        votes = np.zeros((NUM_CLASSES, *self.shape), np.uint16)
        voxels = np.ogrid[tuple(slice(n) for n in self.shape)]
        spread = itertools.product(*((np.arange(n) + 0.5) / n - 0.5 for n in points))
        for offset, weight in [*((offset, 2) for offset in spread), ((0.0, 0.0, 0.0), 1)]:
            inside, index = np.ones(self.shape, bool), []
            for axis in range(3):
                position = to_source[axis, 3] + sum(to_source[axis, k] * (voxels[k] + offset[k]) for k in range(3))
                nearest = np.floor(position + 0.5 + 1e-6).astype(np.int32)
                inside &= (nearest >= 0) & (nearest < labels.shape[axis])
                index.append(nearest.clip(0, labels.shape[axis] - 1))
            found = np.where(inside, labels[tuple(index)], 0)[None].astype(np.intp)
            np.put_along_axis(votes, found, np.take_along_axis(votes, found, 0) + np.uint16(weight), 0)
        return votes.argmax(0).astype(np.uint8)
