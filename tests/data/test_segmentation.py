"""Label maps in the forms of segmenters and data sets become one map of our classes."""

import numpy as np
import pytest

from guidegen_diffusers import Case
from guidegen_diffusers.data.segmentation import mask_class, read_segmentation
from guidegen_diffusers.data.volume import VolumeError
from guidegen_diffusers.labels import CLASSES

from .small_torso import SHAPE, TUMOR, V1, V2, affine_of, ball, ct, labels, masks, write_nifti


IDS = {c.name: c.id for c in CLASSES}


def ours():
    volume = np.zeros(SHAPE, np.uint8)
    for name, mask in masks().items():
        volume[mask] = IDS[name.split("_")[0]]
    return volume


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("spleen", "spleen"),
        ("kidney_left", "kidney"),
        ("kidney_cyst_right", "kidney"),
        ("lung_middle_lobe_right", "lung"),
        ("lung_left", "lung"),
        ("vertebrae_S1", "vertebrae"),
        ("vertebrae_C1", "vertebrae"),
        ("rib_left_12", "ribs"),
        ("heart", "heart"),
        ("heart_atrium_left", "heart"),
        ("heart_myocardium", "heart"),
        ("adrenal_gland_left", "adrenal_gland"),
        ("portal_vein_and_splenic_vein", "portal_and_splenic_vein"),
        ("portal_and_splenic_vein", "portal_and_splenic_vein"),
        ("tumor", "tumor"),
        ("lung_tumor", "tumor"),
        ("kidney_tumour_1", "tumor"),
        ("liver-lesions", "tumor"),
        ("humerus_left", None),
        ("atrial_appendage_left", None),
        ("pulmonary_artery", None),
        ("sacrum", None),
        ("background", None),
        ("ct", None),
        ("", None),
    ],
)
def test_masks_are_known_by_their_names(stem, name):
    assert mask_class(stem) == (IDS[name] if name else None)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float64])
def test_ids_of_each_scheme_are_merged(tmp_path, dtype):
    for scheme, ids, name in (("auto", V2, "2"), ("2", V2, "2"), ("1", V1, "1")):
        read = read_segmentation(write_nifti(tmp_path / "l.nii.gz", labels(ids), dtype=dtype), scheme)
        assert np.array_equal(read.labels, ours())
        assert read.scheme == f"TotalSegmentator v{name}"
    read = read_segmentation(write_nifti(tmp_path / "l.nii.gz", ours(), dtype=dtype), "ours")
    assert np.array_equal(read.labels, ours())


def test_label_maps_that_we_wrote_say_so_themselves(tmp_path):
    for synthetic in (True, False):
        case = Case(ours(), affine_of(), ct(), provenance={"synthetic": synthetic})
        read = read_segmentation(case.save(tmp_path / str(synthetic)) / "labels.nii.gz")
        assert (read.scheme, read.synthetic) == ("ours", synthetic)
        assert np.array_equal(read.labels, ours())


@pytest.mark.parametrize(
    ("volume", "scheme", "reason"),
    [
        (labels() + 113, "2", "got 0..118|Got 113..127"),
        (labels(V1) + 100, "1", "Got 100..117"),
        (labels() + 11, "ours", r"got class ids \["),
        (labels() + 0.25, "2", "expected TotalSegmentator v2 ids"),
        (np.where(labels() > 0, np.nan, 0), "2", "expected TotalSegmentator v2 ids"),
        (labels() - 3.0, "2", "expected TotalSegmentator v2 ids"),
    ],
)
def test_ids_outside_their_scheme_are_refused(tmp_path, volume, scheme, reason):
    with pytest.raises(ValueError, match=reason):
        read_segmentation(write_nifti(tmp_path / "l.nii.gz", volume), scheme)


def write_masks(folder, **more):
    for name, mask in {**masks(), **more}.items():
        write_nifti(folder / f"{name}.nii.gz", mask, dtype=np.uint8)
    return folder


def test_a_folder_of_masks_is_one_map_and_its_tumor_overrides(tmp_path):
    folder = write_masks(tmp_path, humerus_left=np.ones(SHAPE), spleen=np.zeros(SHAPE))
    read = read_segmentation(folder)
    assert np.array_equal(read.labels, ours())
    write_nifti(folder / "kidney_tumor.nii.gz", ball(*TUMOR).astype(np.uint8))
    assert np.array_equal(read_segmentation(folder).labels, np.where(ball(*TUMOR), 20, ours()))


def test_masks_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(VolumeError, match="no mask of an organ"):
        read_segmentation(write_nifti(tmp_path / "a" / "humerus_left.nii.gz", np.ones(SHAPE, np.uint8)).parent)
    folder = write_masks(tmp_path / "b")
    write_nifti(folder / "spleen.nii.gz", np.full(SHAPE, 0.5))
    with pytest.raises(VolumeError, match=r"mask spleen\.nii\.gz: got 0.5..0.5, expected a mask of 0 and 1"):
        read_segmentation(folder)
    write_nifti(folder / "spleen.nii.gz", np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(VolumeError, match="got shape"):
        read_segmentation(folder)
    (folder / "spleen.nii.gz").write_bytes(b"")
    with pytest.raises(VolumeError, match="is no NIfTI file, or was cut short"):
        read_segmentation(folder)


def test_tumor_masks_are_painted_in_any_storage_order_and_by_their_ids(tmp_path):
    mask = ball(*TUMOR).astype(np.uint8) * 2
    mask[:2] = 1  # KiTS: 1 kidney, 2 tumour
    path = write_nifti(tmp_path / "t.nii.gz", mask[::-1], affine_of() @ _flip_x())
    read = read_segmentation(write_nifti(tmp_path / "l.nii.gz", labels()))
    read.add_tumor([path], [2])
    assert np.array_equal(read.labels == 20, mask == 2)
    read.add_tumor([path])
    assert np.array_equal(read.labels == 20, mask > 0)
    with pytest.raises(VolumeError, match=r"tumour mask u\.nii\.gz: lies up to"):
        read.add_tumor([write_nifti(tmp_path / "u.nii.gz", mask, affine_of((0, 0, 0)))])


def _flip_x():
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = SHAPE[0] - 1
    return flip
