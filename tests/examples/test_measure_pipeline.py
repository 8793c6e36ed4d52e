"""measure_pipeline.py: figures with known answers for cases that are the phantoms themselves, and no case twice."""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guidegen_diffusers import Segmenter3D, TorsoPhantom
from guidegen_diffusers.prompts import SITES

from .launch import call, load_script


@pytest.fixture(scope="module")
def script():
    return load_script("measure_pipeline.py")


@pytest.fixture(scope="module")
def perfect(script):
    """A row for each site at 12 mm, the generated case being the phantom."""
    phantom, rows = TorsoPhantom((32, 24, 48), 12.0), []
    arguments = SimpleNamespace(per_site=1, first_seed=0, free_text=None)
    for task in script.tasks(arguments):
        beside = script.figures(phantom.sample(task["text"], task["seed"]), None)
        rows.append(task | {"seconds": 1.0, "made": beside, "phantom": beside} | {"sites": [beside["site"]]})
    return rows


def test_every_site_is_asked_for_as_often_from_the_test_seeds(script):
    tasks = script.tasks(SimpleNamespace(per_site=3, first_seed=5, free_text=None))
    assert sorted(task["sites"][0] for task in tasks) == sorted(3 * list(SITES))
    assert min(task["seed"] for task in tasks) == 2_000_000_005
    assert len({task["seed"] for task in tasks}) == len(tasks)


def test_phantoms_measured_against_themselves_are_perfect(script, perfect):
    table = script.table(perfect, {})
    assert table["site as prompted, all"] == "100.0 % of 12"
    assert table["organ volume, mean over the phantoms'"] == "1.00 to 1.00, outside 10 %: none"
    assert "+0.0 HU" in table["mean HU of an organ, furthest from the phantoms'"]
    assert table["tumour contrast of the phantom's sign"].startswith("100.0 %")
    assert table["off by more than 15 HU"] == "0 of 19: none"
    assert table["tumour volume, mean over the phantoms'"] == "1.00"


def test_what_is_wrong_shows(script, perfect):
    rows = json.loads(json.dumps(perfect))  # the phantom is an object of its own then
    for i, row in enumerate(rows):
        row["made"]["volumes"]["liver"] *= 1.3
        row["made"]["volumes"]["gallbladder"] *= i % 2
        row["made"]["volumes"]["tumor"] *= 2
        row["made"]["hu"]["spleen"] -= 40
        row["made"]["stray"] = 0.25
        row["made"]["site"] = "elsewhere" if i < 3 else row["made"]["site"]
        if row["made"]["contrast"] is not None:
            row["made"]["contrast"] *= -1
    table = script.table(rows, {})
    assert table["site as prompted, all"] == "75.0 % of 12"
    assert "1.30" in table["organ volume, mean over the phantoms'"]
    assert "liver" in table["organ volume, mean over the phantoms'"]
    assert table["organ present, the rarest"] == "50.0 % (gallbladder)"
    assert table["mean HU of an organ, furthest from the phantoms'"] == "-40.0 HU (spleen)"
    assert table["off by more than 15 HU"] == "1 of 19: spleen -40"
    assert table["tumour volume, mean over the phantoms'"] == "2.00"
    assert table["stray fragments, generated"] == "25.00 %"
    assert table["tumour contrast of the phantom's sign"].startswith("0.0 %")


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), max_size=12))
def test_agreement_is_the_share_of_pairs_of_a_site_that_agree(script, cases):
    alike, weight = 0.0, 0
    for site in "abc":
        own = [sign for sign, place in cases if place == site]
        if len(own) > 1:
            alike += len(own) * np.mean([a == b for a, b in itertools.combinations(own, 2)])
            weight += len(own)
    found = script.agreement([sign for sign, _ in cases], [place for _, place in cases])
    assert found == (pytest.approx(alike / weight) if weight else None)


def test_a_run_goes_on_where_it_stopped_and_measures_all_three_stages(script, tiny, tmp_path):
    tiny.save_pretrained(tmp_path / "model")
    torch.manual_seed(0)
    Segmenter3D(24.0, block_out_channels=(4, 8)).save_pretrained(tmp_path / "segmenter")
    texts = tmp_path / "texts.jsonl"
    texts.write_text(json.dumps({"text": "a lung tumour", "sites": list(SITES[:5])}) + "\n")
    arguments = ["--model", tmp_path / "model", "--output", tmp_path / "figures.json", "--per_site", 1]
    arguments += ["--segmenter", tmp_path / "segmenter", "--free_text", texts, "--reconstructions", 2]
    call(script, *arguments, "--steps", 1, "--mask_steps", 1)
    lines = (tmp_path / "figures.cases.jsonl").read_text().splitlines()
    assert len(lines) == 13
    first = json.loads((tmp_path / "figures.json").read_text())["card"]
    assert {"site as prompted, free text", "MAE of reconstruction", "codes in use"} < set(first)
    free = [row for row in map(json.loads, lines) if row["name"].startswith("free")]
    assert list(script.table(free, {})) == ["site as prompted, free text"]
    (tmp_path / "figures.cases.jsonl").write_text("\n".join(lines[:11]) + "\n")
    call(script, *arguments, "--steps", 1, "--mask_steps", 1)
    again = [json.loads(line) for line in (tmp_path / "figures.cases.jsonl").read_text().splitlines()]
    for a, b in zip(again, map(json.loads, lines), strict=True):
        assert a | {"seconds": 0} == b | {"seconds": 0}
