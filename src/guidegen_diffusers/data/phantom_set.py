"""Phantoms written as a data set: the same bytes for the same seeds, however many processes made them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..phantom import SEEDS, VERSION, TorsoPhantom
from .dataset import DatasetWriter, check_split, write_case
from .workers import in_order


__all__ = ["write_phantoms"]


@dataclass(frozen=True)
class _Task:
    folder: Path
    split: str
    seed: int
    sample_size: tuple[int, int, int]
    spacing: float
    prompt: str | None


def write_phantoms(
    output: str | os.PathLike,
    count: int,
    sample_size: Sequence[int] = (64, 48, 96),
    spacing: float = 6.0,
    seed: int = 0,
    split: str = "train",
    prompt: str | None = None,
    workers: int = 1,
    overwrite: bool = False,
    progress: bool = True,
) -> int:
    """Write `count` phantoms to `output/split` and list them; returns how many were made now.

    Args:
        seed: the first case's place in the seeds of the split; splits share no seed (`phantom.SEEDS`).
        prompt: what every case is to show, in free text; None draws it.
        workers: processes.
        overwrite: make all cases anew. Otherwise a run that was stopped goes on.
    """
    check_split(split)
    if count < 1 or seed < 0 or seed + count > len(SEEDS[split]):
        raise ValueError(f"count and seed: got {count} and {seed}, expected whole numbers within {len(SEEDS[split])}.")
    phantom = TorsoPhantom(sample_size, spacing)
    about = (
        f"Procedural torso phantoms of guidegen-diffusers, version {VERSION}: drawn, not scanned; every attribute is "
        "known. Race changes nothing in them, on purpose."
    )
    with DatasetWriter(output, overwrite, about) as writer:
        writer.check_grid(phantom.sample_size, phantom.grid.spacing)
        seeds = [SEEDS[split][seed + i] for i in range(count)]
        tasks = [
            _Task(Path(output), split, s, phantom.sample_size, phantom.spacing, prompt)
            for s in seeds
            if _name(s) not in writer.finished
        ]
        made = in_order(_write_phantom, tasks, workers)
        for row in tqdm(made, "phantoms", len(seeds), initial=len(seeds) - len(tasks), disable=not progress):
            writer.append(split, row)
    return len(tasks)


def _name(seed: int) -> str:
    return f"phantom_{seed:010d}"


def _write_phantom(task: _Task) -> dict[str, Any]:
    torch.set_num_threads(1)
    case = TorsoPhantom(task.sample_size, task.spacing).sample(task.prompt, task.seed)
    return write_case(task.folder, task.split, _name(task.seed), case)
