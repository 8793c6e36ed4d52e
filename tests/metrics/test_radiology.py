"""Widths and shares have known answers on chests drawn by hand, whichever way the voxels lie."""

import nibabel as nib
import numpy as np
import pytest

from guidegen_diffusers import TorsoPhantom
from guidegen_diffusers.labels import CLASSES
from guidegen_diffusers.metrics import cardiothoracic_ratio, emphysema_share


IDS = {c.name: c.id for c in CLASSES}
HEART, LUNG = IDS["heart"], IDS["lung"]
RAS = np.diag([3.0, 4.0, 5.0, 1.0])


def chest():
    """Lungs 40 voxels across at their widest, a heart of 20 there and of 24 one slice below."""
    labels = np.zeros((60, 20, 12), np.uint8)
    for z, half in ((8, 16), (7, 18), (6, 20), (5, 19)):
        labels[30 - half : 30 + half, 5:15, z] = LUNG
    labels[20:40, 8:12, 6] = HEART
    labels[18:42, 8:12, 5] = HEART
    return labels


def test_the_widest_slice_of_each_counts():
    assert cardiothoracic_ratio(chest(), RAS) == pytest.approx(24 / 40)


def test_a_wider_heart_has_a_larger_ratio():
    wide = chest()
    wide[12:48, 8:12, 5] = HEART
    assert cardiothoracic_ratio(wide, RAS) == pytest.approx(36 / 40)


@pytest.mark.parametrize("codes", ["LPS", "PSR", "SRA", "IAL"])
def test_the_order_and_direction_of_voxels_do_not_matter(codes):
    image = nib.Nifti1Image(chest(), RAS)
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(RAS), nib.orientations.axcodes2ornt(tuple(codes))
    )
    turned = image.as_reoriented(turn)
    assert cardiothoracic_ratio(np.asarray(turned.dataobj), turned.affine) == pytest.approx(24 / 40)


def test_strays_do_not_widen():
    labels = chest()
    labels[59, 0, 5] = HEART
    labels[0, 0, 6] = LUNG
    assert cardiothoracic_ratio(labels, RAS) == pytest.approx(24 / 40)


@pytest.mark.parametrize("gone", [HEART, LUNG])
def test_without_heart_or_lungs_there_is_no_ratio(gone):
    labels = chest()
    labels[labels == gone] = 0
    assert cardiothoracic_ratio(labels, RAS) is None


def test_emphysema_is_lung_below_950():
    labels = chest()
    ct = np.full(labels.shape, -1000, np.int16)  # the air around does not count
    lung = np.argwhere(labels == LUNG)
    ct[labels == LUNG] = -850
    for place in lung[: len(lung) // 4]:
        ct[tuple(place)] = -951
    assert emphysema_share(ct, labels) == pytest.approx((len(lung) // 4) / len(lung))
    ct[ct == -951] = -950  # not below
    assert emphysema_share(ct, labels) == 0.0
    assert emphysema_share(ct, np.zeros_like(labels)) is None


def test_phantoms_have_the_chests_of_healthy_people():
    phantom = TorsoPhantom((64, 48, 96), 6.0)
    cases = [phantom.sample("no tumour", seed=seed) for seed in range(3)]
    ratios = [cardiothoracic_ratio(case.labels, case.affine) for case in cases]
    assert 0.4 < np.mean(ratios) < 0.6
    assert max(emphysema_share(case.ct, case.labels) for case in cases) < 0.01
