"""The figures of one case: what its label map shows, what its CT shows, and how well the two fit each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..case import Case
from ..metrics import (
    cardiothoracic_ratio,
    dice,
    emphysema_share,
    hd95,
    mean_hu,
    organ_volumes,
    stray_fraction,
    tumor_contrast,
)
from ..models import ATTRIBUTES, Classifier3D, Segmenter3D
from ..prompts import ClinicalPrompt
from ..tumor_sites import find_site


__all__ = ["measure_case", "prompted_sites", "read_ct", "read_patient"]


def prompted_sites(case: Case) -> list[str] | None:
    """The sites that a case was asked to show; None where neither attributes nor prompt narrow them down."""
    sites = case.attributes.get("sites") or ClinicalPrompt.parse(case.prompt).as_dict()["sites"]
    return list(sites) if len(sites) < len(ClinicalPrompt().sites) else None


@torch.no_grad()
def read_ct(segmenter: Segmenter3D, ct: np.ndarray) -> tuple[np.ndarray, torch.Tensor]:
    """The segmenter's reading of a CT, (X, Y, Z) `uint8`, and what it measures of it, (1, N, M)."""
    volume = torch.from_numpy(ct)[None].to(segmenter.device)
    logits = segmenter(volume).logits
    return logits[0].argmax(0).to(torch.uint8).cpu().numpy(), segmenter.measure(volume, logits)


def read_patient(classifier: Classifier3D, measures: torch.Tensor, case: Case) -> dict[str, list[str | None]]:
    """Each attribute as the case states it, None where it leaves it open, and as the classifier reads it off what a
    segmenter measures of the CT."""
    sites = case.attributes.get("sites") or []
    stated = {**case.attributes, "site": sites[0] if len(sites) == 1 else None}
    read = classifier.classify(measures.to(classifier.device))[0]
    return {
        name: [stated.get(name) if stated.get(name) in values else None, read[name]]
        for name, values in ATTRIBUTES.items()
    }


def measure_case(
    case: Case, reading: np.ndarray | None = None, patient: dict[str, list[str | None]] | None = None
) -> dict[str, Any]:
    """JSON values; what needs a CT is left out without one, what needs a `reading` of it by a segmenter or a
    classifier's of the `patient` likewise."""
    findings, spacing = find_site(case.labels, case.affine), case.grid.spacing
    figures: dict[str, Any] = {
        "prompted": prompted_sites(case),
        "site": findings.site,
        "tumors": findings.count,
        "volumes": organ_volumes(case.labels, case.affine),
        "stray": stray_fraction(case.labels),
        "cardiothoracic_ratio": cardiothoracic_ratio(case.labels, case.affine),
    }
    if case.ct is not None:
        figures |= {
            "hu": mean_hu(case.ct, case.labels),
            "contrast": tumor_contrast(case.ct, case.labels, float(spacing.mean())),
            "emphysema_share": emphysema_share(case.ct, case.labels),
        }
    if reading is not None:
        figures |= {"dice": dice(reading, case.labels), "hd95": hd95(reading, case.labels, spacing)}
    if patient is not None:
        figures["patient"] = patient
    return figures
