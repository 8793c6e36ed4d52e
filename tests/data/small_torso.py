"""A made-up patient small enough for a test: air, a body, two lungs, a liver, two kidneys, on any affine."""

from pathlib import Path

import nibabel as nib
import numpy as np


SHAPE, SPACING = (40, 32, 36), 5.0
V2 = {"lung_upper_lobe_left": 10, "lung_lower_lobe_right": 14, "liver": 5, "kidney_left": 3, "kidney_right": 2}
V1 = {"lung_upper_lobe_left": 13, "lung_lower_lobe_right": 17, "liver": 5, "kidney_left": 3, "kidney_right": 2}
CENTERS = {  # mm, RAS: x to the patient's right
    "lung_upper_lobe_left": ((-45, 5, 40), 28),
    "lung_lower_lobe_right": ((45, 5, 40), 28),
    "liver": ((40, 5, -20), 26),
    "kidney_left": ((-45, -20, -45), 18),
    "kidney_right": ((45, -20, -60), 16),
}
TUMOR = (-45, -8, -45), 10


def affine_of(center=(10.0, -20.0, 300.0)):
    affine = np.diag([SPACING] * 3 + [1.0])
    affine[:3, 3] = np.array(center) - (np.array(SHAPE) - 1) / 2 * SPACING
    return affine


def ball(center, radius):
    places = np.stack(np.meshgrid(*((np.arange(n) - (n - 1) / 2) * SPACING for n in SHAPE), indexing="ij"), -1)
    return np.linalg.norm(places - np.array(center), axis=-1) < radius


def masks():
    return {name: ball(*place) for name, place in CENTERS.items()}


def ct():
    """`int16` HU."""
    hu = np.full(SHAPE, -1000, np.int16)
    hu[4:-4, 4:-4] = 40
    for name, mask in masks().items():
        hu[mask] = -850 if "lung" in name else 60
    hu[ball(*TUMOR)] = 100
    return hu


def labels(ids=V2):
    """Ids of TotalSegmentator."""
    volume = np.zeros(SHAPE, np.uint8)
    for name, mask in masks().items():
        volume[mask] = ids[name]
    return volume


def write_nifti(path, volume, affine=None, dtype=None):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = affine_of() if affine is None else affine
    image = nib.Nifti1Image(volume.astype(dtype) if dtype else volume, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1, strip_shears=True)
    nib.save(image, path)
    return path


def write_patient(folder, name, with_tumor=False):
    """`folder/ct/NAME.nii.gz` and `folder/labels/NAME.nii.gz`, and `folder/tumor/NAME.nii.gz` where asked for."""
    write_nifti(folder / "ct" / f"{name}.nii.gz", ct())
    write_nifti(folder / "labels" / f"{name}.nii.gz", labels())
    if with_tumor:
        write_nifti(folder / "tumor" / f"{name}.nii.gz", ball(*TUMOR).astype(np.uint8))
    return folder
