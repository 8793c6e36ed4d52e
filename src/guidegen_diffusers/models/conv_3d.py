"""`Conv3d`: torch's, without its slow path.

For one small volume in float32 on a CPU (batch 1, a product of channels, X and Y up to 20,480), which is what sampling
on a laptop is, torch leaves oneDNN aside and takes a loop several times as slow. What whole networks lose by it is in
`docs/performance.md`.
"""

from __future__ import annotations

import torch
from torch import nn


__all__ = ["Conv3d"]


class Conv3d(nn.Conv3d):
    """`nn.Conv3d` by oneDNN wherever that can do it: float32 on a CPU, outside of autocast and of `torch.compile`."""

    def _conv_forward(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if not self._by_onednn(input, weight):
            return super()._conv_forward(input, weight, bias)
        return torch.ops.aten.mkldnn_convolution(
            input, weight, bias, self.padding, self.stride, self.dilation, self.groups
        )

    def _by_onednn(self, input: torch.Tensor, weight: torch.Tensor) -> bool:
        return (
            not torch.compiler.is_compiling()  # first: a graph could not hold what follows
            and all(t.device.type == "cpu" and t.dtype == torch.float32 for t in (input, weight))
            and torch.backends.mkldnn.is_available()
            and torch.backends.mkldnn.enabled
            and self.padding_mode == "zeros"
            and not isinstance(self.padding, str)
            and input.ndim == 5
            and input.numel() > 0
            and not torch.is_autocast_enabled("cpu")
        )
