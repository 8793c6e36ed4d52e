"""Shapes have the volume and the place that geometry gives them, on any grid, and paint obeys."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from guidegen_diffusers import Grid
from guidegen_diffusers.phantom.canvas import Canvas, frame, spline


def canvas(shape=(40, 40, 40), spacing=2.0, warp=0.0, scale=(1, 1, 1), seed=0):
    return Canvas(Grid.centered(shape, spacing), np.random.default_rng(seed), scale, warp)


def millilitres(mask, spacing=2.0):
    return mask.sum() * spacing**3 / 1000


def test_noise_has_mean_zero_and_variance_one():
    sheet = canvas((64, 48, 96), 6.0)
    fields = np.stack([sheet.noise(np.random.default_rng(seed), 30) for seed in range(4)])
    assert fields.mean() == pytest.approx(0, abs=0.05)
    assert fields.std() == pytest.approx(1, abs=0.05)


def test_noise_s_bumps_are_as_wide_as_its_cell():
    sheet = canvas((60, 60, 60), 4.0)
    for cell in (16, 40):
        field = sheet.noise(np.random.default_rng(0), cell)
        near, far = (np.corrcoef(field[k:].ravel(), field[:-k].ravel())[0, 1] for k in (cell // 8, cell // 2))
        assert near > 0.8
        assert abs(far) < 0.15


def test_warp_and_noise_are_the_same_at_the_same_place_of_any_grid():
    coarse, fine = canvas((11, 9, 13), 18.0, warp=3.5), canvas((33, 27, 39), 6.0, warp=3.5)
    middle = (slice(1, None, 3),) * 3
    for axis in "xyz":
        np.testing.assert_allclose(getattr(coarse, axis), getattr(fine, axis)[middle], atol=1e-3)
    noises = [sheet.noise(np.random.default_rng(1), 34) for sheet in (coarse, fine)]
    np.testing.assert_allclose(noises[0], noises[1][middle], atol=1e-4)


def test_without_a_warp_coordinates_are_the_world_s():
    sheet = canvas((5, 6, 7), 3.0)
    np.testing.assert_allclose(sheet.x[:, 0, 0], [-6, -3, 0, 3, 6], atol=1e-5)
    np.testing.assert_allclose(sheet.moved(np.array([[10.0, -20, 30]])), [[10, -20, 30]], atol=1e-4)


def test_points_move_to_where_the_warped_coordinates_say_they_are():
    sheet = canvas((64, 48, 96), 6.0, warp=3.5)
    rng = np.random.default_rng(2)
    points = rng.uniform((-150, -100, -240), (150, 100, 240), (200, 3)).astype(np.float32)
    moved = sheet.moved(points)
    assert np.linalg.norm(moved - points, axis=1).mean() > 2
    index = tuple(np.rint((moved - sheet.origin) / 6).astype(int).T)
    offset = moved - np.stack([sheet.axes[i][index[i]] for i in range(3)], 1)  # within the voxel
    back = np.stack([c[index] for c in (sheet.x, sheet.y, sheet.z)], 1) + offset
    assert np.abs(back - points).max() < 1.5


@pytest.mark.parametrize("radii", [(20, 20, 20), (30, 15, 10)])
def test_an_ellipsoid_has_its_volume_however_it_is_turned(radii):
    sheet = canvas()
    for axes in (None, frame((1, 2, 3))):
        box, d = sheet.ellipsoid((1.3, -2.1, 0.4), radii, axes)
        expected = 4 / 3 * np.pi * np.prod(radii) / 1000
        assert millilitres(d < 1) == pytest.approx(expected, rel=0.03)
        assert d.shape == sheet.x[box].shape


def test_a_turned_ellipsoid_is_longest_along_its_first_axis():
    sheet = canvas((60, 60, 60))
    direction = np.array([1, 2, 3]) / np.sqrt(14)
    box, d = sheet.ellipsoid((0, 0, 0), (40, 10, 10), frame(direction))
    places = np.argwhere(d < 1) * 2.0 + sheet.origin + [s.start * 2 for s in box]
    along = places @ direction
    assert np.ptp(along) == pytest.approx(80, abs=4)
    assert np.linalg.norm(places - along[:, None] * direction, axis=1).max() == pytest.approx(10, abs=2)


@given(direction=st.tuples(*[st.floats(-10, 10)] * 3).filter(lambda d: np.hypot(d[0], d[1]) > 0.1))
def test_a_frame_is_orthonormal_and_begins_with_its_direction(direction):
    axes = frame(direction)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(axes[:, 0], np.array(direction) / np.linalg.norm(direction), atol=1e-9)
    assert np.linalg.det(axes) == pytest.approx(1)
    assert axes[2, 2] >= 0  # as near up as can be


def test_a_spline_passes_through_its_rows_in_small_steps():
    rows = np.array([(0, 0, 0, 5), (30, 0, 10, 8), (30, 40, 20, 6), (0, 60, 60, 4)], np.float32)
    points, place = spline(rows, 2.0)
    for i, row in enumerate(rows):
        np.testing.assert_allclose(points[np.abs(place - i).argmin()], row, atol=1e-4)
    assert (np.diff(place) > 0).all()
    assert np.linalg.norm(np.diff(points[:, :3], axis=0), axis=1).max() < 3
    assert points[:, 3].min() > 0


@pytest.mark.parametrize("spacing", [1.0, 2.0, 3.0])
def test_a_tube_has_its_length_and_thickness(spacing):
    sheet = canvas((round(80 / spacing),) * 3, spacing)
    sheet.tube([(0, 0, -30, 8), (0, 0, 0, 8), (0, 0, 30, 8)], label=17, tissue=3)
    expected = (np.pi * 8**2 * 60 + 4 / 3 * np.pi * 8**3) / 1000
    assert millilitres(sheet.labels == 17, spacing) == pytest.approx(expected, rel=0.06)
    assert ((sheet.labels == 17) == (sheet.tissue == 3)).all()


def test_a_tube_s_lumen_leaves_its_wall():
    sheet = canvas((100, 100, 100), 1.0)
    sheet.tube([(0, 0, -30, 12), (0, 0, 30, 12)], label=9, tissue=2, lumen=(4.0, 5))
    lumen, tube = sheet.tissue == 5, sheet.labels == 9
    assert lumen.sum() == pytest.approx(np.pi * 8**2 * 60 + 4 / 3 * np.pi * 8**3, rel=0.1)
    assert (tube == (sheet.tissue > 0)).all()
    assert ndimage.distance_transform_edt(tube)[lumen].min() > 3.5  # as thick as it was asked for


def test_the_thinnest_tube_has_no_gaps():
    sheet = canvas((40, 40, 40), 6.0)
    sheet.tube([(-80, -60, -90, 0.5), (10, 30, 0, 0.5), (80, -20, 90, 0.5)], label=15)
    assert ndimage.label(sheet.labels == 15, np.ones((3, 3, 3)))[1] == 1


def test_a_body_s_tubes_are_as_large_as_the_body():
    small, large = (canvas((60, 60, 60), scale=(s, s, s)) for s in (0.9, 1.1))
    for sheet in (small, large):
        sheet.tube([(0, 0, -30, 10), (0, 0, 30, 10)], label=17)
    ratio = (large.labels == 17).sum() / (small.labels == 17).sum()
    assert ratio == pytest.approx((1.1 / 0.9) ** 3, rel=0.06)


def test_balls_beyond_the_grid_touch_nothing():
    sheet = canvas()
    assert not len(sheet.balls(np.array([[500.0, 0, 0], [0, -500, 0]], np.float32), 20.0))
    half = sheet.balls(np.array([[-40.0, 0, 0]], np.float32), 20.0)  # its middle lies on the grid's face
    assert len(half) * 2.0**3 == pytest.approx(2 / 3 * np.pi * 20**3, rel=0.05)
    assert len(half) == len(np.unique(half))


def test_paint_obeys_only_and_spare():
    sheet = canvas((6, 1, 1))
    sheet.labels[:, 0, 0] = [0, 1, 2, 3, 4, 5]
    everywhere = np.ones(sheet.shape, bool)
    painted = sheet.paint((slice(None),) * 3, everywhere, label=9, tissue=7, only=(1, 2, 3), spare=(2,))
    assert painted[:, 0, 0].tolist() == [False, True, False, True, False, False]
    assert sheet.labels[:, 0, 0].tolist() == [0, 9, 2, 9, 4, 5]
    assert sheet.tissue[:, 0, 0].tolist() == [0, 7, 0, 7, 0, 0]
    kept = sheet.paint_voxels(np.arange(6), tissue=8, spare=(9,))
    assert kept.tolist() == [0, 2, 4, 5]
    assert sheet.labels[:, 0, 0].tolist() == [0, 9, 2, 9, 4, 5]
    assert sheet.tissue[:, 0, 0].tolist() == [8, 7, 8, 7, 8, 8]
