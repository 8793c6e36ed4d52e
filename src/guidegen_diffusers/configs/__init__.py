"""Configurations, one JSON file a pipeline: the single source of its networks, grid and schedules.

Those of the package go by name; a file of one's own by its path. A file may say only where it differs from another:
`{"like": "torso-6mm", "vae": {"window_sampling": "none"}}`.
"""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path
from typing import Any


__all__ = ["available_configs", "check_config", "load_config"]

KEYS = {"spacing", "max_sequence_length", "sampling", "text_encoder", "mask_unet", "mask_scheduler", "vae"}
KEYS |= {"semantic_encoder", "unet", "scheduler"}


def available_configs() -> list[str]:
    """Names of the configurations in the package."""
    files = resources.files(__package__).iterdir()
    return sorted(f.name.removesuffix(".json") for f in files if f.name.endswith(".json"))


def load_config(source: str | os.PathLike) -> dict[str, Any]:
    """The configuration of that name or file: grid, sampling, and one entry a component of [`GuideGenPipeline`]."""
    return _load(source, [])


def _load(source: str | os.PathLike, liked_by: list[str]) -> dict[str, Any]:
    file = Path(source)
    if str(source) in available_configs():
        file = resources.files(__package__).joinpath(f"{source}.json")
    elif file.suffix != ".json" or not file.is_file():
        raise ValueError(
            f"config: got {str(source)!r}, expected one of {', '.join(available_configs())}, or a JSON file like them."
        )
    if str(file) in liked_by:
        raise ValueError(f"like: got {' -> '.join([*liked_by, str(file)])}, expected an end.")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(config, dict) and "like" in config:
            config = _changed(_load(_beside(file, str(config.pop("like"))), [*liked_by, str(file)]), config)
        return check_config(config)
    except ValueError as error:
        raise ValueError(f"{source}: not a configuration ({error})") from error


def check_config(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration itself, if it has what the shipped ones have."""
    if not isinstance(config, dict) or set(config) != KEYS:
        raise ValueError(f"config: got {sorted(config)}, expected a dict with the keys {sorted(KEYS)}.")
    return config


def _beside(file: Path, source: str) -> str | Path:
    """A file that a configuration names lies beside it."""
    return file.parent / source if source.endswith(".json") else source


def _changed(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`config` with `changes`, entry by entry where both have a dict."""
    both = {key: config[key] | value for key, value in changes.items() if isinstance(value, dict) and key in config}
    return config | changes | both
