"""The loss of Stage I and its gradient, both in closed form. Equations and symbols are those of
`scheduling_categorical_ddpm.py`.
"""

from __future__ import annotations

import torch

from .reverse_kernel import ReverseKernel, logits_block, voxel_blocks


__all__ = ["PosteriorKL"]


class PosteriorKL(torch.autograd.Function):
    """KL(pi || p_theta) a voxel and, where one is asked for, its gradient to the logits, in one pass over the blocks.

    The gradient is what stays between the passes; q = w S + a f_k / Z_k and h = pi / q go with their block, and as
    sum_k h_k q_k = 1,

        dKL/dlogit_k = f_k (1 - (a h_k + w sum_i h_i) / Z_k)

    `kernels` holds one kernel an item; where `clean` holds, it is -log f_c, the KL of the step to s = 0, with the
    weight of class c where there are `weights` (N,), and their logarithms added to the logits.
    """

    @staticmethod
    def forward(ctx, logits, original, noisy, kernels, clean, weights=None):
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        out = torch.empty(original.shape, dtype=dtype, device=logits.device)
        grad = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        for b, kernel in enumerate(kernels):
            for block in voxel_blocks(original[b].numel(), logits.device):
                c, j = original[b, block].long(), noisy[b, block].long()
                x = logits_block(logits[b], block, j, kernel)
                if clean[b]:
                    log_f = (x if weights is None else x + weights.log()[:, None]).log_softmax(0)
                    weight = 1.0 if weights is None else weights[c]
                    out[b, block] = -log_f.gather(0, c[None])[0] * weight
                    if grad is not None:
                        g = log_f.exp_().scatter_add_(0, c[None], -torch.ones_like(log_f[:1]))
                        grad[b, :, block] = g.mul_(weight)
                    continue
                f = x.softmax(0)
                q = kernel.mixture(f, j)
                q_j, q_c, same = q.gather(0, j[None])[0], q.gather(0, c[None])[0], c == j
                pi_j, pi_c, rest, entropy = _by_case(kernel, same, logits.shape[1], dtype)
                cross = rest * q.log().sum(0) + (pi_j - rest) * q_j.log()
                cross += torch.where(same, 0.0, pi_c - rest) * q_c.log()
                out[b, block] = entropy - cross
                if grad is None:
                    continue
                h_j, h_c = pi_j / q_j, pi_c / q_c
                h = q.reciprocal_().mul_(rest).scatter_(0, c[None], h_c[None]).scatter_(0, j[None], h_j[None])
                floor = kernel.w * h.sum(0)
                g_j = 1 - (kernel.a * h_j + floor) / kernel.z_same
                g = h.mul_(-kernel.a / kernel.z_diff).add_(1 - floor / kernel.z_diff).scatter_(0, j[None], g_j[None])
                torch.mul(g, f, out=grad[b, :, block])
        if grad is not None:
            ctx.save_for_backward(grad)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_output):
        (grad,) = ctx.saved_tensors
        for item, scale in zip(grad, grad_output, strict=True):
            for block in voxel_blocks(len(scale), grad.device):
                item[:, block] *= scale[block]
        return grad, None, None, None, None, None  # written in place: a second backward pass raises


def _by_case(kernel: ReverseKernel, same: torch.Tensor, num_classes: int, dtype: torch.dtype) -> list[torch.Tensor]:
    diff, equal = kernel.true_posterior(num_classes)
    table = torch.tensor([diff, equal], dtype=dtype, device=same.device)  # (2, 4)
    return list(table[same.long()].unbind(-1))
