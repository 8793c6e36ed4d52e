"""The figures of a case say what is in it."""

import dataclasses

import numpy as np
import pytest
import torch

from guidegen_diffusers import Case, Classifier3D, Segmenter3D, TorsoPhantom
from guidegen_diffusers.evaluation.measure import measure_case, prompted_sites, read_ct, read_patient
from guidegen_diffusers.labels import CLASSES
from guidegen_diffusers.models import ATTRIBUTES


LUNG = next(c.id for c in CLASSES if c.name == "lung")


@pytest.fixture(scope="module")
def case():
    return TorsoPhantom((32, 24, 48), 12.0).sample("A large cancer of the left kidney, T4.", 0)


def test_a_phantom_shows_what_it_was_asked_for(case):
    figures = measure_case(case)
    assert figures["prompted"] == ["left_kidney"]
    assert figures["site"] == "left_kidney"
    assert figures["tumors"] == 1
    assert figures["stray"] < 0.02
    assert 0.3 < figures["cardiothoracic_ratio"] < 0.7
    assert figures["hu"]["lung"] < -600 < 0 < figures["hu"]["liver"]
    assert "dice" not in figures


def test_a_reading_that_is_right_scores_one_and_0_mm(case):
    figures = measure_case(case, case.labels)
    assert set(figures["dice"].values()) == {1.0}
    assert set(figures["hd95"].values()) == {0.0}


def test_a_reading_that_misses_the_lungs_is_told(case):
    figures = measure_case(case, np.where(case.labels == LUNG, 0, case.labels).astype(np.uint8))
    assert figures["dice"]["lung"] == 0
    assert figures["hd95"]["lung"] == 1000
    assert figures["dice"]["liver"] == 1


def test_a_patient_is_what_the_case_states_beside_what_the_classifier_reads(case):
    classifier, segmenter = Classifier3D(12.0, hidden_channels=4), Segmenter3D(12.0, block_out_channels=(8, 16))
    for *_, head in classifier.heads.values():  # one that always reads the second value
        head.weight.data.zero_()
        head.bias.data.copy_(torch.arange(len(head.bias)) == 1)
    reading, measures = read_ct(segmenter, case.ct)
    ct = torch.from_numpy(case.ct)[None]
    assert np.array_equal(reading, segmenter.segment(ct)[0].numpy())
    torch.testing.assert_close(measures, segmenter.measure(ct))
    patient = read_patient(classifier, measures, case)
    assert {name: read for name, (_, read) in patient.items()} == {n: v[1] for n, v in ATTRIBUTES.items()}
    stated = {name: value for name, (value, _) in patient.items()}
    assert stated == {name: case.attributes[name] for name in ("age", "sex", "race")} | {"site": "left_kidney"}
    open_case = dataclasses.replace(case, attributes={"sites": ["left_kidney", "right_kidney"], "age": None})
    assert {value for value, _ in read_patient(classifier, measures, open_case).values()} == {None}
    assert measure_case(case, patient=patient)["patient"] == patient


def test_without_a_ct_there_are_no_figures_of_one(case):
    figures = measure_case(dataclasses.replace(case, ct=None))
    assert not {"hu", "contrast", "emphysema_share"} & set(figures)
    assert figures["site"] == "left_kidney"


def test_what_was_asked_for_comes_from_attributes_then_from_the_prompt_and_may_be_open():
    labels, affine = np.zeros((4, 4, 4), np.uint8), np.diag([6.0, 6, 6, 1])
    stated = Case(labels, affine, prompt="A tumour in the right kidney.", attributes={"sites": ["left_kidney"]})
    assert prompted_sites(stated) == ["left_kidney"]
    assert prompted_sites(Case(labels, affine, prompt="A tumour in the right kidney.")) == ["right_kidney"]
    assert len(prompted_sites(Case(labels, affine, prompt="Lung cancer."))) == 5
    assert prompted_sites(Case(labels, affine)) is None
