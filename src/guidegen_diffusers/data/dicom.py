"""A CT series in DICOM, one slice a file, as a volume in HU on a RAS affine.

Slices are placed by their positions; thickness and file names say nothing. What is no evenly spaced stack of parallel
CT slices is refused by name rather than straightened. Only tags of geometry and pixels are read: nothing about the
patient reaches a result, a message or a warning.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np


__all__ = ["DicomError", "read_series"]

MIN_SLICES = 4
MAX_TILT = 0.5  # degrees between the stack and the normal of its slices
TOLERANCE = 0.05  # mm, or 2 % of the increment: positions are rounded when they are written
ENHANCED = "1.2.840.10008.5.1.4.1.1.2.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
GEOMETRY = [
    "SOPClassUID",
    "SeriesInstanceUID",
    "Modality",
    "ImageType",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
]
PIXELS = [
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "NumberOfFrames",
    "RescaleSlope",
    "RescaleIntercept",
    "PixelData",
]


class DicomError(ValueError):
    """A folder that holds no CT volume we can use; the message holds nothing from its headers but geometry."""


@dataclass(frozen=True)
class _Slice:
    """What the tags of a file say of its geometry; None where they say nothing we understand."""

    path: Path
    modality: str
    series: str
    words: frozenset[str]
    sop_class: str
    frames: int
    shape: tuple[int, int] | None
    spacing: list[float] | None
    orientation: list[float] | None
    position: list[float] | None

    @property
    def is_beside_the_volume(self) -> bool:
        """No image (a report, a directory), a scout, or a picture of a screen."""
        scout = self.words & {"LOCALIZER", "SCOUT"}
        return self.shape is None or bool(scout) or self.sop_class.startswith(SECONDARY_CAPTURE)


def read_series(folder: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """The volume of a folder, `int16` HU of shape (columns, rows, slices), and its affine (RAS, mm)."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DicomError("no such folder, expected one that holds a DICOM series.")
    with _silence():
        found = [_geometry(path) for path in sorted(folder.iterdir()) if path.is_file()]
        slices = [one for one in found if one is not None and not one.is_beside_the_volume]
        if not slices:
            raise DicomError("no DICOM images, expected the slices of one CT series.")
        affine, slices = _stack(slices)
        rows, columns = slices[0].shape
        volume = np.empty((columns, rows, len(slices)), np.int16, order="F")
        for index, one in enumerate(slices):
            volume[:, :, index] = _hu(one).T
    return volume, affine


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Let pydicom say nothing: its warnings and its log quote values, and a damaged file holds a name anywhere."""
    log = logging.getLogger("pydicom")
    before = log.disabled
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.disabled = True
        try:
            yield
        finally:
            log.disabled = before


def _geometry(path: Path) -> _Slice | None:
    import pydicom

    def numbers(name: str, count: int, kind: type = float) -> list | None:
        value = header.get(name)
        value = [value] if count == 1 and value is not None else value
        if value is None or isinstance(value, str) or len(value) != count:
            return None
        value = [kind(number) for number in value]
        return value if np.isfinite(value).all() else None

    known = False
    try:
        with path.open("rb") as file:
            known = file.read(132)[128:] == b"DICM"  # without it: very old, or no DICOM at all
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=GEOMETRY, force=not known)
        if not known and "Modality" not in header:
            return None
        shape = [numbers(name, 1, int) for name in ("Rows", "Columns")]
        return _Slice(
            path,
            str(header.get("Modality", "none")),
            str(header.get("SeriesInstanceUID", "")),
            frozenset(str(word).upper() for word in header.get("ImageType") or []),
            str(header.get("SOPClassUID", "")),
            (numbers("NumberOfFrames", 1, int) or [1])[0],
            (shape[0][0], shape[1][0]) if all(shape) else None,
            numbers("PixelSpacing", 2),
            numbers("ImageOrientationPatient", 6),
            numbers("ImagePositionPatient", 3),
        )
    except PermissionError:
        raise DicomError("a file cannot be read (permission denied).") from None
    except Exception as error:  # pydicom converts values when they are asked for, and raises what it likes
        if not known:
            return None
        raise DicomError(f"a file is damaged ({type(error).__name__}), expected whole slices.") from None


def _stack(slices: list[_Slice]) -> tuple[np.ndarray, list[_Slice]]:
    """The affine of the volume, and its slices in order."""
    if any(one.frames != 1 or one.sop_class == ENHANCED for one in slices):
        raise DicomError("multi-frame (enhanced) DICOM, expected one slice a file; convert it to NIfTI or split it.")
    if len(slices) < MIN_SLICES:
        raise DicomError(f"too few slices: got {len(slices)}, expected at least {MIN_SLICES}.")
    modalities = sorted({one.modality[:16] for one in slices})
    if modalities != ["CT"]:
        raise DicomError(f"no CT: got modality {', '.join(modalities)[:40]}, expected CT.")
    if len(series := {one.series for one in slices}) > 1:
        raise DicomError(f"mixed series: got {len(series)} of them, expected one folder a series.")
    if len(shapes := {one.shape for one in slices}) > 1:
        raise DicomError(f"mixed series: got slices of {sorted(shapes)} pixels, expected one size.")
    for tag, name in (
        ("PixelSpacing", "spacing"),
        ("ImageOrientationPatient", "orientation"),
        ("ImagePositionPatient", "position"),
    ):
        if missing := sum(getattr(one, name) is None for one in slices):
            raise DicomError(f"{missing} of {len(slices)} slices have no usable {tag}, expected all of them placed.")
    spacings, orientations, positions = (
        np.array([getattr(one, name) for one in slices]) for name in ("spacing", "orientation", "position")
    )
    if np.ptp(spacings, axis=0).max() > 1e-4 or spacings.min() <= 0:
        raise DicomError("mixed series: pixel spacings differ or are not positive, expected one spacing.")
    if np.ptp(orientations, axis=0).max() > 1e-3:
        raise DicomError("mixed series: orientations differ, expected parallel slices.")
    along_row, along_column = orientations[0, :3], orientations[0, 3:]
    products = along_row @ along_row, along_column @ along_column, along_row @ along_column
    if not np.allclose(products, (1, 1, 0), atol=1e-3):
        raise DicomError(
            f"the orientation {orientations[0].tolist()} is none, expected two perpendicular unit vectors."
        )

    normal = np.cross(along_row, along_column)
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    increments = np.diff(positions @ normal)
    if (repeated := int((increments < 1e-3).sum())) > 0:
        raise DicomError(f"duplicated positions: {repeated} of {len(order)} slices lie where another lies.")
    usual = float(np.median(increments))
    uneven = np.abs(increments - usual) > max(TOLERANCE, 0.02 * usual)
    if uneven.any():
        gaps = ", ".join(f"{gap:g}" for gap in np.unique(np.round(increments[uneven], 3))[:4])
        raise DicomError(f"uneven slices: increments of {gaps} mm among ones of {usual:g} mm; a slice may be missing.")
    step = (positions[-1] - positions[0]) / (len(order) - 1)
    tilt = np.degrees(np.arctan2(np.linalg.norm(np.cross(step, normal)), step @ normal))
    if tilt > MAX_TILT:
        raise DicomError(f"gantry tilt of {tilt:.1f} degrees, expected slices stacked along their normal.")
    astray = np.linalg.norm(positions - positions[0] - np.arange(len(order))[:, None] * step, axis=1)
    if astray.max() > max(spacings[0].max(), TOLERANCE):
        raise DicomError(f"slices lie up to {astray.max():.1f} mm beside the stack, expected a straight one.")

    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = along_row * spacings[0, 1], along_column * spacings[0, 0]
    affine[:3, 2], affine[:3, 3] = step, positions[0]
    return np.diag([-1.0, -1, 1, 1]) @ affine, [slices[i] for i in order]  # DICOM's axes point left and back


def _hu(one: _Slice) -> np.ndarray:
    import pydicom

    try:
        data = pydicom.dcmread(one.path, specific_tags=PIXELS, force=True)
        samples, meaning = data.get("SamplesPerPixel", 1), data.get("PhotometricInterpretation", "MONOCHROME2")
        rescale = [data.get(name) for name in ("RescaleSlope", "RescaleIntercept")]
        slope, intercept = (np.nan if value is None else float(value) for value in rescale)
        syntax = data.file_meta.get("TransferSyntaxUID")
        has_pixels = "PixelData" in data
    except Exception as error:
        raise DicomError(f"a slice cannot be read to its end ({type(error).__name__}).") from None
    if not has_pixels:
        raise DicomError("no pixel data in a slice, expected whole images.")
    if (samples, meaning) != (1, "MONOCHROME2"):
        raise DicomError("a slice is a colour or inverted picture, expected MONOCHROME2 with one sample a pixel.")
    if not np.isfinite([slope, intercept]).all() or slope == 0:
        raise DicomError("a slice has no rescale slope and intercept, expected those that make HU of its values.")
    try:
        if syntax is None:
            data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian  # as in files without a preamble
        elif syntax.is_compressed and not pydicom.pixels.get_decoder(syntax).is_available:
            raise DicomError(
                f"compressed as {syntax.name}, for which no decoder is installed; "
                "`pip install python-gdcm`, or decompress the series."
            )
        pixels = data.pixel_array
    except DicomError:
        raise
    except Exception as error:
        raise DicomError(f"the pixels of a slice cannot be decoded ({type(error).__name__}).") from None
    if pixels.shape != one.shape:
        raise DicomError(f"a slice has {pixels.shape} pixels, expected {one.shape} as its header says.")
    return np.rint(pixels * slope + intercept).clip(-32768, 32767).astype(np.int16)
