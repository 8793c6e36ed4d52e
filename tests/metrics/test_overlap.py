"""Dice and HD95 have known answers, and HD95 is what brute force and MedPy find."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import cdist

from guidegen_diffusers import TorsoPhantom
from guidegen_diffusers.labels import CLASSES
from guidegen_diffusers.metrics import MISSED_MM, dice, hd95


LIVER = 3


def test_dice_of_maps_drawn_by_hand():
    a = np.array([1, 1, 1, 2, 0, 0], np.uint8)
    b = np.array([1, 1, 0, 0, 3, 0], np.uint8)
    assert dice(a, b) == {"spleen": pytest.approx(0.8), "kidney": 0.0, "liver": 0.0}
    assert dice(a, a) == {"spleen": 1.0, "kidney": 1.0}
    assert dice(np.zeros(3, np.uint8), np.zeros(3, np.uint8)) == {}


def block(*corner, shape=(30, 30, 30), side=6):
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(c, c + side) for c in corner)] = LIVER
    return labels


def by_brute_force(made, truth, spacing):
    """Every surface voxel of one map to every one of the other."""
    found = {}
    for c in CLASSES[1:]:
        surfaces = []
        for labels in (made, truth):
            inside = np.pad(labels == c.id, 1)
            faces = np.zeros_like(inside)
            for axis in range(3):
                for step in (-1, 1):
                    faces |= inside & ~np.roll(inside, step, axis)
            surfaces.append(np.argwhere(faces) * np.asarray(spacing, float))
        sizes = [len(points) for points in surfaces]
        if not all(sizes):
            found[c.name] = MISSED_MM if any(sizes) else 0.0
            continue
        apart = cdist(*surfaces)
        found[c.name] = float(np.percentile(np.concatenate([apart.min(0), apart.min(1)]), 95))
    return found


def test_hd95_of_like_maps_is_0_and_of_a_shift_by_plates_the_shift():
    plate = np.zeros((20, 20, 20), np.uint8)
    plate[:, :, 4] = LIVER
    assert hd95(plate, plate, 2.0)["liver"] == 0.0
    assert hd95(plate, np.roll(plate, 3, axis=2), (1.0, 1.0, 2.5))["liver"] == pytest.approx(7.5)


def test_hd95_does_not_see_one_voxel_in_a_hundred():
    far = block(4, 4, 4, side=10)
    far[29, 29, 29] = LIVER
    assert hd95(far, block(4, 4, 4, side=10), 1.0)["liver"] == 0.0
    far[24:, 24:, 24:] = LIVER
    assert hd95(far, block(4, 4, 4, side=10), 1.0)["liver"] > 15


def test_a_class_that_one_map_misses_counts_1000_and_one_that_neither_has_0():
    empty = np.zeros((30, 30, 30), np.uint8)
    for pair in ((block(1, 1, 1), empty), (empty, block(1, 1, 1))):
        found = hd95(*pair, 3.0)
        assert found["liver"] == MISSED_MM == 1000
        assert found["spleen"] == 0.0
    assert set(hd95(empty, empty, 3.0).values()) == {0.0}
    assert list(hd95(empty, empty, 3.0)) == [c.name for c in CLASSES[1:]]


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 8)] * 3),
    classes=st.integers(1, 4),
)
def test_hd95_is_what_brute_force_finds(seed, shape, spacing, classes):
    rng = np.random.default_rng(seed)
    made, truth = (rng.integers(0, classes + 1, shape).astype(np.uint8) for _ in range(2))
    found = hd95(made, truth, spacing)
    assert found == pytest.approx(by_brute_force(made, truth, spacing))
    assert hd95(truth, made, spacing) == pytest.approx(found)


def test_hd95_is_what_medpy_finds():
    medpy = pytest.importorskip("medpy.metric.binary")
    phantom = TorsoPhantom((32, 24, 48), 12.0)
    made, truth = (phantom.sample("lung cancer", seed=seed, ct=False).labels for seed in (1, 2))
    found = hd95(made, truth, (12.0, 10.0, 14.0))
    for c in CLASSES[1:]:
        pair = made == c.id, truth == c.id
        if pair[0].any() and pair[1].any():
            assert found[c.name] == pytest.approx(medpy.hd95(*pair, voxelspacing=(12.0, 10.0, 14.0)))


def test_hd95_tells_a_shrunken_organ_from_its_whole():
    whole = block(4, 4, 4, side=16)
    shrunken = np.where(ndimage.binary_erosion(whole > 0, iterations=2), LIVER, 0).astype(np.uint8)
    assert hd95(whole, whole, 6.0)["liver"] < 12 <= hd95(whole, shrunken, 6.0)["liver"] < 24


@pytest.mark.parametrize(
    ("made", "truth", "spacing", "message"),
    [
        (np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 5), np.uint8), 1.0, "(4, 4, 5)"),
        (np.zeros(4, np.uint8), np.zeros(4, np.uint8), 1.0, "(X, Y, Z)"),
        (np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), (1.0, 0.0, 1.0), "above 0"),
    ],
)
def test_maps_that_do_not_fit_are_named(made, truth, spacing, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        hd95(made, truth, spacing)
