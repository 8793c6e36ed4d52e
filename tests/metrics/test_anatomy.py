"""Volumes and stray fragments have known answers on maps drawn by hand."""

import numpy as np
import pytest

from guidegen_diffusers import TorsoPhantom
from guidegen_diffusers.labels import CLASSES, TUMOR
from guidegen_diffusers.metrics import organ_volumes, stray_fraction


IDS = {c.name: c.id for c in CLASSES}
LIVER, KIDNEY = IDS["liver"], IDS["kidney"]


def test_volumes_are_voxels_times_their_size_and_0_where_there_are_none():
    labels = np.zeros((10, 10, 10), np.uint8)
    labels[:5, :4, :2] = LIVER
    volumes = organ_volumes(labels, np.diag([-2.0, 5.0, 10.0, 1.0]))
    assert volumes["liver"] == pytest.approx(4.0)
    assert volumes["spleen"] == 0.0
    assert "background" not in volumes


def test_an_organ_in_its_expected_pieces_has_no_strays():
    labels = np.zeros((20, 10, 10), np.uint8)
    labels[:5, :5, :5] = KIDNEY
    labels[10:15, :5, :5] = KIDNEY
    labels[:, 8:, :] = LIVER
    assert stray_fraction(labels) == 0.0


def test_pieces_beyond_the_largest_are_strays():
    labels = np.zeros((20, 10, 10), np.uint8)
    labels[:5, :4, :5] = LIVER  # 100 voxels
    labels[10, 5, 5:9] = LIVER  # 4 more, apart
    labels[15, 0, 0] = KIDNEY
    labels[17, 0, 0] = KIDNEY
    labels[19, 0, 0:2] = KIDNEY  # the third piece: the smallest of 2, 1, 1 is a stray
    assert stray_fraction(labels) == pytest.approx((4 + 1) / 108)


def test_pieces_that_touch_at_a_corner_or_across_a_tumour_are_one():
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[:3, :3, :3] = LIVER
    labels[3, 3, 3] = LIVER
    labels[4, 4, 4] = TUMOR
    labels[5:, 5:, 5:] = LIVER
    assert stray_fraction(labels) == 0.0
    labels[4, 4, 4] = 0
    assert stray_fraction(labels) > 0


def test_an_empty_map_has_no_strays():
    assert stray_fraction(np.zeros((3, 3, 3), np.uint8)) == 0.0


def test_phantoms_are_in_one_piece_and_speckle_is_seen():
    labels = TorsoPhantom((64, 48, 96), 6.0).sample(seed=3, ct=False).labels
    assert stray_fraction(labels) < 0.01
    noisy = labels.copy()
    rng = np.random.default_rng(0)
    noisy[rng.random(labels.shape) < 0.03] = LIVER
    assert stray_fraction(noisy) > 0.05
