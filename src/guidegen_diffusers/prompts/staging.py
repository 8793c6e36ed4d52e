"""How large a tumour of a stage is: largest diameters in mm, by site, T and the word for its size.

T follows the TNM classification of malignant tumours, 8th edition (Brierley, Gospodarowicz and Wittekind, UICC/Wiley
2017; Amin et al., AJCC Cancer Staging Manual, Springer 2017), where it is a matter of size: in the lung T1 to 3 cm,
T2 to 5, T3 to 7, T4 beyond; in the kidney T1 to 7 cm and T2 beyond, while T3 and T4 are tumours of any size that grow
into veins, perinephric fat or past Gerota's fascia. In the colon T is the depth of growth, so its rows are typical
sizes. Lowest and highest figures are chosen for what is seen on CT. T0 is no visible primary. A word's range includes
its upper end, as T's does: 30 mm is small and T1.
"""

from __future__ import annotations

from math import inf

from .attributes import SIZES, organ_of


__all__ = ["SIZE_RANGES", "T_RANGES", "diameter_range", "size_word"]

T_RANGES: dict[str, dict[int, tuple[float, float]]] = {
    "lung": {1: (12.0, 30.0), 2: (30.0, 50.0), 3: (50.0, 70.0), 4: (70.0, 100.0)},
    "kidney": {1: (15.0, 70.0), 2: (70.0, 100.0), 3: (40.0, 100.0), 4: (60.0, 110.0)},
    "colon": {1: (12.0, 25.0), 2: (20.0, 40.0), 3: (30.0, 60.0), 4: (45.0, 90.0)},
}
SIZE_RANGES: dict[str, tuple[float, float]] = {
    "small": (0.0, 30.0),
    "medium": (30.0, 50.0),
    "large": (50.0, 70.0),
    "huge": (70.0, inf),
}


def diameter_range(site: str, t: int | None = None, size: str | None = None) -> tuple[float, float]:
    """The lowest and highest largest diameter in mm of a tumour at `site`; what is None leaves it open.

    Where T and the size word disagree, T wins: both ends are then its end nearest to the word's range.
    """
    stages = T_RANGES[organ_of(site)]
    if t is not None and t not in range(5):
        raise ValueError(f"t: got {t!r}, expected 0, 1, 2, 3, 4 or None.")
    if size is not None and size not in SIZES:
        raise ValueError(f"size: got {size!r}, expected one of {', '.join(SIZES)}, or None.")
    if t == 0:
        return 0.0, 0.0
    lows, highs = zip(*stages.values(), strict=True)
    low, high = (min(lows), max(highs)) if t is None else stages[t]
    if size is None:
        return low, high
    word_low, word_high = SIZE_RANGES[size]
    return min(max(low, word_low), high), max(min(high, word_high), low)


def size_word(diameter: float) -> str:
    """The word for a largest diameter in mm."""
    return next(size for size in SIZES if diameter <= SIZE_RANGES[size][1])
