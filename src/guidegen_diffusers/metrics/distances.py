"""Distances of two sets of feature vectors, each once over the whole sets: Fréchet's (FID, FVD) and MMD's (KID).

Fréchet's distance of a few samples is too large, the more so the more features there are: compare figures of equally
many samples only. MMD is unbiased, and comes out slightly below 0 for about every second pair of like sets.
"""

from __future__ import annotations

import numpy as np


__all__ = ["frechet_distance", "mmd"]


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2) of the Gaussians with these means and covariances (over N - 1).

    With S = R^T R, R triangular from the QR of the centred data, the trace is the least |R_a - U R_b|^2 of orthogonal
    U, which the singular vectors of R_a R_b^T give. It is a sum of squares, never negative, and asks for no square
    root of a matrix: it holds as well where samples are fewer than features and covariances singular.

    Args:
        a, b (`np.ndarray` of shape `(N, C)`): features; both sets have the same C, not necessarily the same N.
    """
    a, b = _checked(a, b)
    r_a, r_b = (np.linalg.qr((x - x.mean(0)) / np.sqrt(len(x) - 1), mode="r") for x in (a, b))
    rows = max(len(r_a), len(r_b))
    r_a, r_b = (np.pad(r, ((0, rows - len(r)), (0, 0))) for r in (r_a, r_b))
    p, _, q = np.linalg.svd(r_a @ r_b.T)
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.square(r_a - p @ q @ r_b).sum())


def mmd(a: np.ndarray, b: np.ndarray) -> float:
    """The unbiased squared maximum mean discrepancy with KID's kernel, (x . y / C + 1)^3, over all pairs."""
    a, b = _checked(a, b)

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: np.ndarray) -> float:
        k = kernel(x, x)
        return (k.sum() - np.trace(k)) / (len(x) * (len(x) - 1))

    return float(within(a) + within(b) - 2 * kernel(a, b).mean())


def _checked(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    for name, x in (("a", a), ("b", b)):
        if x.ndim != 2 or len(x) < 2 or x.shape[1] < 1:
            raise ValueError(f"{name}: got shape {x.shape}, expected features (N, C) of at least two samples.")
        if not np.isfinite(x).all():
            wrong = np.flatnonzero(~np.isfinite(x).all(1))
            raise ValueError(
                f"{name}: got NaN or infinite features in {len(wrong)} of {len(x)} samples, the first is sample "
                f"{wrong[0]}; look at its volume, and at the precision that the network ran in."
            )
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"a, b: got {a.shape[1]} and {b.shape[1]} features, expected those of one network.")
    return a, b
