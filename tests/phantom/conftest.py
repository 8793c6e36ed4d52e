"""A crowd without tumours, drawn once: all ages and both sexes at 6 mm, a few of them at 3 mm too."""

import pytest

from guidegen_diffusers.phantom import TorsoPhantom
from guidegen_diffusers.phantom.patient import AGE_RANGES

from .patients import someone


@pytest.fixture(scope="session")
def phantom():
    return TorsoPhantom()


@pytest.fixture(scope="session")
def pairs(phantom):
    """21 seeds, each as a man and as a woman of the same age."""
    ages = list(AGE_RANGES) * 3
    return [
        tuple(phantom.sample(someone(sex, age), seed) for sex in ("male", "female")) for seed, age in enumerate(ages)
    ]


@pytest.fixture(scope="session")
def crowd(pairs):
    return [case for pair in pairs for case in pair]


@pytest.fixture(scope="session")
def ages(phantom):
    """Six seeds, each as a young and as an old man."""
    return [tuple(phantom.sample(someone(age=age), seed) for age in ("<=30", ">80")) for seed in range(6)]


@pytest.fixture(scope="session")
def fine():
    """The first four women and men of the crowd at 3 mm."""
    phantom = TorsoPhantom((128, 96, 192), 3.0)
    people = zip(("male", "female", "male", "female"), AGE_RANGES, strict=False)
    return [phantom.sample(someone(*person), seed) for seed, person in enumerate(people)]
