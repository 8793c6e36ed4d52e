"""A generator that copies is caught, one that draws anew is not, in features and in voxels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from guidegen_diffusers import TorsoPhantom
from guidegen_diffusers.metrics import find_copies, hu_distance, label_distance, nearest_distances


def features(count, seed):
    return np.random.default_rng(seed).standard_normal((count, 6))


def test_the_nearest_is_the_nearest():
    training = np.array([[0.0, 0.0], [10.0, 0.0]])
    assert nearest_distances(np.array([[3.0, 4.0], [10.0, 1.0]]), training).tolist() == [5.0, 1.0]
    volumes = [np.full((2, 2, 2), value, np.int16) for value in (0, 100, 1000)]
    assert nearest_distances(volumes[1:], volumes[::2], hu_distance).tolist() == [100.0, 0.0]


def test_distances_of_voxels_have_known_answers():
    a, b = np.array([[[1, 1, 2, 0]]], np.uint8), np.array([[[1, 1, 0, 2]]], np.uint8)
    assert label_distance(a, b) == pytest.approx(0.5)
    assert label_distance(a, a) == label_distance(0 * a, 0 * a) == 0.0
    low, high = np.full((2, 2, 2), -1024, np.int16), np.full((2, 2, 2), 32767, np.int16)
    assert hu_distance(low, high) == 33791.0  # beyond int16


def test_a_generator_that_copies_is_caught_and_shown():
    training, held_out = features(200, 1), features(100, 2)
    made = features(80, 3)
    made[10:30] = training[:20] + 1e-3 * features(20, 4)
    verdict = find_copies(nearest_distances(made, training), nearest_distances(held_out, training))
    assert verdict.share >= 20 / 80
    assert verdict.p_value < 1e-4
    assert set(verdict.nearest[:20]) == set(range(10, 30))


def test_a_generator_that_draws_anew_is_not_caught_more_often_than_the_p_value_says():
    training = features(150, 0)
    known = nearest_distances(features(8000, 1), training)
    p, shares = [], []
    rng = np.random.default_rng(2)
    for _ in range(300):
        drawn = rng.permutation(known)
        verdict = find_copies(drawn[:60], drawn[60:120])
        p.append(verdict.p_value)
        shares.append(verdict.share - verdict.expected)
    assert np.mean(np.array(p) < 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
    assert abs(np.mean(shares)) < 3 * np.std(shares) / np.sqrt(300)


def test_phantoms_that_repeat_the_training_are_caught_in_voxels_and_new_ones_are_not():
    phantom = TorsoPhantom((16, 12, 24), 24.0)

    def maps(seeds):
        return [phantom.sample(None, seed, ct=False).labels for seed in seeds]

    training, new = maps(range(12)), maps(range(2000, 2008))
    held_out = nearest_distances(maps(range(1000, 1019)), training, label_distance)
    copies = nearest_distances([*training[:6], *new], training, label_distance)
    anew = nearest_distances(new, training, label_distance)
    caught, free = find_copies(copies, held_out), find_copies(anew, held_out)
    assert set(range(6)) <= set(caught.nearest)
    assert caught.p_value < 0.01
    assert free.p_value > 0.05
    assert min(anew) > 0


def test_the_figures_are_those_of_the_definition():
    held_out = np.arange(1.0, 100.0)  # 99 of them: the 5th is the 5th percentile
    verdict = find_copies(np.array([4.5, 5.0, 0.5, 80.0]), held_out)
    assert verdict.threshold == 5.0
    assert verdict.expected == pytest.approx(0.05)
    assert verdict.share == 0.5  # 5.0 is not below
    assert verdict.nearest == (2, 0)
    assert verdict.p_value == pytest.approx(stats.betabinom(4, 5, 95).sf(1))
    assert find_copies(np.array([50.0]), held_out).p_value == 1.0


def test_many_held_out_cases_make_it_a_binomial_test():
    held_out = np.arange(1.0, 1_000_000.0)
    made = np.r_[np.full(9, 0.5), np.full(91, 2e6)]
    p = stats.binomtest(9, 100, 0.05, alternative="greater").pvalue
    assert find_copies(made, held_out).p_value == pytest.approx(p, rel=1e-3)


@settings(max_examples=60)
@given(
    made=st.lists(st.floats(0, 1e6), min_size=1, max_size=40),
    held_out=st.lists(st.floats(0, 1e6), min_size=19, max_size=60),
    percentile=st.floats(5, 95),
)
def test_a_verdict_is_in_bounds_and_blind_to_units(made, held_out, percentile):
    verdict = find_copies(made, held_out, percentile)
    assert 0 < verdict.expected <= percentile / 100 + 1e-9
    assert 0 <= verdict.share <= 1
    assert 0 < verdict.p_value <= 1
    assert len(verdict.nearest) == round(verdict.share * len(made))
    assert find_copies(np.array(made) * 8, np.array(held_out) * 8, percentile).p_value == verdict.p_value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], np.ones(18)), "got 18 distances, expected at least 19"),
        (([], np.ones(30)), "generated"),
        (([1.0], np.full(30, np.nan)), "held_out"),
        (([1.0], np.ones(30), 0.0), "percentile"),
    ],
)
def test_too_little_to_judge_by_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        find_copies(*arguments)


def test_what_has_no_nearest_is_named():
    with pytest.raises(ValueError, match="at least one"):
        nearest_distances(np.zeros((0, 2)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="need a `distance`"):
        nearest_distances(np.zeros((2, 4, 4, 4)), np.zeros((2, 4, 4, 4)))
