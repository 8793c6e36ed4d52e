"""What is drawn where a prompt leaves something open: plain tables, and one uniform number per draw.

The weights describe a hospital's cancer patients roughly, not any data set; the site is uniform so that rare ones are
not missed. A table is read with what is known already: T with the size, N and M with T, the size with site and T.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .attributes import SIZES, organ_of
from .staging import SIZE_RANGES, T_RANGES, diameter_range


__all__ = ["AGE", "M1_BY_T", "NONE", "N_BY_T", "RACE", "SEX", "draw", "site_weights", "size_weights", "t_weights"]

SEX = {"female": 0.5, "male": 0.5}
AGE = {"<=30": 0.04, "31-40": 0.06, "41-50": 0.12, "51-60": 0.22, "61-70": 0.28, "71-80": 0.20, ">80": 0.08}
RACE = {"asian": 0.20, "black": 0.17, "white": 0.50, "other": 0.13}
NONE = 0.15  # no tumour, where the prompt allows both; the allowed sites share the rest evenly
N_BY_T = {
    0: {0: 0.90, 1: 0.06, 2: 0.03, 3: 0.01},
    1: {0: 0.85, 1: 0.09, 2: 0.05, 3: 0.01},
    2: {0: 0.70, 1: 0.17, 2: 0.10, 3: 0.03},
    3: {0: 0.50, 1: 0.25, 2: 0.19, 3: 0.06},
    4: {0: 0.38, 1: 0.27, 2: 0.25, 3: 0.10},
}
HIGHEST_N = {"lung": 3, "kidney": 1, "colon": 2}  # TNM 8 knows no higher one
M1_BY_T = {0: 0.03, 1: 0.03, 2: 0.08, 3: 0.15, 4: 0.30}


def draw(weights: Mapping, generator: torch.Generator | None):
    """One key of `weights` (which need not sum to one), by one uniform number."""
    device = None if generator is None else generator.device
    rest = torch.rand((), generator=generator, device=device).item() * sum(weights.values())
    for key, weight in weights.items():
        rest -= weight
        if rest < 0:
            return key
    return next(key for key in reversed(weights) if weights[key] > 0)  # rounding left a crumb


def site_weights(sites: list[str]) -> dict[str, float]:
    """`sites` in the order of SITES, so that the draw depends on the set alone."""
    places = [site for site in sites if site != "none"]
    rest = 1 - NONE if "none" in sites else 1.0
    return {site: NONE if site == "none" else rest / len(places) for site in sites}


def t_weights(site: str, size: str | None) -> dict[int, float]:
    """T1 to T4 alike, of those that come in this size; of all where none does."""
    stages = T_RANGES[organ_of(site)]
    if size is None:
        return dict.fromkeys(stages, 1.0)
    fitting = {t: 1.0 for t, span in stages.items() if _overlap(span, SIZE_RANGES[size]) > 0}
    return fitting or dict.fromkeys(stages, 1.0)


def n_weights(site: str, t: int) -> dict[int, float]:
    """N by T; what lies above the organ's highest N counts as the highest."""
    highest = HIGHEST_N[organ_of(site)]
    weights = dict.fromkeys(range(highest + 1), 0.0)
    for n, weight in N_BY_T[t].items():
        weights[min(n, highest)] += weight
    return weights


def m_weights(t: int) -> dict[int, float]:
    return {0: 1 - M1_BY_T[t], 1: M1_BY_T[t]}


def size_weights(site: str, t: int) -> dict[str, float]:
    """The words by how much of the stage's diameters each covers."""
    if t == 0:
        return {"small": 1.0}
    span = diameter_range(site, t)
    return {size: _overlap(span, SIZE_RANGES[size]) for size in SIZES}


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
