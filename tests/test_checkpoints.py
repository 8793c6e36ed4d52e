"""Bundled pipelines are found by name, load whole, and stay within what a repository bears."""

import json
import re

import pytest
import torch
from safetensors import safe_open

from guidegen_diffusers import (
    Classifier3D,
    GuideGenPipeline,
    Segmenter3D,
    TorsoPhantom,
    available_checkpoints,
    bundled_checkpoint,
)
from guidegen_diffusers.checkpoints import FOLDER, bundled_instrument
from guidegen_diffusers.evaluation.measure import read_ct, read_patient
from guidegen_diffusers.metrics import dice
from guidegen_diffusers.metrics.features import weights_version
from guidegen_diffusers.phantom import SEEDS


def test_an_unknown_name_is_named():
    with pytest.raises(ValueError, match="got 'torso-7mm'"):
        bundled_checkpoint("torso-7mm")


def test_all_bundles_together_are_at_most_40_mb():
    files = [f for f in FOLDER.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= 40_000_000


@pytest.mark.parametrize("name", available_checkpoints())
def test_a_bundle_is_half_precision_with_a_card_and_the_record_of_its_training(name):
    folder = bundled_checkpoint(name)
    for file in folder.rglob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            whole = [key for key in tensors.keys() if tensors.get_slice(key).get_dtype() == "F32"]  # noqa: SIM118
        assert all(key.startswith("quantizer.") for key in whole), file
    assert (folder / "README.md").is_file()
    for stage in ("tcss", "cae", "lfg"):
        record = json.loads((folder / f"training_{stage}.json").read_text())
        assert record["step"] > 0
        assert record["seconds"] > 0
        assert "seed" in record["arguments"]


@pytest.mark.parametrize("name", available_checkpoints())
def test_a_bundle_loads_whole(name):
    pipe = GuideGenPipeline.from_pretrained(bundled_checkpoint(name))
    assert all(part is not None for part in pipe.components.values())


def test_no_file_of_a_bundle_tells_where_it_was_made():
    texts = [f for f in FOLDER.rglob("*") if f.suffix in (".json", ".md")]
    assert texts
    assert not [f for f in texts if re.search(r'["`]/\w+/', f.read_text())]


def test_an_instrument_is_found_by_the_spacing_that_it_reads():
    assert bundled_instrument("segmenter", (6.0, 6.0, 6.0)).name == "segmenter-6mm"
    assert bundled_instrument("segmenter", (5.0, 5.0, 5.0)) is None
    assert bundled_instrument("segmenter", (6.0, 6.0, 5.0)) is None
    assert bundled_instrument("classifier", (6.0, 6.0, 6.0)).name == "classifier-6mm"


def test_the_bundled_segmenter_reads_the_organs_of_a_phantom_it_has_not_seen():
    case = TorsoPhantom((64, 48, 96), 6.0).sample(None, SEEDS["test"][7000])
    segmenter = Segmenter3D.from_pretrained(bundled_instrument("segmenter", (6.0, 6.0, 6.0))).eval()
    read = dice(segmenter.segment(torch.from_numpy(case.ct)[None])[0].numpy(), case.labels)
    assert min(read[name] for name in ("lung", "liver", "heart", "kidney", "aorta")) > 0.85, read


def test_the_bundled_classifier_reads_patients_of_the_bundled_segmenters_measures():
    segmenter = Segmenter3D.from_pretrained(bundled_instrument("segmenter", (6.0, 6.0, 6.0))).eval()
    classifier = Classifier3D.from_pretrained(bundled_instrument("classifier", (6.0, 6.0, 6.0))).eval()
    assert classifier.config.segmenter == weights_version(segmenter)
    phantom = TorsoPhantom((64, 48, 96), 6.0)
    cases = [phantom.sample(None, SEEDS["test"][7000 + i]) for i in range(6)]
    patients = [read_patient(classifier, read_ct(segmenter, case.ct)[1], case) for case in cases]
    stated, read = zip(*(patient["sex"] for patient in patients), strict=True)
    assert stated == read
    assert set(stated) == {"female", "male"}
