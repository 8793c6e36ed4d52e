"""A data set of cases on disk, in the form that `datasets.load_dataset`, the Hub and our training scripts read.

    DIR/README.md                       the card: which splits there are
    DIR/train/metadata.jsonl            one row a case (validation and test likewise)
    DIR/train/ct/NAME.nii.gz            int16 HU
    DIR/train/labels/NAME.nii.gz        uint8 class ids, on the same affine

`write_case` writes the volumes of a case and may run in any process; `DatasetWriter` lists it and lives in one. A case
counts when its row is complete, so a run that was killed anywhere goes on where it stopped and leaves the same bytes.
No value of a row is null, and no list empty: `datasets` infers the types of each split alone, and they must agree.
"""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import HfApi

from ..case import Case
from ..grid import describe_grid
from .card import MARK, dataset_card
from .volume import Volume, VolumeError


__all__ = ["SPLITS", "CaseDataset", "DatasetWriter", "push_to_hub", "write_case"]

SPLITS = ("train", "validation", "test")
METADATA, CARD = "metadata.jsonl", "README.md"
ATTRIBUTES = ("sex", "age", "race", "sites", "t", "n", "m", "size")
UNKNOWN = "unknown"
NAME = re.compile(r"[^\W_][\w .+@=()-]{0,199}")
DATE = re.compile(r"\d{4}-\d\d-\d\d")  # `datasets` would make a time of it


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; what a full disk took of it is given back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")  # one name a file: the next run writes over it
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def write_case(folder: str | os.PathLike, split: str, name: str, case: Case) -> dict[str, Any]:
    """Write both volumes of a case, each complete or not at all; returns its row for `DatasetWriter.append`."""
    check_name(name)
    check_split(split)
    if case.ct is None:
        raise ValueError(f"{name}: has no CT, expected a case of both volumes.")
    row = _row(name, case)
    for volume, image in case.nifti_images().items():
        target = Path(folder) / split / row[f"{volume}_file_name"]
        replace_file(target, gzip.compress(image.to_bytes(), compresslevel=4, mtime=0))
    return row


def _row(name: str, case: Case) -> dict[str, Any]:
    known = {key: case.attributes.get(key) for key in ATTRIBUTES}
    seed = case.provenance.get("seed")
    return {
        "ct_file_name": f"ct/{name}.nii.gz",
        "labels_file_name": f"labels/{name}.nii.gz",
        "name": name,
        "prompt": case.prompt,
        **{key: UNKNOWN if value is None else str(value) for key, value in known.items()},
        "sites": list(known["sites"] or [UNKNOWN]),
        "synthetic": case.synthetic,
        "seed": -1 if seed is None else int(seed),
        "shape": list(case.labels.shape),
        "spacing": [round(float(s), 6) for s in case.grid.spacing],
        "attributes": _compact(case.attributes),
        "provenance": _compact(case.provenance),
    }


def _compact(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)


def check_name(name: str) -> str:
    """The same name, or an error: it becomes a file name, a value of a column and a part of an address."""
    if not isinstance(name, str) or not NAME.fullmatch(name) or DATE.match(name):
        raise ValueError(
            f"case name: got {name!r}, expected up to 200 letters, digits, spaces and . _ - + @ = ( ) "
            "that begin with a letter or digit and with no date."
        )
    return name


def check_split(split: str) -> str:
    if split not in SPLITS:
        raise ValueError(f"split: got {split!r}, expected one of {', '.join(SPLITS)}.")
    return split


class DatasetWriter:
    """The rows of a data set, kept by one process; a context manager that leaves the rows sorted and the card written.

    Args:
        folder: the data set; made where it does not exist.
        overwrite (`bool`): forget the cases it holds, rather than go on with them.
        about (`str`): a paragraph for the card: where the cases come from.

    `finished` holds the names of the cases that are complete, of all splits.
    """

    def __init__(self, folder: str | os.PathLike, overwrite: bool = False, about: str = ""):
        self.folder, self.about = Path(folder), about
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.finished: set[str] = set()
        if self.folder.exists() and not self.folder.is_dir():
            raise FileExistsError(f"{folder}: this is a file, expected a folder for a data set.")
        for split in SPLITS:
            here = self.folder / split
            for file in [*here.glob("ct/.*.partial"), *here.glob("labels/.*.partial"), *here.glob(".*.partial")]:
                file.unlink()
            if overwrite:
                for file in [here / METADATA, *here.glob("ct/*.nii.gz"), *here.glob("labels/*.nii.gz")]:
                    file.unlink(missing_ok=True)
            elif (here / METADATA).is_file():
                self._resume(split)

    def _resume(self, split: str) -> None:
        path = self.folder / split / METADATA
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]  # a killed run may have left half a line
        listed = _parse(whole, path)
        rows = [row for row in listed if not _missing(path.parent, row)]
        if len(rows) != len(listed) or whole != content:
            replace_file(path, _lines(rows))
        if rows:
            self.rows[split] = rows
            self.finished |= {row["name"] for row in rows}

    def check_grid(self, shape: Sequence[int], spacing: Iterable[float]) -> None:
        """Raise where the cases at hand lie on another grid."""
        ours = (list(shape), [round(float(s), 6) for s in spacing])
        for row in (row for rows in self.rows.values() for row in rows[:1]):
            if (row["shape"], row["spacing"]) != ours:
                there = describe_grid(row["shape"], row["spacing"])
                raise ValueError(
                    f"{self.folder}: holds cases of {there}, got {describe_grid(*ours)}; "
                    "choose another folder, or overwrite."
                )

    def append(self, split: str, row: dict[str, Any]) -> None:
        """List a case whose volumes `write_case` has written."""
        check_split(split)
        if row["name"] in self.finished:
            raise ValueError(f"{row['name']}: is in {self.folder} already, expected a name of its own.")
        self.check_grid(row["shape"], row["spacing"])
        path = self.folder / split / METADATA
        if missing := _missing(path.parent, row):
            raise FileNotFoundError(f"{path.parent / missing}: no such file; `write_case` comes before `append`.")
        with path.open("ab") as file:
            file.write(_lines([row]))
        self.rows.setdefault(split, []).append(row)
        self.finished.add(row["name"])

    def close(self) -> None:
        """Sort the rows by name, whatever order the cases came in, and write the card."""
        for split, rows in self.rows.items():
            rows.sort(key=lambda row: row["name"])
            path = self.folder / split / METADATA
            if path.read_bytes() != _lines(rows):
                replace_file(path, _lines(rows))
        card = self.folder / CARD
        ours = not card.exists() or MARK in card.read_text(encoding="utf-8", errors="replace")
        if self.rows and ours:  # a card that someone wrote stays
            counts = {split: len(self.rows[split]) for split in SPLITS if split in self.rows}
            first = next(iter(self.rows.values()))[0]
            every = [row["synthetic"] for rows in self.rows.values() for row in rows]
            grid = describe_grid(first["shape"], first["spacing"])
            replace_file(card, dataset_card(counts, grid, sum(every), self.about).encode())

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode()


def _parse(content: bytes, path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            row = json.loads(line)
            row["name"], row["ct_file_name"], row["labels_file_name"], row["shape"], row["spacing"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number}: is no row of ours ({error!r}); make the data set again."
            ) from error
        rows.append(row)
    return rows


def _missing(folder: Path, row: dict[str, Any]) -> str | None:
    """The first of a row's files that is not there."""
    return next((row[key] for key in ("ct_file_name", "labels_file_name") if not (folder / row[key]).is_file()), None)


class CaseDataset(torch.utils.data.Dataset):
    """One split of a data set as `write_case` and `DatasetWriter` leave it; `rows` is what is known without reading.

    An item is a dict of `ct` (`int16`, `(X, Y, Z)`), `labels` (`uint8`), `affine` (`float64`, `(4, 4)`), `prompt`,
    `name` and `attributes`, whose values are strings, so that the default collation makes batches of it.
    """

    def __init__(self, folder: str | os.PathLike, split: str = "train"):
        self.folder = Path(folder) / check_split(split)
        path = self.folder / METADATA
        if not path.is_file():
            present = [name for name in SPLITS if (Path(folder) / name / METADATA).is_file()]
            found = f"has the splits {', '.join(present)}" if present else "is no data set of ours"
            raise FileNotFoundError(f"{path}: no such file; {folder} {found}. `guidegen prepare` makes data sets.")
        self.rows = _parse(path.read_bytes(), path)
        if not self.rows:
            raise ValueError(f"{path}: is empty, expected one line a case.")
        for row in self.rows:
            if missing := _missing(self.folder, row):
                raise FileNotFoundError(f"{self.folder / missing}: no such file, though {METADATA} lists it.")
        grids = {describe_grid(row["shape"], row["spacing"]): row["name"] for row in self.rows}
        if len(grids) > 1:
            found = "; ".join(f"{grid} ({name})" for grid, name in list(grids.items())[:3])
            raise ValueError(f"{path}: got cases of {found}; expected one grid, so that they fit one batch.")

    def __len__(self) -> int:
        return len(self.rows)

    def case(self, index: int) -> Case:
        """The case itself, with its attributes and provenance as they were."""
        row = self.rows[index]
        ct, labels = (self._volume(row, volume) for volume in ("ct", "labels"))
        if not np.allclose(ct.affine, labels.affine, atol=1e-4):
            raise ValueError(f"{row['name']}: CT and labels lie on different affines, expected one.")
        voxels = [np.ascontiguousarray(v.read(t)) for v, t in ((ct, np.int16), (labels, np.uint8))]
        attributes, provenance = (json.loads(row.get(key, "{}")) for key in ("attributes", "provenance"))
        return Case(voxels[1], labels.affine, voxels[0], row["prompt"], attributes, provenance)

    def _volume(self, row: dict[str, Any], which: str) -> Volume:
        volume = Volume(self.folder / row[f"{which}_file_name"])
        if list(volume.shape) != row["shape"]:
            raise VolumeError(f"{volume.path}: got shape {volume.shape}, expected {tuple(row['shape'])} as listed.")
        return volume

    def __getitem__(self, index: int) -> dict[str, Any]:
        case, row = self.case(index), self.rows[index]
        attributes = {key: row.get(key, UNKNOWN) for key in ATTRIBUTES}
        return {
            "ct": torch.from_numpy(case.ct),
            "labels": torch.from_numpy(case.labels),
            "affine": torch.from_numpy(case.affine),
            "prompt": row["prompt"],
            "name": row["name"],
            "attributes": {**attributes, "sites": ", ".join(attributes["sites"])},
        }


def push_to_hub(folder: str | os.PathLike, repo_id: str, private: bool = True, token: str | bool | None = None) -> str:
    """Upload a data set to the Hub, private unless said otherwise, and nothing else; returns its address."""
    folder = Path(folder)
    splits = [split for split in SPLITS if (folder / split / METADATA).is_file()]
    if not splits or not (folder / CARD).is_file():
        raise FileNotFoundError(f"{folder}: holds no whole data set (splits and {CARD}), expected one to upload.")
    for split in splits:
        CaseDataset(folder, split)  # what cannot be read here is not uploaded
    ours = (METADATA, "ct/*.nii.gz", "labels/*.nii.gz")
    hub = HfApi(token=token)
    url = hub.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    hub.upload_folder(
        repo_id=url.repo_id,
        repo_type="dataset",
        folder_path=folder,
        allow_patterns=[CARD, *(f"{split}/{pattern}" for split in splits for pattern in ours)],
        delete_patterns=[f"{split}/*" for split in SPLITS],  # what an earlier upload held and this one does not
        commit_message="Upload cases",
    )
    return str(url)
