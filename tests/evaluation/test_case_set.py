"""A set of cases is read from every form that the package writes, and refused where it is none."""

import json

import numpy as np
import pytest

from guidegen_diffusers import Case
from guidegen_diffusers.data.phantom_set import write_phantoms
from guidegen_diffusers.evaluation import CaseSet


SIZE, SPACING = (16, 12, 24), 24.0


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, 3, SIZE, SPACING, split="test", progress=False)
    return folder


def test_a_data_set_and_its_split_are_the_same_set(phantoms):
    whole, split = CaseSet(phantoms), CaseSet(phantoms / "test")
    assert whole.names == split.names
    assert len(whole) == 3
    assert (whole.shape, whole.spacing) == (SIZE, (SPACING,) * 3)
    assert whole.grid == "16 x 12 x 24 voxels of 24 x 24 x 24 mm"
    for a, b in zip(whole, split, strict=True):
        assert np.array_equal(a.labels, b.labels)
        assert np.array_equal(a.ct, b.ct)
        assert a.prompt == b.prompt


def test_a_folder_of_cases_is_the_same_set_as_the_data_set_that_they_came_from(phantoms, tmp_path):
    source = CaseSet(phantoms)
    for name, case in zip(source.names, source, strict=True):
        case.save(tmp_path / name)
    (tmp_path / "notes").mkdir()
    cases = CaseSet(tmp_path)
    assert cases.names == source.names
    assert cases.grid == source.grid
    for a, b in zip(cases, source, strict=True):
        assert np.array_equal(a.labels, b.labels)
        assert np.array_equal(a.ct, b.ct)
        assert a.attributes == b.attributes


def test_a_limit_takes_the_first(phantoms):
    assert CaseSet(phantoms, limit=2).names == CaseSet(phantoms).names[:2]
    with pytest.raises(IndexError, match=r"got 2, expected 0\.\.1"):
        CaseSet(phantoms, limit=2)[2]


def test_of_several_splits_one_has_to_be_named(tmp_path):
    for split in ("train", "test"):
        write_phantoms(tmp_path, 1, SIZE, SPACING, split=split, progress=False)
    with pytest.raises(ValueError, match=f"has several splits, expected one of {tmp_path}/train, {tmp_path}/test"):
        CaseSet(tmp_path)
    assert len(CaseSet(tmp_path / "test")) == 1


def test_cases_on_two_grids_are_no_set(tmp_path):
    for name, spacing in (("one", 6.0), ("two", 3.0)):
        Case(np.ones((4, 4, 4), np.uint8), np.diag([spacing] * 3 + [1])).save(tmp_path / name)
    with pytest.raises(ValueError, match=r"4 x 4 x 4 voxels of 6 x 6 x 6 mm \(one\); .* 3 mm \(two\); expected one"):
        CaseSet(tmp_path)


def test_what_holds_no_case_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        CaseSet(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no case, expected a data set"):
        CaseSet(tmp_path)


@pytest.mark.parametrize("record", ["{", json.dumps({"shape": [4, 4, 4]}), json.dumps({"shape": 1, "affine": 1})])
def test_a_record_that_cannot_be_read_is_named(tmp_path, record):
    (tmp_path / "case").mkdir()
    (tmp_path / "case" / "case.json").write_text(record)
    with pytest.raises(ValueError, match=r"case\.json: not a case record"):
        CaseSet(tmp_path)
