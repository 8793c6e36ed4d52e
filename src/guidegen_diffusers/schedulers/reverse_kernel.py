"""One reverse step of the uniform kernel, p(x_s | x_t) for any s < t: a handful of scalars, and what they do to a
block of voxels. Equations and symbols are those of `scheduling_categorical_ddpm.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch


__all__ = ["ReverseKernel", "logits_block", "voxel_blocks"]


@dataclass(frozen=True)
class ReverseKernel:
    """The scalars of one reverse step s < t, in float64 on the host: 1 - alpha a loses all its digits in float32."""

    a: float
    w: float
    z_same: float
    z_diff: float
    stay: float  # L_j
    move: float  # L_k, k != j
    loo_shift: float  # added to the logit of x_t where the network leaves x_t's own evidence out

    @classmethod
    def between(cls, abar_s: float, abar_t: float, num_classes: int, leave_one_out: bool) -> ReverseKernel:
        alpha = abar_t / abar_s
        z_diff = (1.0 - abar_t) / num_classes
        return cls(
            a=abar_s,
            w=(1.0 - abar_s) / num_classes,
            z_same=abar_t + z_diff,
            z_diff=z_diff,
            stay=alpha + (1.0 - alpha) / num_classes,
            move=(1.0 - alpha) / num_classes,
            loo_shift=math.log1p(num_classes * abar_t / (1.0 - abar_t)) if leave_one_out else 0.0,
        )

    @property
    def is_last(self) -> bool:
        """Whether the step goes to s = 0."""
        return self.a == 1.0

    def mixture(self, f: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        """w S + a f_k / Z_k for a block: f (N, V), j (V,) -> (N, V)."""
        f_j = f.gather(0, j[None])  # (1, V)
        floor = self.w * (f_j / self.z_same + (1.0 - f_j) / self.z_diff)
        q = torch.add(floor, f, alpha=self.a / self.z_diff)
        return q.scatter_(0, j[None], floor + f_j * (self.a / self.z_same))

    def true_posterior(self, num_classes: int) -> tuple[tuple[float, float, float, float], ...]:
        """(pi_j, pi_c, pi of any other class, sum_k pi_k log(pi_k / L_k)) where x_0 != x_t, and where they agree."""
        move, stay, w, a = self.move, self.stay, self.w, self.a
        rest, pi_j, pi_c = move * w / self.z_diff, stay * w / self.z_diff, move * (w + a) / self.z_diff
        log_w, log_c = math.log(w / self.z_diff), math.log((w + a) / self.z_diff)
        diff = (pi_j, pi_c, rest, ((num_classes - 2) * rest + pi_j) * log_w + pi_c * log_c)
        rest, pi_j = move * w / self.z_same, stay * (w + a) / self.z_same
        log_w, log_c = math.log(w / self.z_same), math.log((w + a) / self.z_same)
        same = (pi_j, pi_j, rest, (num_classes - 1) * rest * log_w + pi_j * log_c)
        return diff, same


def voxel_blocks(voxels: int, device: torch.device) -> Iterator[slice]:
    """Slices of voxels small enough for a cache (CPU) or to hide the launches (GPU)."""
    size = 2**14 if device.type == "cpu" else 2**18
    return (slice(start, start + size) for start in range(0, voxels, size))


def logits_block(logits: torch.Tensor, block: slice, j: torch.Tensor, kernel: ReverseKernel) -> torch.Tensor:
    """Logits of f for a block of voxels, (N, V) in at least float32."""
    x = logits[:, block]
    x = x if x.dtype == torch.float64 else x.float()
    if kernel.loo_shift:
        x = x.scatter_add(0, j[None], x.new_full((1, j.numel()), kernel.loo_shift))
    return x
