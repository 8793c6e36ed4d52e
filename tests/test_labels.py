"""The 21 classes, and what merges into them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from guidegen_diffusers import labels


def test_ids_are_places_in_the_table_and_names_and_colors_are_unique():
    assert [c.id for c in labels.CLASSES] == list(range(21))
    assert len({c.name for c in labels.CLASSES}) == len({c.color for c in labels.CLASSES}) == 21
    assert labels.CLASSES[labels.TUMOR].name == "tumor"


@pytest.mark.parametrize("version", [1, 2])
def test_no_totalsegmentator_id_belongs_to_two_classes(version):
    ids = [i for c in labels.CLASSES for i in (c.totalsegmentator_v1 if version == 1 else c.totalsegmentator_v2)]
    assert len(ids) == len(set(ids))
    organs = [c for c in labels.CLASSES if 0 < c.id < labels.TUMOR]
    assert all(c.totalsegmentator_v1 and c.totalsegmentator_v2 for c in organs)


def test_totalsegmentator_ids_merge_to_our_classes():
    theirs = np.array([[[0, 1, 2, 3, 24, 10, 14, 51, 26, 50, 92, 115, 90]]])
    ours = [0, 1, 2, 2, 2, 6, 6, 11, 12, 12, 13, 13, 0]
    assert labels.from_totalsegmentator(theirs).ravel().tolist() == ours
    assert labels.from_totalsegmentator(np.array([[[13, 17, 44, 48, 104, 7]]]), version=1).ravel().tolist() == [
        6,
        6,
        11,
        11,
        10,
        17,
    ]


def test_a_tumor_mask_overrides():
    theirs = np.full((2, 2, 2), 5)
    tumor = np.zeros((2, 2, 2))
    tumor[0, 0, 0] = 3
    merged = labels.from_totalsegmentator(theirs, tumor)
    assert merged[0, 0, 0] == labels.TUMOR
    assert (merged == 3).sum() == 7


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.integers(0, 20)))
def test_splitting_off_the_tumor_keeps_every_other_voxel(volume):
    organs, tumor = labels.split_tumor(volume)
    assert organs.dtype == tumor.dtype == np.uint8
    assert (organs < labels.NUM_ORGAN_CLASSES).all()
    assert np.array_equal(tumor == 1, volume == labels.TUMOR)
    assert np.array_equal(organs[tumor == 0], volume[tumor == 0])


def test_under_a_tumor_lies_the_nearest_organ():
    volume = np.zeros((9, 9, 9), np.uint8)
    volume[:, :, :5] = 3
    volume[3:6, 3:6, 1:3] = labels.TUMOR
    organs, _ = labels.split_tumor(volume)
    assert (organs[:, :, :5] == 3).all()


@given(hnp.arrays(np.int64, (2, 3, 2), elements=st.integers(-300, 300)))
def test_ids_outside_the_scheme_are_named_and_others_pass_unchanged(volume):
    wrong = np.unique(volume[(volume < 0) | (volume > 20)])
    if len(wrong):
        with pytest.raises(ValueError, match="expected 0..20") as error:
            labels.check_labels(volume)
        assert str(int(wrong[0])) in str(error.value)
    else:
        assert np.array_equal(labels.check_labels(volume), volume)


@pytest.mark.parametrize(
    ("volume", "error", "message"),
    [
        (np.zeros((2, 2)), ValueError, "3-D"),
        (np.zeros((0, 2, 2)), ValueError, "at least one voxel"),
        (np.full((2, 2, 2), np.nan), ValueError, "NaN"),
        (np.full((2, 2, 2), 1.5), ValueError, "fractional"),
        (np.full((2, 2, 2), "liver"), TypeError, "integer class ids"),
    ],
)
def test_what_is_no_label_map_is_refused(volume, error, message):
    with pytest.raises(error, match=message):
        labels.check_labels(volume)


def test_wrong_versions_ids_and_shapes_are_refused():
    with pytest.raises(ValueError, match="expected 1 or 2"):
        labels.from_totalsegmentator(np.zeros((1, 1, 1), int), version=3)
    with pytest.raises(ValueError, match=r"0\.\.117"):
        labels.from_totalsegmentator(np.full((1, 1, 1), 118))
    with pytest.raises(ValueError, match="shape"):
        labels.from_totalsegmentator(np.zeros((1, 1, 1), int), tumor=np.zeros((1, 1, 2)))
