"""Overlap of two label maps, class by class: how much of each class they share, and how far its surfaces lie apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from ..labels import CLASSES, NUM_CLASSES


__all__ = ["MISSED_MM", "dice", "hd95"]

MISSED_MM = 1000.0  # HD95 where one map has a class that the other misses, as in GuideGen's evaluation


def dice(made: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Dice of each class that either map has, the background left out."""
    pairs = np.bincount(made.ravel().astype(np.int64) * NUM_CLASSES + truth.ravel(), minlength=NUM_CLASSES**2)
    table = pairs.reshape(NUM_CLASSES, NUM_CLASSES)
    sizes = table.sum(0) + table.sum(1)
    return {c.name: float(2 * table[c.id, c.id] / sizes[c.id]) for c in CLASSES[1:] if sizes[c.id]}


def hd95(made: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | float) -> dict[str, float]:
    """95th percentile in mm of the distances between both surfaces of each class, the background left out.

    As in MedPy: a surface is the voxels with a face outside the class, each is measured to the nearest one of the
    other map, centre to centre, and the percentile is taken once over the distances of both directions. A class that
    one map misses counts `MISSED_MM`, one that neither has counts 0, which a mean over classes should leave out.
    `spacing` is the voxel's size in mm along each axis.
    """
    if made.shape != truth.shape or made.ndim != 3:
        raise ValueError(f"made, truth: got shapes {made.shape} and {truth.shape}, expected one volume's (X, Y, Z).")
    spacing = np.broadcast_to(np.asarray(spacing, np.float64), 3)
    if not (spacing > 0).all():
        raise ValueError(f"spacing: got {spacing.tolist()}, expected mm above 0.")
    boxes = [ndimage.find_objects(labels, max_label=NUM_CLASSES - 1) for labels in (made, truth)]
    found = {}
    for c in CLASSES[1:]:
        places = [box[c.id - 1] for box in boxes]
        if None in places:
            found[c.name] = 0.0 if places == [None, None] else MISSED_MM
            continue
        points = [_surface(labels, c.id, box) * spacing for labels, box in zip((made, truth), places, strict=True)]
        there, back = (KDTree(b).query(a)[0] for a, b in (points, points[::-1]))
        found[c.name] = float(np.percentile(np.concatenate([there, back]), 95))
    return found


def _surface(labels: np.ndarray, c: int, box: tuple[slice, ...]) -> np.ndarray:
    """Indices (P, 3) of the voxels of a class that have a face outside it, or outside the volume."""
    inside = labels[box] == c
    return np.argwhere(inside & ~ndimage.binary_erosion(inside)) + [s.start for s in box]
