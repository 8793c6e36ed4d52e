from .classifier_3d import ATTRIBUTES, Classifier3D, Classifier3DOutput
from .contrast_rescaler import ContrastRescaler
from .latent_spread import LatentSpread
from .segmenter_3d import Segmenter3D, Segmenter3DOutput
from .semantic_encoder import SemanticEncoder3D
from .unet_3d_condition import (
    CategoricalUNet3DConditionModel,
    LatentUNet3DConditionModel,
    UNet3DConditionModel,
    UNet3DConditionOutput,
)
from .vector_quantizer import VectorQuantizer3D, codebook_use
from .vq_model_3d import VQModel3D, VQModel3DOutput


__all__ = [
    "ATTRIBUTES",
    "CategoricalUNet3DConditionModel",
    "Classifier3D",
    "Classifier3DOutput",
    "ContrastRescaler",
    "LatentSpread",
    "LatentUNet3DConditionModel",
    "Segmenter3D",
    "Segmenter3DOutput",
    "SemanticEncoder3D",
    "UNet3DConditionModel",
    "UNet3DConditionOutput",
    "VQModel3D",
    "VQModel3DOutput",
    "VectorQuantizer3D",
    "codebook_use",
]
