"""The semantic encoder of GuideGen's latent-guided generator (Stage III, LFG): label maps to semantic latents.

Two strided convolutional encoders bring the organ map (embedded classes) and the tumour map to the latent grid. After
each down-sampling the organ features look at the tumour's:

    z^A <- z^A + MLP(LayerNorm(Attn(q = W z^A, k = W z^T, v = W z^T)))

At a high resolution all-to-all attention does not fit, so keys and values are z^T pooled to at most
`max_tumor_tokens`.
`semantic_conditioning="downsample"` is the paper's ablation: the maps are shrunk and embedded, nothing more.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import FeedForward
from diffusers.utils import BaseOutput
from einops import rearrange
from torch import nn

from ..labels import NUM_ORGAN_CLASSES
from .attention import Attention
from .conv_3d import Conv3d
from .strict_model import StrictModelMixin


__all__ = ["SemanticEncoder3D", "SemanticEncoder3DOutput"]


@dataclass
class SemanticEncoder3DOutput(BaseOutput):
    """
    Args:
        latents (`torch.Tensor` of shape `(B, 2 * latent_channels, x, y, z)`): [z^A, z^T] on the latent grid.
    """

    latents: torch.Tensor


def _pool(x: torch.Tensor, factor: int) -> torch.Tensor:
    """Means over cells of about `factor` voxels a side; in float32, as the CPU pools no half precision."""
    size = [math.ceil(n / factor) for n in x.shape[2:]]
    return F.adaptive_avg_pool3d(x.float(), size).to(x.dtype)


class TumorFusion3D(nn.Module):
    """z^A looks at z^T."""

    def __init__(self, channels: int, head_dim: int, max_tumor_tokens: int):
        super().__init__()
        self.max_tumor_tokens = max_tumor_tokens
        self.attention = Attention(channels, head_dim, channels)
        self.norm = nn.LayerNorm(channels)
        self.mlp = FeedForward(channels, mult=2, activation_fn="gelu")

    def forward(self, organ: torch.Tensor, tumor: torch.Tensor) -> torch.Tensor:  # both (B, C, x, y, z)
        factor = 1
        while math.prod(math.ceil(n / factor) for n in tumor.shape[2:]) > self.max_tumor_tokens:
            factor += 1
        tumor = _pool(tumor, factor) if factor > 1 else tumor
        query = rearrange(organ, "b c x y z -> b (x y z) c")
        update = self.attention(query, rearrange(tumor, "b c x y z -> b (x y z) c"))
        update = self.mlp(self.norm(update))
        return organ + rearrange(update, "b (x y z) c -> b c x y z", x=organ.shape[2], y=organ.shape[3])


class SemanticEncoder3D(StrictModelMixin):
    """
    Args:
        block_out_channels (`tuple[int, ...]`): features after each down-sampling; their number is log2 of the
            autoencoder's factor.
        latent_channels (`int`, defaults to 4): channels of z^A and of z^T.
        semantic_conditioning (`str`, defaults to `"attention"`): `"attention"` or `"downsample"`.
        attention_head_dim (`int`, defaults to 16).
        max_tumor_tokens (`int`, defaults to 512): keys and values of the attention at each level.
        num_organ_classes (`int`, defaults to 20): background and organs, the ids below the tumour's.
    """

    _no_split_modules = ["TumorFusion3D"]
    _repeated_blocks = ["TumorFusion3D"]
    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        block_out_channels: tuple[int, ...] = (32, 64),
        latent_channels: int = 4,
        semantic_conditioning: str = "attention",
        attention_head_dim: int = 16,
        max_tumor_tokens: int = 512,
        num_organ_classes: int = NUM_ORGAN_CLASSES,
    ):
        super().__init__()
        if semantic_conditioning not in ("attention", "downsample"):
            raise ValueError(
                f"semantic_conditioning: got {semantic_conditioning!r}, expected 'attention' or 'downsample'."
            )
        self.gradient_checkpointing = False
        if semantic_conditioning == "downsample":
            self.organ_embedding = nn.Embedding(num_organ_classes, latent_channels)
            self.tumor_embedding = Conv3d(1, latent_channels, 1)
            return
        widths = [block_out_channels[0], *block_out_channels]
        self.organ_embedding = nn.Embedding(num_organ_classes, widths[0])
        self.tumor_embedding = Conv3d(1, widths[0], 1)

        def downsamplers() -> nn.ModuleList:
            return nn.ModuleList(Conv3d(i, o, 3, stride=2, padding=1) for i, o in itertools.pairwise(widths))

        self.organ_down, self.tumor_down = downsamplers(), downsamplers()
        self.fusions = nn.ModuleList(TumorFusion3D(w, attention_head_dim, max_tumor_tokens) for w in widths[1:])
        self.organ_out = Conv3d(widths[-1], latent_channels, 1)
        self.tumor_out = Conv3d(widths[-1], latent_channels, 1)

    @property
    def downscale_factor(self) -> int:
        return 2 ** len(self.config.block_out_channels)

    def forward(
        self,
        organ_map: torch.Tensor,  # (B, X, Y, Z) uint8, ids 0..19
        tumor_map: torch.Tensor,  # (B, X, Y, Z) uint8, 0 or 1
        return_dict: bool = True,
    ) -> SemanticEncoder3DOutput | tuple[torch.Tensor]:
        factor = self.downscale_factor
        if organ_map.ndim != 4 or organ_map.shape != tumor_map.shape or any(n % factor for n in organ_map.shape[1:]):
            raise ValueError(
                f"organ_map, tumor_map: got shapes {tuple(organ_map.shape)} and {tuple(tumor_map.shape)}, expected "
                f"the same (B, X, Y, Z) with X, Y, Z multiples of {factor}."
            )
        tumor = tumor_map[:, None].to(self.dtype)
        if self.config.semantic_conditioning == "downsample":
            size = [n // factor for n in organ_map.shape[1:]]
            small = F.interpolate(organ_map[:, None].float(), size, mode="nearest-exact")[:, 0].long()
            organ = self.organ_embedding(small).movedim(-1, 1)
            tumor = self.tumor_embedding(_pool(tumor, factor))
        else:
            organ, tumor = self.organ_embedding(organ_map.long()).movedim(-1, 1), self.tumor_embedding(tumor)
            for organ_down, tumor_down, fusion in zip(self.organ_down, self.tumor_down, self.fusions, strict=True):
                organ, tumor = F.silu(organ_down(organ)), F.silu(tumor_down(tumor))
                if self.gradient_checkpointing and torch.is_grad_enabled():
                    organ = self._gradient_checkpointing_func(fusion, organ, tumor)
                else:
                    organ = fusion(organ, tumor)
            organ, tumor = self.organ_out(organ), self.tumor_out(tumor)
        latents = torch.cat([organ, tumor], dim=1)
        return SemanticEncoder3DOutput(latents=latents) if return_dict else (latents,)
