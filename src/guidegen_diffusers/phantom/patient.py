"""The patient behind a phantom: sex, age and habitus as numbers that the anatomy and the scanner read.

Race is not read: it is the negative control of every experiment on phantoms. Everything is drawn whether it is needed
or not, so that two prompts of one seed differ only in what they say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..prompts import ClinicalPrompt


__all__ = ["PHASES", "Patient"]

PHASES = ("portal", "arterial", "native")  # of the contrast medium
AGE_RANGES = {
    "<=30": (18, 30),
    "31-40": (31, 40),
    "41-50": (41, 50),
    "51-60": (51, 60),
    "61-70": (61, 70),
    "71-80": (71, 80),
    ">80": (81, 95),
}


@dataclass(frozen=True)
class Patient:
    """
    Args:
        male (`bool`), years (`float`).
        build, height (`float`): girth of the skeleton and length of the trunk against the reference adult.
        habitus (`float`): about standard normal; lean below zero, obese above.
        fat, muscle (`float`): thickness of the subcutaneous fat and of the trunk's muscles in mm.
        bone (`float`): density of trabecular bone against a young adult's.
        tortuosity (`float`): how far the aorta wanders and widens, 0 to about 1.
        inspiration (`float`): about standard normal; the diaphragm's depth.
        phase (`str`): one of `PHASES`.
    """

    male: bool
    years: float
    build: float
    height: float
    habitus: float
    fat: float
    muscle: float
    bone: float
    tortuosity: float
    inspiration: float
    phase: str

    @classmethod
    def draw(cls, prompt: ClinicalPrompt, rng: np.random.Generator) -> Patient:
        """A patient as a resolved prompt says; what it leaves open comes from `rng`."""
        normal = rng.standard_normal(8)
        uniform = rng.random(4)
        male = prompt.sex == "male"
        low, high = AGE_RANGES[prompt.age]
        years = low + uniform[0] * (high - low)
        senior = np.clip((years - 40) / 50, 0, 1)  # 0 up to forty, 1 at ninety
        habitus = float(np.clip(normal[0], -1.8, 2.2))
        return cls(
            male=male,
            years=float(years),
            build=float((1.0 if male else 0.945) * (1 + 0.025 * np.clip(normal[1], -2, 2))),
            height=float((1.0 if male else 0.95) * (1 + 0.018 * np.clip(normal[2], -2, 2)) * (1 - 0.02 * senior)),
            habitus=habitus,
            fat=float((7.5 if male else 11.0) + (8.0 if male else 9.5) * max(habitus + 1.1, 0) ** 1.1),
            muscle=float((14.5 if male else 11.0) * (1 - 0.3 * senior) * (1 + 0.06 * normal[3])),
            bone=float((1.0 if male else 1.03) - (0.42 if male else 0.52) * senior + 0.05 * normal[4]),
            tortuosity=float(senior * (0.6 + 0.4 * uniform[1])),
            inspiration=float(np.clip(normal[5], -2, 2)),
            phase=PHASES[int(np.searchsorted([0.70, 0.85], uniform[2], side="right"))],
        )
