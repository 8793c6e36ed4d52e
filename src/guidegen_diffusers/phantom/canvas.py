"""What the torso is painted on: a label map and a tissue map on one grid, in a body's own millimetres.

Shapes are implicit functions of warped coordinates, or tubes along splines. The warp and the noise are cubic B-splines
over a lattice in millimetres, so that a seed gives the same body on a coarse and on a fine grid. Later paint covers
earlier paint, except where it is told to spare something.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ..grid import Grid
from ..labels import NUM_CLASSES


__all__ = ["Canvas", "frame", "spline"]

# Lattices reach this far from the middle (mm), whatever the grid: the number of draws must not depend on it.
REACH = np.array([210.0, 160.0, 310.0])
Box = tuple[slice, slice, slice]


class Canvas:
    """
    Args:
        grid ([`Grid`]): isotropic, RAS; its voxel centres are where shapes are asked.
        rng (`np.random.Generator`): draws the warp.
        scale (`Sequence[float]`): the body's width, depth and height against the reference adult.
        warp (`float`): standard deviation of the displacement, in mm.
    """

    def __init__(self, grid: Grid, rng: np.random.Generator, scale: Sequence[float], warp: float = 3.5):
        self.shape, self.spacing = grid.shape, float(grid.spacing[0])
        self.origin = grid.affine[:3, 3].astype(np.float32)
        steps = (self.spacing * np.arange(n) for n in grid.shape)
        self.axes = [(o + s).astype(np.float32) for o, s in zip(self.origin, steps, strict=True)]
        self.scale = np.asarray(scale, np.float32)
        self.labels = np.zeros(self.shape, np.uint8)
        self.tissue = np.zeros(self.shape, np.uint8)
        cell = 105.0
        self._lattices = [warp * self._lattice(rng, cell) for _ in range(3)]
        self._bases = [_basis(axis, reach, cell) for axis, reach in zip(self.axes, REACH, strict=True)]
        self.x, self.y, self.z = (
            axis.reshape([-1 if i == k else 1 for k in range(3)]) - _blend(lattice, self._bases)
            for i, (axis, lattice) in enumerate(zip(self.axes, self._lattices, strict=True))
        )
        self._cell = cell

    # ------------------------------------------------------------------------------------------------------ fields

    def noise(self, rng: np.random.Generator, cell: float) -> np.ndarray:
        """A smooth field with unit variance whose bumps are about `cell` mm wide, (X, Y, Z) float32."""
        bases = [_basis(axis, reach, cell) for axis, reach in zip(self.axes, REACH, strict=True)]
        return _blend(self._lattice(rng, cell), bases)

    @staticmethod
    def _lattice(rng: np.random.Generator, cell: float) -> np.ndarray:
        counts = [int(np.ceil(2 * reach / cell)) + 3 for reach in REACH]
        # a cubic B-spline in space keeps a ninth of the variance
        return rng.standard_normal(counts, np.float32) * np.float32(3.0)

    def box(self, low: Sequence[float], high: Sequence[float]) -> Box:
        """The slices of the grid that hold everything from `low` to `high` (warped mm)."""
        margin = 18.0
        spans = []
        for i in range(3):
            first = int(np.floor((low[i] - margin - self.origin[i]) / self.spacing))
            last = int(np.ceil((high[i] + margin - self.origin[i]) / self.spacing)) + 1
            first = min(max(first, 0), self.shape[i])
            spans.append(slice(first, min(max(last, first), self.shape[i])))
        return tuple(spans)

    def ellipsoid(
        self, center: Sequence[float], radii: Sequence[float], axes: np.ndarray | None = None, reach: float = 1.15
    ) -> tuple[Box, np.ndarray]:
        """A box, and in it the distance from `center` in units of the radii: 1 on the surface."""
        center, radii = np.asarray(center, np.float32), np.asarray(radii, np.float32)
        box = self.box(center - reach * radii.max(), center + reach * radii.max())
        offset = [c[box] - m for c, m in zip((self.x, self.y, self.z), center, strict=True)]
        if axes is not None:
            axes = np.asarray(axes, np.float32)
            offset = [sum(axes[k, i] * offset[k] for k in range(3)) for i in range(3)]
        return box, np.sqrt(sum((o / r) ** 2 for o, r in zip(offset, radii, strict=True)))

    # ------------------------------------------------------------------------------------------------------- paint

    def paint(
        self,
        where: Box | np.ndarray,
        mask: np.ndarray,
        label: int | None = None,
        tissue: int | None = None,
        only: Iterable[int] | None = None,
        spare: Iterable[int] = (),
    ) -> np.ndarray:
        """Paint `mask` (over the box `where`) with a label and a tissue; returns what was painted.

        `only` and `spare` are labels: paint over nothing else, or over anything but these.
        """
        labels = self.labels[where]
        if only is not None or spare:
            mask = mask & _allowed(only, spare)[labels]
        if label is not None:
            labels[mask] = label
        if tissue is not None:
            self.tissue[where][mask] = tissue
        return mask

    def paint_voxels(self, voxels, label=None, tissue=None, only=None, spare=()) -> np.ndarray:
        """`paint` for flat voxel indices; returns those that were painted."""
        if only is not None or spare:
            voxels = voxels[_allowed(only, spare)[self.labels.reshape(-1)[voxels]]]
        if label is not None:
            self.labels.reshape(-1)[voxels] = label
        if tissue is not None:
            self.tissue.reshape(-1)[voxels] = tissue
        return voxels

    def curve(self, rows: Sequence[Sequence[float]], scaled: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Control rows (x, y, z, radius) as dense points of this body and their place in units of the rows.

        Reference millimetres become the body's (`scale`), then the warp moves them.
        """
        rows = np.array(rows, np.float32)
        if scaled:
            rows[:, :3] *= self.scale
            rows[:, 3] *= self.scale[:2].mean()
        step = max(0.6 * float(rows[:, 3].min()), 0.7 * self.spacing)
        points, place = spline(rows, step)
        points[:, :3] = self.moved(points[:, :3])
        return points, place

    def moved(self, points: np.ndarray) -> np.ndarray:
        """Where the warp takes points (P, 3) of the unwarped body."""
        bases = [_basis(points[:, i], REACH[i], self._cell) for i in range(3)]
        a, b, c = self._lattices[0].shape
        along = (bases[0] @ np.stack(self._lattices, -1).reshape(a, -1)).reshape(len(points), b * c, 3)
        across = (bases[1][:, :, None] * bases[2][:, None, :]).reshape(len(points), b * c, 1)
        return (points + (along * across).sum(1)).astype(np.float32)

    def balls(self, centers: np.ndarray, radii: np.ndarray | float) -> np.ndarray:
        """Flat indices of the voxels within any ball (repeats allowed); a ball holds at least its nearest voxel."""
        radii = np.maximum(np.broadcast_to(np.asarray(radii, np.float32), len(centers)), 0.62 * self.spacing)
        reach = int(np.ceil(radii.max() / self.spacing))
        steps = np.arange(-reach, reach + 1)
        near = np.rint((centers - self.origin) / self.spacing).astype(np.int64)
        index = [near[:, i, None] + steps for i in range(3)]  # (P, K) each
        squares = [((index[i] * self.spacing + self.origin[i]) - centers[:, i, None]) ** 2 for i in range(3)]
        for i in range(3):
            squares[i][(index[i] < 0) | (index[i] >= self.shape[i])] = np.inf
        distance = squares[0][:, :, None, None] + squares[1][:, None, :, None] + squares[2][:, None, None, :]
        p, a, b, c = np.nonzero(distance <= (radii**2)[:, None, None, None])
        _, ny, nz = self.shape
        return (index[0][p, a] * ny + index[1][p, b]) * nz + index[2][p, c]

    def tube(
        self,
        rows: Sequence[Sequence[float]],
        label: int | None = None,
        tissue: int | None = None,
        only: Iterable[int] | None = None,
        spare: Iterable[int] = (),
        within: np.ndarray | None = None,
        lumen: tuple[float, int] | None = None,
    ) -> None:
        """Paint a tube along `rows`; `lumen` = (wall in mm, tissue) fills its inside with another tissue."""
        points, _ = self.curve(rows)
        voxels = self.balls(points[:, :3], points[:, 3])
        if within is not None:
            voxels = voxels[within.reshape(-1)[voxels]]
        self.paint_voxels(voxels, label, tissue, only, spare)
        if lumen is not None:
            wall, inside = lumen
            voxels = self.balls(points[:, :3], np.maximum(points[:, 3] - wall, 0.3 * points[:, 3]))
            self.paint_voxels(voxels, None, inside, only=(label,))


def _allowed(only: Iterable[int] | None, spare: Iterable[int]) -> np.ndarray:
    table = np.ones(NUM_CLASSES, bool) if only is None else np.zeros(NUM_CLASSES, bool)
    if only is not None:
        table[list(only)] = True
    table[list(spare)] = False
    return table


def _basis(positions: np.ndarray, reach: float, cell: float) -> np.ndarray:
    """Cubic B-splines of a lattice over [-reach, reach] at `positions`, (P, K) float32."""
    count = int(np.ceil(2 * reach / cell)) + 3
    at = np.clip((np.asarray(positions, np.float64) + reach) / cell, 0, count - 3 - 1e-6)
    first = at.astype(int)
    f = (at - first)[:, None]
    weights = np.hstack([(1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3]) / 6
    basis = np.zeros((len(at), count), np.float32)
    basis[np.arange(len(at))[:, None], first[:, None] + np.arange(4)] = weights
    return basis


def _blend(lattice: np.ndarray, bases: Sequence[np.ndarray]) -> np.ndarray:
    """The B-spline of `lattice` on a grid of positions."""
    out = np.tensordot(bases[0], lattice, (1, 0))  # (X, b, c)
    out = np.matmul(bases[1], out)  # (X, Y, c)
    return np.matmul(out, bases[2].T)  # (X, Y, Z)


def spline(rows: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """A Catmull-Rom curve through `rows` (R, 4), about `step` mm between points; and each point's place in 0..R-1."""
    ends = np.concatenate([2 * rows[:1] - rows[1:2], rows, 2 * rows[-1:] - rows[-2:-1]])
    lengths = np.linalg.norm(np.diff(rows[:, :3], axis=0), axis=1)
    counts = np.maximum(2, np.ceil(lengths / step).astype(int))
    first = np.repeat(np.arange(len(counts)), counts)
    u = np.concatenate([np.arange(n) / n for n in counts])
    first, u = np.append(first, len(counts) - 1), np.append(u, 1.0)
    a, b, c, d = (ends[first + i] for i in range(4))
    v = u[:, None].astype(np.float32)
    points = 0.5 * (2 * b + (c - a) * v + (2 * a - 5 * b + 4 * c - d) * v**2 + (3 * b - a - 3 * c + d) * v**3)
    points[:, 3] = np.maximum(points[:, 3], 0.5 * rows[:, 3].min())
    return points.astype(np.float32), first + u


def frame(direction: Sequence[float], up: Sequence[float] = (0.0, 0.0, 1.0)) -> np.ndarray:
    """Three orthonormal columns, the first along `direction`, the third as near `up` as can be."""
    first = np.asarray(direction, np.float64)
    first = first / np.linalg.norm(first)
    second = np.cross(up, first)
    second = second / np.linalg.norm(second)
    return np.stack([first, second, np.cross(first, second)], 1)
