"""A set as nnU-Net v2 reads it: `Dataset101_Name/imagesTr`, `labelsTr` and `dataset.json`.

Labels are numbered anew without gaps, as nnU-Net asks. With regions, tumours are told apart by the organ that they
grow in, and an organ's region holds its own: kidney is kidney and kidney tumour, and tumor is all of them.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from ..case import Case
from ..data.dataset import replace_file
from ..labels import CLASSES, TUMOR, LabelClass, split_tumor
from ..prompts.attributes import ORGANS, organ_of
from ..tumor_sites import ELSEWHERE, find_site
from .form import Form


__all__ = ["NnunetForm"]

FOLDER = re.compile(r"Dataset(\d{3})_([\w-]+)")
SETS = {"all": CLASSES[1:], "organs": CLASSES[1:TUMOR], "tumor": CLASSES[TUMOR:]}
FAMILIES = (*ORGANS, "other")  # of tumours, in the order of their labels


class NnunetForm(Form):
    """
    Args:
        classes (`Sequence[str]`): what is labelled: `"all"`, `"organs"`, `"tumor"`, or names of classes. Without the
            tumour its voxels take the organ around them.
        regions (`bool`): nnU-Net's region-based training in place of plain labels.
    """

    def __init__(self, classes: Sequence[str] = ("all",), regions: bool = False):
        if isinstance(classes, str):
            raise TypeError(f"classes: got the string {classes!r}, expected a list of names.")
        known = {c.name: (c,) for c in CLASSES[1:]} | SETS
        if not classes or (wrong := [name for name in classes if name not in known]):
            got = ", ".join(wrong) if classes else "none"
            raise ValueError(f"classes: got {got}, expected all, organs, or names among {_names(CLASSES[1:])}.")
        chosen = {c for name in classes for c in known[name]}
        self.classes = tuple(c for c in CLASSES if c in chosen)
        self.regions = regions
        if regions and CLASSES[TUMOR] not in chosen:
            raise ValueError(f"regions: got the classes {_names(self.classes)}, expected the tumor among them.")

    def as_dict(self) -> dict[str, Any]:
        return {"format": "nnunet", "classes": [c.name for c in self.classes], "regions": self.regions}

    def check(self, output: Path, split: str) -> None:
        if not FOLDER.fullmatch(output.name):
            raise ValueError(
                f"output: got a folder called {output.name!r}, expected a number and a name as nnU-Net has them, for "
                "example Dataset101_Torso."
            )
        if split != "train":
            raise ValueError(f"split: got {split!r}, expected train; nnU-Net splits its training cases itself.")

    def home(self, output: Path, split: str) -> Path:
        return output / "imagesTr"

    def files(self, output: Path, split: str, name: str) -> dict[str, Path]:
        return {
            "ct": output / "imagesTr" / f"{name}_0000.nii.gz",
            "labels": output / "labelsTr" / f"{name}.nii.gz",
        }

    def write(self, output: Path, split: str, name: str, case: Case) -> dict[str, Any]:
        images = case.nifti_images()
        images["labels"] = nib.Nifti1Image(self.convert(case.labels, case.affine), None, images["labels"].header)
        for volume, path in self.files(output, split, name).items():
            replace_file(path, gzip.compress(images[volume].to_bytes(), compresslevel=4, mtime=0))
        return {"name": name}

    def close(self, output: Path, split: str, rows: Sequence[dict[str, Any]], about: str) -> list[dict[str, Path]]:
        files = [self.files(output, split, row["name"]) for row in rows]
        for path in (path for paths in files for path in paths.values()):
            if not path.is_file():
                raise FileNotFoundError(f"{path}: no such file, though its record says that it was written.")
        content = {
            "name": FOLDER.fullmatch(output.name)[2],
            "description": about,
            "channel_names": {"0": "CT"},
            **self.labels(),
            "numTraining": len(rows),
            "file_ending": ".nii.gz",
        }
        replace_file(output / "dataset.json", (json.dumps(content, indent=2) + "\n").encode())
        return files

    def labels(self) -> dict[str, Any]:
        """`labels` of dataset.json, with `regions_class_order` where there are regions."""
        organs = {c.name: i for i, c in enumerate(self.classes, 1) if c.id != TUMOR}
        first = len(organs) + 1
        if not self.regions:
            tumor = {"tumor": first} if self._has_tumor else {}
            return {"labels": {"background": 0, **organs, **tumor}}
        tumors = {f"{family}_tumor": first + i for i, family in enumerate(FAMILIES)}
        regions = {organ: [i, tumors[f"{organ}_tumor"]] if organ in ORGANS else i for organ, i in organs.items()}
        # painted one over the other: a tumour is of no organ of ours until its own region says otherwise
        regions["tumor"] = list(tumors.values())
        order = [*organs.values(), tumors["other_tumor"]]
        for organ in ORGANS:
            regions[f"{organ}_tumor"] = tumors[f"{organ}_tumor"]
            order.append(tumors[f"{organ}_tumor"])
        return {"labels": {"background": 0, **regions}, "regions_class_order": order}

    @property
    def _has_tumor(self) -> bool:
        return self.classes[-1].id == TUMOR

    def convert(self, labels: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """A map of our classes in the numbers of dataset.json."""
        table = np.zeros(len(CLASSES), np.uint8)
        table[[c.id for c in self.classes]] = range(1, len(self.classes) + 1)
        if not self._has_tumor:
            return table[split_tumor(labels)[0]]
        converted = table[labels]
        if self.regions:
            tumor = labels == TUMOR
            converted[tumor] += _families(labels, affine)[tumor]
        return converted


def _families(labels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The place in `FAMILIES` of each tumour voxel's tumour, as [`find_site`] tells it."""
    pieces, count = ndimage.label(labels == TUMOR, np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.reshape(-1), minlength=count + 1)[1:]
    families = np.zeros(count + 1, np.uint8)
    found = find_site(labels, affine, min_volume_ml=0.0).tumors  # all pieces, the largest first
    for piece, tumor in zip(np.argsort(-sizes, kind="stable") + 1, found, strict=True):
        families[piece] = FAMILIES.index("other" if tumor.site == ELSEWHERE else organ_of(tumor.site))
    return families[pieces]


def _names(classes: Sequence[LabelClass]) -> str:
    return ", ".join(c.name for c in classes)
