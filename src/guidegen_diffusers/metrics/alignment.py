"""Alignment of prompts and tumours: which site was asked for, which was made, and how many tumours there are.

The made site and the count are those of `find_site`, or a classifier's reading of the CT.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..prompts import SITES
from ..tumor_sites import ELSEWHERE


__all__ = ["FOUND", "site_matrix", "site_shares", "tumor_count_shares"]

FOUND = (*SITES, ELSEWHERE)  # what may be made: the tumour may also lie in another organ


def site_matrix(prompted: Sequence[str], generated: Sequence[str]) -> np.ndarray:
    """Counts (12, 13): a row a prompted site, of `SITES`; a column a generated one, of `FOUND`."""
    if len(prompted) != len(generated):
        raise ValueError(f"prompted, generated: got {len(prompted)} and {len(generated)} sites, expected pairs.")
    for name, sites, known in (("prompted", prompted, SITES), ("generated", generated, FOUND)):
        if wrong := sorted(set(sites) - set(known)):
            raise ValueError(f"{name}: got {', '.join(map(repr, wrong))}, expected of {', '.join(known)}.")
    matrix = np.zeros((len(SITES), len(FOUND)), np.int64)
    for asked, made in zip(prompted, generated, strict=True):
        matrix[SITES.index(asked), FOUND.index(made)] += 1
    return matrix


def site_shares(matrix: np.ndarray) -> dict[str, float]:
    """The share of cases made as prompted: of `"all"`, and of each site that was prompted."""
    if matrix.shape != (len(SITES), len(FOUND)) or not matrix.sum():
        raise ValueError(f"matrix: got shape {matrix.shape} of {matrix.sum()} cases, expected `site_matrix`'s.")
    hits, asked = matrix.diagonal(), matrix.sum(1)
    shares = {site: float(hits[i] / asked[i]) for i, site in enumerate(SITES) if asked[i]}
    return {"all": float(hits.sum() / asked.sum()), **shares}


def tumor_count_shares(counts: Sequence[int]) -> dict[int, float]:
    """The share of cases with each number of tumours, the smallest number first."""
    return {int(n): times / len(counts) for n, times in sorted(Counter(counts).items())}
