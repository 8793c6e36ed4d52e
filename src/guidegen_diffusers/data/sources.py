"""Where the volumes of each case are: files and folders as data sets lay them out, found by name.

    a folder of NIfTI files     NAME.nii.gz, or NAME_0000.nii.gz as nnU-Net has it
    a folder of case folders    NAME/ct.nii.gz (TotalSegmentator), NAME/imaging.nii.gz (KiTS)
    a folder of DICOM series    NAME/*, the slices of one series
    one file, or one series

and for labels and tumours likewise NAME.nii.gz (LiTS: segmentation-0 for volume-0), or a folder NAME of masks, or
NAME/segmentations, or NAME/segmentation.nii.gz. A case is called by its file or folder, never by what a header says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..labels import TUMOR
from .segmentation import mask_class, nifti_stem


__all__ = ["Source", "case_name", "find_sources"]

CT_FILES = ("ct", "imaging", "image")
LABEL_FILES = ("segmentation", "segmentations", "labels")


@dataclass(frozen=True)
class Source:
    """The files of a case: `ct` is a NIfTI file or the folder of a series, `labels` a file or a folder of masks."""

    name: str
    ct: Path
    labels: Path | None
    tumors: tuple[Path, ...] = ()


def case_name(path: Path) -> str:
    """`s01` of `s01.nii.gz`, `s01_0000.nii.gz` (nnU-Net's first channel) and of the folder `s01`."""
    return (nifti_stem(path) or path.name).removesuffix("_0000")


def find_sources(ct: Sequence[Path], labels: Sequence[Path], tumors: Sequence[Path] = ()) -> list[Source]:
    """Every CT with what belongs to it, in the order of names; what is missing for all of them is an error."""
    for path in (*ct, *labels, *tumors):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder.")
    cts: dict[str, Path] = {}
    for path in ct:
        for name, file in _find_cts(path):
            if name in cts:
                raise ValueError(f"{file}: the name {name} belongs to {cts[name]} too, expected one CT a name.")
            cts[name] = file
    if not cts:
        raise FileNotFoundError(f"{_listed(ct)}: holds no CT, expected NIfTI files or folders of DICOM slices.")
    alone = len(cts) == 1
    sources = [
        Source(name, cts[name], _find_labels(labels, name, alone), _find_tumors(tumors, name, alone))
        for name in sorted(cts)
    ]
    names = ", ".join(source.name for source in sources[:3])
    if not any(source.labels for source in sources):
        raise FileNotFoundError(f"{_listed(labels)}: holds labels for none of the CTs, expected files called {names}.")
    if tumors and not any(source.tumors for source in sources):
        raise FileNotFoundError(
            f"{_listed(tumors)}: holds tumours for none of the CTs, expected files called {names}."
        )
    return sources


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(str(path) for path in paths)


def _inside(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _find_cts(path: Path) -> list[tuple[str, Path]]:
    if path.is_file():
        if nifti_stem(path) is None:
            raise ValueError(f"{path}: is no NIfTI file; a DICOM series is given by its folder.")
        return [(case_name(path), path)]
    if file := _file_of(path, CT_FILES):
        return [(path.resolve().name, file)]
    inside = _inside(path)
    folders = [folder for folder in inside if folder.is_dir()]
    cts = [(case_name(file), file) for file in inside if file.is_file() and nifti_stem(file)]
    if not cts and not folders:
        return [(path.resolve().name, path)] if inside else []
    for folder in folders:
        if file := _file_of(folder, CT_FILES):
            cts.append((folder.name, file))
        else:
            series = _series(folder)
            cts += [(folder.name if len(series) == 1 else f"{folder.name}_{leaf.name}", leaf) for leaf in series]
    return cts


def _file_of(folder: Path, stems: Sequence[str]) -> Path | None:
    files = (folder / f"{stem}{end}" for stem in stems for end in (".nii.gz", ".nii"))
    return next((file for file in files if file.is_file()), None)


def _series(folder: Path) -> list[Path]:
    """The folders under `folder` that hold files other than NIfTI: a series each, however deep archives put it."""
    files = (file for file in folder.rglob("*") if file.is_file() and nifti_stem(file) is None)
    return sorted({file.parent for file in files if not file.name.startswith(".")})


def _find_labels(roots: Sequence[Path], name: str, alone: bool) -> Path | None:
    for root in roots:
        if root.is_file():
            if alone or case_name(root) == name:
                return root
            continue
        folder = root / name
        if file := _file_of(root, (name, name.replace("volume", "segmentation"))) or _file_of(folder, LABEL_FILES):
            return file
        for masks in (*(folder / inner for inner in LABEL_FILES), folder, *([root] if alone else ())):
            if masks.is_dir() and any(mask_class(nifti_stem(file) or "") for file in _inside(masks)):
                return masks
        if alone and (file := _file_of(root, LABEL_FILES)):
            return file
    return None


def _find_tumors(roots: Sequence[Path], name: str, alone: bool) -> tuple[Path, ...]:
    found: list[Path] = []
    for root in roots:
        if root.is_file():
            found += [root] if alone or case_name(root) == name else []
            continue
        stems = (name, name.replace("volume", "segmentation"))
        stems += tuple(f"{name}{joint}{word}" for joint in "_-" for word in ("tumor", "tumour", "lesion"))
        folders = [root / name, *(root / name / inner for inner in LABEL_FILES), *([root] if alone else [])]
        masks = [
            file
            for folder in folders
            if folder.is_dir()
            for file in _inside(folder)
            if file.is_file() and mask_class(nifti_stem(file) or "") == TUMOR
        ]
        files = [file for file in (_file_of(root, (stem,)) for stem in stems) if file]
        found += files or masks or [file for file in [_file_of(root / name, LABEL_FILES)] if file]
    return tuple(dict.fromkeys(found))
