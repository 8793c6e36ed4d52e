"""Figures of two sets have known answers."""

import numpy as np
import pytest

from guidegen_diffusers.evaluation.compare import (
    ORGANS,
    compare_anatomy,
    compare_contrast,
    compare_features,
    compare_numbers,
    compare_patients,
    compare_prompts,
    compare_readings,
)
from guidegen_diffusers.metrics import FOUND
from guidegen_diffusers.prompts import SITES


def asked(prompted, site, tumors=1):
    return {"prompted": prompted, "site": site, "tumors": tumors}


def test_prompts_are_counted_where_they_ask_for_something():
    rows = [
        asked(["left_kidney"], "left_kidney"),
        asked(["left_kidney"], "right_kidney", 2),
        asked(["left_kidney", "right_kidney"], "right_kidney"),
        asked(["none"], "none", 0),
        asked(["none"], "elsewhere", 1),
        asked(None, "left_kidney"),
    ]
    found = compare_prompts(rows)
    assert found["as_prompted"] == {"share": 3 / 5, "of": 5}
    assert found["as_prompted_tumors"] == {"share": 2 / 3, "of": 3}
    assert found["no_tumor_where_none_was_asked_for"] == {"share": 0.5, "of": 2}
    assert found["one_tumor_where_one_was_asked_for"] == {"share": 2 / 3, "of": 3}
    assert found["tumor_counts"] == {"1": 2 / 3, "2": 1 / 3}
    matrix = np.array(found["site_matrix"])
    assert matrix.sum() == 4  # one site was asked for
    assert matrix[SITES.index("left_kidney"), FOUND.index("right_kidney")] == 1
    assert matrix[SITES.index("none"), FOUND.index("elsewhere")] == 1


def test_prompts_that_ask_for_nothing_have_no_share():
    found = compare_prompts([asked(None, "none", 0)])
    assert found["as_prompted"] is None
    assert found["tumor_counts"] == {}


def test_patients_are_read_right_wrong_or_by_chance_and_count_where_they_are_stated():
    def rows(*pairs):
        return [{"patient": {"sex": list(pair)}} for pair in pairs]

    real = rows(("male", "male"), ("female", "female"), ("female", "female"))
    made = rows(("male", "female"), ("female", "female"), (None, "male"), ("male", "male"))
    found = compare_patients(real, made)["sex"]
    assert found["real"] == {"share": 1, "of": 3}
    assert found["real_chance"] == pytest.approx(2 / 3)
    assert found["synthetic"] == {"share": pytest.approx(2 / 3), "of": 3}
    assert found["synthetic_chance"] == pytest.approx(2 / 3)
    nobody = compare_patients(real, rows((None, "male")))["sex"]
    assert (nobody["synthetic"], nobody["synthetic_chance"]) == (None, None)


def test_numbers_have_means_spreads_and_a_distance():
    found = compare_numbers([1.0, 3.0, None], [11.0, 13.0, 15.0])
    assert (found["real"], found["synthetic"], found["real_cases"], found["synthetic_cases"]) == (2, 13, 2, 3)
    assert found["real_sd"] == pytest.approx(2**0.5)
    assert found["synthetic_sd"] == pytest.approx(2)
    assert found["ks"] == 1
    assert compare_numbers([1.0, 2.0], [1.0, 2.0])["ks"] == 0


def test_numbers_that_no_case_has_are_none():
    found = compare_numbers([None], [1.0])
    assert found["real"] is None
    assert found["ks"] is None
    assert found["synthetic_sd"] is None


def test_an_absent_organ_counts_as_absent_and_not_as_0_ml():
    def row(liver):
        volumes = dict.fromkeys([*ORGANS, "tumor"], 10.0) | {"liver": liver}
        return {"volumes": volumes, "stray": 0.0, "cardiothoracic_ratio": None}

    found = compare_anatomy([row(1000.0), row(1200.0)], [row(1100.0), row(0.0)])["volumes_ml"]["liver"]
    assert (found["real_present"], found["synthetic_present"]) == (1.0, 0.5)
    assert (found["real"], found["synthetic"]) == (1100.0, 1100.0)


def test_contrast_is_held_against_the_same_site():
    def row(site, contrast):
        return {"site": site, "contrast": contrast}

    real = [row("left_kidney", -40.0), row("left_kidney", 5.0), row("left_upper_lung", 700.0), row("none", None)]
    made = [row("left_kidney", -10.0), row("left_kidney", 8.0), row("left_upper_lung", 3.0), row("elsewhere", -9.0)]
    found = compare_contrast(real, made)
    assert found["sign_as_real"] == {"share": 2 / 3, "of": 3}  # nothing real lies elsewhere
    assert found["hu"]["left_kidney"]["synthetic"] == -1


def test_readings_are_means_over_cases_of_means_over_organs():
    def row(liver, spleen):
        return {"dice": {"liver": liver, "spleen": spleen, "tumor": 0.0}, "hd95": {"liver": 6.0, "tumor": 1000.0}}

    found = compare_readings([row(1.0, 0.8), row(0.9, 0.9)], [row(0.9, 0.72), row(0.81, 0.81)])
    assert found["mean_organ_dice"] == pytest.approx({"real": 0.9, "synthetic": 0.81, "ratio": 0.9})
    assert found["hd95"]["tumor"]["synthetic"] == 1000


def test_a_set_shifted_in_feature_space_is_as_far_as_its_shift_and_real_halves_are_not():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(400, 3))
    found = compare_features(real, real + np.array([3.0, 0, 4.0]))
    assert found["frechet"] == pytest.approx(25, abs=1e-6)
    assert found["counts"] == [400, 400]
    assert found["halves"]["count"] == 200
    assert found["halves"]["frechet_of_real"] < 0.5 < 20 < found["halves"]["frechet"]
    assert found["halves"]["mmd_of_real"] < 0.5 < found["halves"]["mmd"]


def test_sets_that_are_too_small_for_halves_have_none():
    assert "halves" not in compare_features(np.eye(3), np.eye(3))
