"""A small classifier: what a segmenter measures of a CT to age, sex, race and tumour site at once.

It is an instrument, not a stage of GuideGen: it reads generated CT, so that the patient who was asked for and the one
who was painted can be compared. Sizes, HU, places and neighbours of the structures are what it is given, not voxels,
so that some hundred cases teach it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn

from ..labels import NUM_CLASSES
from ..prompts import AGES, RACES, SEXES, SITES
from .segmenter_3d import MEASURES
from .strict_model import StrictModelMixin


__all__ = ["ATTRIBUTES", "Classifier3D", "Classifier3DOutput"]

ATTRIBUTES = {"age": AGES, "sex": SEXES, "race": RACES, "site": SITES}  # what is read, and the values in order
LEAST = 1e-2  # deviation: what hardly varies is not blown up
FARTHEST = 5.0  # deviations: further is as far


@dataclass
class Classifier3DOutput(BaseOutput):
    """Logits `(B, number of values)` of each attribute, in the order of `ATTRIBUTES`."""

    age: torch.Tensor
    sex: torch.Tensor | None = None  # never None; accelerate rebuilds outputs from one dict of all fields
    race: torch.Tensor | None = None
    site: torch.Tensor | None = None


class Classifier3D(StrictModelMixin):
    """
    Args:
        spacing (`float`, defaults to 6.0): edge in mm of the voxels that its segmenter was trained on.
        segmenter (`str`, *optional*): the version of that segmenter's weights; None where any may measure.
        num_classes (`int`, defaults to 21): of the segmenter.
        hidden_channels (`int`, defaults to 32): of each head.
        dropout (`float`, defaults to 0.5): share of the measures that a step of training goes without.
    """

    @register_to_config
    def __init__(
        self,
        spacing: float = 6.0,
        segmenter: str | None = None,
        num_classes: int = NUM_CLASSES,
        hidden_channels: int = 32,
        dropout: float = 0.5,
    ):
        super().__init__()
        size = num_classes * (MEASURES + num_classes)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(size, hidden_channels), nn.SiLU(), nn.Linear(hidden_channels, len(values))
                )
                for name, values in ATTRIBUTES.items()
            }
        )

    def standardize(self, measures: torch.Tensor) -> None:
        """Take the mean and deviation of the measures of training cases."""
        measures = measures.flatten(1)
        self.mean.copy_(measures.mean(0))
        self.deviation.copy_(measures.std(0, correction=0).clamp(min=LEAST))

    def forward(
        self, measures: torch.Tensor, return_dict: bool = True
    ) -> Classifier3DOutput | tuple[torch.Tensor, ...]:
        """What `Segmenter3D.measure` gave of whole torsos, (B, num_classes, MEASURES + num_classes)."""
        classes = self.config.num_classes
        if measures.ndim != 3 or measures.shape[1:] != (classes, MEASURES + classes):
            expected = f"(B, {classes}, {MEASURES + classes}), of Segmenter3D.measure"
            raise ValueError(f"measures: got shape {tuple(measures.shape)}, expected {expected}.")
        measures = ((measures.flatten(1) - self.mean) / self.deviation).clamp(-FARTHEST, FARTHEST)
        measures = F.dropout(measures.to(self.dtype), self.config.dropout, self.training)
        logits = {name: head(measures) for name, head in self.heads.items()}
        return Classifier3DOutput(**logits) if return_dict else tuple(logits.values())

    @torch.no_grad()
    def classify(self, measures: torch.Tensor) -> list[dict[str, str]]:
        """The likeliest value of every attribute, a dict for each of (B, num_classes, MEASURES + num_classes)."""
        logits = self(measures)
        best = {name: logits[name].argmax(1).tolist() for name in ATTRIBUTES}
        return [{name: values[best[name][i]] for name, values in ATTRIBUTES.items()} for i in range(len(measures))]
