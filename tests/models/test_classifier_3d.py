"""The classifier reads four attributes of a CT at once, learns each, and tells a place from another."""

import pytest
import torch
import torch.nn.functional as F
from accelerate.utils import convert_to_fp32

from guidegen_diffusers import Classifier3D
from guidegen_diffusers.models import ATTRIBUTES, Classifier3DOutput
from guidegen_diffusers.prompts import AGES, RACES, SEXES, SITES


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return Classifier3D(block_out_channels=(4, 8), place_channels=8).eval()


@pytest.mark.parametrize("shape", [(8, 6, 12), (7, 9, 11), (2, 2, 2)])
def test_every_attribute_gets_a_logit_a_value_whatever_the_grid(classifier, shape):
    out = classifier(torch.randint(-1500, 1500, (2, *shape), dtype=torch.int16))
    assert {name: tuple(out[name].shape) for name in out} == {
        "age": (2, len(AGES)),
        "sex": (2, len(SEXES)),
        "race": (2, len(RACES)),
        "site": (2, len(SITES)),
    }


def test_a_reading_is_the_likeliest_value_of_each(classifier):
    ct = torch.randn(3, 8, 6, 12) * 500
    logits = classifier(ct, return_dict=False)
    readings = classifier.classify(ct)
    assert len(readings) == 3
    for (name, values), of_one in zip(ATTRIBUTES.items(), logits, strict=True):
        assert [reading[name] for reading in readings] == [values[i] for i in of_one.argmax(1).tolist()]


def test_it_learns_what_is_where(classifier):
    """Sex is a value of HU, the site a place, and both are read off one volume."""
    sex, site = torch.arange(12) % 2, torch.arange(12) % 6
    ct = torch.full((12, 8, 6, 12), -200.0) + 200 * sex[:, None, None, None]
    for i in range(12):
        ct[i, :3, :3, 2 * site[i] : 2 * site[i] + 2] += 250
    optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        out = classifier(ct)
        (F.cross_entropy(out.sex, sex) + F.cross_entropy(out.site, site)).backward()
        optimizer.step()
    readings = classifier.classify(ct)
    assert [SEXES.index(reading["sex"]) for reading in readings] == sex.tolist()
    assert [SITES.index(reading["site"]) for reading in readings] == site.tolist()


def test_its_output_passes_through_accelerates_mixed_precision(classifier):
    out = classifier(torch.zeros(1, 4, 4, 4))
    again = convert_to_fp32(Classifier3DOutput(*(logits.bfloat16() for logits in out.to_tuple())))
    assert {again[name].dtype for name in ATTRIBUTES} == {torch.float32}


def test_it_survives_a_round_trip(classifier, tmp_path):
    classifier.save_pretrained(tmp_path)
    again = Classifier3D.from_pretrained(tmp_path)
    ct = torch.randn(1, 4, 4, 4) * 500
    torch.testing.assert_close(again(ct).site, classifier(ct).site)
    assert all(torch.equal(x, y) for x, y in zip(again.parameters(), classifier.parameters(), strict=True))


def test_a_shape_that_does_not_fit_is_named(classifier):
    with pytest.raises(ValueError, match="expected \\(B, X, Y, Z\\)"):
        classifier(torch.zeros(1, 1, 4, 4, 4))
