"""The 19 structures have the places, neighbours and sizes of an adult's, in every body."""

import numpy as np
import pytest
from scipy import ndimage

from guidegen_diffusers.labels import CLASSES, TUMOR

from .patients import IDS, ORGANS, points, volume


# Millilitres of one adult. Masses of the reference man and woman are those of ICRP Publication 89 (2002), 1.05 g/ml;
# the extremes of liver and spleen those of 102 healthy women by Molina and DiMaio (2015): 775 to 2395 g and from 51 g.
VOLUMES = {
    "liver": (735, 2300),  # ICRP 89: 1800 and 1400 g
    "spleen": (48, 380),  # ICRP 89: 150 and 130 g; Caglar et al. 2014: 198 +- 88 ml
    "kidney": (180, 550),  # both. ICRP 89: 310 and 275 g
    "pancreas": (30, 160),  # ICRP 89: 140 and 120 g; Saisho et al. 2007: 72 +- 26 ml, a third more in the obese
    "lung": (2500, 8500),  # air and tissue. ICRP 66 (1994): total capacity 7.0 and 5.0 l
    "heart": (400, 1100),  # ICRP 89: 840 and 620 g with the blood in it
    "stomach": (100, 1000),  # ICRP 89: wall and content 400 and 370 g, and air
    "urinary_bladder": (40, 500),  # capacity of adults 400 to 500 ml
    "gallbladder": (10, 90),  # ICRP 89: 68 and 56 g with the bile
    "adrenal_gland": (4, 20),  # both. ICRP 89: 14 and 13 g
    "small_bowel": (450, 1600),  # ICRP 89: wall and content 1000 and 880 g
    "colon": (250, 1200),  # ICRP 89: wall and content 670 and 680 g, and gas
}


def touching(case, one, other):
    """Whether two organs have neighbouring voxels."""
    return (ndimage.binary_dilation(case.labels == IDS[one], np.ones((3, 3, 3))) & (case.labels == IDS[other])).any()


def spine_x(case, z):
    """The spine's x at the heights z."""
    bone = points(case, "vertebrae")
    heights = np.unique(bone[:, 2])
    return np.interp(z, heights, [bone[bone[:, 2] == h][:, 0].mean() for h in heights])


def side(case, name):
    """How far to the right of the spine the middle of an organ lies, in mm."""
    middle = points(case, name).mean(0)
    return middle[0] - spine_x(case, middle[2])


def slices(case, name):
    """The slices that show an organ, from the lowest up."""
    return np.flatnonzero((case.labels == IDS[name]).any((0, 1)))


def pieces(mask):
    """Sizes of the connected pieces of a mask, the largest first."""
    labeled, _ = ndimage.label(mask, np.ones([3] * mask.ndim))
    return np.sort(np.bincount(labeled.ravel())[1:])[::-1]


# ------------------------------------------------------------------------------------------------------ everywhere


def test_every_structure_is_there_and_nothing_else(crowd, fine):
    for case in crowd + fine:
        assert set(np.unique(case.labels)) == {c.id for c in CLASSES} - {TUMOR}


@pytest.mark.parametrize("name", VOLUMES)
def test_volumes_are_those_of_adults(crowd, name):
    low, high = VOLUMES[name]
    volumes = np.array([volume(case, name) for case in crowd])
    assert low <= volumes.min() <= volumes.max() <= high
    assert volumes.std() > 0.05 * volumes.mean()  # people differ


@pytest.mark.parametrize("name", ["liver", "heart", "lung", "kidney", "pancreas", "vertebrae", "aorta"])
def test_a_woman_s_organs_are_smaller_than_a_man_s(pairs, name):
    man, woman = (np.mean([volume(pair[k], name) for pair in pairs]) for k in (0, 1))
    assert 0.7 * man < woman < 0.95 * man


@pytest.mark.parametrize("name", ["colon", "heart", "pancreas", "urinary_bladder", "aorta", "portal_and_splenic_vein"])
def test_an_organ_is_one_piece(crowd, name):
    """The colon from the rectum to the caecum, the portal vein from the spleen to the liver."""
    for case in crowd:
        assert len(pieces(case.labels == IDS[name])) == 1


@pytest.mark.parametrize("name", ["liver", "spleen", "stomach", "duodenum", "small_bowel"])
def test_an_organ_has_hardly_a_voxel_that_its_neighbors_cut_off(crowd, name):
    for case in crowd:
        largest, *rest = pieces(case.labels == IDS[name])
        assert sum(rest) < 0.03 * largest


def test_organs_lie_within_the_body_and_bodies_within_the_image(crowd):
    for case in crowd:
        air, _ = ndimage.label(ndimage.binary_opening(case.ct < -300, np.ones((3, 3, 3))))
        around = air == air[1, -2, 48]  # in front of the right side
        assert around.mean() > 0.1
        assert around[case.labels > 0].mean() < 1e-3
        assert not (case.labels[[0, -1]] > 0).any()
        assert not (case.labels[:, [0, -1]] > 0).any()


# ---------------------------------------------------------------------------------------------------------- chest


def test_a_lung_lies_on_each_side_of_the_spine(crowd):
    for case in crowd:
        lung = points(case, "lung")
        right = (lung[:, 0] > spine_x(case, lung[:, 2])).mean()
        assert 0.4 < right < 0.65  # the right one is the larger: the heart lies left
        first, second, *rest = pieces(case.labels == IDS["lung"])
        assert second > 0.6 * first
        assert sum(rest) < 0.02 * first


def test_the_heart_lies_between_the_lungs_in_front_of_the_spine_and_to_the_left(crowd):
    for case in crowd:
        heart, lung = points(case, "heart"), points(case, "lung")
        assert side(case, "heart") < 0
        assert heart[:, 1].mean() > points(case, "vertebrae")[:, 1].max()
        assert lung[:, 0].min() < heart[:, 0].min()
        assert lung[:, 0].max() > heart[:, 0].max()
        assert lung[:, 2].min() < heart[:, 2].mean() < lung[:, 2].max()


def test_the_aortic_arch_lies_above_the_heart_with_a_lung_on_either_side(crowd):
    for case in crowd:
        top = slices(case, "aorta").max()
        assert top > slices(case, "heart").max()
        x = np.argwhere(case.labels[:, :, top] == IDS["aorta"])[:, 0].mean()
        lung = np.argwhere(case.labels[:, :, top] == IDS["lung"])[:, 0]
        assert min((lung < x).sum(), (lung > x).sum()) * 36 > 2000  # mm^2


def test_the_aorta_rises_before_the_heart_s_height_and_descends_beside_the_spine(crowd):
    """Two aortas in a slice under the arch: the ascending one in front on the right of the descending one."""
    for case in crowd:
        middle = (slices(case, "aorta").max() + slices(case, "heart").max()) // 2
        labeled, count = ndimage.label(case.labels[:, :, middle] == IDS["aorta"], np.ones((3, 3)))
        assert count in (1, 2)  # at the level of the arch itself they are one
        if count == 2:
            one, two = sorted(ndimage.center_of_mass(labeled > 0, labeled, (1, 2)), key=lambda c: c[1])
            assert two[0] > one[0]
            assert (two[1] - one[1]) * 6 > 30


def test_the_esophagus_runs_from_the_neck_to_the_stomach_behind_the_heart(crowd):
    for case in crowd:
        esophagus, heart = points(case, "esophagus"), points(case, "heart")
        assert touching(case, "esophagus", "stomach")
        assert esophagus[:, 2].max() > 200
        beside = esophagus[(esophagus[:, 2] > heart[:, 2].min()) & (esophagus[:, 2] < heart[:, 2].max())]
        assert beside[:, 1].mean() < heart[:, 1].mean() - 30


def test_ribs_form_a_cage_around_the_lungs(crowd):
    for case in crowd:
        ribs, lung = points(case, "ribs"), points(case, "lung")
        assert (ribs[:, :2].min(0) < lung[:, :2].min(0)).all()
        assert (ribs[:, :2].max(0) > lung[:, :2].max(0) - (0, 20)).all()  # cartilage closes it in front
        assert 0.45 < (ribs[:, 0] > spine_x(case, ribs[:, 2])).mean() < 0.55


# -------------------------------------------------------------------------------------------------------- abdomen


def test_the_liver_lies_right_and_stomach_and_spleen_left(crowd):
    for case in crowd:
        assert side(case, "liver") > 20
        assert side(case, "gallbladder") > 20
        assert side(case, "stomach") < -20
        assert side(case, "spleen") < -50
        assert points(case, "spleen")[:, 1].mean() < points(case, "stomach")[:, 1].mean()


def test_the_lungs_lie_above_the_liver(crowd):
    """Under each column of lung and liver voxels, lung is never below liver."""
    for case in crowd:
        z = np.arange(case.labels.shape[2])
        lung, liver = case.labels == IDS["lung"], case.labels == IDS["liver"]
        both = lung.any(2) & liver.any(2)
        lowest = np.where(lung, z, 999).min(2)
        highest = np.where(liver, z, -1).max(2)
        assert both.sum() > 100
        assert (lowest > highest)[both].mean() > 0.95


def test_kidneys_lie_beside_the_lumbar_spine_the_right_one_lower(crowd):
    lower = 0
    for case in crowd:
        kidney = points(case, "kidney")
        right = kidney[:, 0] > spine_x(case, kidney[:, 2])
        heights = kidney[right][:, 2].mean(), kidney[~right][:, 2].mean()
        lower += heights[0] < heights[1]
        assert 0.35 < right.mean() < 0.65
        for height, extent in zip(heights, (kidney[right][:, 2], kidney[~right][:, 2]), strict=True):
            assert -85 < height < -5  # the first to third lumbar vertebra, whose middle is the origin
            assert 80 <= np.ptp(extent) + 6 <= 135  # mm, adults' 9 to 13 cm
        assert kidney[:, 1].mean() < points(case, "liver")[:, 1].mean()
    assert lower > 0.8 * len(crowd)


def test_an_adrenal_gland_sits_on_each_kidney(crowd):
    for case in crowd:
        gland, kidney = points(case, "adrenal_gland"), points(case, "kidney")
        for direction in (-1, 1):
            above, below = (p[direction * (p[:, 0] - spine_x(case, p[:, 2])) > 0] for p in (gland, kidney))
            assert len(above)
            assert above[:, 2].mean() > below[:, 2].mean() + 20
            assert np.linalg.norm(above.mean(0)[:2] - below.mean(0)[:2]) < 60


def test_the_aorta_lies_left_of_the_vena_cava_in_the_abdomen(crowd):
    for case in crowd:
        aorta, cava = points(case, "aorta"), points(case, "inferior_vena_cava")
        for z in np.intersect1d(aorta[:, 2], cava[:, 2]):
            if -100 < z < 0:
                assert aorta[aorta[:, 2] == z][:, 0].mean() < cava[cava[:, 2] == z][:, 0].mean() - 5


@pytest.mark.parametrize("name", ["aorta", "inferior_vena_cava"])
def test_vessels_divide_into_two_iliac_branches(crowd, name):
    for case in crowd:
        low = case.labels[:, :, slices(case, name).min() + 3] == IDS[name]
        labeled, count = ndimage.label(low, np.ones((3, 3)))
        assert count == 2
        place = spine_x(case, 0)
        x = sorted(m[0] * 6 + case.affine[0, 3] for m in ndimage.center_of_mass(low, labeled, (1, 2)))
        assert x[0] < place < x[1]


def test_organs_touch_their_neighbors(crowd):
    for case in crowd[::3]:
        for one, other in (
            ("duodenum", "pancreas"),
            ("duodenum", "stomach"),
            ("portal_and_splenic_vein", "liver"),
            ("portal_and_splenic_vein", "pancreas"),
            ("portal_and_splenic_vein", "spleen"),
            ("gallbladder", "liver"),
            ("inferior_vena_cava", "liver"),
            ("aorta", "heart"),
            ("ribs", "vertebrae"),
            ("small_bowel", "colon"),
        ):
            assert touching(case, one, other), (one, other)


def test_the_colon_frames_the_small_bowel(crowd):
    for case in crowd:
        colon, bowel = points(case, "colon"), points(case, "small_bowel")
        assert colon[:, 0].min() < bowel[:, 0].min()
        assert colon[:, 0].max() > bowel[:, 0].max()
        assert colon[:, 2].max() > bowel[:, 2].max()
        assert colon[:, 2].min() < bowel[:, 2].min()


def test_the_bladder_is_the_lowest_organ_of_the_abdomen(crowd):
    for case in crowd:
        heights = {name: points(case, name)[:, 2].mean() for name in ORGANS}
        assert min(heights, key=heights.get) == "urinary_bladder"
        assert abs(side(case, "urinary_bladder")) < 25
        colon = points(case, "colon")
        assert colon[:, 2].min() < points(case, "urinary_bladder")[:, 2].mean()  # the rectum, behind it
        assert colon[colon[:, 2] < -220][:, 1].mean() < points(case, "urinary_bladder")[:, 1].mean() - 40


# ---------------------------------------------------------------------------------------------------------- spine


def lumbar_bones(case):
    """Middles (y, z in mm) of the pieces of bone that a sagittal plane through the lumbar spine cuts: front, back."""
    plane = round((spine_x(case, -60) - case.affine[0, 3]) / 3)
    height = case.affine[2, 3] + 3 * np.arange(case.labels.shape[2])
    bone = (case.labels[plane] == IDS["vertebrae"]) & (height > -150) & (height < 25)
    labeled, count = ndimage.label(bone, np.ones((3, 3)))
    sizes = np.bincount(labeled.ravel())[1:]
    large = [i + 1 for i in range(count) if sizes[i] > 12]
    middles = np.array(ndimage.center_of_mass(bone, labeled, large)) * 3 + case.affine[1:3, 3]
    front = middles[:, 0] > middles[:, 0].mean()
    return middles[front], middles[~front]


def test_discs_part_the_lumbar_vertebrae(fine):
    for case in fine:
        bodies, _ = lumbar_bones(case)
        assert len(bodies) in (5, 6)
        pitch = np.diff(np.sort(bodies[:, 1]))[1:-1]  # the window may cut the first and the last
        assert ((pitch > 28) & (pitch < 42)).all()  # mm, a vertebra with its disc


def test_lumbar_vertebrae_have_spinous_processes_behind_an_open_canal(fine):
    for case in fine:
        bodies, processes = lumbar_bones(case)
        assert len(processes) >= 5
        for y, z in processes:
            body = bodies[np.abs(bodies[:, 1] - z).argmin()]
            assert 30 < body[0] - y < 65  # mm


def behind_the_spine(case):
    """Height of each slice and the mm of soft tissue straight behind its rearmost bone, up to the air or the couch."""
    bone, step = case.labels == IDS["vertebrae"], case.grid.spacing[0]
    rows = []
    for z in np.flatnonzero(bone.any((0, 1))):
        x, y = min(np.argwhere(bone[:, :, z]), key=lambda place: place[1])
        air = np.flatnonzero(case.ct[x, :y, z] < -450)
        rows.append((case.affine[2, 3] + step * z, step * (y - 1 - air.max(initial=-1))))
    return np.array(rows).T


def test_spinous_processes_lie_under_muscle_and_fat(crowd, fine):
    """In the loins always; lean backs show those of the chest."""
    chest = []
    for case in crowd + fine:
        z, depth = behind_the_spine(case)
        assert depth[(z > -150) & (z < 25)].min() >= 6
        chest.append(depth[(z >= 25) & (z < 230)])
    assert np.mean([depth.min() >= 6 for depth in chest]) > 0.6  # of the bodies, in every slice
    assert np.mean(np.concatenate(chest) >= 6) > 0.9


def test_the_spine_runs_through_the_whole_torso(crowd):
    for case in crowd:
        assert np.ptp(points(case, "vertebrae")[:, 2]) > 400
        lung = points(case, "lung")
        assert points(case, "vertebrae")[:, 2].max() >= lung[:, 2].max() - 30


# ------------------------------------------------------------------------------------------------------------- age


def test_age_widens_the_aorta_and_shrinks_the_pancreas(ages):
    for young, old in ages:
        assert volume(old, "aorta") > 1.05 * volume(young, "aorta")
        assert volume(old, "pancreas") < volume(young, "pancreas")
