"""Trained networks that ship with the package, in half precision: pipelines, and the instruments that measure them.

Each is a folder as `save_pretrained` wrote it. Instruments (`segmenter-6mm`, `classifier-6mm`) are named after the
spacing of the voxels that they read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


__all__ = ["DEFAULT", "available_checkpoints", "bundled_checkpoint", "bundled_instrument"]

DEFAULT = "torso-6mm"
FOLDER = Path(__file__).parent


def available_checkpoints() -> list[str]:
    """Names of the pipelines in the package."""
    return sorted(folder.parent.name for folder in FOLDER.glob("*/model_index.json"))


def bundled_checkpoint(name: str = DEFAULT) -> Path:
    """The folder of that pipeline, for `GuideGenPipeline.from_pretrained`."""
    if name not in available_checkpoints():
        raise ValueError(f"checkpoint: got {name!r}, expected one of {', '.join(available_checkpoints())}.")
    return FOLDER / name


def bundled_instrument(kind: str, spacing: Sequence[float]) -> Path | None:
    """The folder of the segmenter or classifier for isotropic voxels of `spacing` mm; None where none ships."""
    if max(spacing) - min(spacing) > 1e-3:
        return None
    folder = FOLDER / f"{kind}-{round(float(spacing[0]), 3):g}mm"
    return folder if (folder / "config.json").is_file() else None
