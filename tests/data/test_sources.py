"""Cases are found where data sets put them, and called by their files."""

import pytest

from guidegen_diffusers.data.sources import Source, case_name, find_sources


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


@pytest.mark.parametrize("name", ["s01.nii.gz", "s01.nii", "s01_0000.nii.gz", "s01"])
def test_a_case_is_called_by_its_file(tmp_path, name):
    assert case_name(tmp_path / name) == "s01"


def test_a_folder_of_files_and_one_of_labels(tmp_path):
    touch(tmp_path, "ct/b_0000.nii.gz", "ct/a.nii", "ct/notes.txt", "ct/.hidden.nii", "seg/a.nii.gz", "seg/b.nii.gz")
    assert find_sources([tmp_path / "ct"], [tmp_path / "seg"]) == [
        Source("a", tmp_path / "ct/a.nii", tmp_path / "seg/a.nii.gz"),
        Source("b", tmp_path / "ct/b_0000.nii.gz", tmp_path / "seg/b.nii.gz"),
    ]


def test_totalsegmentators_data_set(tmp_path):
    for name in ("s0001", "s0002"):
        touch(tmp_path / name, "ct.nii.gz", "segmentations/liver.nii.gz", "segmentations/hip_left.nii.gz")
    touch(tmp_path, "meta.csv")
    assert find_sources([tmp_path], [tmp_path]) == [
        Source(name, tmp_path / name / "ct.nii.gz", tmp_path / name / "segmentations") for name in ("s0001", "s0002")
    ]


def test_kits_with_organs_from_elsewhere(tmp_path):
    touch(tmp_path / "kits/case_00000", "imaging.nii.gz", "segmentation.nii.gz")
    touch(tmp_path / "organs", "case_00000.nii.gz")
    kits = tmp_path / "kits"
    assert find_sources([kits], [tmp_path / "organs"], [kits]) == [
        Source(
            "case_00000",
            kits / "case_00000/imaging.nii.gz",
            tmp_path / "organs/case_00000.nii.gz",
            (kits / "case_00000/segmentation.nii.gz",),
        )
    ]


def test_lits_and_the_decathlon(tmp_path):
    touch(tmp_path, "lits/volume-0.nii", "lits_seg/segmentation-0.nii", "ts/volume-0.nii.gz")
    touch(tmp_path, "msd/imagesTr/lung_001.nii.gz", "msd/labelsTr/lung_001.nii.gz", "ts/lung_001.nii.gz")
    touch(tmp_path, "msd/imagesTr/lung_002.nii.gz", "ts/lung_002.nii.gz")
    cts, tumors = [tmp_path / "lits", tmp_path / "msd/imagesTr"], [tmp_path / "lits_seg", tmp_path / "msd/labelsTr"]
    found = {source.name: source.tumors for source in find_sources(cts, [tmp_path / "ts"], tumors)}
    assert found == {
        "lung_001": (tmp_path / "msd/labelsTr/lung_001.nii.gz",),
        "lung_002": (),
        "volume-0": (tmp_path / "lits_seg/segmentation-0.nii",),
    }


def test_dicom_series_however_deep_an_archive_puts_them(tmp_path):
    touch(tmp_path / "dicom", "p1/1.dcm", "p1/2.dcm", "p2/study/series/1", "p3/study/a/1", "p3/study/b/1")
    touch(tmp_path / "dicom", "p2/study/series/.DS_Store", "p4/nothing.nii.gz")
    touch(tmp_path / "seg", *(f"{name}.nii.gz" for name in ("p1", "p2", "p3_a", "p3_b")))
    found = {source.name: source.ct for source in find_sources([tmp_path / "dicom"], [tmp_path / "seg"])}
    dicom = tmp_path / "dicom"
    assert found == {
        "p1": dicom / "p1",
        "p2": dicom / "p2/study/series",
        "p3_a": dicom / "p3/study/a",
        "p3_b": dicom / "p3/study/b",
    }


def test_one_of_each(tmp_path):
    touch(tmp_path, "scan.nii.gz", "organs.nii.gz", "lesion.nii.gz", "series/1", "series/2")
    touch(tmp_path / "masks", "spleen.nii.gz", "lung_tumor.nii.gz")
    scan, organs, lesion = (tmp_path / f"{name}.nii.gz" for name in ("scan", "organs", "lesion"))
    assert find_sources([scan], [organs], [lesion]) == [Source("scan", scan, organs, (lesion,))]
    assert find_sources([tmp_path / "series"], [tmp_path / "masks"], [tmp_path / "masks"]) == [
        Source("series", tmp_path / "series", tmp_path / "masks", (tmp_path / "masks/lung_tumor.nii.gz",))
    ]


def test_a_case_folder_alone_is_called_by_the_folder(tmp_path):
    touch(tmp_path / "s7", "ct.nii.gz", "labels.nii.gz", "preview.png", "case.json")
    assert find_sources([tmp_path / "s7"], [tmp_path / "s7"]) == [
        Source("s7", tmp_path / "s7/ct.nii.gz", tmp_path / "s7/labels.nii.gz")
    ]


def test_tumor_masks_are_found_by_their_names(tmp_path):
    touch(tmp_path, "ct/a.nii.gz", "ct/b.nii.gz", "ct/c.nii.gz", *(f"seg/{n}.nii.gz" for n in "abc"))
    touch(tmp_path / "tumor", "a_tumor.nii.gz", "b/lung_tumor.nii.gz", "b/kidney_tumor.nii.gz", "b/liver.nii.gz")
    tumor = tmp_path / "tumor"
    assert [source.tumors for source in find_sources([tmp_path / "ct"], [tmp_path / "seg"], [tumor])] == [
        (tumor / "a_tumor.nii.gz",),
        (tumor / "b/kidney_tumor.nii.gz", tumor / "b/lung_tumor.nii.gz"),
        (),
    ]


def test_labels_that_one_case_lacks_are_left_to_its_report(tmp_path):
    touch(tmp_path, "ct/a.nii.gz", "ct/b.nii.gz", "seg/a.nii.gz")
    assert [source.labels for source in find_sources([tmp_path / "ct"], [tmp_path / "seg"])][1] is None


def test_what_is_wrong_for_all_cases_is_said_at_once(tmp_path):
    touch(tmp_path, "ct/a.nii.gz", "more/a_0000.nii.gz", "seg/z.nii.gz", "notes/notes.txt", "one.dcm")
    touch(tmp_path / "twice", "z.nii.gz", "z_0000.nii.gz")
    (tmp_path / "empty").mkdir()
    for cts, labels, tumors, error, reason in (
        (["nowhere"], ["seg"], [], FileNotFoundError, "nowhere: no such file or folder"),
        (["empty"], ["seg"], [], FileNotFoundError, "empty: holds no CT"),
        (["ct", "more"], ["seg"], [], ValueError, "the name a belongs to .* too"),
        (["twice"], ["seg"], [], ValueError, "the name z belongs to .* too"),
        (["one.dcm"], ["seg"], [], ValueError, "a DICOM series is given by its folder"),
        (["ct"], ["empty"], [], FileNotFoundError, "empty: holds labels for none of the CTs, expected files called a"),
        (["ct"], ["ct"], ["notes"], FileNotFoundError, "notes: holds tumours for none"),
    ):
        with pytest.raises(error, match=reason):
            find_sources(*([tmp_path / name for name in names] for names in (cts, labels, tumors)))
