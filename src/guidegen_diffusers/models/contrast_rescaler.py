"""The contrast rescaler of GuideGen's autoencoder (Stage II): a random, learnable HU window before the loss.

    h(x) = k clamp((x - w_c + w_r) / (2 w_r), 0, 1) + b,    k, b learnable, from k = 2 and b = -1

Each training step draws a window (w_c, w_r) and sends the CT and its reconstruction through the same h, so that the
loss weighs lung, soft tissue and bone alike. Windows are in the autoencoder's units, HU / hu_scale. How the paper
draws them is not public; here `"uniform"` draws centre and radius uniformly, and `"anatomy"` draws a class present in
the crop and takes the window from that class's own HU, keeping a share of uniform windows.
"""

from __future__ import annotations

import torch
from torch import nn


__all__ = ["ContrastRescaler"]

RADII = (0.05, 1.0)  # half-widths of windows, 75 to 1500 HU at the paper's scale
UNIFORM_SHARE = 0.25  # of the windows that anatomy-aware sampling leaves uniform


class ContrastRescaler(nn.Module):
    """
    Args:
        window_sampling (`str`): `"uniform"` or `"anatomy"`.
    """

    def __init__(self, window_sampling: str):
        super().__init__()
        self.window_sampling = window_sampling
        self.k = nn.Parameter(torch.tensor(2.0))
        self.b = nn.Parameter(torch.tensor(-1.0))

    def forward(self, x: torch.Tensor, center: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
        """h(x) for `x` (B, 1, X, Y, Z) and one window an item, `center` and `radius` (B,)."""
        center, radius = center.view(-1, 1, 1, 1, 1), radius.view(-1, 1, 1, 1, 1)
        return self.k * ((x - center + radius) / (2 * radius)).clamp(0, 1) + self.b

    @torch.no_grad()
    def sample_windows(
        self, x: torch.Tensor, labels: torch.Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A window (centre, radius), each (B,), for each item of `x` (B, 1, X, Y, Z); `labels` are (B, X, Y, Z)."""
        if self.window_sampling == "anatomy" and labels is None:
            raise ValueError("sample_windows: got no labels, expected a label map: windows follow the anatomy.")
        device = generator.device if generator is not None else "cpu"
        low, high = RADII
        center = torch.rand(len(x), generator=generator, device=device) * 2 - 1
        radius = torch.rand(len(x), generator=generator, device=device) * (high - low) + low
        if self.window_sampling == "anatomy":
            for b in range(len(x)):
                uniform, choice = torch.rand(2, generator=generator, device=device).tolist()
                if uniform < UNIFORM_SHARE:
                    continue
                present = labels[b].unique()
                hu = x[b, 0][labels[b] == present[int(choice * len(present))]].float().sort().values
                low_hu, median, high_hu = (hu[int(q * (len(hu) - 1))].item() for q in (0.05, 0.5, 0.95))
                center[b] = median
                radius[b] = min(max(high_hu - low_hu, low), high)  # twice the half-spread: the edges stay in sight
        return center.to(x.device), radius.to(x.device)
