"""NIfTI volumes on disk: read slab by slab in any form, and refused in one line where they are no volume."""

import contextlib
import gzip
import os

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guidegen_diffusers.data import volume as volumes
from guidegen_diffusers.data.volume import Volume, VolumeError, check_same_place, to_ras

from .damage import damaged
from .small_torso import affine_of, write_nifti


VOXELS = np.arange(3 * 4 * 50, dtype=np.int16).reshape(3, 4, 50)


@pytest.mark.parametrize("name", ["v.nii.gz", "v.nii"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_a_volume_comes_in_slabs_whatever_its_type(tmp_path, monkeypatch, name, dtype):
    monkeypatch.setattr(volumes, "SLAB_VOXELS", 100)
    voxels = (VOXELS % 200).astype(dtype)
    volume = Volume(write_nifti(tmp_path / name, voxels))
    pieces = list(volume.slabs())
    assert [slab.stop - slab.start for slab, _ in pieces] == [8] * 6 + [2]
    assert np.array_equal(np.concatenate([piece for _, piece in pieces], axis=2), voxels)
    assert np.array_equal(volume.read(np.uint8), voxels)
    np.testing.assert_allclose(volume.affine, affine_of(), atol=1e-4)


def test_a_single_fourth_axis_and_the_headers_scaling_are_heeded(tmp_path):
    image = nib.Nifti1Image(VOXELS[..., None], affine_of())
    image.header.set_slope_inter(2, -1024)
    image.header["sform_code"] = 1
    nib.save(image, tmp_path / "v.nii.gz")
    (_, voxels), *_ = Volume(tmp_path / "v.nii.gz").slabs()
    assert np.array_equal(voxels, VOXELS * 2.0 - 1024)


def header(**changes):
    def change(path):
        image = nib.load(path)
        for key, value in changes.items():
            if key == "pixdim":
                image.header["pixdim"][1:4] = value
            else:
                image.header[key] = value
        content = bytearray(gzip.decompress(path.read_bytes()))
        content[:348] = image.header.binaryblock
        path.write_bytes(gzip.compress(bytes(content)))

    return change


def replace_bytes(content):
    return lambda path: path.write_bytes(content(path.read_bytes()))


BROKEN = {
    "cut": (replace_bytes(lambda b: b[: len(b) * 3 // 4]), "cannot be read to its end"),
    "cut_early": (replace_bytes(lambda b: b[:100]), "is no NIfTI file, or was cut short|cannot be read"),
    "empty": (replace_bytes(lambda b: b""), "is no NIfTI file, or was cut short"),
    "no_gzip": (replace_bytes(lambda b: b"hello" * 100), "is no NIfTI file"),
    "wrong_magic": (
        replace_bytes(lambda b: gzip.compress(gzip.decompress(b).replace(b"n+1", b"xxx"))),
        "is no NIfTI file",
    ),
    "flipped_bits": (
        replace_bytes(lambda b: b[:600] + bytes(255 - x for x in b[600:])),
        "cannot be read|is no NIfTI file",
    ),
    "larger_than_it_is": (header(dim=[3, 3000, 3000, 3000, 1, 1, 1, 1]), "is truncated"),
    "two_axes": (header(dim=[2, 3, 4, 1, 1, 1, 1, 1]), r"got shape \(3, 4\)"),
    "four_axes": (header(dim=[4, 3, 4, 25, 2, 1, 1, 1]), r"got shape \(3, 4, 25, 2\)"),
    "color": (header(datatype=128, bitpix=24), "voxels of type"),
    "no_spacing": (header(pixdim=0), "header has voxels of 0 x 0 x 0 mm"),
    "nan_spacing": (header(pixdim=np.nan), "header has voxels of nan"),
    "negative_spacing": (header(pixdim=-2), "header has voxels of -2"),
    "meters": (header(srow_x=[0.001, 0, 0, 0]), "the affine has voxels of 0.001"),
    "far_away": (header(srow_x=[5, 0, 0, 1e9]), r"lies 1e\+09 mm away"),
    "singular": (header(srow_x=[0, 5, 0, 0], srow_y=[0, 5, 0, 0]), "singular"),
    "nan_affine": (header(srow_x=[np.nan, 0, 0, 0]), "finite numbers"),
    "no_affine": (header(sform_code=0, qform_code=0), "has no affine"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_what_is_no_volume_is_refused_in_one_line(tmp_path, how):
    change, reason = BROKEN[how]
    path = write_nifti(
        tmp_path / "v.nii.gz", np.random.default_rng(0).integers(0, 2000, VOXELS.shape).astype(np.int16)
    )
    change(path)
    with pytest.raises(VolumeError, match=reason) as caught:
        Volume(path, "ct").read(np.int16)
    assert str(caught.value).startswith("ct: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_another_format_are_named(tmp_path):
    with pytest.raises(VolumeError, match="no such file"):
        Volume(tmp_path / "v.nii.gz")
    nib.save(nib.MGHImage(VOXELS.astype(np.float32), affine_of()), tmp_path / "v.mgz")
    with pytest.raises(VolumeError, match="expected NIfTI"):
        Volume(tmp_path / "v.mgz")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_that_may_not_be_read_is_named(tmp_path):
    path = write_nifti(tmp_path / "v.nii.gz", VOXELS)
    path.chmod(0)
    with pytest.raises(VolumeError, match="ermission"):
        Volume(path)


@pytest.mark.parametrize(
    ("voxels", "reason"),
    [
        (np.full((2, 2, 2), np.nan), "NaN"),
        (np.full((2, 2, 2), 0.5), "expected whole uint8"),
        (np.full((2, 2, 2), 300.0), "got 300..300"),
        (np.full((2, 2, 2), -1.0), "got -1..-1"),
    ],
)
def test_what_a_type_cannot_hold_is_refused(tmp_path, voxels, reason):
    with pytest.raises(VolumeError, match=reason):
        Volume(write_nifti(tmp_path / "v.nii.gz", voxels)).read(np.uint8)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), packed=st.booleans(), kind=st.sampled_from(["flip", "cut", "zero", "header"]))
def test_mutilated_files_are_read_or_refused_and_nothing_else(tmp_path_factory, seed, packed, kind):
    rng = np.random.default_rng(seed)
    path = write_nifti(tmp_path_factory.mktemp("v") / "v.nii.gz", VOXELS)
    content = path.read_bytes() if packed else gzip.decompress(path.read_bytes())
    content = damaged(content, kind, rng, flips_within=348 if kind == "header" and not packed else None)
    path.write_bytes(content if packed else gzip.compress(content))
    with contextlib.suppress(VolumeError):
        Volume(path).read(np.int16)


@settings(max_examples=40)
@given(order=st.permutations([0, 1, 2]), flips=st.tuples(*[st.sampled_from([1, -1])] * 3), turn=st.floats(-0.7, 0.7))
def test_turning_the_axes_moves_no_voxel(order, flips, turn):
    affine = np.eye(4)
    affine[:3, :3] = (np.diag(flips) * 2.0)[order]
    affine[:2] = [[np.cos(turn), -np.sin(turn), 0, 0], [np.sin(turn), np.cos(turn), 0, 0]] @ affine
    affine[:3, 3] = 5, -6, 7
    voxels = VOXELS[:, :, :5]
    turned, turned_affine = to_ras(voxels, affine)
    assert nib.aff2axcodes(turned_affine) == ("R", "A", "S")
    for index in ((0, 0, 0), (2, 3, 4), (1, 0, 3)):
        moved = np.round(np.linalg.inv(turned_affine) @ affine @ [*index, 1]).astype(int)[:3]
        assert turned[tuple(moved)] == voxels[index]


def test_volumes_beside_one_another_are_told_apart():
    affine, shape = affine_of(), (3, 4, 5)
    check_same_place("labels", shape, affine + 1e-4, "the CT", shape, affine)
    with pytest.raises(VolumeError, match=r"labels: got shape \(3, 4, 6\), expected \(3, 4, 5\) as the CT has"):
        check_same_place("labels", (3, 4, 6), affine, "the CT", shape, affine)
    with pytest.raises(VolumeError, match="labels: lies up to 1 mm away from the CT"):
        check_same_place("labels", shape, affine + np.eye(4, k=3), "the CT", shape, affine)
