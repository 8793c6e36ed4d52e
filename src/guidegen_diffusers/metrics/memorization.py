"""Memorisation: whether generated cases lie nearer to the training cases than new patients do.

What is new by right is what was held out: a case of the same origin that no training saw. Its distance to the nearest
training case says how near chance brings a stranger; generated cases that come nearer more often than their share are
copies, or of too little variety. Distances are of features, of label maps or of HU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.spatial.distance import cdist

from .overlap import dice


__all__ = ["CopyVerdict", "find_copies", "hu_distance", "label_distance", "nearest_distances"]


@dataclass(frozen=True)
class CopyVerdict:
    """
    Args:
        threshold (`float`): the distance below which a held-out case is suspiciously near a training case.
        expected (`float`): the share of new cases below it.
        share (`float`): the share of generated cases below it.
        p_value (`float`): how often a generator that draws anew has that share or more.
        nearest (`tuple[int, ...]`): which generated cases lie below it, the nearest first: those to look at.
    """

    threshold: float
    expected: float
    share: float
    p_value: float
    nearest: tuple[int, ...]


def find_copies(generated: np.ndarray, held_out: np.ndarray, percentile: float = 5.0) -> CopyVerdict:
    """The verdict on generated cases, from their distances to the nearest training case and those of held-out cases.

    The threshold is the k-th smallest held-out distance of M, k = floor(percentile / 100 * (M + 1)), and k / (M + 1)
    is the share of new cases below it. The test is one-sided. As the threshold is an estimate itself, the count of N
    new cases below it is beta-binomial (N, k, M + 1 - k), which is exact for any distances and turns into the binomial
    of the expected share where held-out cases are many; with few of them the binomial would cry wolf.
    """
    generated, held_out = (np.asarray(x, np.float64) for x in (generated, held_out))
    for name, x in (("generated", generated), ("held_out", held_out)):
        if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
            raise ValueError(f"{name}: got shape {x.shape}, expected a finite distance for each case.")
    if not 0 < percentile < 100:
        raise ValueError(f"percentile: got {percentile}, expected a number between 0 and 100.")
    count = len(held_out)
    k = int(np.floor(percentile / 100 * (count + 1) + 1e-9))
    if k < 1:
        least = int(np.ceil(100 / percentile - 1e-9)) - 1
        raise ValueError(
            f"held_out: got {count} distances, expected at least {least} for a {percentile:g}th percentile; hold out "
            "more cases, or raise the percentile."
        )
    threshold = float(np.sort(held_out)[k - 1])
    below = np.flatnonzero(generated < threshold)
    return CopyVerdict(
        threshold=threshold,
        expected=k / (count + 1),
        share=len(below) / len(generated),
        p_value=float(stats.betabinom.sf(len(below) - 1, len(generated), k, count + 1 - k)),
        nearest=tuple(int(i) for i in below[np.argsort(generated[below], kind="stable")]),
    )


def nearest_distances(
    cases: Sequence, training: Sequence, distance: Callable[[np.ndarray, np.ndarray], float] | None = None
) -> np.ndarray:
    """The distance (N,) of each case to the nearest training case.

    Without `distance` both are features (N, C) and (M, C), and distances are Euclidean. With `label_distance` or
    `hu_distance` both are sequences of volumes on one grid, and `training` is gone through for every case.
    """
    if not len(cases) or not len(training):
        raise ValueError(f"cases, training: got {len(cases)} and {len(training)}, expected at least one of each.")
    if distance is not None:
        return np.array([min(distance(case, known) for known in training) for case in cases])
    cases, training = np.asarray(cases, np.float64), np.asarray(training, np.float64)
    if cases.ndim != 2 or training.ndim != 2 or cases.shape[1] != training.shape[1]:
        raise ValueError(
            f"cases, training: got shapes {cases.shape} and {training.shape}, expected features (N, C) and (M, C); "
            "volumes need a `distance`."
        )
    return np.array([cdist(case[None], training).min() for case in cases])


def label_distance(a: np.ndarray, b: np.ndarray) -> float:
    """One minus the mean Dice of the classes that either label map has; 0 for two empty maps."""
    return 1 - float(np.mean(list(dice(a, b).values()) or [1.0]))


def hu_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference of two CTs in HU."""
    return float(np.abs(a.astype(np.float32) - b).mean())
