"""measure_spread.py finds the common and the own part of how volumes vary, and tells the scheduler of a pipeline."""

import json

import numpy as np
import pytest
import torch

from guidegen_diffusers import GuideGenPipeline
from guidegen_diffusers.data.phantom_set import write_phantoms
from guidegen_diffusers.labels import NUM_CLASSES, TUMOR

from .launch import call, load_script


@pytest.fixture
def script():
    return load_script("measure_spread.py")


def test_a_common_factor_and_what_is_each_classs_own_are_told_apart(script):
    draw = np.random.default_rng(0)
    common, own = np.full(NUM_CLASSES, 0.1), np.linspace(0.05, 0.2, NUM_CLASSES)
    common[TUMOR], own[TUMOR] = 0, 0.6
    away = common * draw.normal(size=(4000, 1)) + own * draw.normal(size=(4000, NUM_CLASSES))
    away[::3, TUMOR] = np.nan  # no tumour there
    away[5, 4] = np.nan  # no stomach
    spread = np.array(script.volume_spread(away))
    assert spread[0].tolist() == [0, 0]
    assert spread[1:, 0] == pytest.approx(common[1:], abs=0.02)
    assert spread[1:, 1] == pytest.approx(own[1:], abs=0.02)


def test_the_scheduler_of_the_folder_is_told_and_draws_with_it(script, tiny, tmp_path, capsys):
    write_phantoms(tmp_path / "set", 30, (16, 12, 24), 24.0, 0, "train", progress=False)
    tiny.save_pretrained(tmp_path / "pipeline")
    weights = (tmp_path / "pipeline" / "mask_unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    call(script, "--model", tmp_path / "pipeline", "--data_dir", tmp_path / "set", "--count", 30)
    config = json.loads((tmp_path / "pipeline" / "mask_scheduler" / "scheduler_config.json").read_text())
    assert config["keep_volumes"]
    assert np.array(config["volume_spread"])[TUMOR, 1] > 0.1
    assert "liver" in capsys.readouterr().out
    assert (tmp_path / "pipeline" / "mask_unet" / "diffusion_pytorch_model.safetensors").read_bytes() == weights
    pipe = GuideGenPipeline.from_pretrained(tmp_path / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    made = pipe("A male.", output="mask", mask_num_inference_steps=2, generator=torch.Generator().manual_seed(0))
    assert made.labels.any()


def test_another_grid_and_too_few_cases_are_refused(script, tiny, tmp_path, capsys):
    write_phantoms(tmp_path / "set", 30, (8, 6, 12), 48.0, 0, "train", progress=False)
    write_phantoms(tmp_path / "few", 2, (16, 12, 24), 24.0, 0, "train", progress=False)
    tiny.save_pretrained(tmp_path / "pipeline")
    arguments = ("--model", tmp_path / "pipeline", "--data_dir", tmp_path / "set")
    with pytest.raises(SystemExit, match=r"--data_dir: \(8, 6, 12\) voxels a case, expected \(16, 12, 24\)"):
        call(script, *arguments)
    with pytest.raises(SystemExit, match="--data_dir: .* holds 2 cases, expected 30 or more"):
        call(script, *arguments[:3], tmp_path / "few")
    with pytest.raises(SystemExit):
        call(script, *arguments, "--count", 29)
    assert "--count: got 29, expected 30 or more" in capsys.readouterr().err
