"""DICOM series: read where the slices make a volume, refused by name where they do not, and silent about patients."""

import contextlib
import io
import logging
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from guidegen_diffusers.data.dicom import DicomError, read_series

from .damage import damaged


REAL = Path(__file__).parents[3] / "shared" / "data" / "dicom"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real series are not here")
PATIENT = {
    "PatientName": "Mustermann^Erika",
    "PatientID": "ID-4711",
    "PatientBirthDate": "19640812",
    "StudyDate": "20210304",
    "InstitutionName": "Klinikum Nirgendwo",
    "AccessionNumber": "ACC998877",
}


def write_slice(path, index=0, pixels=None, series="1.2.3.4", preamble=True, **tags):
    """One slice of 6 rows and 5 columns, the stack 2.5 mm apart; `tags` of None are left out."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    if pixels is None:
        pixels = (np.arange(30).reshape(6, 5) + 100 * index).astype(np.uint16)
    values = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "SeriesInstanceUID": series,
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "PixelSpacing": [0.8, 0.7],
        "SliceThickness": 5,
        "ImagePositionPatient": [-100, -50, 20 + 2.5 * index],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "PixelData": pixels.tobytes(),
        **PATIENT,
        **tags,
    }
    for name, value in values.items():
        if value is not None:
            setattr(data, name, value)
    data.save_as(path, enforce_file_format=preamble)
    return path


def write_series(folder, count=6, each=lambda index: {}, **tags):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        number = (index * 7 + 3) % count  # file names tell nothing of the order
        write_slice(folder / f"IM{number:03d}", index, **{**tags, **each(index)})
    return folder


@real
def test_a_real_series_is_placed_by_its_positions():
    """20 slices, 2 mm apart and 3 mm thick, JPEG 2000, without a SOP class."""
    hu, affine = read_series(REAL / "good_jpeg2000")
    assert (hu.shape, hu.dtype) == ((512, 512, 20), np.int16)
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), (0.9765625, 0.9765625, 2))
    np.testing.assert_allclose(affine @ (0, 0, 0, 1), (249.51171875, 437.51171875, -804.5, 1))
    assert nib.aff2axcodes(affine) == ("L", "P", "S")
    assert hu.min() == -1024
    assert (hu > -200).mean() > 0.1
    assert np.abs(hu[200:300, 200:300, 10]).mean() < 200  # soft tissue amid the picture


@real
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bad_gantrytilting", "gantry tilt of 14.0 degrees"),
        ("bad_sliceincrement", "uneven slices: increments of 10 mm among ones of 5 mm"),
        ("bad_slicecount", "too few slices: got 2"),
        ("bad_notavolume", "duplicated positions: 3 of 4"),
    ],
)
def test_real_series_that_are_no_volume_are_refused_by_name(name, reason):
    with pytest.raises(DicomError, match=reason):
        read_series(REAL / name)


def test_values_become_hu_and_places_ras(tmp_path):
    hu, affine = read_series(write_series(tmp_path / "s"))
    assert hu.shape == (5, 6, 6)
    assert hu[3, 2, 4] == 2 * 5 + 3 + 400 - 1024  # column, row, slice
    np.testing.assert_allclose(affine @ (3, 2, 4, 1), (100 - 3 * 0.7, 50 - 2 * 0.8, 20 + 4 * 2.5, 1))


@settings(max_examples=15)
@given(angles=st.tuples(*[st.floats(-1.5, 1.5)] * 3), step=st.floats(0.5, 8), reverse=st.booleans())
def test_a_voxel_is_where_its_slice_says_in_any_orientation(tmp_path_factory, angles, step, reverse):
    from scipy.spatial.transform import Rotation

    row, column, normal = Rotation.from_euler("xyz", angles).as_matrix().T
    origin = np.array([12.0, -34, 56])

    def each(index):
        position = origin + (5 - index if reverse else index) * step * normal
        orientation = [f"{x:.9f}" for x in (*row, *column)]
        return {"ImagePositionPatient": [f"{x:.9f}" for x in position], "ImageOrientationPatient": orientation}

    hu, affine = read_series(write_series(tmp_path_factory.mktemp("series"), each=each))
    for index in (0, 4):
        place = origin + (5 - index if reverse else index) * step * normal + 3 * 0.7 * row + 2 * 0.8 * column
        expected = np.diag([-1, -1, 1]) @ place
        voxel = np.linalg.inv(affine) @ [*expected, 1]
        np.testing.assert_allclose(voxel, np.round(voxel), atol=1e-4)
        x, y, z = np.round(voxel[:3]).astype(int)
        assert hu[x, y, z] == 13 + 100 * index - 1024


def test_signed_values_and_rescaling_of_each_slice_are_heeded(tmp_path):
    pixels = np.full((6, 5), -100, np.int16)
    hu, _ = read_series(
        write_series(tmp_path / "s", each=lambda i: {"pixels": pixels, "RescaleSlope": 1 + i, "RescaleIntercept": i})
    )
    assert hu[0, 0].tolist() == [-100 * (1 + i) + i for i in range(6)]


def test_scouts_reports_and_other_files_are_passed_over(tmp_path):
    folder = write_series(tmp_path / "s")
    expected = read_series(folder)
    write_slice(folder / "scout", 3, series="9.9", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_slice(folder / "dose", 3, series="9.8", SOPClassUID="1.2.840.10008.5.1.4.1.1.7", ImagePositionPatient=None)
    write_slice(folder / "report", 3, Modality="SR", Rows=None, Columns=None, PixelData=None)
    (folder / "DICOMDIR").write_bytes(b"no DICOM at all")
    (folder / "notes.txt").write_text("hello")
    (folder / ".DS_Store").write_bytes(b"\0" * 300)
    (folder / "empty").write_bytes(b"")
    for ours, theirs in zip(read_series(folder), expected, strict=True):
        assert np.array_equal(ours, theirs)


def test_slices_without_a_preamble_are_read(tmp_path):
    folder = write_series(tmp_path / "s")
    expected = read_series(folder)
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        del data.file_meta
        data.preamble = None
        data.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
        assert path.read_bytes()[128:132] != b"DICM"
    for ours, theirs in zip(read_series(folder), expected, strict=True):
        assert np.array_equal(ours, theirs)


def at(index, **tags):
    return lambda i: tags if i == index else {}


REFUSED = {
    "no_ct": ({"Modality": "MR"}, "no CT: got modality MR"),
    "two_series": ({"each": at(2, series="5.6.7")}, "mixed series: got 2 of them"),
    "two_sizes": ({"each": at(2, pixels=np.zeros((6, 6), np.uint16))}, r"slices of \[\(6, 5\), \(6, 6\)\] pixels"),
    "two_spacings": ({"each": at(2, PixelSpacing=[0.9, 0.7])}, "pixel spacings differ"),
    "two_orientations": ({"each": at(2, ImageOrientationPatient=[0, 1, 0, 1, 0, 0])}, "orientations differ"),
    "no_orientation": ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "expected two perpendicular"),
    "no_position": ({"each": at(2, ImagePositionPatient=None)}, "1 of 6 slices have no usable ImagePositionPatient"),
    "no_spacing": ({"PixelSpacing": None}, "6 of 6 slices have no usable PixelSpacing"),
    "negative_spacing": ({"PixelSpacing": [-1, 1]}, "not positive"),
    "too_few": ({"count": 3}, "too few slices: got 3"),
    "missing": ({"each": lambda i: {"ImagePositionPatient": [0, 0, 2 * (i + (i > 2))]}}, "increments of 4 mm among"),
    "uneven": ({"each": lambda i: {"ImagePositionPatient": [0, 0, 2 * i + 0.3 * (i == 3)]}}, "uneven slices"),
    "twice": ({"each": at(3, ImagePositionPatient=[-100, -50, 20])}, "duplicated positions: 1 of 6"),
    "tilt": ({"each": lambda i: {"ImagePositionPatient": [0, 0.2 * i, 2 * i]}}, "gantry tilt of 5.7 degrees"),
    "astray": ({"each": at(3, ImagePositionPatient=[-80, -50, 27.5])}, "20.0 mm beside the stack"),
    "no_pixels": ({"each": at(3, PixelData=None)}, "no pixel data"),
    "cut_pixels": ({"each": at(3, PixelData=b"\0" * 20)}, "cannot be decoded"),
    "no_rescale": ({"RescaleSlope": None}, "no rescale slope and intercept"),
    "zero_slope": ({"RescaleSlope": 0}, "no rescale slope and intercept"),
    "inverted": ({"PhotometricInterpretation": "MONOCHROME1"}, "inverted"),
    "frames": ({"NumberOfFrames": 3}, "multi-frame"),
    "enhanced": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1"}, "multi-frame"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_even_stack_of_ct_slices_is_refused_by_name_and_without_the_patients(tmp_path, case):
    arguments, reason = REFUSED[case]
    folder = write_series(tmp_path / "s", **arguments)
    with pytest.raises(DicomError, match=reason) as caught:
        read_series(folder)
    said = str(caught.value)
    assert "\n" not in said
    assert not any(value in said for value in (*PATIENT.values(), "1.2.3.4", "5.6.7"))


def test_folders_without_slices_are_refused(tmp_path):
    with pytest.raises(DicomError, match="no DICOM images"):
        read_series(tmp_path)
    (tmp_path / "notes.txt").write_text("hello " * 100)
    with pytest.raises(DicomError, match="no DICOM images"):
        read_series(tmp_path)
    with pytest.raises(DicomError, match="no such folder"):
        read_series(tmp_path / "nowhere")


def test_a_compression_without_its_decoder_is_named(tmp_path):
    folder = write_series(tmp_path / "s")
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1
        data.PixelData = pydicom.encaps.encapsulate([data.PixelData])
        data["PixelData"].is_undefined_length = True
        data.save_as(path)
    if pydicom.pixels.get_decoder(pydicom.uid.JPEGLosslessSV1).is_available:
        pytest.skip("a decoder of lossless JPEG is installed")
    with pytest.raises(DicomError, match="compressed as JPEG Lossless.*no decoder is installed"):
        read_series(folder)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(["flip", "cut", "zero"]))
@example(seed=43334, kind="flip")  # a value's length runs over all that follows
def test_damaged_files_are_refused_or_read_and_nothing_else(tmp_path_factory, seed, kind):
    rng = np.random.default_rng(seed)
    folder = write_series(tmp_path_factory.mktemp("series"))
    path = sorted(folder.iterdir())[rng.integers(6)]
    path.write_bytes(damaged(path.read_bytes(), kind, rng))
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logging.getLogger("pydicom").addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as warned, contextlib.redirect_stderr(said):
            warnings.simplefilter("always")
            with contextlib.suppress(DicomError):
                read_series(folder)
    finally:
        logging.getLogger("pydicom").removeHandler(handler)
    everything = said.getvalue() + "".join(str(w.message) for w in warned)
    assert not any(value in everything for value in PATIENT.values())
