"""A procedural torso: every attribute of a case is known because it was drawn.

Cases are a pure function of (prompt, seed, grid, `VERSION`). One seed is one body: prompts that differ in the tumour
alone give the same torso with another tumour, and a coarse grid shows the anatomy of the fine one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..case import Case
from ..grid import Grid
from ..prompts import ClinicalPrompt
from .canvas import Canvas
from .organs import Organs
from .patient import Patient
from .scanner import scan
from .torso import Torso
from .tumors import paint_tumors


__all__ = ["SEEDS", "VERSION", "TorsoPhantom", "torso_size"]

VERSION = 1  # of the anatomy: raised whenever a seed gives other voxels
# disjoint, so that what is tested was never trained on
SEEDS = {
    "train": range(0, 1_000_000_000),
    "validation": range(1_000_000_000, 2_000_000_000),
    "test": range(2_000_000_000, 3_000_000_000),
}


def torso_size(spacing: float) -> tuple[int, int, int]:
    """Voxels that hold the whole torso, 384 x 288 x 576 mm, at a spacing in mm."""
    if not 0.5 <= spacing <= 50:
        raise ValueError(f"spacing: got {spacing}, expected 0.5 to 50 mm.")
    return tuple(max(4, round(extent / spacing)) for extent in (384, 288, 576))


class TorsoPhantom:
    """
    Args:
        sample_size (`Sequence[int]`): voxels X, Y, Z. A torso fills 384 x 288 x 576 mm: 64 x 48 x 96 voxels at 6 mm,
            128 x 96 x 192 at 3 mm; a smaller field of view shows the middle of it.
        spacing (`float`): edge of a voxel in mm.
    """

    def __init__(self, sample_size: Sequence[int] = (64, 48, 96), spacing: float = 6.0):
        if len(sample_size) != 3 or any(int(n) != n or n < 4 for n in sample_size):
            raise ValueError(f"sample_size: got {sample_size}, expected three whole numbers of at least 4.")
        if not 0.5 <= spacing <= 50:
            raise ValueError(f"spacing: got {spacing}, expected 0.5 to 50 mm.")
        self.grid = Grid.centered([int(n) for n in sample_size], float(spacing))

    @property
    def sample_size(self) -> tuple[int, int, int]:
        return self.grid.shape

    @property
    def spacing(self) -> float:
        return float(self.grid.spacing[0])

    def sample(self, prompt: ClinicalPrompt | str | None = None, seed: int = 0, ct: bool = True) -> Case:
        """The case of a prompt (free text or read already; None draws one) and a seed; labels alone without `ct`."""
        if isinstance(prompt, str) or prompt is None:
            prompt = ClinicalPrompt.parse(prompt or "")
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**63:
            raise ValueError(f"seed: got {seed!r}, expected a whole number from 0 to 2**63 - 1.")
        prompt = prompt.resolve(torch.Generator().manual_seed(int(seed)))
        streams = np.random.SeedSequence([VERSION, int(seed)]).spawn(4)
        body, anatomy, growth, scanner = (np.random.Generator(np.random.SFC64(s)) for s in streams)
        patient = Patient.draw(prompt, body)
        girth = patient.build * (1 + 0.03 * patient.habitus)
        senior = np.clip((patient.years - 40) / 50, 0, 1)
        depth = patient.build * (1 + 0.045 * patient.habitus + 0.03 * senior)
        canvas = Canvas(self.grid, anatomy, (girth, depth, patient.height))
        torso = Torso(canvas, patient, anatomy)
        torso.paint_body(anatomy)
        torso.paint_skeleton(anatomy)
        organs = Organs(torso, anatomy)
        organs.paint()
        healthy = canvas.tissue.copy()
        paint_tumors(organs, prompt, growth)
        return Case(
            canvas.labels,
            self.grid.affine,
            scan(canvas, healthy, patient, scanner) if ct else None,
            prompt=prompt.render(),
            attributes=prompt.as_dict(),
            provenance={"synthetic": True, "model": "torso phantom", "version": VERSION, "seed": int(seed)},
        )
