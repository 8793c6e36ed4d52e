"""A voxel grid in the world: a shape and a RAS affine. Label maps are brought onto it by majority vote, CT by means.

Both go slab by slab: next to the source and the result, a few megabytes are held.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, sparse

from .labels import NUM_CLASSES


__all__ = ["Grid", "check_affine", "describe_grid"]

_SLAB = 4  # planes


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


def describe_grid(shape: Sequence[int], spacing: Sequence[float]) -> str:
    """Shape and spacing in words."""
    return f"{' x '.join(map(str, shape))} voxels of {' x '.join(f'{s:g}' for s in spacing)} mm"


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
        to_source, points = self._to_source(affine)
        offsets = [*((offset, 2) for offset in _spread(points)), ((0.0, 0.0, 0.0), 1)]
        result = np.empty(self.shape, np.uint8)
        for slab, voxels in self._slabs():
            votes = np.zeros((NUM_CLASSES, *result[slab].shape), np.uint16)
            for offset, weight in offsets:
                positions = [_position(row, voxels, offset) for row in to_source]
                index, inside = _nearest(positions, labels.shape)
                found = np.where(inside, labels[index], 0)[None].astype(np.intp)
                np.put_along_axis(votes, found, np.take_along_axis(votes, found, 0) + np.uint16(weight), 0)
            result[slab] = votes.argmax(0)
        return result

    def resample_ct(self, ct: np.ndarray, affine: np.ndarray, fill: float = -1024.0) -> np.ndarray:
        """A CT on `affine` brought onto this grid in `float32`, `fill` (air) where it does not reach.

        Each voxel is the mean of linear interpolations at the points that `resample_labels` asks, so that a fine CT is
        averaged and not thinned out. The source stays in its own type. On the same grid this is the identity.
        """
        to_source, points = self._to_source(affine)
        order = np.abs(to_source[:, :3]).argmax(0)  # which source axis runs along each of ours
        if np.count_nonzero(to_source[:, :3]) == 3 and len(set(order)) == 3:
            scales, origins = to_source[order, range(3)], to_source[order, 3]
            return self._resample_ct_by_axes(ct.transpose(order), scales, origins, points, fill)
        result = np.empty(self.shape, np.float32)
        for slab, voxels in self._slabs():
            total = np.zeros_like(result[slab])
            for offset in _spread(points):
                positions = [_position(row, voxels, offset) for row in to_source]
                _, inside = _nearest(positions, ct.shape)
                positions = np.stack(np.broadcast_arrays(*positions))
                found = ndimage.map_coordinates(ct, positions, np.float32, order=1, mode="nearest")
                total += np.where(inside, found, np.float32(fill))
            result[slab] = total / np.prod(points)
        return result

    def _resample_ct_by_axes(self, ct, scales, origins, points, fill: float) -> np.ndarray:
        """The same where the axes of both grids agree: a source voxel's weight is a product over them."""
        weights = [_weights(*axis) for axis in zip(self.shape, ct.shape, scales, origins, points, strict=True)]
        result = np.zeros(self.shape, np.float32)
        for start in range(0, ct.shape[2], _SLAB):
            deep = weights[2][:, start : start + _SLAB]
            if deep.nnz:
                slab = ct[:, :, start : start + _SLAB].astype(np.float32)
                result += _mix(deep, _mix(weights[1], _mix(weights[0], slab, 0), 1), 2)
        reached = [np.asarray(axis.sum(1), np.float32).ravel() for axis in weights]
        return result + np.float32(fill) * (1 - np.einsum("i,j,k->ijk", *reached))

    def _to_source(self, affine: np.ndarray) -> tuple[np.ndarray, list[int]]:
        """Our voxels to the source's (3 x 4), and how many points to ask along each axis of a voxel."""
        to_source = (np.linalg.inv(affine) @ self.affine)[:3]
        to_source[:, :3][np.abs(to_source[:, :3]) * max(self.shape) < 1e-9] = 0  # rounding, where the axes agree
        source_spacing = np.linalg.norm(affine[:3, :3], axis=0).min()
        return to_source, [int(np.clip(np.ceil(s / source_spacing - 1e-3), 1, 8)) for s in self.spacing]

    def _slabs(self) -> Iterator[tuple[slice, tuple[np.ndarray, ...]]]:
        """Our voxels, a few planes at a time: what is worked on fits the processor's cache."""
        for start in range(0, self.shape[0], _SLAB):
            slab = slice(start, min(start + _SLAB, self.shape[0]))
            yield slab, np.ogrid[(slab, *(slice(n) for n in self.shape[1:]))]


def _spread(points: Sequence[int]) -> Iterator[tuple[float, ...]]:
    """Evenly spread points of a voxel of size 1 around 0."""
    return itertools.product(*((np.arange(n) + 0.5) / n - 0.5 for n in points))


def _position(row: np.ndarray, voxels: Sequence[np.ndarray], offset: Sequence[float]) -> np.ndarray:
    """Where points of voxels lie along an axis of the source: as thin an array as the axes allow."""
    return row[3] + sum(row[k] * (voxels[k] + offset[k]) for k in range(3) if row[k])


def _nearest(positions: Sequence[np.ndarray], shape: Sequence[int]) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Indices of the nearest source voxels, and whether the source reaches there."""
    nearest = [np.floor(position + 0.5 + 1e-6).astype(np.int32) for position in positions]
    inside = functools.reduce(np.logical_and, ((i >= 0) & (i < n) for i, n in zip(nearest, shape, strict=True)))
    return tuple(i.clip(0, n - 1) for i, n in zip(nearest, shape, strict=True)), inside


def _weights(size: int, source_size: int, scale: float, origin: float, points: int) -> sparse.csr_array:
    """How much each of `source_size` voxels gives to each of `size` along an axis; less than 1 where it ends."""
    voxel = np.repeat(np.arange(size), points)
    position = origin + scale * (voxel + np.tile([offset for (offset,) in _spread([points])], size))
    (_,), inside = _nearest([position], [source_size])
    voxel, position = voxel[inside], position[inside].clip(0, source_size - 1)
    position = position.round(9)  # a rounding error beside a voxel's centre is no share of its neighbour
    below = np.floor(position).astype(int)
    share = position - below
    above = np.minimum(below + 1, source_size - 1)
    values = np.concatenate([1 - share, share]) / points
    where = np.tile(voxel, 2), np.concatenate([below, above])
    return sparse.csr_array((values.astype(np.float32), where), shape=(size, source_size))


def _mix(weights: sparse.csr_array, volume: np.ndarray, axis: int) -> np.ndarray:
    """`weights` applied along one axis of a volume."""
    first = np.moveaxis(volume, axis, 0)
    mixed = weights @ first.reshape(len(first), -1)
    return np.moveaxis(mixed.reshape(-1, *first.shape[1:]), 0, axis)
