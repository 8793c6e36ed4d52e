"""`guidegen generate` writes a case, says where, and fails in one line."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from guidegen_diffusers import Case, GuideGenPipeline
from guidegen_diffusers.cli import app


FEW = ["--steps", "2", "--mask-steps", "3"]


def generate(*arguments):
    return CliRunner().invoke(app, ["generate", *map(str, arguments)])


def test_a_sentence_becomes_four_files(tmp_path):
    result = generate("A white male.", "--output", tmp_path / "case", *FEW)
    assert result.exit_code == 0, result.output
    for name in ("ct.nii.gz", "labels.nii.gz", "preview.png", "case.json"):
        assert (tmp_path / "case" / name).is_file()
        assert name in result.output
    assert "random weights" in result.output
    case = Case.load(tmp_path / "case")
    assert case.prompt == "A white male."
    assert case.provenance["seed"] == 0


def test_cases_depend_on_the_seed_alone(tmp_path):
    generate("A", "--output", tmp_path / "many", "--num", 2, "--seed", 5, *FEW)
    generate("A", "--output", tmp_path / "one", "--seed", 6, *FEW)
    first, second = (Case.load(tmp_path / "many" / name) for name in ("case_000", "case_001"))
    assert np.array_equal(second.ct, Case.load(tmp_path / "one").ct)
    assert not np.array_equal(first.labels, second.labels)


def test_a_label_map_can_be_made_alone_and_painted_later(tmp_path):
    assert generate("A", "--output", tmp_path / "mask", "--only-mask", *FEW).exit_code == 0
    assert not (tmp_path / "mask" / "ct.nii.gz").exists()
    mask = tmp_path / "mask" / "labels.nii.gz"
    assert generate("A", "--output", tmp_path / "pair", "--mask", mask, *FEW).exit_code == 0
    assert np.array_equal(Case.load(tmp_path / "pair").labels, Case.load(tmp_path / "mask").labels)


def test_a_saved_pipeline_is_a_model(tiny, tmp_path):
    tiny.save_pretrained(tmp_path / "model")
    result = generate("A", "--output", tmp_path / "case", "--model", tmp_path / "model", *FEW)
    assert result.exit_code == 0, result.output
    assert "random weights" not in result.output
    assert json.loads((tmp_path / "case" / "case.json").read_text())["provenance"]["model"] == "model"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "num_inference_steps: got 0"),
        (["--model", "a/b/c"], "a/b/c"),
        (["--mask", "nowhere.nii.gz"], "nowhere.nii.gz: no such file"),
        (["--device", "nothing"], "nothing"),
        (["--device", "cuda:77"], "cuda"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, arguments, message):
    result = generate("A", "--output", tmp_path / "case", *arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_case_is_not_overwritten_unless_asked(tmp_path):
    assert generate("A", "--output", tmp_path / "case", *FEW).exit_code == 0
    again = generate("B", "--output", tmp_path / "case", *FEW)
    assert again.exit_code == 1
    assert "overwrite" in again.output
    assert generate("B", "--output", tmp_path / "case", "--overwrite", *FEW).exit_code == 0
    assert Case.load(tmp_path / "case").prompt == "B"


def test_a_pipeline_that_cannot_be_loaded_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(GuideGenPipeline, "from_config", lambda name: 1 / 0)
    result = generate("A", "--output", tmp_path / "case")
    assert result.exit_code != 0
    assert list(tmp_path.iterdir()) == []
