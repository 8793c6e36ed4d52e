"""The contrast-aware VQ autoencoder of GuideGen (Stage II, CAE): CT in [-1, 1] to small latents and back.

Stage III diffuses the latents *before* quantisation, times `scaling_factor` (one over their standard deviation,
measured after training and stored in the config); `decode` quantises. Norms act on each voxel's channels alone (no
statistics over space), so that a volume decoded in overlapping tiles is the volume decoded whole, up to the network's
receptive field.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.utils import BaseOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import nn

from .contrast_rescaler import ContrastRescaler
from .conv_3d import Conv3d
from .strict_model import StrictModelMixin
from .vector_quantizer import VectorQuantizer3D


__all__ = ["VQEncoder3DOutput", "VQModel3D", "VQModel3DOutput"]


@dataclass
class VQEncoder3DOutput(BaseOutput):
    """
    Args:
        latents (`torch.Tensor` of shape `(B, latent_channels, x, y, z)`): encoder output before quantisation,
            unscaled.
    """

    latents: torch.Tensor


@dataclass
class VQModel3DOutput(BaseOutput):
    """
    Args:
        sample (`torch.Tensor` of shape `(B, C, X, Y, Z)`): the reconstruction.
        vq_loss (`torch.Tensor`): codebook loss + beta * commitment loss.
        indices (`torch.Tensor` of shape `(B, x, y, z)`): codes in use, for `codebook_use`.
    """

    sample: torch.Tensor
    vq_loss: torch.Tensor | None = None  # never None; accelerate rebuilds outputs from one dict of all fields
    indices: torch.Tensor | None = None


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each voxel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class VQResBlock3D(nn.Module):
    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.norm1 = ChannelNorm(in_channels)
        self.conv1 = Conv3d(in_channels, out_channels, 3, padding=1)
        self.norm2 = ChannelNorm(out_channels)
        self.conv2 = Conv3d(out_channels, out_channels, 3, padding=1)
        self.shortcut = Conv3d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.shortcut(x) + h


class Upsample3D(nn.Module):
    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = Conv3d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class _Checkpointed(nn.Sequential):
    """A sequence that recomputes its residual blocks in the backward pass where gradient checkpointing is on."""

    gradient_checkpointing = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for module in self:
            if self.gradient_checkpointing and torch.is_grad_enabled() and isinstance(module, VQResBlock3D):
                x = self._gradient_checkpointing_func(module, x)
            else:
                x = module(x)
        return x


def _encoder(in_channels: int, out_channels: int, widths: list[int], layers: int) -> nn.Sequential:
    modules: list[nn.Module] = [Conv3d(in_channels, widths[0], 3, padding=1)]
    width = widths[0]
    for level, out in enumerate(widths):
        for _ in range(layers):
            modules.append(VQResBlock3D(width, out))
            width = out
        if level < len(widths) - 1:
            modules.append(Conv3d(width, width, 3, stride=2, padding=1))
    modules += [
        VQResBlock3D(width, width),
        ChannelNorm(width),
        nn.SiLU(),
        Conv3d(width, out_channels, 3, padding=1),
    ]
    return _Checkpointed(*modules)


def _decoder(in_channels: int, out_channels: int, widths: list[int], layers: int) -> nn.Sequential:
    width = widths[-1]
    modules: list[nn.Module] = [Conv3d(in_channels, width, 3, padding=1), VQResBlock3D(width, width)]
    for level, out in reversed(list(enumerate(widths))):
        for _ in range(layers):
            modules.append(VQResBlock3D(width, out))
            width = out
        if level > 0:
            modules.append(Upsample3D(width, widths[level - 1]))  # narrows here: this is the dearest convolution
            width = widths[level - 1]
    modules += [ChannelNorm(width), nn.SiLU(), Conv3d(width, out_channels, 3, padding=1)]
    return _Checkpointed(*modules)


class VQModel3D(StrictModelMixin):
    """
    Args:
        in_channels (`int`, defaults to 1): channels of the CT.
        block_out_channels (`tuple[int, ...]`): widths of the levels; each after the first halves the grid.
        layers_per_block (`int`, defaults to 1): residual blocks a level.
        latent_channels (`int`, defaults to 8): channels of the latents and of the codes.
        num_codes (`int`, defaults to 8192): size of the codebook.
        commitment_weight (`float`, defaults to 0.25): beta, on the encoder's term.
        window_sampling (`str`, defaults to `"uniform"`): of the contrast rescaler, `"uniform"`, `"anatomy"` or
            `"none"` (no rescaler, the ablation).
        hu_scale (`float`, defaults to 1500.0): HU = hu_scale * sample; the network sees [-hu_scale, hu_scale].
        scaling_factor (`float`, defaults to 1.0): brings the latents to unit variance for Stage III.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["VQResBlock3D"]
    _repeated_blocks = ["VQResBlock3D"]
    _keep_in_fp32_modules = ["quantizer"]
    _group_offload_block_modules = ["encoder", "decoder", "quantizer"]

    @register_to_config
    def __init__(
        self,
        in_channels: int = 1,
        block_out_channels: tuple[int, ...] = (64, 128, 256),
        layers_per_block: int = 1,
        latent_channels: int = 8,
        num_codes: int = 8192,
        commitment_weight: float = 0.25,
        window_sampling: str = "uniform",
        hu_scale: float = 1500.0,
        scaling_factor: float = 1.0,
    ):
        super().__init__()
        if window_sampling not in ("uniform", "anatomy", "none"):
            raise ValueError(f"window_sampling: got {window_sampling!r}, expected 'uniform', 'anatomy' or 'none'.")
        widths = list(block_out_channels)
        self.encoder = _encoder(in_channels, latent_channels, widths, layers_per_block)
        self.quantizer = VectorQuantizer3D(num_codes, latent_channels, commitment_weight)
        self.decoder = _decoder(latent_channels, in_channels, widths, layers_per_block)
        self.rescaler = None if window_sampling == "none" else ContrastRescaler(window_sampling)
        self.use_slicing = False
        self.tile: tuple[int, int] | None = None  # (latents a side, latents of overlap)

    @property
    def downscale_factor(self) -> int:
        return 2 ** (len(self.config.block_out_channels) - 1)

    def enable_slicing(self) -> None:
        """Encode and decode the items of a batch one at a time."""
        self.use_slicing = True

    def disable_slicing(self) -> None:
        self.use_slicing = False

    def enable_tiling(self, tile_size: int = 32, tile_overlap: int = 16) -> None:
        """Encode and decode in tiles of `tile_size` latents a side, on all axes, overlapping by `tile_overlap`."""
        if not 0 <= tile_overlap < tile_size:
            raise ValueError(f"tile_overlap: got {tile_overlap}, expected 0..{tile_size - 1} (less than tile_size).")
        self.tile = (tile_size, tile_overlap)

    def disable_tiling(self) -> None:
        self.tile = None

    @apply_forward_hook
    def encode(self, x: torch.Tensor, return_dict: bool = True) -> VQEncoder3DOutput | tuple[torch.Tensor]:
        """CT (B, C, X, Y, Z) in [-1, 1] to unquantised, unscaled latents."""
        factor, channels = self.downscale_factor, self.config.in_channels
        if x.ndim != 5 or x.shape[1] != channels or any(n % factor for n in x.shape[2:]):
            raise ValueError(
                f"x: got shape {tuple(x.shape)}, expected (B, {channels}, X, Y, Z) with X, Y, Z multiples of {factor}."
            )
        latents = self._in_parts(self.encoder, x, factor, 1, self.config.latent_channels)
        return VQEncoder3DOutput(latents=latents) if return_dict else (latents,)

    @apply_forward_hook
    def decode(
        self, latents: torch.Tensor, force_not_quantize: bool = False, return_dict: bool = True
    ) -> DecoderOutput | tuple[torch.Tensor]:
        """Unscaled latents (B, latent_channels, x, y, z) to CT, through the codebook unless told otherwise."""
        channels = self.config.latent_channels
        if latents.ndim != 5 or latents.shape[1] != channels:
            raise ValueError(f"latents: got shape {tuple(latents.shape)}, expected (B, {channels}, x, y, z).")
        z = latents if force_not_quantize else self.quantizer(latents.float()).sample
        z = z.to(self.decoder[0].weight.dtype)
        sample = self._in_parts(self.decoder, z, 1, self.downscale_factor, self.config.in_channels)
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    @apply_forward_hook
    def decode_indices(self, indices: torch.Tensor, return_dict: bool = True) -> DecoderOutput | tuple[torch.Tensor]:
        """Code indices (B, x, y, z) to CT."""
        codes = self.quantizer.lookup(indices)
        return self.decode(codes, force_not_quantize=True, return_dict=return_dict)

    def forward(self, sample: torch.Tensor, return_dict: bool = True) -> VQModel3DOutput | tuple[torch.Tensor, ...]:
        """Encode, quantise, decode, with the gradient straight through the codebook."""
        quantized = self.quantizer(self.encode(sample).latents)
        reconstruction = self.decode(quantized.sample, force_not_quantize=True).sample
        if not return_dict:
            return reconstruction, quantized.loss, quantized.indices
        return VQModel3DOutput(sample=reconstruction, vq_loss=quantized.loss, indices=quantized.indices)

    def _in_parts(
        self,
        network: Callable[[torch.Tensor], torch.Tensor],
        x: torch.Tensor,
        scale_in: int,
        scale_out: int,
        channels: int,
    ) -> torch.Tensor:
        """`network` on `x`, in slices and tiles; a latent is `scale_in` voxels of `x`, `scale_out` of the result."""
        if self.use_slicing and len(x) > 1:
            items = [self._in_parts(network, item, scale_in, scale_out, channels) for item in x.split(1)]
            return torch.cat(items)
        latent_size = [n // scale_in for n in x.shape[2:]]
        if self.tile is None or max(latent_size) <= self.tile[0]:
            return network(x)
        out = torch.zeros(len(x), channels, *(n * scale_out for n in latent_size), device=x.device)  # float32 blends
        for tile in itertools.product(*(_tile_axis(n, *self.tile, scale_out) for n in latent_size)):
            (i, size_i, w_i), (j, size_j, w_j), (k, size_k, w_k) = tile
            weight = torch.einsum("x,y,z->xyz", w_i, w_j, w_k).to(x.device)
            source = (slice(s * scale_in, (s + n) * scale_in) for s, n in ((i, size_i), (j, size_j), (k, size_k)))
            target = (slice(s * scale_out, (s + n) * scale_out) for s, n in ((i, size_i), (j, size_j), (k, size_k)))
            out[:, :, *target] += weight * network(x[:, :, *source])
        return out.to(x.dtype)


def _tile_axis(length: int, tile: int, overlap: int, scale: int) -> list[tuple[int, int, torch.Tensor]]:
    """(start, size, weights) of the tiles along one axis, in latents; weights, at `scale` samples a latent, sum to 1.

    In an overlap the outer 7/16 of each tile count nothing, as convolutions there looked past the tile's edge; the
    middle eighth blends linearly.
    """
    if length <= tile:
        return [(0, length, torch.ones(length * scale))]
    starts = [*range(0, length - tile, tile - overlap), length - tile]
    margin, ramp = overlap * scale * 7 / 16, max(overlap * scale / 8, 1e-6)
    total, tiles = torch.zeros(length * scale), []
    for start in starts:
        position = torch.arange(tile * scale) + 0.5
        weight = torch.ones(tile * scale)
        if start > 0:
            weight = weight.minimum(((position - margin) / ramp).clamp(0, 1))
        if start + tile < length:
            weight = weight.minimum(((tile * scale - position - margin) / ramp).clamp(0, 1))
        total[start * scale : (start + tile) * scale] += weight
        tiles.append((start, tile, weight))
    return [(s, n, weight / total[s * scale : (s + n) * scale]) for s, n, weight in tiles]
