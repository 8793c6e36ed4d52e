"""Sites asked for and made are counted once each, and nothing is guessed."""

import numpy as np
import pytest

from guidegen_diffusers.metrics import FOUND, site_matrix, site_shares, tumor_count_shares
from guidegen_diffusers.prompts import SITES


PROMPTED = ["left_kidney", "left_kidney", "left_kidney", "none", "left_upper_lung"]
MADE = ["left_kidney", "right_kidney", "elsewhere", "none", "left_upper_lung"]


def test_every_pair_is_counted_where_it_belongs():
    matrix = site_matrix(PROMPTED, MADE)
    assert matrix.shape == (12, 13)
    assert matrix.sum() == 5
    kidney = SITES.index("left_kidney")
    assert {FOUND[i]: n for i, n in enumerate(matrix[kidney]) if n} == {
        "left_kidney": 1,
        "right_kidney": 1,
        "elsewhere": 1,
    }


def test_shares_are_of_the_sites_that_were_prompted():
    shares = site_shares(site_matrix(PROMPTED, MADE))
    assert shares == {
        "all": pytest.approx(3 / 5),
        "left_upper_lung": 1.0,
        "left_kidney": pytest.approx(1 / 3),
        "none": 1.0,
    }


def test_a_generator_that_ignores_its_prompt_is_at_chance():
    rng = np.random.default_rng(0)
    prompted, made = rng.choice(SITES, 6000), rng.choice(SITES, 6000)
    assert site_shares(site_matrix(prompted, made))["all"] == pytest.approx(1 / 12, abs=0.015)
    assert site_shares(site_matrix(prompted, prompted))["all"] == 1.0


def test_counts_have_shares():
    assert tumor_count_shares([1, 1, 0, 3]) == {0: 0.25, 1: 0.5, 3: 0.25}
    assert tumor_count_shares([]) == {}


@pytest.mark.parametrize(
    ("prompted", "made", "message"),
    [
        (["none"], [], "1 and 0"),
        (["elsewhere"], ["none"], "'elsewhere'"),
        (["none"], ["liver"], "'liver'"),
    ],
)
def test_what_is_no_site_is_named(prompted, made, message):
    with pytest.raises(ValueError, match=message):
        site_matrix(prompted, made)
    with pytest.raises(ValueError, match="site_matrix"):
        site_shares(np.zeros((12, 13)))
