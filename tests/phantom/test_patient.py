"""The patient behind a phantom follows sex and age, and never race."""

import dataclasses

import numpy as np
import pytest

from guidegen_diffusers.phantom.patient import AGE_RANGES, PHASES, Patient
from guidegen_diffusers.prompts import AGES, RACES

from .patients import someone


def draw(seed=0, **prompt):
    return Patient.draw(someone(**prompt), np.random.default_rng(seed))


@pytest.mark.parametrize("age", AGES)
def test_the_years_lie_in_the_age_bin(age):
    years = np.array([draw(seed, age=age).years for seed in range(200)])
    low, high = AGE_RANGES[age]
    assert ((years >= low) & (years <= high)).all()
    assert np.ptp(years) > 0.9 * (high - low)


def test_age_bins_follow_one_another_without_overlap():
    assert list(AGE_RANGES) == list(AGES)
    edges = [edge for age in AGES for edge in AGE_RANGES[age]]
    assert edges == sorted(edges)
    assert edges[0] >= 18


def test_race_is_not_read():
    assert len({draw(3, race=race) for race in RACES}) == 1


def test_a_seed_s_man_is_larger_than_its_woman_and_carries_less_fat_under_the_skin():
    for seed in range(50):
        man, woman = draw(seed, sex="male"), draw(seed, sex="female")
        assert man.build > woman.build
        assert man.height > woman.height
        assert man.muscle > woman.muscle
        assert man.fat < woman.fat
        assert (man.habitus, man.phase, man.years) == (woman.habitus, woman.phase, woman.years)


def test_age_thins_bone_and_muscle_and_bends_the_aorta():
    for seed in range(50):
        young, old = draw(seed, age="<=30"), draw(seed, age=">80")
        assert old.bone < 0.8 * young.bone
        assert old.muscle < young.muscle
        assert old.tortuosity > young.tortuosity == 0


def test_the_tumor_is_not_read():
    stages = dict(site="none"), dict(site="left_kidney", t=1), dict(site="ascending_colon", t=4, n=2, m=1)
    assert len({draw(4, **stage) for stage in stages}) == 1


def test_what_is_drawn_stays_within_what_a_body_can_be():
    for seed in range(500):
        patient = draw(seed, sex=("male", "female")[seed % 2], age=AGES[seed % 7])
        assert np.isfinite([v for v in dataclasses.astuple(patient) if not isinstance(v, str)]).all()
        assert 0.85 < patient.build < 1.1
        assert 0.85 < patient.height < 1.1
        assert 5 < patient.fat < 60
        assert 5 < patient.muscle < 20
        assert 0.3 < patient.bone < 1.3
        assert 0 <= patient.tortuosity <= 1


def test_most_are_scanned_in_the_portal_venous_phase():
    phases = [draw(seed).phase for seed in range(2000)]
    shares = [phases.count(phase) / 2000 for phase in PHASES]
    assert shares == pytest.approx([0.70, 0.15, 0.15], abs=0.03)
