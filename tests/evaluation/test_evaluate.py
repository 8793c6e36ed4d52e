"""One report of two sets: what is alike comes out alike, what is not is told, and nothing is half-written."""

import dataclasses
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from guidegen_diffusers import Case, Classifier3D, Segmenter3D
from guidegen_diffusers.cli import app
from guidegen_diffusers.data.phantom_set import write_phantoms
from guidegen_diffusers.evaluation import CaseSet, evaluate, report
from guidegen_diffusers.labels import CLASSES, TUMOR
from guidegen_diffusers.metrics.features import weights_version


SIZE, SPACING = (24, 18, 36), 16.0
LIVER = next(c.id for c in CLASSES if c.name == "liver")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Three sets of phantoms: of training, held out, and held out by another name."""
    folder = tmp_path_factory.mktemp("sets")
    for name, count, split, seed in (("train", 20, "train", 0), ("real", 20, "test", 0), ("new", 8, "test", 100)):
        write_phantoms(folder / name, count, SIZE, SPACING, seed, split, progress=False)
    return folder


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    return Segmenter3D(SPACING, block_out_channels=(8, 16)).eval()


def saved(folder, cases, names):
    for name, case in zip(names, cases, strict=True):
        case.save(folder / name)
    return folder


@pytest.fixture
def plain(monkeypatch):
    """Reports without plots, which take longer than all the rest at this size."""
    monkeypatch.setattr(report, "draw_plots", lambda *arguments: [])


@pytest.fixture(scope="module")
def fresh(sets, segmenter, tmp_path_factory):
    """New phantoms against others: a generator as good as can be."""
    output = tmp_path_factory.mktemp("reports") / "fresh"
    return evaluate(sets / "real", sets / "new", output, segmenter=segmenter, train=sets / "train"), output


def test_sets_of_one_origin_come_out_alike(fresh):
    found, _ = fresh
    assert found["sets"]["synthetic"] | {"folder": ""} == {
        "folder": "",
        "cases": 8,
        "without_ct": 0,
        "grid": "24 x 18 x 36 voxels of 16 x 16 x 16 mm",
    }
    assert found["prompts"]["synthetic"]["as_prompted"]["share"] > 0.7
    liver = found["anatomy"]["volumes_ml"]["liver"]
    assert liver["synthetic_present"] == 1
    assert liver["synthetic"] == pytest.approx(liver["real"], rel=0.3)
    assert (
        abs(found["intensity"]["mean_hu"]["liver"]["synthetic"] - found["intensity"]["mean_hu"]["liver"]["real"]) < 40
    )
    assert found["reading"]["mean_organ_dice"]["ratio"] == pytest.approx(
        1, abs=0.5
    )  # by a segmenter that knows nothing
    for name in ("ct", "labels"):
        halves = found["distances"][name]["halves"]
        assert halves["frechet"] < 20 * halves["frechet_of_real"]
    assert all(verdict["p_value"] > 0.01 for verdict in found["copies"].values())


@pytest.mark.usefixtures("plain")
def test_a_classifier_that_knows_nothing_reads_patients_by_chance_at_best(sets, tmp_path):
    segmenter = Segmenter3D(SPACING, block_out_channels=(8, 16)).eval()
    classifier = Classifier3D(SPACING, weights_version(segmenter), hidden_channels=4).eval()
    for *_, head in classifier.heads.values():
        head.weight.data.zero_()  # one answer for everybody
    given = {"segmenter": segmenter, "classifier": classifier, "limit": 8, "pictures": 0}
    found = evaluate(sets / "real", sets / "new", tmp_path / "report", **given)
    for row in found["patients"].values():
        assert row["synthetic"]["of"] == 8
        assert row["synthetic"]["share"] <= row["synthetic_chance"]
    assert found["networks"][-1]["name"] == "Classifier3D"
    text = (tmp_path / "report" / "report.md").read_text()
    assert "Does the CT show the patient?" in text
    assert f"| sex | {100 * found['patients']['sex']['synthetic']['share']:.1f} % of 8 |" in text
    with pytest.raises(ValueError, match="classifier: is trained on voxels of 6 mm"):
        evaluate(sets / "real", sets / "new", tmp_path / "again", segmenter=segmenter, classifier=Classifier3D(6.0))


def test_a_classifier_reads_what_its_own_segmenter_measures_and_no_other(sets, segmenter, tmp_path):
    classifier = Classifier3D(SPACING, "0123456789ab")
    with pytest.raises(ValueError, match="classifier: got no segmenter, expected that of version 0123456789ab"):
        evaluate(sets / "real", sets / "new", tmp_path / "report", classifier=classifier)
    with pytest.raises(ValueError, match=f"classifier: got {weights_version(segmenter)}, expected that of version"):
        evaluate(sets / "real", sets / "new", tmp_path / "report", segmenter=segmenter, classifier=classifier)


def test_the_report_is_there_to_be_read(fresh):
    found, output = fresh
    names = {path.name for path in output.iterdir()}
    pictures = {f"{kind}_{rank}.png" for kind in ("worst", "best") for rank in (1, 2, 3)}
    assert names == {"report.json", "report.md", "sites.png", "volumes.png", "hu.png", "dice.png"} | pictures
    written = json.loads((output / "report.json").read_text())
    assert [row["name"] for row in written.pop("cases")["synthetic"]] == CaseSet(
        found["sets"]["synthetic"]["folder"]
    ).names
    assert written == found
    text = (output / "report.md").read_text()
    liver = found["anatomy"]["volumes_ml"]["liver"]
    assert f"| liver | 100.0 % | 100.0 % | {liver['synthetic']:.1f} ({liver['synthetic_sd']:.1f})" in text
    assert found["networks"][0]["version"] in text
    for name in names - {"report.json", "report.md"}:
        assert f"]({name})" in text


def test_pictures_of_the_worst_come_from_the_worst(fresh):
    output = fresh[1]
    rows = json.loads((output / "report.json").read_text())["cases"]["synthetic"]
    order = sorted(rows, key=lambda row: np.mean(list(row["dice"].values())))
    text = (output / "report.md").read_text()
    assert f"worst, {order[0]['name']}: mean Dice of the reading" in text
    assert f"best, {order[-1]['name']}: mean Dice of the reading" in text


@pytest.mark.usefixtures("plain")
def test_a_generator_that_copies_is_caught(sets, segmenter, tmp_path):
    given = {"segmenter": segmenter, "train": sets / "train", "pictures": 0}
    found = evaluate(sets / "real", sets / "train", tmp_path / "report", **given)
    for verdict in found["copies"].values():
        assert verdict["share"] == 1
        assert verdict["p_value"] < 1e-3


@pytest.mark.usefixtures("plain")
def test_tumours_that_are_not_there_and_a_ct_in_the_wrong_units_are_told(sets, segmenter, tmp_path):
    source = CaseSet(sets / "new")
    spoiled = []
    for case in source:
        labels = np.where(case.labels == TUMOR, LIVER, case.labels).astype(np.uint8)
        spoiled.append(dataclasses.replace(case, labels=labels, ct=case.ct + np.int16(1024)))
    made = saved(tmp_path / "made", spoiled, source.names)
    found = evaluate(sets / "real", made, tmp_path / "report", segmenter=segmenter, pictures=0)
    asked = found["prompts"]["synthetic"]["as_prompted_tumors"]
    assert asked["of"] >= 5
    assert asked["share"] == 0
    assert found["intensity"]["mean_hu"]["liver"]["synthetic"] > 1000
    assert found["anatomy"]["volumes_ml"]["tumor"]["synthetic_present"] == 0
    halves = found["distances"]["ct"]["halves"]
    assert halves["frechet"] > 2 * halves["frechet_of_real"]


@pytest.mark.usefixtures("plain")
def test_predictions_of_another_segmenter_take_the_place_of_ours(sets, tmp_path):
    folders = []
    for which in ("real", "new"):
        folders.append(tmp_path / which)
        folders[-1].mkdir()
        cases = CaseSet(sets / which, 4)
        for name, case in zip(cases.names, cases, strict=True):
            labels = case.labels.copy()
            if which == "new":
                labels[labels == LIVER] = 0
            nib.save(nib.Nifti1Image(labels, case.affine), folders[-1] / f"{name}.nii.gz")
    scheme = {"predictions": tuple(folders), "predictions_scheme": "ours", "limit": 4, "pictures": 0}
    found = evaluate(sets / "real", sets / "new", tmp_path / "report", **scheme)
    assert found["reading"]["dice"]["spleen"]["synthetic"] == found["reading"]["dice"]["liver"]["real"] == 1
    assert found["reading"]["dice"]["liver"]["synthetic"] == 0
    assert found["reading"]["hd95"]["liver"]["synthetic"] == 1000
    assert found["networks"] == []
    (folders[1] / f"{CaseSet(sets / 'new').names[2]}.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match="holds no prediction for"):
        evaluate(sets / "real", sets / "new", tmp_path / "again", **scheme)
    assert not (tmp_path / "again").exists()


@pytest.mark.usefixtures("plain")
def test_without_cts_only_label_maps_are_compared(sets, segmenter, tmp_path):
    source = CaseSet(sets / "new", 3)
    made = saved(tmp_path / "made", [dataclasses.replace(case, ct=None) for case in source], source.names)
    found = evaluate(sets / "real", made, tmp_path / "report", segmenter=segmenter, limit=4, pictures=0)
    assert found["sets"]["synthetic"]["without_ct"] == 3
    assert set(found["distances"]) == {"labels", "tumor"}
    assert not {"intensity", "reading"} & set(found)
    assert "| synthetic | 3 | 3 |" in (tmp_path / "report" / "report.md").read_text()


@pytest.mark.usefixtures("plain")
def test_lpips_is_of_pairs_of_one_name_and_0_of_a_set_with_itself(sets, segmenter, tmp_path):
    found = evaluate(sets / "real", sets / "real", tmp_path / "report", segmenter=segmenter, limit=3, pictures=0)
    assert found["lpips"]["pairs"] == "of one name"
    assert found["lpips"]["count"] == 3
    assert found["lpips"]["ct"] == found["lpips"]["labels"] == 0 < found["lpips"]["ct_of_real"]
    assert found["distances"]["ct"]["frechet"] == pytest.approx(0, abs=1e-6)


# --------------------------------------------------------------------------------------------------------- bad input


def test_sets_that_cannot_be_compared_are_refused_before_anything_is_measured(sets, segmenter, tmp_path):
    small = [Case(np.ones((8, 8, 8), np.uint8), np.diag([6.0, 6, 6, 1]))] * 2
    other = saved(tmp_path / "other", small, ["a", "b"])
    report = tmp_path / "report"
    with pytest.raises(
        ValueError, match=r"synthetic: got 8 x 8 x 8 voxels of 6 .* expected the real set's 24 x 18 x 36"
    ):
        evaluate(sets / "real", other, report)
    with pytest.raises(ValueError, match=r"train: got 8 x 8 x 8 voxels"):
        evaluate(sets / "real", sets / "new", report, train=other)
    with pytest.raises(ValueError, match="real: got 8 cases, expected at least 19"):
        evaluate(sets / "new", sets / "real", report, segmenter=segmenter, train=sets / "train")
    with pytest.raises(ValueError, match="train: got a set but no segmenter"):
        evaluate(sets / "real", sets / "new", report, train=sets / "train")
    with pytest.raises(ValueError, match="synthetic: got one case"):
        evaluate(sets / "real", saved(tmp_path / "one", small[:1], ["a"]), report)
    with pytest.raises(ValueError, match=r"segmenter: is trained on voxels of 16 mm, got sets of 8 x 8 x 8"):
        evaluate(other, other, report, segmenter=segmenter)
    assert not report.exists()


@pytest.mark.usefixtures("plain")
def test_what_is_there_is_not_written_over(sets, tmp_path):
    arguments = {"limit": 2, "pictures": 0}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.md").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="holds other files"):
            evaluate(sets / "real", sets / "new", tmp_path / "mine", overwrite=overwrite, **arguments)
    evaluate(sets / "real", sets / "new", tmp_path / "report", **arguments)
    with pytest.raises(FileExistsError, match="holds a report already"):
        evaluate(sets / "real", sets / "new", tmp_path / "report", **arguments)
    evaluate(sets / "real", sets / "new", tmp_path / "report", overwrite=True, **arguments)
    assert (tmp_path / "mine" / "thesis.md").read_text() == "x"


def test_a_report_that_fails_half_way_leaves_nothing(sets, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "draw_cases", full)
    with pytest.raises(OSError, match="No space left"):
        evaluate(sets / "real", sets / "new", tmp_path / "report", limit=2)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------- the command


@pytest.mark.usefixtures("plain")
def test_the_command_writes_the_report_and_tells_bad_input_in_one_line(sets, segmenter, tmp_path):
    segmenter.save_pretrained(tmp_path / "segmenter")
    given = ["evaluate", "--real", sets / "real", "--synthetic", sets / "new", "--output", tmp_path / "report"]
    given += ["--segmenter", tmp_path / "segmenter", "--limit", 3, "--pictures", 1]
    done = CliRunner().invoke(app, [*map(str, given)])
    assert done.exit_code == 0, done.output
    assert f"{tmp_path / 'report'}: site as prompted" in done.output
    assert "Dice" in (tmp_path / "report" / "report.md").read_text()
    again = CliRunner().invoke(app, [*map(str, given)])
    assert again.exit_code == 1
    assert "holds a report already" in again.output
