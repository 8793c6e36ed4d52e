"""Cases that would teach something false are refused, each rule with its reason."""

import re

import numpy as np
import pytest

from guidegen_diffusers import Grid
from guidegen_diffusers.data.refusal import reason_to_refuse
from guidegen_diffusers.labels import CLASSES
from guidegen_diffusers.prompts import ClinicalPrompt


GRID = Grid.centered((60, 40, 40), 3.0)
IDS = {c.name: c.id for c in CLASSES}
SILENT = ClinicalPrompt()
HEALTHY = ClinicalPrompt(sites=frozenset({"none"}))
KIDNEY = ClinicalPrompt(sites=frozenset({"left_kidney"}))
LUNG_OR_COLON = ClinicalPrompt(sites=frozenset({"left_lower_lung", "transverse_colon"}))


def ball(x, radius):
    voxels = np.ogrid[tuple(map(slice, GRID.shape))]
    center = np.linalg.inv(GRID.affine) @ (x, 0, 0, 1)
    return sum(((v - c) * 3) ** 2 for v, c in zip(voxels, center[:3], strict=True)) <= radius**2


def label_map(organ="kidney", tumor_at=None, radius=9.0):
    """An organ of 30 mm at x = -40 mm, and a tumour."""
    labels = np.where(ball(-40, 30), IDS[organ], 0).astype(np.uint8)
    if tumor_at is not None:
        labels[ball(tumor_at, radius)] = IDS["tumor"]
    return labels


def speck():
    """A tumour of one voxel in the organ."""
    labels = label_map()
    labels[16, 20, 20] = IDS["tumor"]
    return labels


@pytest.mark.parametrize(
    ("labels", "prompt", "reason"),
    [
        (label_map(), SILENT, None),
        (label_map(), HEALTHY, None),
        (label_map(), KIDNEY, "the prompt states a tumour, the labels hold 0 ml"),
        (speck(), KIDNEY, "the prompt states a tumour, the labels hold 0.027 ml of one, expected 0.1"),
        (speck(), SILENT, None),
        (label_map(tumor_at=-40), KIDNEY, None),
        (label_map(tumor_at=-40), SILENT, None),
        (label_map(tumor_at=-40), HEALTHY, "the prompt states no tumour of lung, kidney, colon, the labels hold"),
        (label_map(tumor_at=-40), LUNG_OR_COLON, "100% of the tumour .* from lung or colon"),
        (label_map("lung", tumor_at=-40), LUNG_OR_COLON, None),
        (label_map("liver", tumor_at=-40), SILENT, "100% of the tumour .* from lung or kidney or colon"),
        (label_map(tumor_at=0), KIDNEY, None),  # it touches: 30 mm to the organ's rim, 9 of them tumour
        (label_map(tumor_at=40), KIDNEY, "100% of the tumour lies more than 15 mm"),
        (label_map(tumor_at=40), SILENT, "100% of the tumour"),
        (np.zeros(GRID.shape, np.uint8), SILENT, "0 organs in view, expected at least 1"),
        (np.full(GRID.shape, IDS["tumor"], np.uint8), SILENT, "0 organs in view"),
    ],
)
def test_each_rule(labels, prompt, reason):
    found = reason_to_refuse(labels, GRID, prompt)
    if reason is None:
        assert found is None
    else:
        assert re.match(reason, found)
        assert "\n" not in found


def test_a_large_tumor_that_has_eaten_most_of_its_organ_stays():
    labels = label_map(tumor_at=-5, radius=50)
    assert (labels == IDS["kidney"]).sum() < 0.3 * (label_map() == IDS["kidney"]).sum()
    assert reason_to_refuse(labels, GRID, KIDNEY) is None


def test_most_of_several_tumors_counts():
    """One within the organ and a smaller one astray stay; a larger one astray does not."""
    for radius, refused in ((7, False), (14, True)):
        labels = label_map(tumor_at=-40, radius=10)
        labels[ball(60, radius)] = IDS["tumor"]
        assert (reason_to_refuse(labels, GRID, KIDNEY) is not None) == refused


def test_the_number_of_organs_is_the_callers():
    labels = label_map()
    labels[0, 0, :3] = [IDS["liver"], IDS["spleen"], IDS["ribs"]]
    assert reason_to_refuse(labels, GRID, SILENT, min_organs=4) is None
    assert reason_to_refuse(labels, GRID, SILENT, min_organs=5) == "4 organs in view, expected at least 5"
