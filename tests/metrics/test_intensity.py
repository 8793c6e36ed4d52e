"""Mean HU and tumour contrast have known answers on volumes drawn by hand."""

import numpy as np
import pytest

from guidegen_diffusers.labels import CLASSES, TUMOR
from guidegen_diffusers.metrics import mean_hu, tumor_contrast


IDS = {c.name: c.id for c in CLASSES}
LIVER, LUNG = IDS["liver"], IDS["lung"]


def drawn(inside=30, liver=100, lung=-800):
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[:10], labels[10:] = LIVER, LUNG
    labels[3:8, 8:12, 8:12] = TUMOR
    ct = np.where(labels == LIVER, liver, np.where(labels == LUNG, lung, inside)).astype(np.int16)
    return ct, labels


def test_mean_hu_is_of_each_class_that_is_there():
    ct, labels = drawn()
    means = mean_hu(ct, labels)
    assert means == {"liver": 100.0, "lung": -800.0, "tumor": 30.0}


def test_sums_do_not_overflow():
    labels = np.full((64, 64, 64), LUNG, np.uint8)
    assert mean_hu(np.full(labels.shape, -1024, np.int16), labels)["lung"] == -1024.0


@pytest.mark.parametrize(("inside", "expected"), [(30, -70.0), (150, 50.0), (100, 0.0)])
def test_contrast_is_to_the_organ_that_the_tumour_touches_most(inside, expected):
    ct, labels = drawn(inside)
    assert tumor_contrast(ct, labels, 6.0) == pytest.approx(expected)


def test_contrast_looks_at_the_organ_nearby_only():
    ct, labels = drawn()
    ct[labels == LIVER] = 100
    ct[0, 0, 0] = 30_000
    assert tumor_contrast(ct, labels, 6.0) == pytest.approx(-70.0)


def test_the_largest_tumour_counts():
    ct, labels = drawn()
    labels[15, 15, 15], ct[15, 15, 15] = TUMOR, 2000
    assert tumor_contrast(ct, labels, 6.0) == pytest.approx(-70.0)


def test_without_a_tumour_or_an_organ_around_it_there_is_no_contrast():
    ct, labels = drawn()
    assert tumor_contrast(ct, np.where(labels == TUMOR, LIVER, labels), 6.0) is None
    assert tumor_contrast(ct, np.where(labels == TUMOR, TUMOR, 0).astype(np.uint8), 6.0) is None
