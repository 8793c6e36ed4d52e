"""Diameters by site, T and size word."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidegen_diffusers.prompts import SITES, SIZES, diameter_range
from guidegen_diffusers.prompts.attributes import organ_of
from guidegen_diffusers.prompts.staging import SIZE_RANGES, T_RANGES, size_word


@pytest.mark.parametrize(
    ("site", "t", "size", "expected"),
    [
        ("left_upper_lung", 1, None, (12, 30)),
        ("right_middle_lung", 2, None, (30, 50)),
        ("right_lower_lung", 3, None, (50, 70)),
        ("left_lower_lung", 4, None, (70, 100)),
        ("left_kidney", 1, None, (15, 70)),
        ("right_kidney", 3, None, (40, 100)),
        ("sigmoid_or_rectum", 4, None, (45, 90)),
        ("left_kidney", None, None, (15, 110)),
        ("left_kidney", None, "large", (50, 70)),
        ("left_upper_lung", None, "small", (12, 30)),
        ("left_upper_lung", None, "huge", (70, 100)),
        ("left_kidney", 1, "medium", (30, 50)),
        ("left_kidney", 3, "small", (40, 40)),  # T wins, at its end nearest to the word
        ("left_upper_lung", 1, "huge", (30, 30)),
        ("transverse_colon", 0, None, (0, 0)),
        ("transverse_colon", 0, "huge", (0, 0)),
    ],
)
def test_the_tables(site, t, size, expected):
    assert diameter_range(site, t, size) == expected


@given(st.sampled_from(SITES[:-1]), st.sampled_from([None, 1, 2, 3, 4]), st.sampled_from([None, *SIZES]))
def test_a_range_is_finite_and_within_its_stage(site, t, size):
    low, high = diameter_range(site, t, size)
    assert 0 < low <= high < inf
    if t is not None:
        stage_low, stage_high = T_RANGES[organ_of(site)][t]
        assert stage_low <= low <= high <= stage_high


@given(st.sampled_from(SITES[:-1]), st.sampled_from(SIZES))
def test_a_word_is_kept_where_the_stage_is_open(site, size):
    low, high = diameter_range(site, size=size)
    assert SIZE_RANGES[size][0] <= low < high <= SIZE_RANGES[size][1]
    assert size_word((low + high) / 2) == size


@pytest.mark.parametrize(
    ("diameter", "word"), [(8, "small"), (30, "small"), (30.1, "medium"), (70, "large"), (71, "huge")]
)
def test_a_diameter_has_a_word(diameter, word):
    assert size_word(diameter) == word


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none",), "site: got 'none'"),
        (("lung",), "site"),
        (("left_kidney", 5), "t: got 5"),
        (("left_kidney", 1, "big"), "size"),
    ],
)
def test_what_is_no_site_stage_or_size_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        diameter_range(*arguments)
