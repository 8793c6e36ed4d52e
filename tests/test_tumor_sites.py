"""Where the tumours of a map lie: known answers on painted boxes, whatever the storage order of the voxels."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from guidegen_diffusers import Grid
from guidegen_diffusers.labels import CLASSES, TUMOR
from guidegen_diffusers.prompts import SITES
from guidegen_diffusers.tumor_sites import Tumor, TumorFindings, colon_segment, find_site, lobe_depth, lung_lobe


IDS = {c.name: c.id for c in CLASSES}
GRID = Grid.centered((56, 40, 112), 5.0)
LUNGS = [site for site in SITES if site.endswith("_lung")]

# A torso of boxes, [low, high] in mm (right, front, up).
TORSO = [
    ("vertebrae", (-15, -90, -280), (15, -50, 270)),
    ("lung", (-120, -80, 40), (-20, 80, 240)),
    ("lung", (20, -80, 40), (120, 80, 240)),
    ("liver", (20, -60, -60), (115, 80, 35)),
    ("kidney", (-85, -80, -95), (-40, -30, 0)),
    ("kidney", (40, -80, -105), (85, -30, -65)),
    ("colon", (-20, -80, -285), (20, -50, -205)),  # the rectum, then around the frame
    ("colon", (-75, -15, -205), (20, 15, -180)),
    ("colon", (-120, -20, -180), (-95, 10, 5)),
    ("colon", (-95, 40, -90), (95, 85, -60)),
    ("colon", (80, -10, -195), (120, 30, -60)),
]
# a place inside each site
PLACES = {
    "left_upper_lung": (-70, 20, 200),
    "left_lower_lung": (-70, -40, 80),
    "right_upper_lung": (70, 20, 200),
    "right_middle_lung": (70, 60, 90),
    "right_lower_lung": (70, -50, 80),
    "left_kidney": (-60, -50, -50),
    "right_kidney": (60, -50, -85),
    "ascending_colon": (100, 10, -140),
    "transverse_colon": (0, 62, -75),
    "descending_colon": (-107, -5, -90),
    "sigmoid_or_rectum": (0, -62, -250),
}
MIRRORED = {
    "left_kidney": "right_kidney",
    "left_upper_lung": "right_upper_lung",
    "left_lower_lung": "right_lower_lung",
}


def box(labels, name, low, high):
    index = np.rint((np.array([low, high]) - GRID.affine[:3, 3]) / GRID.spacing).astype(int).clip(0, GRID.shape)
    labels[tuple(slice(a, b) for a, b in index.T)] = IDS[name]


def torso(*tumors, radius=12.5, without=()):
    """The boxes, and a ball of tumour around each of the places."""
    labels = np.zeros(GRID.shape, np.uint8)
    for name, low, high in TORSO:
        if name not in without:
            box(labels, name, low, high)
    for place in tumors:
        labels[ball(PLACES.get(place, place), radius)] = TUMOR
    return labels


def ball(center, radius, grid=GRID):
    axes = (o + s * np.arange(n) for o, s, n in zip(grid.affine[:3, 3], grid.spacing, grid.shape, strict=True))
    return sum((a - c) ** 2 for a, c in zip(np.ix_(*axes), center, strict=True)) <= radius**2


def find(labels, **settings):
    return find_site(labels, GRID.affine, **settings)


# --------------------------------------------------------------------------------------------------------- find_site


@pytest.mark.parametrize("site", PLACES)
def test_a_tumor_in_a_painted_torso_is_found_where_it_was_painted(site):
    for radius in (8, 12.5, 20):
        found = find(torso(site, radius=radius))
        assert (found.site, found.count) == (site, 1), radius
        (tumor,) = found.tumors
        assert tumor.volume_ml == pytest.approx((torso(site, radius=radius) == TUMOR).sum() * 0.125)
        np.testing.assert_allclose(tumor.center, PLACES[site], atol=4)


def test_no_tumor_is_none():
    assert find(torso()) == TumorFindings(())
    assert find(torso()).site == "none"
    assert find(torso()).count == 0


def test_a_tumor_in_the_liver_is_elsewhere():
    found = find(torso((60, 10, -20)))
    assert (found.site, found.count) == ("elsewhere", 1)


def test_a_tumor_in_the_open_is_elsewhere():
    assert find(torso((-100, -60, -250), radius=8)).site == "elsewhere"


@pytest.mark.parametrize("place", [(-107, 22, -90), (-107, -32, -90)])
def test_a_tumor_beside_an_organ_still_belongs_to_it(place):
    """Touching nothing, within 12 mm."""
    labels = torso(place, radius=7)
    assert find(labels).site == "descending_colon"


def test_tumors_come_largest_first_and_the_largest_in_one_of_our_sites_names_the_site():
    labels = torso("left_kidney", radius=10)
    labels[ball(PLACES["right_upper_lung"], 20)] = TUMOR
    found = find(labels)
    assert [t.site for t in found.tumors] == ["right_upper_lung", "left_kidney"]
    assert found.tumors[0].volume_ml > found.tumors[1].volume_ml
    labels[ball((65, 10, -15), 30)] = TUMOR
    found = find(labels)
    assert [t.site for t in found.tumors] == ["elsewhere", "right_upper_lung", "left_kidney"]
    assert found.site == "right_upper_lung"
    assert found.count == 3


def test_speckle_is_no_tumor():
    labels = torso("left_kidney")
    labels[20, 20, 100] = labels[40, 10, 90] = TUMOR  # an eighth of a millilitre each
    assert find(labels).count == 3
    assert find(labels, min_volume_ml=0.2).count == 1
    assert find(labels, min_volume_ml=1000).site == "none"


def test_voxels_that_touch_at_a_corner_are_one_tumor():
    labels = torso()
    labels[10, 10, 80] = labels[11, 11, 81] = TUMOR
    assert find(labels).count == 1


@settings(max_examples=40)
@given(
    place=st.tuples(st.floats(-110, 110), st.floats(-75, 80), st.floats(-270, 230)),
    order=st.permutations([0, 1, 2]),
    flips=st.tuples(*[st.sampled_from([1, -1])] * 3),
    shift=st.tuples(*[st.floats(-500, 500)] * 3),
)
@example(place=(60.0, -50, -85), order=[0, 1, 2], flips=(-1, 1, 1), shift=(0, 0, 0))
def test_storage_order_and_the_place_in_the_scanner_change_nothing(place, order, flips, shift):
    """A flipped, transposed or moved file with the matching affine is the same anatomy: left stays left."""
    labels = torso(place)
    orientation = np.array([[axis, flip] for axis, flip in zip(order, flips, strict=True)], float)
    stored = nib.orientations.apply_orientation(labels, orientation)
    affine = GRID.affine @ nib.orientations.inv_ornt_aff(orientation, labels.shape)
    affine[:3, 3] += shift
    one, other = find(labels), find_site(stored, affine)
    assert one.site == other.site
    assert one.count == other.count == 1
    assert one.tumors[0].volume_ml == pytest.approx(other.tumors[0].volume_ml)
    assert one.tumors[0].diameter_mm == pytest.approx(other.tumors[0].diameter_mm)
    np.testing.assert_allclose(np.add(one.tumors[0].center, shift), other.tumors[0].center, atol=1e-6)


@pytest.mark.parametrize("site", PLACES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_of_double_thickness_show_the_same_site(site, axis):
    thick = [slice(None)] * 3
    thick[axis] = slice(None, None, 2)
    step = np.diag([2.0 if i == axis else 1.0 for i in range(3)] + [1.0])
    assert find_site(torso(site)[tuple(thick)], GRID.affine @ step).site == site


@pytest.mark.parametrize(("site", "mirrored"), [*MIRRORED.items(), *((b, a) for a, b in MIRRORED.items())])
def test_the_mirror_image_has_its_tumor_on_the_other_side(site, mirrored):
    assert find(torso(site)[::-1]).site == mirrored


@pytest.mark.parametrize("site", ["left_kidney", "right_kidney", "left_upper_lung", "right_lower_lung"])
def test_a_map_without_vertebrae_still_has_two_sides(site):
    assert find(torso(site, without=("vertebrae",))).site == site


@pytest.mark.parametrize(("x", "side"), [(0, "left"), (45, "right")])
def test_a_crooked_spine_parts_left_from_right_at_the_tumor_s_height(x, side):
    labels = torso(without=("vertebrae", "kidney"))
    box(labels, "vertebrae", (10, -90, -140), (35, -50, -40))  # here it lies right of the middle
    for low, high in ((-280, -140), (-40, 270)):
        box(labels, "vertebrae", (-60, -90, low), (-30, -50, high))
    box(labels, "kidney", (x - 20, -45, -105), (x + 20, -5, -65))
    labels[ball((x, -25, -85), 12.5)] = TUMOR
    assert find(labels).site == f"{side}_kidney"


def test_the_largest_organ_next_door_does_not_take_the_tumor():
    """A renal tumour that presses on the liver stays one of the kidney."""
    labels = torso()
    labels[ball((60, -45, -62), 20)] = TUMOR
    assert find(labels).site == "right_kidney"


@pytest.mark.parametrize("spacing", [2.0, 3.0, 6.0])
@pytest.mark.parametrize("radius", [10, 15, 25])
def test_a_ball_s_diameter_is_known_within_a_voxel(spacing, radius):
    grid = Grid.centered((round(90 / spacing),) * 3, spacing)
    labels = np.full(grid.shape, IDS["lung"], np.uint8)
    labels[ball((1.1, -2.3, 0.7), radius, grid)] = TUMOR
    (tumor,) = find_site(labels, grid.affine).tumors
    assert tumor.diameter_mm == pytest.approx(2 * radius, abs=spacing)
    assert tumor.volume_ml == pytest.approx(4 / 3 * np.pi * radius**3 / 1000, rel=0.1)
    np.testing.assert_allclose(tumor.center, (1.1, -2.3, 0.7), atol=spacing / 2)


def test_the_diameter_is_the_long_axis():
    grid = Grid.centered((60, 60, 60), 2.0)
    x, y, z = np.ix_(*[2.0 * np.arange(60) - 59] * 3)
    labels = np.full(grid.shape, IDS["lung"], np.uint8)
    labels[((x + y) / 50) ** 2 + ((x - y) / 20) ** 2 + (z / 15) ** 2 < 1] = TUMOR  # half axes 35, 14 and 15 mm
    (tumor,) = find_site(labels, grid.affine).tumors
    assert tumor.diameter_mm == pytest.approx(50 * np.sqrt(2), abs=2)


@pytest.mark.parametrize("fill", [0, TUMOR])
def test_maps_without_any_organ_are_answered(fill):
    labels = np.full((6, 6, 6), fill, np.uint8)
    assert find_site(labels, GRID.affine).site == ("elsewhere" if fill else "none")
    labels[:] = 0
    labels[2, 2, 2] = TUMOR
    found = find_site(labels, GRID.affine)
    assert found.site == "elsewhere"
    assert found.tumors[0].diameter_mm == pytest.approx(5, abs=2.5)


def test_the_map_is_left_as_it_was():
    labels = torso("left_kidney")
    before = labels.copy()
    find(labels)
    assert np.array_equal(labels, before)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), organs=st.lists(st.integers(0, 20), min_size=1, max_size=21))
def test_any_map_gets_an_answer(seed, organs):
    """What a model generates need not be anatomy."""
    labels = np.random.default_rng(seed).choice(np.array(organs, np.uint8), (7, 6, 8))
    found = find_site(labels, Grid.centered(labels.shape, 6.0).affine)
    assert found.site in (*SITES, "elsewhere")
    assert found.count == len(found.tumors)
    volumes = [t.volume_ml for t in found.tumors]
    assert volumes == sorted(volumes, reverse=True)
    assert sum(volumes) == pytest.approx((labels == TUMOR).sum() * 0.216)
    assert all(isinstance(t, Tumor) and np.isfinite([t.diameter_mm, *t.center]).all() for t in found.tumors)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.full((4, 4, 4), 21), ValueError, r"class ids \[21\]"),
        (np.full((4, 4, 4), -1), ValueError, r"class ids \[-1\]"),
        (np.zeros((4, 4)), ValueError, "3-D"),
        (np.full((4, 4, 4), 0.5), ValueError, "fractional"),
    ],
)
def test_what_is_no_label_map_is_refused(labels, error, message):
    with pytest.raises(error, match=message):
        find_site(labels, GRID.affine)


@pytest.mark.parametrize(
    "affine", [np.eye(3), np.zeros((4, 4)), np.full((4, 4), np.nan), np.diag([6, 6, 0, 1]), np.diag([6, 6, 6, 2])]
)
def test_what_is_no_affine_is_refused_whether_there_is_a_tumor_or_not(affine):
    for labels in (torso(), torso("left_kidney")):
        with pytest.raises(ValueError, match="affine"):
            find_site(labels, affine)


# -------------------------------------------------------------------------------------------- lobes and segments


@given(up=st.floats(0, 1), front=st.floats(0, 1))
def test_every_place_of_a_lung_lies_in_one_lobe(up, front):
    for side in ("left", "right"):
        depths = sorted(float(lobe_depth(s, np.float64(up), np.float64(front))) for s in LUNGS if s.startswith(side))
        assert depths[-1] >= 0
        assert depths[-2] <= 0


@pytest.mark.parametrize(
    ("lobe", "up", "front"),
    [
        ("left_upper_lung", 0.95, 0.1),
        ("left_upper_lung", 0.2, 0.95),  # the lingula, where the right lung has its middle lobe
        ("left_lower_lung", 0.05, 0.5),
        ("left_lower_lung", 0.5, 0.05),  # the superior segment
        ("right_upper_lung", 0.95, 0.5),
        ("right_middle_lung", 0.2, 0.95),
        ("right_lower_lung", 0.05, 0.1),
    ],
)
def test_places_that_anatomy_knows_lie_in_their_lobe(lobe, up, front):
    extent = np.array([[-80.0, 40], [70, 240]])
    point = (np.nan, *(extent[0] + (front, up) * (extent[1] - extent[0])))
    assert lung_lobe(point, lobe.split("_")[0], extent) == lobe


@pytest.mark.parametrize("site", ["left_middle_lung", "left_kidney", "none", "lung"])
def test_a_lobe_that_is_none_is_refused(site):
    with pytest.raises(ValueError, match=r"site: got .* expected a lobe"):
        lobe_depth(site, np.zeros(2), np.zeros(2))


@pytest.mark.parametrize(
    ("segment", "place"),
    [
        ("sigmoid_or_rectum", (0.5, 0.05, 0.05)),
        ("sigmoid_or_rectum", (0.3, 0.5, 0.3)),
        ("descending_colon", (0.05, 0.4, 0.6)),
        ("descending_colon", (0.05, 0.45, 0.85)),
        ("transverse_colon", (0.5, 0.95, 0.7)),
        ("transverse_colon", (0.7, 0.9, 0.7)),
        ("ascending_colon", (0.95, 0.5, 0.6)),
        ("ascending_colon", (0.9, 0.6, 0.35)),
    ],
)
@given(
    low=st.tuples(*[st.floats(-500, 500)] * 3),
    size=st.tuples(*[st.floats(50, 500)] * 3),
)
@settings(max_examples=20)
def test_segments_follow_the_colon_wherever_it_lies_and_however_large_it_is(segment, place, low, size):
    """`place` is that in the box of the whole colon: from left to right, back to front, bottom to top."""
    assert colon_segment(np.add(low, np.multiply(place, size)), np.array([low, np.add(low, size)])) == segment
