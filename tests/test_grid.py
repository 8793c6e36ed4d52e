"""Grids: where voxels lie, and how label maps come to lie on another."""

import tracemalloc
from pathlib import Path

import nibabel as nib
import nibabel.eulerangles
import numpy as np
import pytest
from hypothesis import example, given, settings
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


@settings(max_examples=30)
@given(
    shape=SHAPES, spacing=st.floats(0.5, 30), center=st.tuples(*[st.floats(-500, 500)] * 3), seed=st.integers(0, 99)
)
def test_resampling_onto_the_same_grid_changes_nothing(shape, spacing, center, seed):
    labels = np.random.default_rng(seed).integers(0, 21, shape, dtype=np.uint8)
    grid = Grid.centered(shape, spacing, center)
    assert np.array_equal(grid.resample_labels(labels, grid.affine), labels)


@settings(max_examples=30)
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


@example(shape=(3, 3, 5), spacing=15.65625, seed=30)  # a voxel of 0 HU, next to which a share of 1e-16 shows
@given(shape=SHAPES, spacing=st.floats(0.5, 30), seed=st.integers(0, 99))
def test_a_ct_on_the_same_grid_changes_nothing(shape, spacing, seed):
    ct = np.random.default_rng(seed).integers(-1024, 3071, shape, dtype=np.int16)
    grid = Grid.centered(shape, spacing, (1, 2, 3))
    assert np.array_equal(grid.resample_ct(ct, grid.affine), ct)


@settings(max_examples=30)
@given(order=st.permutations([0, 1, 2]), flips=st.tuples(*[st.sampled_from([1, -1])] * 3), seed=st.integers(0, 99))
def test_any_storage_order_of_the_same_ct_gives_the_same(order, flips, seed):
    ct = np.random.default_rng(seed).integers(-1024, 3071, (4, 5, 6), dtype=np.int16)
    source, grid = Grid.centered(ct.shape, 1.3), Grid.centered((5, 4, 3), 2.0, (0.3, 0.2, 0.1))
    orientation = np.array([[axis, flip] for axis, flip in zip(order, flips, strict=True)], float)
    stored = nib.orientations.apply_orientation(ct, orientation)
    affine = source.affine @ nib.orientations.inv_ornt_aff(orientation, ct.shape)
    expected = grid.resample_ct(ct, source.affine)
    np.testing.assert_allclose(grid.resample_ct(stored, affine), expected, atol=1e-2)


def some_affine(rng, shape, oblique):
    """A source with its middle at 0: any axes and voxel sizes, turned a little or by whole axes."""
    axes = np.diag(rng.uniform(0.6, 3, 3) * rng.choice([1, -1], 3))[rng.permutation(3)]
    if oblique:
        axes = nib.eulerangles.euler2mat(*rng.uniform(-0.6, 0.6, 3)) @ axes
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = -axes @ ((np.asarray(shape) - 1) / 2)
    return affine


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), oblique=st.booleans())
def test_each_voxel_of_a_ct_is_the_mean_of_linear_interpolations_in_it(seed, oblique):
    """Against the definition, voxel by voxel, where the source reaches and where it does not."""
    rng = np.random.default_rng(seed)
    ct = rng.integers(-1000, 1000, rng.integers(2, 9, 3)).astype(np.int16)
    affine = some_affine(rng, ct.shape, oblique)
    grid = Grid.centered(rng.integers(1, 5, 3), rng.uniform(1, 5), rng.uniform(-3, 3, 3))
    points = [int(np.ceil(s / np.linalg.norm(affine[:3, :3], axis=0).min() - 1e-3)) for s in grid.spacing]
    expected, near_an_end = np.zeros(grid.shape), np.zeros(grid.shape, bool)
    for voxel in np.ndindex(*grid.shape):
        values = []
        for step in np.ndindex(*(min(n, 8) for n in points)):
            inside = voxel + (np.array(step) + 0.5) / np.minimum(points, 8) - 0.5
            x = (np.linalg.inv(affine) @ grid.affine @ [*inside, 1])[:3]
            edge = np.minimum(x + 0.5, np.array(ct.shape) - 0.5 - x)
            near_an_end[voxel] |= np.abs(edge).min() < 1e-5
            if edge.min() < 0:
                values.append(-1024)
                continue
            x = x.clip(0, np.array(ct.shape) - 1)
            low = np.minimum(np.floor(x).astype(int), np.array(ct.shape) - 2)
            share = x - low
            corners = [(low + c, np.prod(np.where(c, share, 1 - share))) for c in map(np.array, np.ndindex(2, 2, 2))]
            values.append(sum(ct[tuple(corner)] * weight for corner, weight in corners))
        expected[voxel] = np.mean(values)
    found = grid.resample_ct(ct, affine)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[~near_an_end], expected[~near_an_end], atol=0.02)


def test_a_fine_ct_is_averaged_and_not_thinned_out():
    noise = np.random.default_rng(0).normal(0, 100, (60, 60, 60)).astype(np.float32)
    coarse = Grid.centered((20, 20, 20), 3.0).resample_ct(noise, Grid.centered(noise.shape, 1.0).affine)
    assert coarse.std() == pytest.approx(100 / 27**0.5, rel=0.05)
    stripes = np.broadcast_to((np.arange(60) % 2 * 200).astype(np.int16), (60, 60, 60))
    coarse = Grid.centered((10, 10, 10), 6.0).resample_ct(stripes, Grid.centered(stripes.shape, 1.0).affine)
    np.testing.assert_allclose(coarse, 100, atol=1e-3)


def test_beyond_the_source_lies_air():
    grid = Grid.centered((6, 6, 6), 2.0)
    ct = np.full((2, 2, 2), 50, np.int16)
    result = grid.resample_ct(ct, Grid.centered((2, 2, 2), 2.0).affine)
    assert (result[2:4, 2:4, 2:4] == 50).all()
    assert (result == -1024).sum() == 6**3 - 8
    turned = Grid.centered((2, 2, 2), 2.0, (500, 0, 0)).affine
    turned[:3, :3] = nib.eulerangles.euler2mat(0.3, 0.2, 0.1) * 2
    assert (grid.resample_ct(ct, turned) == -1024).all()


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), oblique=st.booleans())
def test_ct_and_labels_stay_in_one_place_in_the_world(seed, oblique):
    """A ball in both, on any axes: its middle stays within half a voxel, and the two agree."""
    rng = np.random.default_rng(seed)
    shape = rng.integers(24, 40, 3)
    affine = some_affine(rng, shape, oblique)
    extent = np.abs(affine[:3, :3]) @ shape
    radius = 0.25 * np.min(np.linalg.norm(affine[:3, :3], axis=0) * shape)
    middle = rng.uniform(-0.05, 0.05, 3) * extent
    places = np.moveaxis(np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")), 0, -1) @ affine[:3, :3].T
    ball = np.linalg.norm(places + affine[:3, 3] - middle, axis=-1) < radius
    spacing, volume = radius / 4, ball.sum() * abs(np.linalg.det(affine[:3, :3]))
    grid = Grid.centered(np.ceil(extent / spacing).astype(int) + 2, spacing)
    labels = grid.resample_labels(ball.astype(np.uint8) * 3, affine) == 3
    ct = grid.resample_ct(np.where(ball, 1000, -1000).astype(np.int16), affine)
    for weights in (labels.astype(float), (ct.clip(-1000) + 1000) / 2000):
        assert weights.sum() * spacing**3 == pytest.approx(volume, rel=0.2)
        voxel = np.array([(weights * i).sum() for i in np.ogrid[tuple(map(slice, grid.shape))]]) / weights.sum()
        assert np.abs((grid.affine @ [*voxel, 1])[:3] - middle).max() < spacing / 2
    assert np.mean((ct > 0) == labels) > 0.98


def test_resampling_holds_little_beside_the_source_and_the_result():
    source = Grid.centered((300, 300, 200), 1.0)
    ct, labels = np.zeros(source.shape, np.int16), np.zeros(source.shape, np.uint8)
    grid = Grid.centered((96, 96, 64), 3.0)
    affine = source.affine.copy()
    affine[0, 1] = 0.05  # no shortcut for agreeing axes
    for resample, volume in ((grid.resample_ct, ct), (grid.resample_labels, labels)):
        for on in (source.affine, affine):
            tracemalloc.start()
            resample(volume, on)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 20e6  # a float64 copy of the source would be 144 MB


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
