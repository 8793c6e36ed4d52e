"""Label maps as segmenters and data sets write them, merged to our classes: one file of ids, or a folder of masks.

Ids alone do not tell their scheme, so a file holds TotalSegmentator's v2 ids unless it is said, or says by its header,
that it holds others. In a folder of masks the file names decide: TotalSegmentator's of v1 and v2, and our class names.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from ..labels import CLASSES, TUMOR, check_labels, from_totalsegmentator
from .volume import Volume, VolumeError, check_same_place, to_ras


__all__ = ["SCHEMES", "Segmentation", "mask_class", "nifti_stem", "read_segmentation"]

SCHEMES = ("auto", "ours", "1", "2")
MASKS = (
    (r"lung(_(upper|middle|lower)_lobe)?(_(left|right))?", "lung"),
    (r"kidney(_cyst)?(_(left|right))?", "kidney"),
    (r"adrenal_gland(_(left|right))?", "adrenal_gland"),
    (r"heart(_(myocardium|(atrium|ventricle)_(left|right)))?", "heart"),
    (r"vertebrae(_[CTLS]\d+)?", "vertebrae"),
    (r"ribs|rib_(left|right)_\d+", "ribs"),
    (r"portal_(vein_)?and_splenic_vein", "portal_and_splenic_vein"),
)
TUMOR_MASK = re.compile(r"(.*[_-])?(tumou?rs?|lesions?|cancer)([_-].*)?", re.IGNORECASE)


def nifti_stem(path: Path) -> str | None:
    """`liver` of `liver.nii.gz`, None where a file is no NIfTI."""
    return next((path.name.removesuffix(end) for end in (".nii.gz", ".nii") if path.name.endswith(end)), None)


def mask_class(stem: str) -> int | None:
    """Our class of a mask by its name, `kidney_left` or `lung_tumor`; None for what we do not label."""
    if TUMOR_MASK.fullmatch(stem):
        return TUMOR
    name = next((name for pattern, name in MASKS if re.fullmatch(pattern, stem)), stem)
    return next((c.id for c in CLASSES[1:] if c.name == name), None)


class Segmentation:
    """A label map in our classes, `labels` (`uint8`), on a RAS affine, and the `scheme` that it was read by."""

    def __init__(self, labels: np.ndarray, affine: np.ndarray, scheme: str, synthetic: bool = False):
        self.labels, self.affine = to_ras(labels, affine)
        self.scheme, self.synthetic = scheme, synthetic

    def add_tumor(self, paths: Sequence[Path], ids: Collection[int] | None = None) -> None:
        """Paint tumour masks over the organs: all that is not 0, or the ids that are named."""
        for path in paths:
            file = Volume(path, f"tumour mask {path.name}")
            mask, affine = to_ras(file.read(np.uint8), file.affine)
            check_same_place(file.what, mask.shape, affine, "the label map", self.labels.shape, self.affine)
            self.labels[np.isin(mask, list(ids)) if ids else mask > 0] = TUMOR


def read_segmentation(path: Path, scheme: str = "auto") -> Segmentation:
    return _read_masks(path) if path.is_dir() else _read_ids(path, scheme)


def _read_ids(path: Path, scheme: str) -> Segmentation:
    file = Volume(path, "labels")
    if scheme == "auto":
        scheme = "ours" if "class ids; guidegen-diffusers" in file.descrip else "2"
    labels = np.empty(file.shape, np.uint8, order="F")
    for slab, voxels in file.slabs():
        if scheme == "ours":
            labels[:, :, slab] = check_labels(voxels)
        else:
            try:
                labels[:, :, slab] = from_totalsegmentator(voxels, version=int(scheme))
            except ValueError as error:
                found = f"{voxels.min():g}..{voxels.max():g}"
                raise VolumeError(f"labels: {error} Got {found}; choose the scheme of the ids.") from error
    name = "ours" if scheme == "ours" else f"TotalSegmentator v{scheme}"
    return Segmentation(labels, file.affine, name, file.synthetic)


def _read_masks(folder: Path) -> Segmentation:
    masks = {path: mask_class(nifti_stem(path) or "") for path in sorted(folder.iterdir())}
    masks = {path: label for path, label in masks.items() if label is not None}
    if not masks:
        raise VolumeError(
            f"labels: no mask of an organ we label in {folder.name}, expected names such as liver.nii.gz."
        )
    labels = affine = None
    for path, label in sorted(masks.items(), key=lambda item: item[1]):  # the tumour, last, overrides its organ
        file = Volume(path, f"mask {path.name}")
        if labels is None:
            labels, affine, first = np.zeros(file.shape, np.uint8, order="F"), file.affine, path.name
        check_same_place(file.what, file.shape, file.affine, first, labels.shape, affine)
        for slab, voxels in file.slabs():
            if not np.isin(voxels, (0, 1, 255)).all():
                raise VolumeError(f"{file.what}: got {voxels.min():g}..{voxels.max():g}, expected a mask of 0 and 1.")
            labels[:, :, slab][voxels > 0] = label
    return Segmentation(labels, affine, "masks")
