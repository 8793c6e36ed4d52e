"""Which generated cases are fit for a set: the prompted site shown, every organ there, volumes and HU of a body.

The tables hold for adults of any build and in any phase of a contrast medium, lean to obese and native to arterial: a
case outside of them is no unusual patient but a failed draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..case import Case
from ..metrics import mean_hu, organ_volumes
from ..prompts import ClinicalPrompt
from ..tumor_sites import find_site


__all__ = ["HU", "VOLUMES_ML", "Gate", "Verdict"]

VOLUMES_ML = {  # of both kidneys, lungs and adrenal glands
    "spleen": (25, 1000),
    "kidney": (90, 1200),
    "liver": (600, 3500),
    "stomach": (40, 2500),
    "pancreas": (15, 250),
    "lung": (1200, 10000),
    "small_bowel": (200, 3000),
    "duodenum": (12, 300),
    "colon": (150, 3000),
    "urinary_bladder": (5, 1200),
    "heart": (250, 1800),
    "vertebrae": (250, 1500),
    "ribs": (120, 1200),
    "adrenal_gland": (1.5, 40),
    "portal_and_splenic_vein": (6, 150),
    "esophagus": (10, 150),
    "aorta": (50, 800),
    "inferior_vena_cava": (25, 350),
    "gallbladder": (0, 300),  # it may have been taken out
}
HU = {  # of the organ's mean; bowels hold air, stool or contrast medium
    "spleen": (-20, 250),
    "kidney": (-40, 320),
    "liver": (-40, 230),
    "stomach": (-800, 250),
    "pancreas": (-60, 220),
    "lung": (-950, -450),
    "small_bowel": (-250, 300),
    "duodenum": (-200, 250),
    "colon": (-800, 300),
    "urinary_bladder": (-40, 600),
    "heart": (-40, 400),
    "vertebrae": (60, 600),
    "ribs": (60, 700),
    "adrenal_gland": (-150, 220),
    "portal_and_splenic_vein": (-40, 320),
    "esophagus": (-300, 200),
    "aorta": (-50, 600),
    "inferior_vena_cava": (-40, 320),
    "gallbladder": (-50, 250),
}


@dataclass(frozen=True)
class Verdict:
    """What was measured of a case, and why it is refused: a sentence by kind (site, organs, volumes, hu)."""

    site: str
    volumes_ml: dict[str, float]
    mean_hu: dict[str, float]
    reasons: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """JSON values of what was measured."""
        volumes = {organ: round(volume, 2) for organ, volume in self.volumes_ml.items()}
        return {
            "site": self.site,
            "volumes_ml": volumes,
            "mean_hu": {k: round(v, 1) for k, v in self.mean_hu.items()},
        }


@dataclass(frozen=True)
class Gate:
    """
    Args:
        volumes_ml (`Mapping[str, tuple[float, float]]`): the least and largest volume of each organ that has to be
            there; one whose least is 0 may be missing. For a smaller field of view name the organs within it.
        hu (`Mapping[str, tuple[float, float]]`): the range of each organ's mean HU.
    """

    volumes_ml: Mapping[str, tuple[float, float]] = field(default_factory=lambda: VOLUMES_ML)
    hu: Mapping[str, tuple[float, float]] = field(default_factory=lambda: HU)

    def judge(self, case: Case, prompt: ClinicalPrompt) -> Verdict:
        """The verdict on a case that was asked for by a prompt."""
        site = find_site(case.labels, case.affine).site
        volumes, hu = organ_volumes(case.labels, case.affine), mean_hu(case.ct, case.labels)
        reasons = {}
        if site not in prompt.sites:
            asked = " or ".join(sorted(prompt.sites))
            reasons["site"] = f"the tumour's site is {site}, the prompt asks for {asked}"
        if missing := [organ for organ, (least, _) in self.volumes_ml.items() if least > 0 and not volumes[organ]]:
            reasons["organs"] = f"{', '.join(missing)} missing"
        if wrong := _outside({organ: volume for organ, volume in volumes.items() if volume}, self.volumes_ml, "ml"):
            reasons["volumes"] = wrong
        if wrong := _outside(hu, self.hu, "HU"):
            reasons["hu"] = wrong
        return Verdict(site, volumes, hu, reasons)

    def as_dict(self) -> dict[str, Any]:
        return {"volumes_ml": _plain(self.volumes_ml), "hu": _plain(self.hu)}


def _outside(values: Mapping[str, float], ranges: Mapping[str, tuple[float, float]], unit: str) -> str:
    """Each value outside its range, in words."""
    return "; ".join(
        f"{organ} of {values[organ]:.4g} {unit}, expected {low:g} to {high:g}"
        for organ, (low, high) in ranges.items()
        if organ in values and not low <= values[organ] <= high
    )


def _plain(ranges: Mapping[str, tuple[float, float]]) -> dict[str, list[float]]:
    return {organ: [float(low), float(high)] for organ, (low, high) in ranges.items()}
