"""Distances of sets have the closed forms of Gaussians, are 0 for like sets, and refuse what has none."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from guidegen_diffusers.metrics import frechet_distance, mmd


def gaussian(count, mean, covariance, seed=0):
    """Samples whose mean and covariance are exactly these: no chance is left in them."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, len(mean)))
    x -= x.mean(0)
    whitened = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    return np.asarray(mean) + whitened @ np.linalg.cholesky(np.asarray(covariance, float)).T


def test_frechet_distance_of_gaussians_on_common_axes_has_a_closed_form():
    """|m - n|^2 + sum (s - t)^2, s and t being standard deviations."""
    a = gaussian(200, [0, 0, 0], np.diag([1.0, 4.0, 9.0]), seed=1)
    b = gaussian(90, [1, -2, 0], np.diag([4.0, 4.0, 0.25]), seed=2)
    assert frechet_distance(a, b) == pytest.approx(1 + 4 + 1 + 0 + 2.5**2, rel=1e-10)


def test_frechet_distance_is_the_formula_where_axes_differ():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((300, 6)) @ rng.standard_normal((6, 6))
    b = rng.standard_normal((250, 6)) @ rng.standard_normal((6, 6)) + 0.3
    s, t = np.cov(a.T), np.cov(b.T)
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s + t) - 2 * np.trace(sqrtm(s @ t)).real
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_holds_where_samples_are_fewer_than_features():
    """Features that only repeat or lie at 0 change nothing but the scale."""
    a, b = gaussian(8, [0, 0, 0], np.eye(3), seed=1), gaussian(9, [3, 0, 0], 4 * np.eye(3), seed=2)
    wide = [np.pad(x, ((0, 0), (0, 500))) for x in (a, b)]
    assert frechet_distance(*wide) == pytest.approx(9 + 3, rel=1e-10)
    rotation = np.linalg.qr(np.random.default_rng(3).standard_normal((503, 503)))[0]
    assert frechet_distance(*(x @ rotation for x in wide)) == pytest.approx(9 + 3, rel=1e-10)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    counts=st.tuples(st.integers(2, 12), st.integers(2, 12)),
    width=st.integers(1, 20),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_like_sets_are_at_0_a_shift_at_its_square_and_both_directions_agree(seed, counts, width, scale):
    rng = np.random.default_rng(seed)
    a, b = (scale * rng.standard_normal((count, width)) for count in counts)
    shift = scale * rng.standard_normal(width)
    assert frechet_distance(a, a[::-1]) <= 1e-18 * scale**2
    assert frechet_distance(a, a + shift) == pytest.approx(shift @ shift, rel=1e-6)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-6)
    assert frechet_distance(a, b) > 0


def test_float32_features_far_from_0_lose_nothing():
    a = gaussian(100, [1000, 1000], np.eye(2)).astype(np.float32)
    assert frechet_distance(a, a + np.float32(1)) == pytest.approx(2, abs=1e-3)


def test_mmd_is_the_definition():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((5, 3)), rng.standard_normal((4, 3))

    def kernel(x, y):
        return (x @ y / 3 + 1) ** 3

    within = [np.mean([kernel(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j]) for s in (a, b)]
    across = np.mean([kernel(x, y) for x in a for y in b])
    assert mmd(a, b) == pytest.approx(sum(within) - 2 * across)


def test_mmd_of_two_points_repeated_is_known():
    """Sets at x and y: k(x, x) + k(y, y) - 2 k(x, y) = 8 + 8 - 2 * 0."""
    assert mmd(np.full((3, 1), 1.0), np.full((2, 1), -1.0)) == pytest.approx(16.0)


def test_mmd_of_like_sets_is_0_in_the_mean_and_of_unlike_ones_not():
    rng = np.random.default_rng(0)
    draws = [mmd(rng.standard_normal((30, 4)), rng.standard_normal((30, 4))) for _ in range(200)]
    error = np.std(draws) / np.sqrt(len(draws))
    assert abs(np.mean(draws)) < 3 * error
    assert min(draws) < 0  # unbiased, so that it may be
    assert mmd(rng.standard_normal((30, 4)), rng.standard_normal((30, 4)) + 2) > 10 * np.std(draws)


BAD = np.array([[1.0, 2.0], [np.nan, 2.0], [0.0, 1.0]])


@pytest.mark.parametrize("distance", [frechet_distance, mmd])
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.zeros((1, 2)), np.zeros((3, 2)), "a: got shape (1, 2), expected features (N, C) of at least two"),
        (np.zeros((3, 2)), np.zeros(2), "b: got shape (2,)"),
        (np.zeros((3, 2)), np.zeros((3, 4)), "got 2 and 4 features"),
        (BAD, np.zeros((3, 2)), "1 of 3 samples, the first is sample 1"),
        (np.zeros((3, 2)), np.full((3, 2), np.inf), "b: got NaN or infinite"),
        (np.zeros((3, 0)), np.zeros((3, 0)), "expected features (N, C)"),
    ],
)
def test_sets_without_a_distance_are_named(distance, a, b, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        distance(a, b)
