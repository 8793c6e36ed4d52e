"""The 21 classes of GuideGen (background, 19 organs, tumour): ids, names, colours and TotalSegmentator's ids.

A label map is a `uint8` volume of these ids, from disk to disk; the tumour overrides the organ it grows in. Everything
else in the package takes class names and ids from here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage


__all__ = [
    "CLASSES",
    "NUM_CLASSES",
    "NUM_ORGAN_CLASSES",
    "TUMOR",
    "LabelClass",
    "check_labels",
    "from_totalsegmentator",
    "split_tumor",
]


@dataclass(frozen=True)
class LabelClass:
    """One class: its id, its name, a display colour, and the ids it merges from TotalSegmentator's "total" task."""

    id: int
    name: str
    color: tuple[int, int, int]
    totalsegmentator_v2: tuple[int, ...] = ()
    totalsegmentator_v1: tuple[int, ...] = ()


def _ids(*spans: int | tuple[int, int]) -> tuple[int, ...]:
    """`_ids(2, (23, 24))` is `(2, 23, 24)`: single ids and inclusive ranges."""
    return tuple(i for span in spans for i in (range(span[0], span[1] + 1) if isinstance(span, tuple) else (span,)))


CLASSES: tuple[LabelClass, ...] = (
    LabelClass(0, "background", (0, 0, 0)),
    LabelClass(1, "spleen", (157, 108, 162), _ids(1), _ids(1)),
    LabelClass(2, "kidney", (212, 118, 76), _ids((2, 3), (23, 24)), _ids((2, 3))),
    LabelClass(3, "liver", (171, 74, 60), _ids(5), _ids(5)),
    LabelClass(4, "stomach", (232, 163, 120), _ids(6), _ids(6)),
    LabelClass(5, "pancreas", (249, 205, 92), _ids(7), _ids(10)),
    LabelClass(6, "lung", (96, 165, 214), _ids((10, 14)), _ids((13, 17))),
    LabelClass(7, "small_bowel", (233, 150, 168), _ids(18), _ids(55)),
    LabelClass(8, "duodenum", (226, 116, 190), _ids(19), _ids(56)),
    LabelClass(9, "colon", (162, 122, 92), _ids(20), _ids(57)),
    LabelClass(10, "urinary_bladder", (222, 214, 84), _ids(21), _ids(104)),
    LabelClass(11, "heart", (206, 66, 86), _ids(51), _ids((44, 48))),
    LabelClass(12, "vertebrae", (240, 232, 200), _ids((26, 50)), _ids((18, 41))),
    LabelClass(13, "ribs", (214, 204, 172), _ids((92, 115)), _ids((58, 81))),
    LabelClass(14, "adrenal_gland", (255, 150, 40), _ids((8, 9)), _ids((11, 12))),
    LabelClass(15, "portal_and_splenic_vein", (72, 196, 190), _ids(64), _ids(9)),
    LabelClass(16, "esophagus", (190, 140, 220), _ids(15), _ids(42)),
    LabelClass(17, "aorta", (255, 70, 60), _ids(52), _ids(7)),
    LabelClass(18, "inferior_vena_cava", (64, 100, 230), _ids(63), _ids(8)),
    LabelClass(19, "gallbladder", (96, 176, 92), _ids(4), _ids(4)),
    LabelClass(20, "tumor", (80, 255, 60)),
)
NUM_CLASSES = len(CLASSES)
TUMOR = 20
NUM_ORGAN_CLASSES = TUMOR  # background and the 19 organs: the ids below the tumour's


def check_labels(labels: np.ndarray, what: str = "labels") -> np.ndarray:
    """The same label map as `uint8`, or an error: a 3-D volume of whole numbers in 0..20 is expected."""
    labels = np.asarray(labels)
    if labels.ndim != 3:
        raise ValueError(f"{what}: got shape {labels.shape}, expected a 3-D volume (X, Y, Z).")
    if labels.size == 0:
        raise ValueError(f"{what}: got the empty shape {labels.shape}, expected at least one voxel.")
    if labels.dtype.kind not in "biuf":
        raise TypeError(f"{what}: got dtype {labels.dtype}, expected integer class ids.")
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all():
            raise ValueError(f"{what}: got NaN or infinite voxels, expected class ids 0..{NUM_CLASSES - 1}.")
        if (labels != np.round(labels)).any():
            raise ValueError(
                f"{what}: got fractional values, expected class ids; resample label maps by nearest voxel."
            )
    if labels.min() < 0 or labels.max() >= NUM_CLASSES:
        found = np.unique(labels)
        wrong = [int(i) for i in found[(found < 0) | (found >= NUM_CLASSES)]]
        raise ValueError(
            f"{what}: got class ids {wrong[:8]}{' ...' if len(wrong) > 8 else ''}, expected 0..{NUM_CLASSES - 1} "
            "(guidegen_diffusers.labels.CLASSES). TotalSegmentator's ids are merged by `from_totalsegmentator`."
        )
    return labels.astype(np.uint8)


def from_totalsegmentator(segmentation: np.ndarray, tumor: np.ndarray | None = None, version: int = 2) -> np.ndarray:
    """Merge a multi-label TotalSegmentator "total" volume (v1 or v2 ids) to our classes; `tumor > 0` overrides."""
    if version not in (1, 2):
        raise ValueError(f"version: got {version!r}, expected 1 or 2 (TotalSegmentator's major version).")
    segmentation = np.asarray(segmentation)
    highest = {1: 104, 2: 117}[version]
    if segmentation.min() < 0 or segmentation.max() > highest or (segmentation != np.round(segmentation)).any():
        raise ValueError(f"segmentation: expected TotalSegmentator v{version} ids 0..{highest}, got other values.")
    table = np.zeros(highest + 1, np.uint8)
    for label in CLASSES:
        for theirs in label.totalsegmentator_v2 if version == 2 else label.totalsegmentator_v1:
            table[theirs] = label.id
    merged = table[segmentation.astype(np.intp)]
    if tumor is not None:
        tumor = np.asarray(tumor)
        if tumor.shape != merged.shape:
            raise ValueError(f"tumor: got shape {tumor.shape}, expected the segmentation's {merged.shape}.")
        merged[tumor > 0] = TUMOR
    return merged


def split_tumor(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An organ map (ids 0..19) and a tumour map (0, 1) from one label map.

    A label map does not say which organ lies under its tumour, so tumour voxels take the organ (or background) of the
    nearest other voxel. Generated maps need no such guess: Eq. 13 reads both maps off the class probabilities.
    """
    tumor = labels == TUMOR
    if not tumor.any():
        return labels, tumor.astype(np.uint8)
    if tumor.all():
        return np.zeros_like(labels), tumor.astype(np.uint8)
    nearest = ndimage.distance_transform_edt(tumor, return_distances=False, return_indices=True)
    return labels[tuple(nearest)], tumor.astype(np.uint8)
