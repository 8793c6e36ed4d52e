"""nnU-Net's form: labels without gaps, regions that are true of the anatomy, and nnU-Net's own check accepts it."""

import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from guidegen_diffusers import TorsoPhantom
from guidegen_diffusers.labels import CLASSES, TUMOR, split_tumor
from guidegen_diffusers.synthesis import NnunetForm, Plan, synthesize

from .phantoms import Phantoms


IDS = {c.name: c.id for c in CLASSES}


@pytest.fixture(scope="module")
def case():
    return TorsoPhantom().sample("a large tumour of the left kidney", seed=5)


def is_in(converted, region):
    return np.isin(converted, region)


def test_labels_of_all_classes_are_ours(case):
    form = NnunetForm()
    assert form.labels() == {"labels": {c.name: c.id for c in CLASSES}}
    assert np.array_equal(form.convert(case.labels, case.affine), case.labels)


def test_chosen_classes_are_numbered_without_gaps(case):
    form = NnunetForm(["tumor", "lung", "kidney"])
    assert form.labels() == {"labels": {"background": 0, "kidney": 1, "lung": 2, "tumor": 3}}
    converted = form.convert(case.labels, case.affine)
    for name, label in form.labels()["labels"].items():
        if label:
            assert np.array_equal(converted == label, case.labels == IDS[name])


def test_without_the_tumour_its_voxels_take_their_organ(case):
    form = NnunetForm(["organs"])
    assert list(form.labels()["labels"].values()) == list(range(20))
    converted = form.convert(case.labels, case.affine)
    assert np.array_equal(converted, split_tumor(case.labels)[0])
    assert (converted[case.labels == TUMOR] == IDS["kidney"]).any()


def test_the_tumour_alone_is_a_mask(case):
    form = NnunetForm(["tumor"])
    assert form.labels() == {"labels": {"background": 0, "tumor": 1}}
    assert np.array_equal(form.convert(case.labels, case.affine), case.labels == TUMOR)


@pytest.mark.parametrize(
    ("site", "organ"), [("left kidney", "kidney"), ("right upper lobe", "lung"), ("ascending colon", "colon")]
)
def test_regions_hold_the_tumours_of_their_organ_and_of_no_other(site, organ):
    case = TorsoPhantom().sample(f"a stage T2N0M0 tumour of the {site}", seed=5)
    form = NnunetForm(regions=True)
    regions = form.labels()["labels"]
    converted = form.convert(case.labels, case.affine)
    tumor = case.labels == TUMOR
    assert tumor.any()
    assert np.array_equal(is_in(converted, regions["tumor"]), tumor)
    for other in ("lung", "kidney", "colon"):
        assert np.array_equal(is_in(converted, regions[f"{other}_tumor"]), tumor & (other == organ))
        whole = (case.labels == IDS[other]) | (tumor & (other == organ))
        assert np.array_equal(is_in(converted, regions[other]), whole)
    assert np.array_equal(is_in(converted, regions["liver"]), case.labels == IDS["liver"])


def test_several_tumours_are_told_apart_and_one_of_another_organ_is_of_none():
    case = TorsoPhantom().sample("a large tumour of the left kidney", seed=5)
    labels = case.labels.copy()
    for organ in ("liver", "lung"):
        middle = np.argwhere(labels == IDS[organ])
        x, y, z = middle[len(middle) // 2]
        labels[x - 1 : x + 2, y - 1 : y + 2, z - 1 : z + 2] = TUMOR
    form = NnunetForm(regions=True)
    converted = form.convert(labels, case.affine)
    first = form.labels()["labels"]["tumor"][0]
    there = [bool((converted == first + i).any()) for i in range(4)]
    assert dict(zip(("lung", "kidney", "colon", "other"), there, strict=True)) == {
        "lung": True,
        "kidney": True,
        "colon": False,
        "other": True,
    }


@pytest.mark.parametrize("classes", [["all"], ["tumor"], ["tumor", "kidney", "liver"]])
def test_regions_painted_in_their_order_give_the_map_back(case, classes):
    """As nnU-Net does it: each region in turn, over the ones before."""
    form = NnunetForm(classes, regions=True)
    converted = form.convert(case.labels, case.affine)
    content = form.labels()
    regions = [region for name, region in content["labels"].items() if name != "background"]
    assert len(regions) == len(content["regions_class_order"])
    painted = np.zeros_like(converted)
    for region, label in zip(regions, content["regions_class_order"], strict=True):
        painted[is_in(converted, region)] = label
    assert np.array_equal(painted, converted)
    every = {label for region in regions for label in np.atleast_1d(region)}
    assert every == set(range(1, max(every) + 1))


def test_a_set_has_its_pairs_on_one_affine_and_says_what_they_are(tmp_path):
    folder = tmp_path / "Dataset101_Torso"
    synthesize(Phantoms(), Plan.from_prior(2), folder, NnunetForm(regions=True), progress=False)
    content = json.loads((folder / "dataset.json").read_text())
    assert (content["numTraining"], content["file_ending"], content["channel_names"]) == (2, ".nii.gz", {"0": "CT"})
    assert content["name"] == "Torso"
    for name in ("train_000000", "train_000001"):
        ct, labels = (
            nib.load(folder / place) for place in (f"imagesTr/{name}_0000.nii.gz", f"labelsTr/{name}.nii.gz")
        )
        assert np.array_equal(ct.affine, labels.affine)
        assert (ct.get_data_dtype(), labels.get_data_dtype()) == (np.int16, np.uint8)
        assert labels.header["descrip"].item().startswith(b"SYNTHETIC")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: NnunetForm(["brain"]), "classes: got brain, expected all, organs, or names among spleen"),
        (lambda: NnunetForm([]), "classes: got none"),
        (lambda: NnunetForm(["lung"], regions=True), "regions: got the classes lung, expected the tumor among them"),
    ],
)
def test_classes_that_are_none_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_folder_that_nnunet_would_not_find_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a number and a name as nnU-Net has them, for example Dataset101_"):
        synthesize(Phantoms(), Plan.from_prior(2), tmp_path / "torso", NnunetForm())
    with pytest.raises(ValueError, match="split: got 'test', expected train"):
        synthesize(Phantoms(), Plan.from_prior(2, split="test"), tmp_path / "Dataset101_Torso", NnunetForm())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("regions", [False, True])
def test_nnunet_itself_accepts_the_set(tmp_path, regions):
    pytest.importorskip("nnunetv2")
    synthesize(Phantoms(), Plan.from_prior(6, balance="sites"), tmp_path / "Dataset101_T", NnunetForm(regions=regions))
    places = {f"nnUNet_{name}": str(tmp_path / name) for name in ("preprocessed", "results")}
    check = (
        "from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity; import sys; "
        "verify_dataset_integrity(sys.argv[1], 1)"
    )
    call = [sys.executable, "-c", check, str(tmp_path / "Dataset101_T")]
    environment = os.environ | places | {"nnUNet_raw": str(tmp_path)}
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "verify_dataset_integrity Done." in done.stdout
