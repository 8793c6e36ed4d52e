"""What a radiologist measures on a chest: the width of the heart, and how much of the lung is emphysema.

Both answer a prompt ("cardiomegaly", "emphysema") with a number, and need nothing but CT and labels.
"""

from __future__ import annotations

import nibabel as nib
import numpy as np
from scipy import ndimage

from ..labels import CLASSES


__all__ = ["EMPHYSEMA_HU", "cardiothoracic_ratio", "emphysema_share"]

HEART, LUNG = (next(c.id for c in CLASSES if c.name == name) for name in ("heart", "lung"))
EMPHYSEMA_HU = -950  # below: low attenuation area
FRAGMENT = 0.1  # pieces below this share of the largest are strays, and would widen what they lie beside


def cardiothoracic_ratio(labels: np.ndarray, affine: np.ndarray) -> float | None:
    """The heart's largest width over the inner thorax's; None without heart or lungs.

    A width runs from the leftmost to the rightmost voxel of one axial slice, and the largest of all slices counts, be
    it that of another slice for the heart than for the thorax. The inner thorax is what the lungs span, from the
    outer edge of one to that of the other. Half is the limit of a normal heart on a radiograph.
    """
    # the affine's axes may be flipped or permuted: which of ours runs across the patient, and which along
    axes = [int(i) for i in nib.orientations.io_orientation(affine)[:, 0]]
    across, along = axes.index(0), axes.index(2)
    heart, thorax = (_largest_width(labels == c, across, along) for c in (HEART, LUNG))
    return heart / thorax if heart and thorax else None


def _largest_width(mask: np.ndarray, across: int, along: int) -> int:
    """Voxels from end to end of the widest slice, strays left out; 0 where there is nothing."""
    pieces, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if not count:
        return 0
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    kept = (sizes >= FRAGMENT * sizes.max())[pieces]
    lines = kept.any(3 - across - along)  # shadows on the frontal plane
    lines = lines if across < along else lines.T
    places = np.arange(len(lines))[:, None]
    ends = np.where(lines, places, -1).max(0) - np.where(lines, places, len(lines)).min(0) + 1
    return int(ends.max())


def emphysema_share(ct: np.ndarray, labels: np.ndarray) -> float | None:
    """The share of lung voxels below -950 HU, 0 to 1 (%LAA-950 is a hundred times that); None without lungs."""
    lung = ct[labels == LUNG]
    return float((lung < EMPHYSEMA_HU).mean()) if lung.size else None
