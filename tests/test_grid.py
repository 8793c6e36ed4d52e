"""Grids: where voxels lie, and how label maps come to lie on another."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guidegen_diffusers.grid import Grid, check_affine
from guidegen_diffusers.labels import CLASSES, from_totalsegmentator


REAL = Path(__file__).parents[2] / "shared" / "data" / "totalsegmentator" / "segmentation.nii.gz"
SHAPES = st.tuples(*[st.integers(1, 9)] * 3)


@given(shape=SHAPES, spacing=st.floats(0.5, 30), center=st.tuples(*[st.floats(-500, 500)] * 3))
def test_a_centered_grid_has_its_center_spacing_and_ras_axes(shape, spacing, center):
    grid = Grid.centered(shape, spacing, center)
    np.testing.assert_allclose(grid.center, center, atol=1e-6)
    np.testing.assert_allclose(grid.spacing, spacing)
    assert nib.aff2axcodes(grid.affine) == ("R", "A", "S")


@settings(max_examples=30, deadline=None)
@given(
    shape=SHAPES, spacing=st.floats(0.5, 30), center=st.tuples(*[st.floats(-500, 500)] * 3), seed=st.integers(0, 99)
)
def test_resampling_onto_the_same_grid_changes_nothing(shape, spacing, center, seed):
    labels = np.random.default_rng(seed).integers(0, 21, shape, dtype=np.uint8)
    grid = Grid.centered(shape, spacing, center)
    assert np.array_equal(grid.resample_labels(labels, grid.affine), labels)


@settings(max_examples=30, deadline=None)
@given(
    shape=SHAPES,
    order=st.permutations([0, 1, 2]),
    flips=st.tuples(*[st.sampled_from([1, -1])] * 3),
    seed=st.integers(0, 99),
)
def test_any_storage_order_of_the_same_volume_gives_the_same(shape, order, flips, seed):
    """A flipped or transposed file with the matching affine is the same anatomy: left stays left."""
    labels = np.random.default_rng(seed).integers(0, 21, shape, dtype=np.uint8)
    grid = Grid.centered(shape, 3.0)
    orientation = np.array([[axis, flip] for axis, flip in zip(order, flips, strict=True)], float)
    stored = nib.orientations.apply_orientation(labels, orientation)
    affine = grid.affine @ nib.orientations.inv_ornt_aff(orientation, shape)
    assert np.array_equal(grid.resample_labels(stored, affine), labels)


def test_a_finer_map_is_brought_down_by_majority():
    fine = np.zeros((8, 8, 8), np.uint8)
    fine[:4] = 3
    fine[0, 0, 0] = 20  # one of 64 fine voxels does not win
    fine[4:8, 0:4, 0:4] = 6
    fine[4, 0, 0] = 0
    coarse = Grid.centered((2, 2, 2), 4.0)
    result = coarse.resample_labels(fine, Grid.centered(fine.shape, 1.0).affine)
    assert result.tolist() == [[[3, 3], [3, 3]], [[6, 0], [0, 0]]]


def test_volumes_in_millilitres_survive_resampling():
    axes = np.ogrid[tuple(slice(-30, 30) for _ in range(3))]
    ball = (sum(a**2 for a in axes) < 25**2).astype(np.uint8) * 3  # 1 mm
    source = Grid.centered(ball.shape, 1.0, (3.3, -8.1, 100.7))
    for spacing in (1.5, 2.0, 3.0, 6.0):
        grid = Grid.centered([round(70 / spacing)] * 3, spacing, source.center)
        volume = (grid.resample_labels(ball, source.affine) == 3).sum() * spacing**3
        assert volume == pytest.approx((ball == 3).sum(), rel=0.03)


@pytest.mark.parametrize(("fine", "coarse"), [(3.0, 6.0), (1.5, 6.0), (2.0, 3.0)])
def test_a_tumor_keeps_its_volume_as_well_as_an_organ_does(fine, coarse):
    """Within the liver, whose id is lower: ties must not all go to the lower id."""
    n = round(150 / fine)
    axes = np.ogrid[tuple(slice(n) for _ in range(3))]
    ball = sum(((a + 0.5) * fine - 75.3) ** 2 for a in axes) < 20**2
    source = Grid.centered((n, n, n), fine)
    grid = Grid.centered([round(150 / coarse)] * 3, coarse)
    kept = {}
    for inside, outside in ((20, 3), (1, 3)):
        volume = np.where(ball, inside, outside).astype(np.uint8)
        kept[inside] = (
            (grid.resample_labels(volume, source.affine) == inside).sum() * coarse**3 / (ball.sum() * fine**3)
        )
    assert kept[20] == pytest.approx(kept[1], rel=0.06)
    assert kept[20] == pytest.approx(1, rel=0.06)


@pytest.mark.skipif(not REAL.exists(), reason="the real label map is not here")
def test_organs_of_a_real_patient_keep_their_volume_and_place_at_6_mm():
    image = nib.load(REAL)
    labels = from_totalsegmentator(np.asarray(image.dataobj))
    grid = Grid.centered((64, 48, 96), 6.0, Grid(labels.shape, image.affine).center)
    coarse = grid.resample_labels(labels, image.affine)
    large = [c.id for c in CLASSES[1:] if (labels == c.id).sum() * 27 > 100_000]  # mm^3, more than 100 ml
    assert len(large) >= 8
    for organ in large:
        before, after = labels == organ, coarse == organ
        assert after.sum() * 216 == pytest.approx(before.sum() * 27, rel=0.04)
        places = (a @ [*np.argwhere(m).mean(0), 1] for a, m in ((image.affine, before), (grid.affine, after)))
        np.testing.assert_allclose(*places, atol=2)  # a third of a voxel


def test_beyond_the_source_lies_background():
    grid = Grid.centered((6, 6, 6), 2.0)
    labels = np.full((2, 2, 2), 5, np.uint8)
    result = grid.resample_labels(labels, Grid.centered((2, 2, 2), 2.0).affine)
    assert (result == 5).sum() == 8
    assert (result[2:4, 2:4, 2:4] == 5).all()
    far = grid.resample_labels(labels, Grid.centered((2, 2, 2), 2.0, (500, 0, 0)).affine)
    assert not far.any()


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.eye(3), "4 x 4"),
        (np.full((4, 4), np.nan), "finite"),
        (np.zeros((4, 4)), "last row"),
        (np.diag([1.0, 0, 1, 1]), "singular"),
        (np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]), "last row"),
    ],
)
def test_what_is_no_affine_is_refused(affine, message):
    with pytest.raises(ValueError, match=message):
        check_affine(affine)
