"""The preview shows the case as it is: windows, sides, proportions, the tumour; and never fails."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guidegen_diffusers import Grid, labels
from guidegen_diffusers.preview import draw_panel, draw_preview


TUMOR_COLOR = np.array(labels.CLASSES[labels.TUMOR].color)


def panel(ct, volume, axis, view, scale=4.0):
    ones = np.ones(3) * scale
    box = tuple(int(n * scale) for n in np.delete(volume.shape, axis))
    image = draw_panel(ct, volume, (axis, volume.shape[axis] // 2, view), [0, 1], ones, box)
    return np.asarray(image).astype(int)


@pytest.mark.parametrize(
    ("view", "hu", "gray"),
    [
        ("lung window", -975, 0),
        ("lung window", -600, 128),
        ("lung window", -225, 255),
        ("lung window", 1000, 255),
        ("abdomen window", -50, 0),
        ("abdomen window", 50, 128),
        ("abdomen window", 150, 255),
        ("abdomen window", -1000, 0),
    ],
)
def test_windows_run_from_black_to_white_at_their_edges(view, hu, gray):
    volume = np.zeros((20, 20, 20), np.uint8)
    image = panel(np.full(volume.shape, hu, np.int16), volume, 2, view)
    assert image[40, 40].tolist() == [gray] * 3


def green_center(image):
    close = np.abs(image - TUMOR_COLOR).sum(-1) < 60
    assert close.any()
    return np.argwhere(close).mean(0) / close.shape


def test_the_patients_right_is_on_the_pictures_left_and_the_head_is_up():
    grid = Grid.centered((40, 40, 40), 5.0)
    volume = np.full(grid.shape, 3, np.uint8)
    volume[28:34, 15:25, 30:36] = labels.TUMOR  # to the patient's right, high
    flipped = nib.orientations.apply_orientation(volume, np.array([[1, -1], [0, 1], [2, -1]]))
    affine = grid.affine @ nib.orientations.inv_ornt_aff(np.array([[1, -1], [0, 1], [2, -1]]), volume.shape)
    pictures = [draw_preview(None, *stored) for stored in ((volume, grid.affine), (flipped, affine))]
    assert np.array_equal(*(np.asarray(p) for p in pictures))
    lpi = volume[::-1, ::-1, ::-1]  # as the preview orders it
    row, column = green_center(
        np.asarray(draw_panel(None, lpi, (1, 20, "labels"), [0, 1], np.ones(3) * 4.0, (160, 160))).astype(int)
    )
    assert column < 0.5
    assert row < 0.5


def test_the_tumor_is_outlined_in_every_window():
    volume = np.full((30, 30, 30), 3, np.uint8)
    volume[10:20, 10:20, 10:20] = labels.TUMOR
    ct = np.full(volume.shape, 60, np.int16)
    for view in ("lung window", "abdomen window", "labels"):
        image = panel(ct, volume, 2, view)
        close = np.abs(image - TUMOR_COLOR).sum(-1) < 60
        rows, columns = np.nonzero(close)
        assert rows.min() == pytest.approx(40, abs=4)
        assert columns.max() == pytest.approx(80, abs=4)


def test_proportions_are_millimetres():
    """A cube in the world is a square in every panel, whatever the voxels are."""
    volume = np.zeros((20, 40, 10), np.uint8)
    volume[5:15, 10:30, 3:8] = labels.TUMOR
    spacing = np.array([4.0, 2.0, 8.0])  # 40 mm on every axis
    for axis in range(3):
        box = tuple(np.delete(spacing * volume.shape, axis).astype(int).tolist())
        image = np.asarray(draw_panel(None, volume, (axis, volume.shape[axis] // 2, "labels"), [0, 1], spacing, box))
        close = np.abs(image.astype(int) - TUMOR_COLOR).sum(-1) < 60
        rows, columns = np.nonzero(close)
        assert np.ptp(rows) == pytest.approx(40, abs=5)
        assert np.ptp(columns) == pytest.approx(40, abs=5)


@settings(max_examples=12)
@given(
    shape=st.tuples(*[st.integers(1, 20)] * 3),
    spacing=st.floats(0.5, 12),
    seed=st.integers(0, 99),
    with_ct=st.booleans(),
    classes=st.sampled_from([1, 21]),
    title=st.text(max_size=400),
)
def test_it_never_fails(shape, spacing, seed, with_ct, classes, title):
    random = np.random.default_rng(seed)
    volume = random.integers(0, classes, shape, dtype=np.uint8)
    ct = random.integers(-1024, 3071, shape, dtype=np.int16) if with_ct else None
    picture = draw_preview(ct, volume, Grid.centered(shape, spacing).affine, title=title, subtitle=title)
    assert 1000 <= picture.width <= 1500
    assert picture.height <= 1500
