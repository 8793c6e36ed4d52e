"""Anatomy of a label map: which organs there are, how large, and how much of the map lies in stray fragments."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..labels import CLASSES, TUMOR


__all__ = ["PIECES", "organ_volumes", "stray_fraction"]

# connected pieces that an organ may have; one where it is not listed. The spine's are those of a map with its discs.
PIECES = {"kidney": 2, "lung": 2, "adrenal_gland": 2, "vertebrae": 2, "ribs": 24}
TOUCHING = np.ones((3, 3, 3), bool)  # faces, edges and corners


def organ_volumes(labels: np.ndarray, affine: np.ndarray) -> dict[str, float]:
    """Millilitres of each class but the background, 0 where it is absent."""
    voxel = abs(np.linalg.det(affine[:3, :3])) / 1000
    counts = np.bincount(labels.ravel(), minlength=len(CLASSES))
    return {c.name: float(counts[c.id] * voxel) for c in CLASSES[1:]}


def stray_fraction(labels: np.ndarray) -> float:
    """The share of organ voxels outside each organ's largest pieces, as many as `PIECES` allows; tumours do not count.

    A tumour may cut its organ in two, so pieces are those of organ and tumour together.
    """
    organs = (labels != 0) & (labels != TUMOR)
    if not organs.any():
        return 0.0
    stray = 0
    boxes = ndimage.find_objects(labels, max_label=len(CLASSES) - 1)
    for c in CLASSES[1:TUMOR]:
        if boxes[c.id - 1] is None:
            continue
        part = labels[boxes[c.id - 1]]
        pieces, _ = ndimage.label((part == c.id) | (part == TUMOR), TOUCHING)
        sizes = np.bincount(pieces[part == c.id])[1:]
        stray += int(np.sort(sizes)[: -PIECES.get(c.name, 1)].sum())
    return stray / int(organs.sum())
