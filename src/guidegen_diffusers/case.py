"""A case: CT, label map, one affine, and what is known of them. Everything that enters or leaves the package is one.

On disk a case is a folder of `ct.nii.gz` (int16 HU), `labels.nii.gz` (uint8 class ids) on the same affine,
`preview.png` and `case.json`. The folder appears complete or not at all, and says in every NIfTI header and in the
JSON where it is synthetic.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from .grid import Grid, check_affine
from .labels import CLASSES, check_labels
from .preview import draw_preview


__all__ = ["HU_RANGE", "Case", "read_label_map"]

HU_RANGE = (-1024, 3071)  # what the 12 bits of a scanner hold: air to dense bone
SYNTHETIC = "SYNTHETIC"  # how `descrip` begins in the header of a generated volume
CT, LABELS, PREVIEW, RECORD = "ct.nii.gz", "labels.nii.gz", "preview.png", "case.json"


@dataclass(eq=False)
class Case:
    """
    Args:
        labels (`np.ndarray` of shape `(X, Y, Z)`, `uint8`): class ids, see [`labels.CLASSES`].
        affine (`np.ndarray` of shape `(4, 4)`): voxel to world in mm, RAS, for both volumes.
        ct (`np.ndarray` of shape `(X, Y, Z)`, `int16`, *optional*): HU; None where only a label map was asked for.
        prompt (`str`): the sentence.
        attributes (`dict`): what is known of the patient, JSON values.
        provenance (`dict`): where the case comes from, JSON values: `synthetic`, and for generated cases `model`,
            `seed`, `versions` and the settings of the run.
    """

    labels: np.ndarray
    affine: np.ndarray
    ct: np.ndarray | None = None
    prompt: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        self.labels = check_labels(self.labels)
        self.affine = check_affine(self.affine)
        if not isinstance(self.prompt, str):
            raise TypeError(f"prompt: got {type(self.prompt).__name__}, expected a string.")
        if self.ct is not None:
            self.ct = np.asarray(self.ct)
            if self.ct.dtype != np.int16:
                raise TypeError(f"ct: got dtype {self.ct.dtype}, expected int16 HU; round and clip it first.")
            if self.ct.shape != self.labels.shape:
                raise ValueError(f"ct: got shape {self.ct.shape}, expected the labels' {self.labels.shape}.")

    @property
    def grid(self) -> Grid:
        return Grid(self.labels.shape, self.affine)

    @property
    def synthetic(self) -> bool:
        return bool(self.provenance.get("synthetic", False))

    def preview(self):
        """A `PIL.Image`: three planes in a lung and an abdomen window, the label overlay, the tumour's outline."""
        origin = "synthetic" if self.synthetic else "not generated"
        facts = [origin, *(f"{key} {self.provenance[key]}" for key in ("model", "seed") if key in self.provenance)]
        return draw_preview(self.ct, self.labels, self.affine, title=self.prompt, subtitle="  |  ".join(facts))

    def save(self, folder: str | os.PathLike, overwrite: bool = False) -> Path:
        """Write the four files (three without a CT) to `folder`, complete or not at all."""
        folder = Path(folder)
        held = self.check_free(folder, overwrite)
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.partial"
        partial.mkdir()
        try:
            self._write(partial)
            if not folder.exists():
                partial.rename(folder)
                return folder
            for name in held:  # the record goes first and comes last: a folder with one is a whole case
                (folder / name).unlink()
            for name in (CT, LABELS, PREVIEW, RECORD):
                if (partial / name).exists():
                    os.replace(partial / name, folder / name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return folder

    @staticmethod
    def check_free(folder: str | os.PathLike, overwrite: bool = False) -> list[str]:
        """Raise where `save` would refuse to write; returns the files of a case that the folder holds already."""
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f"{folder}: this is a file, expected a folder to save a case to.")
        held = [name for name in (RECORD, CT, LABELS, PREVIEW) if (folder / name).exists()]
        if held and not overwrite:
            raise FileExistsError(f"{folder}: holds {', '.join(held)}; pass overwrite=True to replace the case.")
        return held

    def _write(self, folder: Path) -> None:
        record = {
            "synthetic": self.synthetic,
            "prompt": self.prompt,
            "attributes": self.attributes,
            "provenance": self.provenance,
            "shape": list(self.labels.shape),
            "affine": self.affine.tolist(),
            "classes": {str(c.id): c.name for c in CLASSES},
        }
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
        for volume, image in self.nifti_images().items():
            nib.save(image, folder / {"ct": CT, "labels": LABELS}[volume])
        self.preview().save(folder / PREVIEW)
        (folder / RECORD).write_text(text + "\n", encoding="utf-8")

    def nifti_images(self) -> dict[str, nib.Nifti1Image]:
        """`ct` (where there is one) and `labels` as they are written: on one affine, marked where synthetic."""
        images = {} if self.ct is None else {"ct": self._nifti(self.ct, "CT in HU", self.synthetic)}
        # a CT may be painted on the label map of a real patient
        synthetic_labels = self.provenance.get("synthetic_labels", self.synthetic)
        images["labels"] = self._nifti(self.labels, "class ids", synthetic_labels)
        images["labels"].header.set_intent("label")
        return images

    def _nifti(self, volume: np.ndarray, content: str, synthetic: bool) -> nib.Nifti1Image:
        image = nib.Nifti1Image(volume, self.affine)
        image.set_sform(self.affine, code="scanner")
        image.set_qform(self.affine, code="scanner", strip_shears=True)
        image.header.set_xyzt_units("mm")
        mark = f"{SYNTHETIC}, not a patient; " if synthetic else ""
        image.header["descrip"] = f"{mark}{content}; guidegen-diffusers"
        return image

    @classmethod
    def load(cls, folder: str | os.PathLike) -> Case:
        """Read back what `save` wrote."""
        folder = Path(folder)
        if not (folder / RECORD).is_file():
            raise FileNotFoundError(f"{folder}: holds no {RECORD}, expected a folder written by `Case.save`.")
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            prompt, attributes, provenance = record["prompt"], record["attributes"], record["provenance"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{folder / RECORD}: not a case record ({error!r}); save the case again.") from error
        labels, affine = _read(folder / LABELS)
        ct = None
        if (folder / CT).exists():
            ct, ct_affine = _read(folder / CT)
            if not np.allclose(ct_affine, affine, atol=1e-4):
                raise ValueError(f"{folder}: {CT} and {LABELS} lie on different affines, expected one.")
        return cls(labels, affine, ct, prompt, attributes, provenance)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = _load(path)
    return _voxels(image, str(path)), _affine(image, str(path))


def _load(path: Path) -> nib.spatialimages.SpatialImage:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, expected a NIfTI volume.")
    try:
        return nib.load(path)
    except Exception as error:  # nibabel, gzip and zlib each raise their own
        raise ValueError(f"{path}: cannot be read as NIfTI ({error}); expected a .nii or .nii.gz file.") from error


def _voxels(image: nib.spatialimages.SpatialImage, what: str) -> np.ndarray:
    try:
        return np.asanyarray(image.dataobj)
    except Exception as error:
        raise ValueError(f"{what}: cannot be read to its end ({error}); expected a whole volume.") from error


def _affine(image: nib.spatialimages.SpatialImage, what: str) -> np.ndarray:
    header = image.header
    nifti = isinstance(header, nib.Nifti1Header)
    coded = nifti and (header["sform_code"] or header["qform_code"])
    if nifti and not coded and np.allclose(image.affine, header.get_base_affine()):
        raise ValueError(f"{what}: has no affine (sform and qform codes are 0), expected one that places it in mm.")
    return check_affine(image.affine, what)


def read_label_map(source: Case | nib.spatialimages.SpatialImage | str | os.PathLike) -> Case:
    """A case without CT from a [`Case`], a nibabel image, or the path of a NIfTI file or a case's folder."""
    if isinstance(source, Case):
        return Case(source.labels, source.affine, provenance={"synthetic": source.synthetic})
    if isinstance(source, (str, os.PathLike)):
        path, what = Path(source), f"mask {source}"
        image = _load(path / LABELS if path.is_dir() else path)
    elif isinstance(source, nib.spatialimages.SpatialImage):
        image, what = source, "mask"
    else:
        raise TypeError(
            f"mask: got {type(source).__name__}, which has no affine; expected a Case, a nibabel image "
            "(`nib.Nifti1Image(array, affine)`) or the path of a NIfTI file."
        )
    synthetic = isinstance(image, nib.Nifti1Image) and image.header["descrip"].item().startswith(SYNTHETIC.encode())
    labels = check_labels(_voxels(image, what), what)
    return Case(labels, _affine(image, what), provenance={"synthetic": synthetic})
