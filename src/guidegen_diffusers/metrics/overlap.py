"""Overlap of two label maps, class by class."""

from __future__ import annotations

import numpy as np

from ..labels import CLASSES, NUM_CLASSES


__all__ = ["dice"]


def dice(made: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Dice of each class that either map has, the background left out."""
    pairs = np.bincount(made.ravel().astype(np.int64) * NUM_CLASSES + truth.ravel(), minlength=NUM_CLASSES**2)
    table = pairs.reshape(NUM_CLASSES, NUM_CLASSES)
    sizes = table.sum(0) + table.sum(1)
    return {c.name: float(2 * table[c.id, c.id] / sizes[c.id]) for c in CLASSES[1:] if sizes[c.id]}
