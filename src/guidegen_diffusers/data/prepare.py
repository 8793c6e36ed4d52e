"""Real CT and label maps brought into the form that training reads: read, checked, resampled, judged, written.

Each case comes onto one grid (isotropic, centred on what is labelled), keeps its place in the world, and is written
or refused with a reason; nothing is half-written, and a run that was stopped goes on. The split of a case follows from
its name alone, so that adding cases moves none.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from .._version import __version__
from ..case import HU_RANGE, Case
from ..grid import Grid
from ..labels import TUMOR
from .ct import read_ct
from .dataset import DatasetWriter, check_name, write_case
from .prompt_table import TableRow, read_prompt_table
from .refusal import reason_to_refuse
from .report import REFUSED, WRITTEN, Report, ReportLine
from .segmentation import SCHEMES, Segmentation, read_segmentation
from .sources import Source, find_sources
from .volume import check_same_place
from .workers import in_order


__all__ = ["PrepareSummary", "prepare", "split_of"]

REPORT = "report.csv"
ABOUT = "CT with label maps, brought onto one grid by `guidegen prepare`; `provenance` says how each volume came."


@dataclass(frozen=True)
class PrepareSummary:
    """How many cases a run wrote and refused, and how many it found finished."""

    written: int
    refused: int
    finished_before: int

    def __str__(self) -> str:
        before = f", {self.finished_before} finished before" if self.finished_before else ""
        return f"{self.written} written, {self.refused} refused{before}"


@dataclass(frozen=True)
class _Task:
    source: Source
    split: str
    known: TableRow
    folder: Path
    size: tuple[int, int, int]
    spacing: float
    scheme: str
    tumor_ids: tuple[int, ...]
    min_organs: int


def prepare(
    ct: Sequence[str | os.PathLike],
    labels: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    tumor: Sequence[str | os.PathLike] = (),
    tumor_labels: Sequence[int] = (),
    prompts: str | os.PathLike | None = None,
    size: Sequence[int] = (128, 96, 192),
    spacing: float = 3.0,
    labels_version: str = "auto",
    min_organs: int = 1,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    workers: int = 1,
    overwrite: bool = False,
    progress: bool = True,
) -> PrepareSummary:
    """Make a data set of CTs and their label maps; see [`sources`] for the layouts that are found.

    Args:
        ct, labels: files or folders.
        output: the data set; cases that it holds are not made again, those that were refused are tried again.
        tumor: masks of tumours, painted over the organs.
        tumor_labels: the ids of the masks that are tumour (KiTS: 2); all but 0 where none are named.
        prompts: a table of prompts or clinical fields, see [`prompt_table`].
        size, spacing: the grid, voxels along X, Y, Z and millimetres.
        labels_version: the ids of label files: "1" or "2" (TotalSegmentator), "ours", or "auto" (ours where the header
            says so, else 2).
        min_organs: how many organs a case must show.
        val_fraction, test_fraction: shares of the cases that are kept from training.
        workers: processes.
        overwrite: make all cases anew.
    """
    if labels_version not in SCHEMES:
        raise ValueError(f"labels_version: got {labels_version!r}, expected one of {', '.join(SCHEMES)}.")
    if len(size) != 3 or min(size) < 1 or not spacing > 0:
        raise ValueError(f"size and spacing: got {tuple(size)} and {spacing}, expected three counts and millimetres.")
    if min(val_fraction, test_fraction) < 0 or not val_fraction + test_fraction <= 1:
        raise ValueError(f"fractions: got {val_fraction} and {test_fraction}, expected shares of at most 1 in all.")
    if workers < 1:
        raise ValueError(f"workers: got {workers}, expected at least one.")
    sources = find_sources([Path(p) for p in ct], [Path(p) for p in labels], [Path(p) for p in tumor])
    table = read_prompt_table(Path(prompts), {source.name for source in sources}) if prompts is not None else {}
    output, size = Path(output), tuple(int(n) for n in size)
    for path in (*ct, *labels, *tumor):
        if output.resolve().is_relative_to(Path(path).resolve()):
            raise ValueError(f"output: {output} lies in {path}, expected a folder beside what is read.")
    written = refused = 0
    with DatasetWriter(output, overwrite, ABOUT) as writer, Report(output / REPORT, overwrite) as report:
        writer.check_grid(size, [spacing] * 3)
        tasks = []
        for source in sources:
            if source.name not in writer.finished:
                known = table.get(source.name, TableRow({}))
                split = known.split or split_of(source.name, val_fraction, test_fraction)
                tasks.append(
                    _Task(
                        source,
                        split,
                        known,
                        output,
                        size,
                        float(spacing),
                        labels_version,
                        tuple(tumor_labels),
                        min_organs,
                    )
                )
        outcomes = in_order(_prepare_case, tasks, workers)
        for line, row in tqdm(outcomes, "prepare", len(tasks), unit="case", disable=not progress):
            report.add(line)
            if row is None:
                refused += 1
            else:
                written += 1
                writer.append(line.split, row)
    return PrepareSummary(written, refused, len(sources) - len(tasks))


def split_of(name: str, val_fraction: float, test_fraction: float) -> str:
    """The split of a case: a hash of its name, whatever other cases there are."""
    draw = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    if draw < test_fraction:
        return "test"
    return "validation" if draw < test_fraction + val_fraction else "train"


def _prepare_case(task: _Task) -> tuple[ReportLine, dict[str, Any] | None]:
    """The report's line of a case and, where it was written, its row."""
    figures: dict[str, str] = {}
    name = task.source.name
    try:
        check_name(name)
        case = _read_case(task, figures)
    except (ValueError, TypeError, OSError, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return ReportLine(name, REFUSED, task.split, reason, **figures), None
    row = write_case(task.folder, task.split, name, case)  # what fails here, a full disk, ends the run
    return ReportLine(name, WRITTEN, task.split, **figures), row


def _read_case(task: _Task, figures: dict[str, str]) -> Case:
    source = task.source
    text, prompt = task.known.prompt()
    if source.labels is None:
        raise FileNotFoundError("labels: no file or folder of masks has the name of the CT")
    ct = read_ct(source.ct)
    figures["ct_shape"] = "x".join(map(str, ct.hu.shape))
    figures["ct_spacing"] = "x".join(f"{s:.4g}" for s in np.linalg.norm(ct.affine[:3, :3], axis=0))
    segmentation = read_segmentation(source.labels, task.scheme)
    check_same_place("labels", segmentation.labels.shape, segmentation.affine, "the CT", ct.hu.shape, ct.affine)
    segmentation.add_tumor(source.tumors, task.tumor_ids)

    grid = _grid(segmentation, task.size, task.spacing)
    labels = grid.resample_labels(segmentation.labels, segmentation.affine)
    present = np.bincount(labels.ravel(), minlength=TUMOR + 1)
    figures["organs"] = str(np.count_nonzero(present[1:TUMOR]))
    figures["tumor_ml"] = f"{present[TUMOR] * task.spacing**3 / 1000:.2f}"
    if reason := reason_to_refuse(labels, grid, prompt, task.min_organs):
        raise ValueError(reason)
    hu = np.rint(grid.resample_ct(ct.hu, ct.affine).clip(*HU_RANGE)).astype(np.int16)
    provenance = {
        "synthetic": ct.synthetic,
        "synthetic_labels": segmentation.synthetic,
        "source_shape": list(ct.hu.shape),
        "source_spacing": [round(float(s), 4) for s in np.linalg.norm(ct.affine[:3, :3], axis=0)],
        "source_labels": segmentation.scheme,
        "versions": {"guidegen-diffusers": __version__},
    }
    return Case(labels, grid.affine, hu, text, prompt.as_dict(), provenance)


def _grid(segmentation: Segmentation, size: tuple[int, int, int], spacing: float) -> Grid:
    """The grid around what is labelled, moved by less than a voxel so that its own voxels lie on the source's.

    Where both have the same spacing nothing is then interpolated.
    """
    labels, affine = segmentation.labels, segmentation.affine
    planes = [np.flatnonzero(labels.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not all(len(plane) for plane in planes):
        planes = [np.arange(n) for n in labels.shape]
    center = affine @ [*((plane[0] + plane[-1]) / 2 for plane in planes), 1]
    moved = Grid.centered(size, spacing, center[:3]).affine
    moved[:, 3] = affine @ np.round(np.linalg.inv(affine) @ moved[:, 3])
    return Grid(size, moved)
