"""Intensity of a CT under its label map: the mean HU of each class, and how a tumour stands out from its organ."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..labels import CLASSES, TUMOR


__all__ = ["mean_hu", "tumor_contrast"]

SHELL_MM = 12.0  # how far around a tumour its organ is looked at


def mean_hu(ct: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Mean HU of each class that is there, the background left out."""
    counts = np.bincount(labels.ravel(), minlength=len(CLASSES))
    sums = np.bincount(labels.ravel(), ct.ravel().astype(np.float64), minlength=len(CLASSES))
    return {c.name: float(sums[c.id] / counts[c.id]) for c in CLASSES[1:] if counts[c.id]}


def tumor_contrast(ct: np.ndarray, labels: np.ndarray, spacing: float) -> float | None:
    """HU of the largest tumour less HU of the organ around it, the one it touches most; None without either."""
    pieces, count = ndimage.label(labels == TUMOR)
    if not count:
        return None
    largest = int(np.bincount(pieces.ravel())[1:].argmax())
    steps = max(1, round(SHELL_MM / spacing))
    box = tuple(slice(max(0, s.start - steps), s.stop + steps) for s in ndimage.find_objects(pieces)[largest])
    tumor, labels, ct = pieces[box] == 1 + largest, labels[box], ct[box]
    touching = np.bincount(labels[ndimage.binary_dilation(tumor) & ~tumor], minlength=len(CLASSES))
    touching[[0, TUMOR]] = 0
    if not touching.any():
        return None
    near = ndimage.distance_transform_edt(~tumor) <= steps
    organ = near & (labels == touching.argmax())
    return float(ct[tumor].mean() - ct[organ].mean())
