"""The classifier reads four attributes at once off what a segmenter measures: sizes, HU, places, neighbours."""

import pytest
import torch
import torch.nn.functional as F
from accelerate.utils import convert_to_fp32

from guidegen_diffusers import Classifier3D, Segmenter3D
from guidegen_diffusers.labels import NUM_CLASSES
from guidegen_diffusers.models import ATTRIBUTES, Classifier3DOutput
from guidegen_diffusers.prompts import AGES, RACES, SEXES, SITES


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return Classifier3D(hidden_channels=8).eval()


@pytest.fixture
def segmenter():
    torch.manual_seed(0)
    return Segmenter3D(block_out_channels=(4, 8)).eval()


def test_every_attribute_gets_a_logit_a_value(classifier, segmenter):
    out = classifier(segmenter.measure(torch.randint(-1500, 1500, (2, 8, 6, 12), dtype=torch.int16)))
    assert {name: tuple(out[name].shape) for name in out} == {
        "age": (2, len(AGES)),
        "sex": (2, len(SEXES)),
        "race": (2, len(RACES)),
        "site": (2, len(SITES)),
    }


def test_a_reading_is_the_likeliest_value_of_each(classifier, segmenter):
    ct = torch.randn(3, 8, 6, 12) * 500
    classifier.standardize(segmenter.measure(ct))
    logits = classifier(segmenter.measure(ct), return_dict=False)
    readings = classifier.classify(segmenter.measure(ct))
    assert len(readings) == 3
    for (name, values), of_one in zip(ATTRIBUTES.items(), logits, strict=True):
        assert [reading[name] for reading in readings] == [values[i] for i in of_one.argmax(1).tolist()]


def test_it_learns_what_is_where(classifier, segmenter, monkeypatch):
    """Sex is a value of HU, the site a place, and both are read off one volume."""
    sex, site = torch.arange(12) % 2, torch.arange(12) % 6
    labels, ct = torch.ones(12, 8, 6, 12), torch.full((12, 8, 6, 12), -100.0)
    for i in range(12):
        labels[i, :3, :3, 2 * site[i] : 2 * site[i] + 2] = 2
        ct[i, :3, :3, 2 * site[i] : 2 * site[i] + 2] += 100 * sex[i]
    sure = 50 * F.one_hot(labels.long(), NUM_CLASSES).movedim(-1, 1).float()
    monkeypatch.setattr(segmenter.conv_out, "forward", lambda x: sure)
    measures = segmenter.measure(ct)
    classifier.standardize(measures)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        out = classifier(measures)
        (F.cross_entropy(out.sex, sex) + F.cross_entropy(out.site, site)).backward()
        optimizer.step()
    readings = classifier.classify(segmenter.measure(ct))
    assert [SEXES.index(reading["sex"]) for reading in readings] == sex.tolist()
    assert [SITES.index(reading["site"]) for reading in readings] == site.tolist()


def test_what_lies_beyond_all_training_is_no_further_than_the_farthest(classifier, segmenter):
    measures = segmenter.measure(torch.randn(8, 8, 6, 12) * 500)
    classifier.standardize(measures)
    far, farther = (classifier(measures[:1] + offset).age for offset in (1e3, 1e6))
    torch.testing.assert_close(far, farther)
    assert not torch.allclose(far, classifier(measures[:1]).age)


def test_its_output_passes_through_accelerates_mixed_precision(classifier, segmenter):
    out = classifier(segmenter.measure(torch.zeros(1, 4, 4, 4)))
    again = convert_to_fp32(Classifier3DOutput(*(logits.bfloat16() for logits in out.to_tuple())))
    assert {again[name].dtype for name in ATTRIBUTES} == {torch.float32}


def test_it_survives_a_round_trip(classifier, segmenter, tmp_path):
    measures = segmenter.measure(torch.randn(5, 4, 4, 4) * 500)
    classifier.standardize(measures)
    classifier.save_pretrained(tmp_path)
    again = Classifier3D.from_pretrained(tmp_path)
    torch.testing.assert_close(again(measures).site, classifier(measures).site)
    kept = again.state_dict()
    assert all(torch.equal(value, kept[key]) for key, value in classifier.state_dict().items())


def test_a_shape_that_does_not_fit_is_named(classifier):
    with pytest.raises(ValueError, match="expected \\(B, 21, 28\\), of Segmenter3D.measure"):
        classifier(torch.zeros(1, 1, 4, 4, 4))
