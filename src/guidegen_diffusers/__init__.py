"""GuideGen for diffusers: a clinical sentence to a full-torso label map and the CT that belongs to it."""

import gc


_collecting = gc.isenabled()
gc.disable()  # what imports make stays, and looking for garbage among it took nearly a fifth of their time

from . import labels
from ._registration import register
from ._version import __version__
from .case import Case
from .checkpoints import available_checkpoints, bundled_checkpoint
from .configs import available_configs, load_config
from .data import CaseDataset
from .evaluation import evaluate
from .grid import Grid
from .models import (
    CategoricalUNet3DConditionModel,
    Classifier3D,
    ContrastRescaler,
    LatentSpread,
    LatentUNet3DConditionModel,
    Segmenter3D,
    SemanticEncoder3D,
    VectorQuantizer3D,
    VQModel3D,
    codebook_use,
)
from .phantom import TorsoPhantom
from .pipelines import GuideGenPipeline, GuideGenPipelineOutput
from .prompts import ClinicalPrompt
from .schedulers import CategoricalDDPMScheduler
from .synthesis import synthesize
from .tumor_sites import find_site


__all__ = [
    "Case",
    "CaseDataset",
    "CategoricalDDPMScheduler",
    "CategoricalUNet3DConditionModel",
    "Classifier3D",
    "ClinicalPrompt",
    "ContrastRescaler",
    "Grid",
    "GuideGenPipeline",
    "GuideGenPipelineOutput",
    "LatentSpread",
    "LatentUNet3DConditionModel",
    "Segmenter3D",
    "SemanticEncoder3D",
    "TorsoPhantom",
    "VQModel3D",
    "VectorQuantizer3D",
    "__version__",
    "available_checkpoints",
    "available_configs",
    "bundled_checkpoint",
    "codebook_use",
    "evaluate",
    "find_site",
    "labels",
    "load_config",
    "synthesize",
]

register(
    components=[
        CategoricalDDPMScheduler,
        CategoricalUNet3DConditionModel,
        LatentSpread,
        LatentUNet3DConditionModel,
        SemanticEncoder3D,
        VQModel3D,
    ],
    pipelines=[GuideGenPipeline],
)

if _collecting:
    gc.enable()
