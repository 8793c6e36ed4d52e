"""Shipped configurations: one JSON file a pipeline, the single source of its networks, grid and schedules."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any


__all__ = ["available_configs", "load_config"]


def available_configs() -> list[str]:
    """Names of the configurations in the package."""
    files = resources.files(__package__).iterdir()
    return sorted(f.name.removesuffix(".json") for f in files if f.name.endswith(".json"))


def load_config(name: str) -> dict[str, Any]:
    """The configuration of that name: grid, sampling, and one entry a component of [`GuideGenPipeline`]."""
    if name not in available_configs():
        raise ValueError(f"config: got {name!r}, expected one of {', '.join(available_configs())}.")
    return json.loads(resources.files(__package__).joinpath(f"{name}.json").read_text(encoding="utf-8"))
