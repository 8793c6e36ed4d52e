"""Which cases are not fit to learn from: what the paper calls noise removal, rules ours.

A tumour has to lie in or next to the organ that the prompt names, and to be there where the prompt states one; a label
map has to show organs. Each rule answers with a reason in one line.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..grid import Grid
from ..labels import CLASSES, TUMOR
from ..prompts import ClinicalPrompt
from ..prompts.attributes import ORGANS


__all__ = ["reason_to_refuse"]

FAMILIES = {c.name: c.id for c in CLASSES if c.name in ORGANS}
NEAR = 15.0  # mm
NEAR_SHARE = 0.5  # of the tumour's voxels
USABLE = 0.1  # ml: a ball of 6 mm


def reason_to_refuse(labels: np.ndarray, grid: Grid, prompt: ClinicalPrompt, min_organs: int = 1) -> str | None:
    """Why a label map on its grid, with what its prompt says, is not to be learned from; None where it may be."""
    present = np.bincount(labels.ravel(), minlength=len(CLASSES))
    organs = int(np.count_nonzero(present[1:TUMOR]))
    if organs < min_organs:
        return f"{organs} organs in view, expected at least {min_organs}"
    tumor_ml = present[TUMOR] * abs(np.linalg.det(grid.affine[:3, :3])) / 1000
    if "none" not in prompt.sites and tumor_ml < USABLE:
        return f"the prompt states a tumour, the labels hold {tumor_ml:.2g} ml of one, expected {USABLE:g} at least"
    if prompt.sites == {"none"} and present[TUMOR]:
        return f"the prompt states no tumour of {', '.join(ORGANS)}, the labels hold {tumor_ml:.2g} ml of one"
    families = {name: FAMILIES[name] for name in ORGANS if prompt.sites & ORGANS[name]}
    if present[TUMOR] and (share := _share_near(labels, grid, list(families.values()))) < NEAR_SHARE:
        return f"{1 - share:.0%} of the tumour lies more than {NEAR:g} mm (or its radius) from {' or '.join(families)}"
    return None


def _share_near(labels: np.ndarray, grid: Grid, organs: list[int]) -> float:
    """How much of the tumours lies within `NEAR` of these organs, or within its radius where a tumour is larger."""
    tumors, _ = ndimage.label(labels == TUMOR)
    volumes = np.bincount(tumors.ravel()) * abs(np.linalg.det(grid.affine[:3, :3]))
    radii = np.maximum(NEAR, (0.75 / np.pi * volumes) ** (1 / 3))  # of balls with these volumes
    margins = [int(np.ceil(radii[1:].max() / spacing)) + 1 for spacing in grid.spacing]
    extent = ndimage.find_objects((tumors > 0).astype(np.uint8))[0]
    box = tuple(slice(max(0, e.start - margin), e.stop + margin) for e, margin in zip(extent, margins, strict=True))
    around, tumors = np.isin(labels[box], organs), tumors[box]
    if not around.any():
        return 0.0
    near = ndimage.distance_transform_edt(~around, sampling=grid.spacing) <= radii[tumors]
    return float(near[tumors > 0].mean())
