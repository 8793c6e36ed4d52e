"""The tables of the prior, and draws from them."""

from collections import Counter

import pytest
import torch

from guidegen_diffusers.prompts import AGES, RACES, SEXES, SITES, SIZES, diameter_range, prior


def test_tables_cover_their_attribute_and_sum_to_one():
    assert (tuple(prior.SEX), tuple(prior.AGE), tuple(prior.RACE)) == (SEXES, AGES, RACES)
    for table in (prior.SEX, prior.AGE, prior.RACE, *prior.N_BY_T.values()):
        assert sum(table.values()) == pytest.approx(1)


def test_spread_grows_with_t():
    none = [prior.N_BY_T[t][0] for t in range(1, 5)]
    assert none == sorted(none, reverse=True)
    assert [prior.M1_BY_T[t] for t in range(1, 5)] == [0.03, 0.08, 0.15, 0.30]


def test_no_tumour_weighs_the_same_beside_any_number_of_sites():
    assert prior.site_weights(["left_kidney", "none"])["none"] == pytest.approx(prior.NONE)
    weights = prior.site_weights(list(SITES))
    assert weights["none"] == pytest.approx(prior.NONE)
    assert weights["left_kidney"] == pytest.approx((1 - prior.NONE) / 11)
    assert prior.site_weights(["left_kidney", "right_kidney"]) == {"left_kidney": 0.5, "right_kidney": 0.5}


def test_t_fits_the_size():
    assert set(prior.t_weights("left_upper_lung", "huge")) == {4}
    assert set(prior.t_weights("left_kidney", "large")) == {1, 3, 4}
    assert set(prior.t_weights("transverse_colon", None)) == {1, 2, 3, 4}


def test_the_size_fits_the_stage():
    for site in SITES[:-1]:
        for t in range(1, 5):
            low, high = diameter_range(site, t)
            weights = prior.size_weights(site, t)
            assert tuple(weights) == SIZES
            assert sum(weights.values()) == pytest.approx(high - low)
    assert prior.size_weights("left_kidney", 0) == {"small": 1.0}


def test_no_organ_has_a_higher_n_than_the_classification_knows():
    assert set(prior.n_weights("left_kidney", 4)) == {0, 1}
    assert set(prior.n_weights("sigmoid_or_rectum", 4)) == {0, 1, 2}
    assert set(prior.n_weights("left_upper_lung", 4)) == {0, 1, 2, 3}
    assert sum(prior.n_weights("left_kidney", 4).values()) == pytest.approx(1)


def test_draws_follow_the_weights():
    generator = torch.Generator().manual_seed(0)
    counts = Counter(prior.draw(prior.RACE, generator) for _ in range(4000))
    for race, weight in prior.RACE.items():
        assert counts[race] / 4000 == pytest.approx(weight, abs=0.03)


def test_what_weighs_nothing_is_never_drawn():
    generator = torch.Generator().manual_seed(0)
    assert {prior.draw({"a": 0.0, "b": 1.0, "c": 0.0}, generator) for _ in range(200)} == {"b"}
