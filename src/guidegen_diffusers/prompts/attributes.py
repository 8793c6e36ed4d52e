"""The values that a patient's attributes may take: the words every other file of this folder speaks in."""

from __future__ import annotations


__all__ = ["AGES", "ALL_SITES", "COLON", "KIDNEY", "LUNG", "ORGANS", "RACES", "SEXES", "SITES", "SIZES", "TUMOR_SITES"]

SITES = (
    "left_upper_lung",
    "left_lower_lung",
    "right_upper_lung",
    "right_middle_lung",
    "right_lower_lung",
    "left_kidney",
    "right_kidney",
    "ascending_colon",
    "transverse_colon",
    "descending_colon",
    "sigmoid_or_rectum",
    "none",
)
SEXES = ("female", "male")
AGES = ("<=30", "31-40", "41-50", "51-60", "61-70", "71-80", ">80")
RACES = ("asian", "black", "white", "other")
SIZES = ("small", "medium", "large", "huge")

ALL_SITES = frozenset(SITES)
TUMOR_SITES = ALL_SITES - {"none"}
LUNG = frozenset(SITES[:5])
KIDNEY = frozenset(SITES[5:7])
COLON = frozenset(SITES[7:11])
ORGANS = {"lung": LUNG, "kidney": KIDNEY, "colon": COLON}


def organ_of(site: str) -> str:
    """The organ of a tumour site: lung, kidney or colon."""
    for organ, sites in ORGANS.items():
        if site in sites:
            return organ
    raise ValueError(f"site: got {site!r}, expected one of {', '.join(s for s in SITES if s != 'none')}.")
