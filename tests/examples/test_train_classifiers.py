"""train_classifiers.py learns to read patients, finds no race in phantoms, and goes on from any death as if alive."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from guidegen_diffusers import Case, Classifier3D, Segmenter3D
from guidegen_diffusers.data import DatasetWriter, write_case
from guidegen_diffusers.metrics.features import weights_version
from guidegen_diffusers.models import ATTRIBUTES
from guidegen_diffusers.prompts import AGES, RACES, SEXES, SITES

from .launch import KILLED, call, launch, load_script


FEW = ["--spacing", 24, "--phantom", 4, "--hidden_channels", 8]
FEW += ["--num_validation_cases", 2, "--train_batch_size", 1, "--lr_warmup_steps", 2]


@pytest.fixture(scope="module")
def script():
    return load_script("train_classifiers.py")


def weights(folder):
    return Classifier3D.from_pretrained(folder / "classifier").state_dict()


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    """A small segmenter of 24 mm that has learned a little."""
    folder = tmp_path_factory.mktemp("segmenter")
    few = ["--spacing", 24, "--phantom", 16, "--block_out_channels", 8, 16, "--num_validation_cases", 1]
    call(load_script("train_segmenter.py"), *few, "--output_dir", folder, "--max_train_steps", 60)
    return folder / "segmenter"


def test_sex_is_learned_and_race_stays_at_chance(script, segmenter, tmp_path):
    few = ["--spacing", 24, "--phantom", 96, "--num_validation_cases", 48, "--train_batch_size", 16]
    call(script, "--segmenter", segmenter, *few, "--output_dir", tmp_path, "--max_train_steps", 200)
    record = json.loads((tmp_path / "classifier" / "training.json").read_text())
    scores = record["scores"]
    assert record["step"] == 200
    assert set(scores) == {*ATTRIBUTES, *(f"{name}_chance" for name in ATTRIBUTES)}
    assert scores["sex"] > 0.8
    error = np.sqrt(scores["race_chance"] * (1 - scores["race_chance"]) / 48)
    assert scores["race"] < scores["race_chance"] + 3 * error


def test_it_is_told_which_segmenter_it_learned_from(script, segmenter, tmp_path):
    call(script, "--segmenter", segmenter, *FEW, "--output_dir", tmp_path, "--max_train_steps", 4)
    version = weights_version(Segmenter3D.from_pretrained(segmenter))
    assert Classifier3D.from_pretrained(tmp_path / "classifier").config.segmenter == version


def test_every_epoch_shows_every_case_once_however_many_processes(script):
    for processes in (1, 2):
        ranks = [SimpleNamespace(process_index=i, num_processes=processes) for i in range(processes)]
        args = SimpleNamespace(seed=3, train_batch_size=3)
        shown = [i for step in range(6 // processes) for rank in ranks for i in script.batch_of(step, 9, rank, args)]
        assert sorted(shown[:9]) == sorted(shown[9:]) == list(range(9))
        assert shown[:9] != shown[9:]


def test_a_killed_run_ends_as_one_that_was_not(script, segmenter, tmp_path):
    arguments = ["--segmenter", segmenter, *FEW, "--max_train_steps", 30, "--checkpointing_steps", 4]
    call(script, *arguments, "--output_dir", tmp_path / "whole")
    killed = [*arguments, "--output_dir", tmp_path / "killed"]
    result = launch("train_classifiers.py", *killed, kill_when=lambda: any((tmp_path / "killed").glob("checkpoint-*")))
    assert result.returncode == KILLED
    call(script, *killed, "--resume_from_checkpoint", "latest")
    whole, again = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    assert [p.name for p in (tmp_path / "killed").glob("checkpoint-*")] == ["checkpoint-30"]


def test_a_data_set_with_half_of_its_attributes_known_is_trained_on(script, segmenter, tmp_path):
    known = [{"sex": "female"}, {"age": "61-70", "sites": ["left_kidney"]}, {}]
    with DatasetWriter(tmp_path / "data") as writer:
        for i, attributes in enumerate(known):
            labels = np.full((8, 8, 8), 3, np.uint8)
            case = Case(labels, np.diag([24.0, 24.0, 24.0, 1.0]), labels.astype(np.int16), attributes=attributes)
            writer.append("train", write_case(tmp_path / "data", "train", f"case{i}", case))
    few = ["--train_data_dir", tmp_path / "data", "--spacing", 24, "--segmenter", segmenter]
    few += ["--train_batch_size", 1]  # so that batches of nothing known are met
    call(script, *few, "--output_dir", tmp_path, "--max_train_steps", 6, "--mixed_precision", "bf16")
    scores = json.loads((tmp_path / "classifier" / "training.json").read_text())["scores"]
    assert set(scores) == {f"{name}{of}" for name in ("age", "sex", "site") for of in ("", "_chance")}


def test_what_is_not_known_is_passed_over(script):
    assert script.truth({}) == [script.UNKNOWN] * 4
    whole = {"age": AGES[2], "sex": SEXES[1], "race": RACES[3], "sites": ["none"]}
    assert script.truth(whole) == [2, 1, 3, SITES.index("none")]
    assert script.truth(whole | {"sites": list(SITES[:2]), "race": None}) == [2, 1, script.UNKNOWN, script.UNKNOWN]


def test_the_loss_has_known_answers(script):
    truth = torch.tensor([[0, 1, 2, 3], [1, 0, script.UNKNOWN, script.UNKNOWN]])
    flat = tuple(torch.zeros(2, len(values)) for values in ATTRIBUTES.values())
    expected = sum(np.log(len(values)) for values in ATTRIBUTES.values())
    assert script.classification_loss(flat, truth).item() == pytest.approx(expected)
    sure = tuple(
        40.0 * torch.nn.functional.one_hot(column.clamp(min=0), len(values))
        for column, values in zip(truth.unbind(1), ATTRIBUTES.values(), strict=True)
    )
    assert script.classification_loss(sure, truth) < 1e-5
    nothing = torch.full((2, 4), script.UNKNOWN)
    assert script.classification_loss(flat, nothing).item() == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected one of"),
        (["--phantom", "4", "--train_data_dir", "x"], "expected one of"),
        (["--train_data_dir", "nowhere"], "nowhere"),
        (["--phantom", "4", "--spacing", "24"], "--segmenter: none ships for 24 mm"),
    ],
)
def test_bad_input_is_named(script, tmp_path, capsys, arguments, message):
    with pytest.raises((SystemExit, FileNotFoundError)) as error:
        call(script, *arguments, "--output_dir", tmp_path, "--max_train_steps", 2)
    assert message in f"{error.value}{capsys.readouterr().err}"
