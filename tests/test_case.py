"""A case comes back as it was saved, whole or not at all, and says that it is synthetic."""

import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from guidegen_diffusers import Case, Grid
from guidegen_diffusers.case import read_label_map


REAL = Path(__file__).parents[2] / "shared" / "data" / "totalsegmentator"


def some_case(labels, **changes):
    ct = (np.arange(labels.size, dtype=np.int64).reshape(labels.shape) % 2500 - 1024).astype(np.int16)
    provenance = {"synthetic": True, "model": "someone/torso", "seed": 7, "versions": {"torch": "2.13.0"}}
    values = dict(affine=Grid.centered(labels.shape, 6.0).affine, ct=ct, prompt="A patient.", provenance=provenance)
    return Case(labels, **{**values, **changes})


def same(a, b):
    return (
        np.array_equal(a.ct, b.ct)
        and np.array_equal(a.labels, b.labels)
        and np.allclose(a.affine, b.affine, atol=1e-4)
        and (a.prompt, a.attributes, a.provenance) == (b.prompt, b.attributes, b.provenance)
    )


def test_a_folder_holds_the_four_files_and_gives_the_case_back(label_map, tmp_path):
    case = some_case(label_map, attributes={"sex": "male", "age": None, "sites": ["left_kidney"]})
    folder = case.save(tmp_path / "deep" / "case")
    assert sorted(f.name for f in folder.iterdir()) == ["case.json", "ct.nii.gz", "labels.nii.gz", "preview.png"]
    assert sorted(f.name for f in folder.parent.iterdir()) == ["case"]
    assert same(Case.load(folder), case)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    labels=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=5), elements=st.integers(0, 20)),
    prompt=st.text(max_size=200),
    matrix=hnp.arrays(np.float64, (3, 4), elements=st.floats(-50, 50)),
)
def test_any_case_survives_the_disk(tmp_path_factory, labels, prompt, matrix):
    affine = np.vstack([matrix + 60 * np.eye(3, 4) * np.sign(np.diag(matrix) + 0.5)[:, None], [0, 0, 0, 1]])
    if abs(np.linalg.det(affine[:3, :3])) < 1:
        return
    case = some_case(labels, affine=affine, prompt=prompt)
    assert same(Case.load(case.save(tmp_path_factory.mktemp("case") / "c")), case)


def test_both_volumes_lie_on_one_affine_and_are_marked_synthetic(label_map, tmp_path):
    folder = some_case(label_map).save(tmp_path / "case")
    ct, labels = nib.load(folder / "ct.nii.gz"), nib.load(folder / "labels.nii.gz")
    assert np.array_equal(ct.affine, labels.affine)
    assert np.allclose(ct.get_qform(), ct.get_sform())
    assert (ct.get_data_dtype(), labels.get_data_dtype()) == (np.int16, np.uint8)
    assert ct.header.get_xyzt_units()[0] == "mm"
    for image in (ct, labels):
        assert image.header["descrip"].item().startswith(b"SYNTHETIC")
    record = json.loads((folder / "case.json").read_text())
    assert record["synthetic"] is True
    assert record["prompt"] == "A patient."
    assert record["provenance"]["model"] == "someone/torso"
    assert record["provenance"]["seed"] == 7
    assert "torch" in record["provenance"]["versions"]
    assert record["classes"]["3"] == "liver"


def test_a_real_case_is_not_called_synthetic(label_map, tmp_path):
    folder = some_case(label_map, provenance={}).save(tmp_path / "case")
    assert json.loads((folder / "case.json").read_text())["synthetic"] is False
    assert b"SYNTHETIC" not in nib.load(folder / "ct.nii.gz").header["descrip"].item()


def test_a_label_map_alone_is_a_case_too(label_map, tmp_path):
    case = some_case(label_map, ct=None)
    folder = case.save(tmp_path / "case")
    assert not (folder / "ct.nii.gz").exists()
    assert Case.load(folder).ct is None


def test_a_case_is_not_overwritten_unless_asked(label_map, tmp_path):
    first, second = some_case(label_map), some_case(label_map, prompt="Another.", ct=None)
    first.save(tmp_path / "case")
    (tmp_path / "case" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        second.save(tmp_path / "case")
    assert same(Case.load(tmp_path / "case"), first)
    second.save(tmp_path / "case", overwrite=True)
    assert same(Case.load(tmp_path / "case"), second)
    assert (tmp_path / "case" / "notes.txt").read_text() == "mine"


def test_a_folder_with_other_things_receives_the_case_beside_them(label_map, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    case = some_case(label_map)
    case.save(tmp_path)
    assert same(Case.load(tmp_path), case)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("failing", ["_nifti", "preview"])
def test_a_save_that_fails_leaves_nothing(label_map, tmp_path, monkeypatch, failing):
    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(Case, failing, fail)
    with pytest.raises(OSError, match="No space"):
        some_case(label_map).save(tmp_path / "case")
    assert list(tmp_path.iterdir()) == []


def test_what_json_cannot_hold_leaves_nothing(label_map, tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        some_case(label_map, attributes={"age": float("nan")}).save(tmp_path / "case")
    with pytest.raises(TypeError, match="not JSON serializable"):
        some_case(label_map, attributes={"age": object()}).save(tmp_path / "case")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_named(label_map, tmp_path):
    (tmp_path / "case").write_text("a file")
    with pytest.raises(FileExistsError, match="expected a folder"):
        some_case(label_map).save(tmp_path / "case", overwrite=True)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"ct": np.zeros((2, 2, 2), np.int16)}, ValueError, "expected the labels'"),
        ({"ct": np.zeros((12, 10, 14), np.float32)}, TypeError, "int16 HU"),
        ({"affine": np.zeros((4, 4))}, ValueError, "affine"),
        ({"labels": np.full((12, 10, 14), 21)}, ValueError, r"\[21\]"),
        ({"prompt": 3}, TypeError, "expected a string"),
    ],
)
def test_what_is_no_case_is_refused(label_map, changes, error, message):
    with pytest.raises(error, match=message):
        some_case(changes.pop("labels", label_map), **changes)


def test_damaged_folders_are_refused_with_the_file_at_fault(label_map, tmp_path):
    def saved(name):
        return some_case(label_map).save(tmp_path / name)

    with pytest.raises(FileNotFoundError, match="no case.json"):
        Case.load(tmp_path)
    folder = saved("json")
    (folder / "case.json").write_text("{")
    with pytest.raises(ValueError, match=r"case\.json"):
        Case.load(folder)
    folder = saved("truncated")
    (folder / "ct.nii.gz").write_bytes((folder / "ct.nii.gz").read_bytes()[:400])
    with pytest.raises(ValueError, match=r"ct\.nii\.gz: cannot be read"):
        Case.load(folder)
    folder = saved("not_nifti")
    (folder / "labels.nii.gz").write_bytes(gzip.compress(b"hello" * 200))
    with pytest.raises(ValueError, match=r"labels\.nii\.gz: cannot be read"):
        Case.load(folder)
    folder = saved("lost")
    (folder / "labels.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"labels\.nii\.gz"):
        Case.load(folder)
    folder = saved("shifted")
    image = nib.load(folder / "ct.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine + np.eye(4, k=3)), folder / "ct.nii.gz")
    with pytest.raises(ValueError, match="different affines"):
        Case.load(folder)


def test_label_maps_are_read_from_cases_images_files_and_folders_and_keep_their_origin(label_map, tmp_path):
    for synthetic in (True, False):
        case = some_case(label_map, provenance={"synthetic": synthetic})
        folder = case.save(tmp_path / str(synthetic))
        for source in (case, folder, nib.load(folder / "labels.nii.gz"), str(folder / "labels.nii.gz")):
            read = read_label_map(source)
            assert read.ct is None
            assert np.array_equal(read.labels, label_map)
            assert np.allclose(read.affine, case.affine, atol=1e-4)
            assert read.synthetic is synthetic
    assert read_label_map(nib.Nifti1Image(label_map, np.eye(4))).synthetic is False


def test_a_ct_painted_on_a_real_label_map_does_not_make_the_labels_synthetic(label_map, tmp_path):
    case = some_case(label_map, provenance={"synthetic": True, "synthetic_labels": False})
    folder = case.save(tmp_path / "case")
    assert b"SYNTHETIC" in nib.load(folder / "ct.nii.gz").header["descrip"].item()
    assert b"SYNTHETIC" not in nib.load(folder / "labels.nii.gz").header["descrip"].item()


def test_a_label_map_without_an_affine_is_refused(label_map, tmp_path):
    with pytest.raises(TypeError, match="has no affine"):
        read_label_map(label_map)
    image = nib.Nifti1Image(label_map, np.eye(4))
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nib.save(image, tmp_path / "bare.nii.gz")
    with pytest.raises(ValueError, match="has no affine"):
        read_label_map(tmp_path / "bare.nii.gz")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real CT is not here")
def test_a_real_ct_becomes_a_case_and_stays_in_its_place(tmp_path):
    from guidegen_diffusers.labels import from_totalsegmentator

    image, segmentation = nib.load(REAL / "ct.nii.gz"), nib.load(REAL / "segmentation.nii.gz")
    ct = np.asarray(image.dataobj).clip(-1024, 3071).astype(np.int16)
    case = Case(from_totalsegmentator(np.asarray(segmentation.dataobj)), image.affine, ct)
    again = Case.load(case.save(tmp_path / "case"))
    assert same(again, case)
    liver = again.ct[again.labels == 3]
    assert 20 < np.median(liver) < 150
    middle = case.affine @ [*np.argwhere(case.labels == 3).mean(0), 1]
    spleen = case.affine @ [*np.argwhere(case.labels == 1).mean(0), 1]
    assert middle[0] > spleen[0]  # RAS: the liver lies to the right of the spleen
