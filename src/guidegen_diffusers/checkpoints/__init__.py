"""Trained pipelines that ship with the package: one folder each, as `save_pretrained` wrote it, in half precision."""

from __future__ import annotations

from pathlib import Path


__all__ = ["DEFAULT", "available_checkpoints", "bundled_checkpoint"]

DEFAULT = "torso-6mm"


def available_checkpoints() -> list[str]:
    """Names of the pipelines in the package."""
    return sorted(folder.parent.name for folder in Path(__file__).parent.glob("*/model_index.json"))


def bundled_checkpoint(name: str = DEFAULT) -> Path:
    """The folder of that pipeline, for `GuideGenPipeline.from_pretrained`."""
    if name not in available_checkpoints():
        raise ValueError(f"checkpoint: got {name!r}, expected one of {', '.join(available_checkpoints())}.")
    return Path(__file__).parent / name
