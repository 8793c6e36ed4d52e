"""A set of cases on disk, read one at a time: a split of a data set of ours, or a folder of cases."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..case import RECORD, Case
from ..data import CaseDataset
from ..data.dataset import METADATA, SPLITS
from ..grid import describe_grid


__all__ = ["CaseSet"]


class CaseSet(Sequence):
    """The cases of a folder on one grid; an item is a [`Case`].

    Args:
        folder: a data set of one split, a split of one (`DIR/test`), or a folder with a folder for each case, as
            `guidegen generate --num` leaves it.
        limit (`int`, *optional*): the first so many.
    """

    def __init__(self, folder: str | os.PathLike, limit: int | None = None):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder, expected a set of cases.")
        splits = [split for split in SPLITS if (self.folder / split / METADATA).is_file()]
        if len(splits) > 1:
            choices = ", ".join(str(self.folder / split) for split in splits)
            raise ValueError(f"{folder}: has several splits, expected one of {choices}.")
        self._data, self._folders = None, []
        if splits:
            self._data = CaseDataset(self.folder, splits[0])
        elif (self.folder / METADATA).is_file():
            self._data = CaseDataset(self.folder.resolve().parent, self.folder.resolve().name)
        else:
            self._folders = sorted(path.parent for path in self.folder.glob(f"*/{RECORD}"))
        if not self._data and not self._folders:
            raise ValueError(
                f"{folder}: holds no case, expected a data set (`guidegen synthesize`, `phantom` or `prepare` write "
                f"them) or folders with a {RECORD}."
            )
        rows = self._data.rows if self._data else [self._read(path) for path in self._folders]
        self.names: list[str] = [row["name"] for row in rows][:limit]
        grids = {(tuple(row["shape"]), tuple(np.round(row["spacing"], 3))): row["name"] for row in rows}
        if len(grids) > 1:
            found = "; ".join(f"{describe_grid(*grid)} ({name})" for grid, name in list(grids.items())[:3])
            raise ValueError(f"{folder}: got cases of {found}; expected one grid.")
        self.shape, self.spacing = next(iter(grids))

    @staticmethod
    def _read(folder: Path) -> dict[str, Any]:
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            spacing = np.linalg.norm(np.array(record["affine"])[:3, :3], axis=0).tolist()
            return {"name": folder.name, "shape": record["shape"], "spacing": spacing}
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"{folder / RECORD}: not a case record ({error!r}); save the case again.") from error

    @property
    def grid(self) -> str:
        return describe_grid(self.shape, self.spacing)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Case:
        if not 0 <= index < len(self):
            raise IndexError(f"index: got {index}, expected 0..{len(self) - 1}.")
        return self._data.case(index) if self._data else Case.load(self._folders[index])

    def __iter__(self) -> Iterator[Case]:
        return (self[i] for i in range(len(self)))
