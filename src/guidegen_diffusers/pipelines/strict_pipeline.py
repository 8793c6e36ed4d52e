"""What the pipelines of the package share: safetensors only, and a model card of their own, on disk and on the Hub."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from huggingface_hub import ModelCard, create_repo
from huggingface_hub.errors import EntryNotFoundError

from ..models.strict_model import refuse_pickles
from .model_card import guidegen_model_card


__all__ = ["StrictPipeline"]


class StrictPipeline(DiffusionPipeline):
    """A `DiffusionPipeline` that loads and saves safetensors only, and brings its model card."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """As in diffusers, from safetensors only, and in float32 unless a `dtype` is given."""
        for component in cls._optional_components:
            folder = os.path.join(pretrained_model_name_or_path, component)
            refuse_pickles(folder, kwargs.get("use_safetensors"))
        if not {"dtype", "torch_dtype"} & set(kwargs):
            kwargs["dtype"] = torch.float32  # transformers alone would take what the file holds
        return super().from_pretrained(pretrained_model_name_or_path, **{**kwargs, "use_safetensors": True})

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
    ):
        """As in diffusers, with a model card where the folder has none: the repository's, or one from the pipeline."""
        if not safe_serialization:
            raise ValueError("safe_serialization: got False, expected True: this package writes safetensors only.")
        super().save_pretrained(save_directory, variant=variant, max_shard_size=max_shard_size)
        repo_id = repo_id or Path(save_directory).name
        if push_to_hub:
            repo_id = create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
        card = Path(save_directory) / "README.md"
        if push_to_hub and not card.exists():
            with contextlib.suppress(EntryNotFoundError):
                ModelCard.load(repo_id, token=token).save(card)
        if not card.exists():
            card.write_text(guidegen_model_card(self, repo_id), encoding="utf-8")
        if push_to_hub:
            return self._upload_folder(
                save_directory, repo_id, token=token, commit_message=commit_message, create_pr=create_pr
            )

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        safe_serialization: bool = True,
        variant: str | None = None,
    ) -> str:
        """Upload the pipeline with its model card; a card that the repository has already stays."""
        with tempfile.TemporaryDirectory() as folder:
            return self.save_pretrained(
                folder,
                safe_serialization,
                variant,
                push_to_hub=True,
                repo_id=repo_id,
                commit_message=commit_message,
                private=private,
                token=token,
                create_pr=create_pr,
            )
