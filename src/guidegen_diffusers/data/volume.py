"""A NIfTI volume on disk, checked when it is opened and read slab by slab: no float64 copy of it is ever held.

Whatever is wrong with a file becomes one `VolumeError` line: what came, what was expected.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.openers import ImageOpener

from ..case import SYNTHETIC
from ..grid import check_affine


__all__ = ["Volume", "VolumeError", "check_same_place", "to_ras"]

SPACINGS = (0.05, 50.0)  # mm; what lies beyond is a header in metres or a broken one
FARTHEST = 20_000.0  # mm from the origin; scanners place patients within metres of it
SLAB_VOXELS = 1 << 22  # read at a time: 32 MB as float64
GZIP_RATIO = 1100  # deflate cannot pack more than 1032 bytes into one


class VolumeError(ValueError):
    """A file that is no volume we can use."""


class Volume:
    """
    Args:
        path: a `.nii` or `.nii.gz` file.
        what (`str`, *optional*): how errors call it; the path by default.
    """

    def __init__(self, path: str | Path, what: str | None = None):
        self.path, self.what = Path(path), what or str(path)
        if not self.path.is_file():
            raise VolumeError(f"{self.what}: no such file, expected a NIfTI volume.")
        try:
            with LoggingOutputSuppressor():
                # slabs are read forward: gzip never has to go back
                self._image = nib.load(self.path, keep_file_open=True)
            if not isinstance(self._image, nib.Nifti1Pair):
                raise VolumeError(f"{self.what}: is {type(self._image).__name__}, expected NIfTI (.nii or .nii.gz).")
            files = self._image.file_map
            with ImageOpener(files.get("header", files["image"]).filename) as file:
                stored = type(self._image.header).from_fileobj(file, check=False)
        except VolumeError:
            raise
        except nib.filebasedimages.ImageFileError as error:
            raise VolumeError(f"{self.what}: is no NIfTI file, or was cut short.") from error
        except Exception as error:  # nibabel, gzip and zlib each raise their own
            raise VolumeError(f"{self.what}: cannot be read as NIfTI ({_line(error)}).") from error
        self.affine = self._check(stored["pixdim"][1:4])  # nibabel has mended it in its own header

    def _check(self, pixdim: np.ndarray) -> np.ndarray:
        header, shape = self._image.header, tuple(int(n) for n in self._image.shape)
        if len(shape) not in (3, 4) or shape[3:] not in ((), (1,)) or min(shape) < 1:
            raise VolumeError(f"{self.what}: got shape {shape}, expected one 3-D volume (X, Y, Z).")
        self.shape = shape[:3]
        dtype = self._image.get_data_dtype()
        if dtype.kind not in "iuf":
            raise VolumeError(f"{self.what}: got voxels of type {dtype}, expected whole or real numbers.")
        ratio = GZIP_RATIO if self.path.suffix == ".gz" else 1
        if np.prod(self.shape, dtype=float) * dtype.itemsize > ratio * max(self.path.stat().st_size, 1):
            raise VolumeError(f"{self.what}: is truncated; the header speaks of {self.shape} voxels of {dtype}.")
        if not (header["sform_code"] or header["qform_code"]):
            raise VolumeError(f"{self.what}: has no affine (sform and qform codes are 0), expected left and right.")
        try:
            affine = check_affine(self._image.affine, f"{self.what}: affine")
        except ValueError as error:
            raise VolumeError(str(error)) from error
        for source, spacing in (("affine", np.linalg.norm(affine[:3, :3], axis=0)), ("header", pixdim)):
            if not all(SPACINGS[0] <= s <= SPACINGS[1] for s in spacing):
                found = " x ".join(f"{s:g}" for s in spacing)
                raise VolumeError(
                    f"{self.what}: the {source} has voxels of {found} mm, expected {SPACINGS[0]:g} to {SPACINGS[1]:g}."
                )
        corners = affine @ [[0, self.shape[0]], [0, self.shape[1]], [0, self.shape[2]], [1, 1]]
        if np.abs(corners[:3]).max() > FARTHEST:
            raise VolumeError(
                f"{self.what}: lies {np.abs(corners[:3]).max():g} mm away, expected at most {FARTHEST:g}."
            )
        return affine

    @property
    def descrip(self) -> str:
        return self._image.header["descrip"].item().decode("latin-1")

    @property
    def synthetic(self) -> bool:
        """Whether the header says that no patient lay in the scanner."""
        return self.descrip.startswith(SYNTHETIC)

    def slabs(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Pieces `[:, :, slab]` of the volume in order, in the header's scaling."""
        step = max(1, SLAB_VOXELS // (self.shape[0] * self.shape[1]))
        for start in range(0, self.shape[2], step):
            slab = slice(start, min(start + step, self.shape[2]))
            try:
                with np.errstate(all="ignore"):  # what overflows becomes infinite, and is refused as that
                    voxels = np.asarray(self._image.dataobj[:, :, slab])
                voxels = voxels.reshape(*self.shape[:2], -1)
            except Exception as error:
                raise VolumeError(f"{self.what}: cannot be read to its end ({_line(error)}).") from error
            yield slab, voxels

    def read(self, dtype: type) -> np.ndarray:
        """The whole volume, where it holds nothing that `dtype` (an integer type) cannot."""
        volume, info = np.empty(self.shape, dtype, order="F"), np.iinfo(dtype)
        for slab, voxels in self.slabs():
            if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
                raise VolumeError(f"{self.what}: holds NaN or infinite voxels.")
            if voxels.min() < info.min or voxels.max() > info.max or (voxels != np.round(voxels)).any():
                raise VolumeError(f"{self.what}: got {voxels.min():g}..{voxels.max():g}, expected whole {info.dtype}.")
            volume[:, :, slab] = voxels
        return volume


def check_same_place(
    what: str, shape: tuple[int, ...], affine: np.ndarray, whose: str, their_shape: tuple[int, ...], theirs: np.ndarray
) -> None:
    """Raise unless two volumes lie voxel on voxel, within a tenth of the smallest voxel."""
    if tuple(shape) != tuple(their_shape):
        raise VolumeError(f"{what}: got shape {tuple(shape)}, expected {tuple(their_shape)} as {whose} has.")
    corners = np.array([[*corner, 1] for corner in itertools.product(*((0, n - 1) for n in shape))]).T
    apart = np.linalg.norm(((affine - theirs) @ corners)[:3], axis=0).max()
    if apart > 0.1 * np.linalg.norm(theirs[:3, :3], axis=0).min():
        raise VolumeError(f"{what}: lies up to {apart:.3g} mm away from {whose}, expected the same affine.")


def to_ras(volume: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A view of the same voxels at the same places, whose axes run right, forward and up as nearly as may be."""
    orientation = nib.orientations.io_orientation(affine)
    turned = nib.orientations.apply_orientation(volume, orientation)
    return turned, affine @ nib.orientations.inv_ornt_aff(orientation, volume.shape)


def _line(error: Exception) -> str:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(said.split()) or type(error).__name__
