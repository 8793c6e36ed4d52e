"""train_segmenter.py learns to read CT, goes on from any death as if none had been, and refuses in one line."""

import json

import pytest
import torch

from guidegen_diffusers import Segmenter3D
from guidegen_diffusers.labels import NUM_CLASSES, TUMOR

from .launch import KILLED, call, launch, load_script


FEW = ["--spacing", 24, "--phantom", 4, "--block_out_channels", 8, 16, "--num_validation_cases", 2]
FEW += ["--lr_warmup_steps", 2]


@pytest.fixture(scope="module")
def script():
    return load_script("train_segmenter.py")


def weights(folder):
    return Segmenter3D.from_pretrained(folder / "segmenter").state_dict()


def test_a_short_run_learns_and_leaves_a_segmenter(script, tmp_path):
    call(script, *FEW, "--output_dir", tmp_path, "--max_train_steps", 60, "--learning_rate", 1e-2)
    record = json.loads((tmp_path / "segmenter" / "training.json").read_text())
    assert record["step"] == 60
    assert record["scores"]["lung"] > 0.5
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-60"]


def test_a_killed_run_ends_as_one_that_was_not(script, tmp_path):
    arguments = [*FEW, "--max_train_steps", 30, "--checkpointing_steps", 4, "--crop_size", 8, 8, 12]
    call(script, *arguments, "--output_dir", tmp_path / "whole")
    killed = [*arguments, "--output_dir", tmp_path / "killed"]
    result = launch("train_segmenter.py", *killed, kill_when=lambda: any((tmp_path / "killed").glob("checkpoint-*")))
    assert result.returncode == KILLED
    call(script, *killed, "--resume_from_checkpoint", "latest")
    whole, again = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(whole[key], again[key]) for key in whole)


def test_the_loss_has_known_answers(script):
    labels = torch.randint(0, 3, (2, 4, 4, 4)).byte()
    labels[0, 0] = TUMOR
    sure = 40.0 * torch.nn.functional.one_hot(labels.long(), NUM_CLASSES).movedim(-1, 1)
    assert script.segmentation_loss(sure, labels, 5.0) < 1e-5
    assert script.segmentation_loss(sure.roll(1, dims=1), labels, 5.0) > 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected one of"),
        (["--phantom", "4", "--train_data_dir", "x"], "expected one of"),
        (["--train_data_dir", "nowhere"], "nowhere"),
        (["--phantom", "4", "--spacing", "24", "--crop_size", "9", "8", "8"], "crop_size"),
        (["--phantom", "4", "--spacing", "24", "--crop_size", "800", "8", "8"], "crop_size"),
    ],
)
def test_bad_input_is_named(script, tmp_path, capsys, arguments, message):
    with pytest.raises((SystemExit, FileNotFoundError)) as error:
        call(script, *arguments, "--output_dir", tmp_path, "--max_train_steps", 2)
    assert message in f"{error.value}{capsys.readouterr().err}"
