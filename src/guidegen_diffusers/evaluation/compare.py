"""Figures of two sets, real and synthetic, from the figures and features of their cases: JSON values.

Beside each distance between the sets stands the distance between two halves of the real one: what is nought on paper
is not nought for a few cases, and no generator comes nearer than that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from ..labels import CLASSES, TUMOR
from ..metrics import frechet_distance, mmd, site_matrix, tumor_count_shares


__all__ = [
    "compare_anatomy",
    "compare_contrast",
    "compare_features",
    "compare_intensity",
    "compare_numbers",
    "compare_patients",
    "compare_prompts",
    "compare_readings",
]

ORGANS = [c.name for c in CLASSES[1:TUMOR]]
Rows = Sequence[dict[str, Any]]  # of `measure_case`


def share(hits: Sequence[bool]) -> dict[str, float | int] | None:
    """A share and of how many; None of none."""
    return {"share": float(np.mean(hits)), "of": len(hits)} if len(hits) else None


def compare_numbers(real: Sequence[float | None], made: Sequence[float | None]) -> dict[str, float | int | None]:
    """Means, spreads and Kolmogorov-Smirnov's distance of one number, where cases have it."""
    real, made = ([x for x in numbers if x is not None] for numbers in (real, made))
    both = bool(real and made)
    return {
        "real": float(np.mean(real)) if real else None,
        "synthetic": float(np.mean(made)) if made else None,
        "real_sd": float(np.std(real, ddof=1)) if len(real) > 1 else None,
        "synthetic_sd": float(np.std(made, ddof=1)) if len(made) > 1 else None,
        "ks": float(stats.ks_2samp(real, made).statistic) if both else None,
        "real_cases": len(real),
        "synthetic_cases": len(made),
    }


def compare_prompts(rows: Rows) -> dict[str, Any]:
    """How a set keeps to its prompts: the site asked for and the site found, and how many tumours there are."""
    asked = [row for row in rows if row["prompted"] is not None]
    single = [row for row in asked if len(row["prompted"]) == 1]
    sites = [row["prompted"][0] for row in single]
    none = [row for row in single if row["prompted"] == ["none"]]
    tumor = [row for row in asked if "none" not in row["prompted"]]
    counts = tumor_count_shares([row["tumors"] for row in tumor]) if tumor else {}
    return {
        "as_prompted": share([row["site"] in row["prompted"] for row in asked]),
        "as_prompted_tumors": share([row["site"] in row["prompted"] for row in tumor]),
        "no_tumor_where_none_was_asked_for": share([row["tumors"] == 0 for row in none]),
        "one_tumor_where_one_was_asked_for": share([row["tumors"] == 1 for row in tumor]),
        "tumor_counts": {str(count): value for count, value in counts.items()},
        "site_matrix": site_matrix(sites, [row["site"] for row in single]).tolist(),
    }


def compare_anatomy(real: Rows, made: Rows) -> dict[str, Any]:
    """Each organ: in how many cases it is there, and its millilitres where it is; stray fragments and proportions."""
    organs = {}
    for name in [*ORGANS, "tumor"]:
        volumes = [[row["volumes"][name] or None for row in rows] for rows in (real, made)]
        present = [float(np.mean([v is not None for v in values])) for values in volumes]
        organs[name] = {"real_present": present[0], "synthetic_present": present[1], **compare_numbers(*volumes)}
    others = {
        name: compare_numbers(*([row[name] for row in rows] for rows in (real, made)))
        for name in ("stray", "cardiothoracic_ratio")
    }
    return {"volumes_ml": organs, **others}


def compare_intensity(real: Rows, made: Rows) -> dict[str, Any]:
    """Each organ's mean HU, and the share of emphysema in the lungs."""
    hu = {
        name: compare_numbers(*([row["hu"].get(name) for row in rows] for rows in (real, made)))
        for name in [*ORGANS, "tumor"]
    }
    emphysema = compare_numbers(*([row["emphysema_share"] for row in rows] for rows in (real, made)))
    return {"mean_hu": hu, "emphysema_share": emphysema, "tumor_contrast": compare_contrast(real, made)}


def compare_contrast(real: Rows, made: Rows) -> dict[str, Any]:
    """How a tumour stands out from its organ, by site, and how many synthetic ones have the sign of the real mean."""
    by_site: dict[str, list[list[float]]] = {}
    for which, rows in enumerate((real, made)):
        for row in rows:
            if row["contrast"] is not None:
                by_site.setdefault(row["site"], [[], []])[which].append(row["contrast"])
    alike = [
        np.sign(value) == np.sign(np.mean(there)) for there, values in by_site.values() if there for value in values
    ]
    return {"hu": {site: compare_numbers(*pair) for site, pair in by_site.items()}, "sign_as_real": share(alike)}


def compare_readings(real: Rows, made: Rows) -> dict[str, Any]:
    """Dice and HD95 of a segmenter's reading of the CT with the labels, class by class."""
    found: dict[str, Any] = {}
    for measure in ("dice", "hd95"):
        found[measure] = {
            name: compare_numbers(
                *([row[measure].get(name) for row in rows if measure in row] for rows in (real, made))
            )
            for name in [*ORGANS, "tumor"]
        }
    means = []
    for rows in (real, made):
        organs = [[value for name, value in row["dice"].items() if name in ORGANS] for row in rows]
        means.append(float(np.mean([np.mean(values) for values in organs])))
    found["mean_organ_dice"] = {"real": means[0], "synthetic": means[1], "ratio": means[1] / means[0]}
    return found


def compare_patients(real: Rows, made: Rows) -> dict[str, Any]:
    """How often a classifier reads off the CT what the case states, and how often the commonest value is right."""
    found: dict[str, Any] = {}
    for name in real[0]["patient"]:
        found[name] = {}
        for which, rows in (("real", real), ("synthetic", made)):
            pairs = [row["patient"][name] for row in rows if row["patient"][name][0] is not None]
            commonest = Counter(stated for stated, _ in pairs).most_common(1)
            found[name][which] = share([stated == read for stated, read in pairs])
            found[name][f"{which}_chance"] = commonest[0][1] / len(pairs) if pairs else None
    return found


def compare_features(real: np.ndarray, made: np.ndarray) -> dict[str, Any]:
    """Fréchet's distance and MMD of two sets of features (N, C): of all, and of equally many beside real halves."""
    halves = real[0::2], real[1::2]
    least = min(len(halves[1]), len(made))
    found: dict[str, Any] = {
        "frechet": frechet_distance(real, made),
        "mmd": mmd(real, made),
        "counts": [len(real), len(made)],
    }
    if least > 1:
        found["halves"] = {
            "count": least,
            "frechet": frechet_distance(halves[0][:least], made[:least]),
            "frechet_of_real": frechet_distance(halves[0][:least], halves[1][:least]),
            "mmd": mmd(halves[0][:least], made[:least]),
            "mmd_of_real": mmd(halves[0][:least], halves[1][:least]),
        }
    return found
