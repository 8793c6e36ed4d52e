"""What every network of the package shares: loading that is complete and safe, or fails.

diffusers warns where a checkpoint lacks a parameter (and leaves it on `meta`), and falls back to pickle files in
silence. Here a missing or surplus key is an error, and weights are safetensors only.
"""

from __future__ import annotations

import os
from pathlib import Path

from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin


__all__ = ["StrictModelMixin", "refuse_pickles"]

WEIGHTS = ("diffusion_pytorch_model", "pytorch_model", "model.")  # how diffusers and transformers name them
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def refuse_pickles(folder: str | os.PathLike, use_safetensors: bool | None) -> None:
    """Raise where pickled weights are asked for, or are all that a local folder holds."""
    remedy = "Pickle files can run code when they are opened; ask for, or convert to, safetensors (`save_pretrained`)."
    if use_safetensors is False:
        raise ValueError(f"use_safetensors: got False, expected True. {remedy}")
    files = [f for f in Path(folder).iterdir() if f.name.startswith(WEIGHTS)] if os.path.isdir(folder) else []
    pickles = [f.name for f in files if f.suffix in PICKLES]
    if pickles and not any(f.suffix == ".safetensors" for f in files):
        raise OSError(f"{folder}: found {', '.join(sorted(pickles))}, expected a .safetensors file. {remedy}")


class StrictModelMixin(ModelMixin, ConfigMixin):
    """A `ModelMixin` whose `from_pretrained` reads safetensors only, and only checkpoints that fit the network."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        folder = os.path.join(pretrained_model_name_or_path, kwargs.get("subfolder") or "")
        refuse_pickles(folder, kwargs.pop("use_safetensors", None))
        return_info = kwargs.pop("output_loading_info", False)
        model, info = super().from_pretrained(
            pretrained_model_name_or_path, use_safetensors=True, output_loading_info=True, **kwargs
        )
        for problem, keys in (("lacks", info["missing_keys"]), ("has unknown", info["unexpected_keys"])):
            if keys:
                raise ValueError(
                    f"{folder}: the checkpoint {problem} {len(keys)} parameter(s) of {cls.__name__}, the first is "
                    f"{sorted(keys)[0]!r}. Its config.json and its weights must come from the same save."
                )
        return (model, info) if return_info else model
