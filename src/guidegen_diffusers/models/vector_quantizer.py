"""Vector quantisation of 3-D latents (VQ-VAE, arXiv 1711.00937): nearest code by blocks, straight-through gradient.

The distance table of 32^3 latents to 8192 codes is 1.07 GB; here it exists only a block of rows at a time, and codes
are looked up, never multiplied with a one-hot. Codes are a parameter trained by gradient: the codebook loss pulls
codes to the latents, the commitment loss (weight `beta`) pulls the encoder to the codes. Codes that nothing chooses
are moved onto latents.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.utils import BaseOutput
from einops import rearrange
from torch import nn


__all__ = ["VectorQuantizer3D", "VectorQuantizerOutput", "codebook_use", "nearest_code"]


@dataclass
class VectorQuantizerOutput(BaseOutput):
    """
    Args:
        sample (`torch.Tensor` of shape `(B, C, x, y, z)`): the codes, with the gradient of the latents.
        indices (`torch.Tensor` of shape `(B, x, y, z)`, `int64`): which codes.
        loss (`torch.Tensor`): codebook loss + beta * commitment loss.
    """

    sample: torch.Tensor
    indices: torch.Tensor
    loss: torch.Tensor


def nearest_code(vectors: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Index of the nearest row of `codes` (K, C) for each row of `vectors` (M, C), in float32, by blocks of rows."""
    vectors, codes = vectors.float(), codes.float()
    # |v - e|^2 = |v|^2 + |e|^2 - 2 v.e, and |v|^2 is the same for all e
    offset, transposed = codes.square().sum(1), codes.T
    rows = max(1, (2**20 if vectors.device.type == "cpu" else 2**23) // len(codes))
    # one tensor: a small one kept from each block would lie between the freed tables, and the heap grow to the whole
    indices = torch.empty(len(vectors), dtype=torch.int64, device=vectors.device)
    for block, nearest in zip(vectors.split(rows), indices.split(rows), strict=True):
        nearest.copy_(torch.addmm(offset, block, transposed, alpha=-2).argmin(1))
    return indices


def codebook_use(indices: torch.Tensor, num_codes: int) -> tuple[float, float]:
    """The share of codes in use and their perplexity, exp of the entropy of their frequencies."""
    p = torch.bincount(indices.flatten(), minlength=num_codes).double() / indices.numel()
    return (p > 0).double().mean().item(), torch.special.entr(p).sum().exp().item()


class VectorQuantizer3D(nn.Module):
    """
    Args:
        num_codes (`int`), code_dim (`int`): size of the codebook, 8192 x 8 in the paper.
        beta (`float`): weight of the commitment loss.
    """

    def __init__(self, num_codes: int, code_dim: int, beta: float):
        super().__init__()
        self.beta = beta
        self.codebook = nn.Parameter(torch.empty(num_codes, code_dim).uniform_(-1.0, 1.0))
        # how often each code was chosen in training, a running mean of counts a step; tells which codes are dead
        self.register_buffer("usage", torch.ones(num_codes, dtype=torch.float32))

    def lookup(self, indices: torch.Tensor) -> torch.Tensor:  # (B, x, y, z) -> (B, C, x, y, z)
        return rearrange(F.embedding(indices, self.codebook), "b x y z c -> b c x y z")

    def forward(self, latents: torch.Tensor) -> VectorQuantizerOutput:
        with torch.autocast(latents.device.type, enabled=False):
            z = latents.float()
            with torch.no_grad():
                vectors = rearrange(z, "b c x y z -> (b x y z) c")
                indices = nearest_code(vectors, self.codebook).view(len(z), *z.shape[2:])
                if self.training:
                    counts = torch.bincount(indices.flatten(), minlength=len(self.usage))
                    self.usage.lerp_(counts.to(self.usage.dtype), 0.01)
            codes = self.lookup(indices).float()
            loss = F.mse_loss(codes, z.detach()) + self.beta * F.mse_loss(z, codes.detach())
            quantized = z + (codes - z).detach()
        return VectorQuantizerOutput(sample=quantized.to(latents.dtype), indices=indices, loss=loss)

    @torch.no_grad()
    def restart_dead_codes(
        self, latents: torch.Tensor, threshold: float = 0.01, generator: torch.Generator | None = None
    ) -> int:
        """Move codes chosen fewer than `threshold` times a step onto random vectors of `latents`; returns how many.

        With several processes, call it on one of them and broadcast `codebook` and `usage` to the others.
        """
        dead = (self.usage < threshold).nonzero()[:, 0]
        vectors = rearrange(latents, "b c x y z -> (b x y z) c")
        source = generator.device if generator is not None else vectors.device
        pick = torch.randint(len(vectors), (len(dead),), generator=generator, device=source).to(vectors.device)
        self.codebook[dead] = vectors[pick].to(self.codebook.dtype)
        self.usage[dead] = 1.0
        return len(dead)
