"""Who is scanned in these tests, and where things lie in a case."""

import numpy as np

from guidegen_diffusers.labels import CLASSES
from guidegen_diffusers.prompts import ClinicalPrompt


IDS = {c.name: c.id for c in CLASSES}
ORGANS = [c.name for c in CLASSES[1:20]]


def someone(sex="male", age="61-70", race="white", site="none", **stage):
    """A prompt with nothing left open but the size; T2 N0 M0 unless told otherwise."""
    stage = {} if site == "none" else {"t": 2, "n": 0, "m": 0, **stage}
    return ClinicalPrompt(sex=sex, age=age, race=race, sites=frozenset({site}), **stage)


def points(case, name):
    """Where an organ's voxels lie, (P, 3) in mm: right, front, up."""
    return np.argwhere(case.labels == IDS[name]) @ case.affine[:3, :3].T + case.affine[:3, 3]


def volume(case, name):
    """Millilitres of an organ."""
    return (case.labels == IDS[name]).sum() * abs(np.linalg.det(case.affine)) / 1000


def same(a, b):
    return np.array_equal(a.labels, b.labels) and np.array_equal(a.ct, b.ct)
