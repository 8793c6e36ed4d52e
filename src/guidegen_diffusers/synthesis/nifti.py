"""A set as our own data sets are: what `CaseDataset`, `datasets.load_dataset` and the training scripts read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..case import Case
from ..data.dataset import DatasetWriter, write_case
from .form import Form


__all__ = ["NiftiForm"]


class NiftiForm(Form):
    """`DIR/SPLIT/ct/NAME.nii.gz`, `labels/NAME.nii.gz` and `metadata.jsonl`, with a card; see [`data.dataset`]."""

    def as_dict(self) -> dict[str, Any]:
        return {"format": "nifti"}

    def home(self, output: Path, split: str) -> Path:
        return output / split

    def files(self, output: Path, split: str, name: str) -> dict[str, Path]:
        return {volume: output / split / volume / f"{name}.nii.gz" for volume in ("ct", "labels")}

    def write(self, output: Path, split: str, name: str, case: Case) -> dict[str, Any]:
        return write_case(output, split, name, case)

    def close(self, output: Path, split: str, rows: Sequence[dict[str, Any]], about: str) -> list[dict[str, Path]]:
        with DatasetWriter(output, about=about) as writer:
            for row in rows:
                if row["name"] not in writer.finished:  # an earlier process was killed while it closed the set
                    writer.append(split, row)
        return [self.files(output, split, row["name"]) for row in rows]
