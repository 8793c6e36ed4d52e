"""The CT is in Hounsfield units that radiology knows, phase by phase, with a scanner's noise, blur and table."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from guidegen_diffusers import Grid
from guidegen_diffusers.phantom import TorsoPhantom
from guidegen_diffusers.phantom.canvas import Canvas
from guidegen_diffusers.phantom.patient import PHASES, Patient
from guidegen_diffusers.phantom.scanner import scan
from guidegen_diffusers.phantom.tissues import Tissue, density, texture

from .patients import IDS, points, someone


# HU of an organ by phase: usual values of radiology texts, a scanner's and a patient's spread either way.
AORTA = {"native": (15, 60), "portal": (80, 200), "arterial": (200, 400)}
ORGANS = {
    "liver": {"native": (35, 75), "portal": (75, 135), "arterial": (45, 100)},
    "spleen": {"native": (30, 65), "portal": (90, 145), "arterial": (85, 170)},
    "kidney": {"native": (10, 55), "portal": (120, 220), "arterial": (90, 200)},
    "inferior_vena_cava": {"native": (20, 60), "portal": (90, 180), "arterial": (50, 150)},
    "portal_and_splenic_vein": {"native": (15, 60), "portal": (100, 200), "arterial": (50, 130)},
    "heart": {"native": (20, 60), "portal": (90, 180), "arterial": (140, 300)},
    "urinary_bladder": dict.fromkeys(PHASES, (-10, 30)),
    "lung": dict.fromkeys(PHASES, (-900, -730)),
    "vertebrae": dict.fromkeys(PHASES, (100, 400)),
}


def hu(case, name):
    """The HU of an organ; the median, for the surface is blurred."""
    return np.median(case.ct[case.labels == IDS[name]])


def phase(case):
    aorta = hu(case, "aorta")
    return next(name for name, (low, high) in AORTA.items() if low <= aorta <= high)


def photograph(sheet, seed=0, **changes):
    """What the scanner shows of a canvas without a tumour, of an average patient but for `changes`."""
    patient = dataclasses.replace(Patient.draw(someone(), np.random.default_rng(1)), habitus=0.0, **changes)
    return scan(sheet, sheet.tissue.copy(), patient, np.random.default_rng(seed)).astype(float)


def block(tissue, spacing=3.0, seed=0, **changes):
    """What the scanner shows of a block of one tissue, or of tissues along x."""
    sheet = Canvas(Grid.centered((40, 36, 32), spacing), np.random.default_rng(seed), (1, 1, 1), warp=0)
    sheet.tissue[:] = np.reshape(tissue, (-1, 1, 1)) if np.ndim(tissue) else tissue
    return photograph(sheet, seed, **changes)


def neighbors(ct):
    """Correlation of neighbouring voxels along each axis."""
    noise = ct - ct.mean()
    pairs = ((np.moveaxis(noise, axis, 0)[1:], np.moveaxis(noise, axis, 0)[:-1]) for axis in range(3))
    return [np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in pairs]


# ----------------------------------------------------------------------------------------------------------- blocks


@pytest.mark.parametrize(
    ("tissue", "expected"),
    [
        (Tissue.URINE, (6, 5, 5)),
        (Tissue.FAT, (-106, -106, -106)),
        (Tissue.MUSCLE, (60, 56, 50)),
        (Tissue.AIR, (-1000, -1000, -1000)),
        (Tissue.TRABECULAR, (190, 185, 175)),
    ],
)
def test_a_block_of_one_tissue_measures_its_density_in_each_phase(tissue, expected):
    for name, mean in zip(PHASES, expected, strict=True):
        blocks = [block(tissue, phase=name, bone=1.0, seed=seed) for seed in range(3)]
        assert np.mean(blocks) == pytest.approx(mean, abs=float(4 + 0.3 * texture()[tissue]))


def test_every_tissue_has_a_density_in_the_range_of_ct_and_a_texture():
    for name in PHASES:
        assert density(name, 1.0).shape == texture().shape == (len(Tissue),)
        assert (density(name, 1.0) >= -1000).all()
        assert (density(name, 1.0) < 2000).all()
    assert (texture() >= 0).all()


def test_thin_bone_is_less_dense_and_nothing_else_changes():
    dense, thin = density("portal", 1.0), density("portal", 0.5)
    bones = [Tissue.TRABECULAR, Tissue.CORTICAL]
    assert (thin[bones] < dense[bones] - 50).all()
    assert np.array_equal(np.delete(thin, bones), np.delete(dense, bones))


def test_noise_hangs_together_within_a_slice_and_not_from_slice_to_slice():
    x, y, z = neighbors(block(Tissue.AIR))
    assert 0.2 < x < 0.9
    assert y == pytest.approx(x, abs=0.05)
    assert abs(z) < 0.05


def test_small_voxels_are_noisier():
    fine, coarse = (block(Tissue.AIR, spacing=spacing).std() for spacing in (3.0, 6.0))
    assert fine / coarse == pytest.approx(np.sqrt(2), rel=0.1)


def test_an_edge_is_blurred_over_its_two_voxels():
    ct = block([Tissue.AIR] * 20 + [Tissue.URINE] * 20).mean((1, 2))
    steps = np.diff(ct)[17:22]
    assert steps == pytest.approx([0, 161, 684, 161, 0], abs=12)  # a 0.16, 0.68, 0.16 kernel over 1006 HU


def test_old_aortas_have_plaques_in_their_wall_and_young_ones_none():
    sheet = Canvas(Grid.centered((40, 36, 32), 3.0), np.random.default_rng(0), (1, 1, 1), warp=0)
    sheet.tissue[:] = Tissue.VISCERAL_FAT
    sheet.tube([(0, 0, -60, 15), (0, 0, 60, 15)], IDS["aorta"], Tissue.AORTA)
    aorta = sheet.labels == IDS["aorta"]
    for name in PHASES:
        young, old = (photograph(sheet, phase=name, years=years) for years in (30.0, 90.0))
        plaques = (old - young > 130) & aorta  # a voxel of calcium keeps 0.68^3 of what it has above its neighbours
        assert 5 < plaques.sum() < 0.2 * aorta.sum()
        assert np.hypot(sheet.x, sheet.y + 0 * sheet.z)[plaques].min() > 9  # mm; the wall lies at 15
        assert np.median((old - young)[aorta]) == 0


# -------------------------------------------------------------------------------------------------------- patients


def test_ct_is_int16_within_the_range_of_twelve_bits(crowd, fine):
    for case in crowd + fine:
        assert case.ct.dtype == np.int16
        assert -1024 <= case.ct.min() < -950
        assert 400 < case.ct.max() <= 3071


def test_air_is_air(crowd):
    for case in crowd:
        air, _ = ndimage.label(ndimage.binary_erosion(case.ct < -900, iterations=2, border_value=1))
        around = case.ct[air == air[1, -2, 48]]
        assert around.size > 10_000
        assert around.mean() == pytest.approx(-1000, abs=15)
        assert 0 < around.std() < 20


def test_fat_and_muscle_are_the_two_peaks_of_the_body_s_wall(crowd):
    for case in crowd:
        wall = case.ct[(case.labels == 0) & (case.ct > -250) & (case.ct < 150)]
        counts, edges = np.histogram(wall, 40, (-250, 150))
        peak = {"fat": counts[5:22].argmax() + 5, "muscle": counts[24:].argmax() + 24}
        assert -125 <= edges[peak["fat"]] <= -85
        assert 30 <= edges[peak["muscle"]] <= 75
        assert counts[20:24].mean() < 0.5 * min(counts[p] for p in peak.values())


def test_an_organ_s_density_fits_the_phase_that_the_aorta_tells(crowd):
    seen = set()
    for case in crowd:
        name = phase(case)
        seen.add(name)
        for organ, ranges in ORGANS.items():
            low, high = ranges[name]
            assert low <= hu(case, organ) <= high, (organ, name)
    assert seen == set(PHASES)


def test_an_old_patient_s_plaques_are_seen(ages):
    """As voxels that stand out of the aorta in every phase."""
    for pair in ages:
        young, old = (((case.labels == IDS["aorta"]) & (case.ct > hu(case, "aorta") + 130)).sum() for case in pair)
        assert young <= 1  # beside a vertebra
        assert old >= 5


def test_age_lowers_the_density_of_vertebrae(ages):
    for young, old in ages:
        assert phase(young) == phase(old)
        assert hu(old, "vertebrae") < hu(young, "vertebrae") - 30


def test_lungs_show_vessels_and_are_denser_at_the_back(fine):
    for case in fine:
        lung = case.labels == IDS["lung"]
        values, front = case.ct[lung], points(case, "lung")[:, 1]
        assert 0.005 < (values > -500).mean() < 0.2
        low, high = np.percentile(front, (20, 80))
        back, chest = np.median(values[front < low]), np.median(values[front > high])
        assert 15 < back - chest < 120


def test_air_stands_at_the_front_of_the_stomach(crowd):
    """The patient lies on the back. Hardly any stomach holds none."""
    held = []
    for case in crowd:
        stomach = case.labels == IDS["stomach"]
        gas, fluid = ((stomach & part).nonzero()[1] for part in (case.ct < -700, (case.ct > -30) & (case.ct < 60)))
        held.append(len(gas) > 10)
        assert not len(gas) or gas.mean() > fluid.mean() + 2
    assert np.mean(held) > 0.9


def test_the_table_lies_flat_under_the_back_where_the_field_of_view_holds_it():
    phantom = TorsoPhantom((72, 72, 96), 6.0)
    for seed, person in enumerate((("male", "61-70"), ("female", "<=30"), ("male", ">80"), ("female", "51-60"))):
        case = phantom.sample(someone(*person), seed)
        middle = case.ct[30:42]  # (12, Y, Z), around the spine
        first = (middle > -750).argmax(1)
        assert np.ptp(first) <= 1  # the same height in every slice
        table = np.take_along_axis(middle, first[:, None], 1)
        assert -750 < np.median(table) < -250
        body = (middle > -200).argmax(1)
        assert (body >= first).all()
        assert (body > first).mean() > 0.8  # buttocks sink into it
        assert case.affine[1, 3] + 6 * first.max() < points(case, "lung")[:, 1].min()
