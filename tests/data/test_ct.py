"""A CT on disk becomes HU, or the reason why its numbers are none."""

import numpy as np
import pytest

from guidegen_diffusers.data.ct import read_ct
from guidegen_diffusers.data.volume import VolumeError

from .small_torso import affine_of, ct, write_nifti
from .test_dicom import write_series


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
def test_hu_come_as_int16_on_right_forward_up_axes(tmp_path, dtype):
    read = read_ct(write_nifti(tmp_path / "ct.nii.gz", ct(), dtype=dtype))
    assert read.hu.dtype == np.int16
    assert np.array_equal(read.hu, ct())
    turned = affine_of() @ np.diag([-1, -1, 1, 1])
    assert np.array_equal(read_ct(write_nifti(tmp_path / "t.nii.gz", ct(), turned)).hu, ct()[::-1, ::-1])
    assert read.synthetic is False


def test_a_series_of_slices_is_a_ct(tmp_path):
    pixels = np.pad(np.full((3, 5), 1060, np.uint16), ((0, 3), (0, 0)), constant_values=24)
    read = read_ct(write_series(tmp_path / "s", each=lambda i: {"pixels": pixels}))
    assert read.hu.shape == (5, 6, 6)
    assert read.hu[:, 3:].mean() == 36  # DICOM's rows run from front to back
    assert read.hu[:, :3].mean() == -1000
    with pytest.raises(VolumeError, match="ct: gantry tilt"):
        read_ct(write_series(tmp_path / "t", each=lambda i: {"ImagePositionPatient": [0, i, 2 * i]}))


@pytest.mark.parametrize(
    ("voxels", "reason"),
    [
        ((ct() + 1024.0) / 2000, "got values 0..1, .*normalised"),
        ((ct() - 0.0) / 1000, "got values -1..0, .*normalised"),
        (np.clip((ct() + 1000) / 6, 0, 255), "8-bit picture"),
        (ct() + 1024, "got values 24..1124, .*the intercept"),
        (ct().clip(-200, 300), "air is missing or was clipped"),
        (np.where(ct() < 0, ct(), 1500), "hardly any soft tissue"),
        (np.full(ct().shape, -1024), "every voxel is -1024"),
        (np.where(ct() == 100, np.nan, ct()), "NaN or infinite"),
        (np.where(ct() == 100, np.inf, ct()), "NaN or infinite"),
    ],
)
def test_numbers_that_are_no_hu_are_refused_with_what_was_seen(tmp_path, voxels, reason):
    with pytest.raises(VolumeError, match=f"ct: .*{reason}"):
        read_ct(write_nifti(tmp_path / "ct.nii.gz", np.asarray(voxels, np.float32)))


def test_values_beyond_int16_do_not_wrap_around(tmp_path):
    voxels = ct().astype(np.float32)
    voxels[0, 0, 0], voxels[1, 0, 0] = 1e6, -1e6
    hu = read_ct(write_nifti(tmp_path / "ct.nii.gz", voxels)).hu
    assert (hu[0, 0, 0], hu[1, 0, 0]) == (32767, -32768)
