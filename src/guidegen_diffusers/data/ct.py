"""A CT on disk, NIfTI or a DICOM series, as HU in `int16` with its axes to the right, front and top.

What the numbers cannot be is refused with what was seen: a CT of a torso has air near -1000 HU and tissue around 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .dicom import DicomError, read_series
from .volume import Volume, VolumeError, to_ras


__all__ = ["SourceCT", "read_ct"]

AIR_BELOW, LEAST_AIR = -400, 1e-3  # HU; share of the voxels
TISSUE, LEAST_TISSUE = (-200, 300), 1e-2


@dataclass(frozen=True, eq=False)
class SourceCT:
    """`hu` of shape (X, Y, Z), `int16`, on a RAS affine; `synthetic` where its header says so."""

    hu: np.ndarray
    affine: np.ndarray
    synthetic: bool = False


def read_ct(path: Path) -> SourceCT:
    """The CT of a NIfTI file, or of the DICOM series in a folder."""
    synthetic = False
    if path.is_dir():
        try:
            hu, affine = read_series(path)
        except DicomError as error:
            raise VolumeError(f"ct: {error}") from error
    else:
        file = Volume(path, "ct")
        hu, affine, synthetic = _hu(file), file.affine, file.synthetic
    _check_hu(hu)
    return SourceCT(*to_ras(hu, affine), synthetic)


def _hu(file: Volume) -> np.ndarray:
    hu = np.empty(file.shape, np.int16, order="F")
    for slab, voxels in file.slabs():
        if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
            raise VolumeError("ct: holds NaN or infinite voxels, expected HU everywhere.")
        hu[:, :, slab] = np.rint(voxels).clip(-32768, 32767)
    return hu


def _check_hu(hu: np.ndarray) -> None:
    air = tissue = 0
    lowest, highest = 32767, -32768
    for k in range(hu.shape[2]):  # a plane at a time: comparisons of the whole would make copies of it
        plane = hu[:, :, k]
        air += np.count_nonzero(plane <= AIR_BELOW)
        tissue += np.count_nonzero((plane >= TISSUE[0]) & (plane <= TISSUE[1]))
        lowest, highest = min(lowest, int(plane.min())), max(highest, int(plane.max()))
    if lowest == highest:
        raise VolumeError(f"ct: every voxel is {lowest}, expected HU.")
    if air >= LEAST_AIR * hu.size and tissue >= LEAST_TISSUE * hu.size:
        return
    if lowest >= -20 and highest <= 20:
        guess = "it seems normalised"
    elif lowest >= 0 and highest <= 255:
        guess = "it seems to be an 8-bit picture"
    elif lowest >= 0:
        guess = "the intercept (often -1024) may not have been added, or it is no CT"
    elif air < LEAST_AIR * hu.size:
        guess = "air is missing or was clipped away"
    else:
        guess = "there is hardly any soft tissue"
    raise VolumeError(f"ct: got values {lowest}..{highest}, expected HU (air near -1000, tissue around 0); {guess}.")
