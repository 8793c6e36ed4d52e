"""assemble_pipeline.py joins stages into one pipeline that loads whole, with a card that tells how it was made."""

import json
import shutil

import pytest
import torch

from guidegen_diffusers import GuideGenPipeline, LatentSpread
from guidegen_diffusers.data.phantom_set import write_phantoms

from .launch import call, load_script


RECORD = {"config": "tiny", "step": 7, "seconds": 5400.0, "hardware": "two threads", "processes": 2}
ARGUMENTS = {"seed": 3, "train_batch_size": 4, "gradient_accumulation_steps": 2, "phantom": 12}


def leave(folder, stage, pipe):
    """A folder as a training script leaves it."""
    pipe.save_pretrained(folder)
    record = RECORD | {"stage": stage.upper(), "arguments": ARGUMENTS}
    (folder / f"training_{stage}.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def stages(tiny, tmp_path):
    text = {"tokenizer": tiny.tokenizer, "text_encoder": tiny.text_encoder}
    grid = {"spacing": 24.0, "max_sequence_length": 256}
    mask = GuideGenPipeline(**text, mask_unet=tiny.mask_unet, mask_scheduler=tiny.mask_scheduler, **grid)
    image = {name: getattr(tiny, name) for name in ("vae", "semantic_encoder", "unet", "scheduler")}
    image["latent_spread"] = LatentSpread(num_components=2)
    image = GuideGenPipeline(**text, **image, sample_size=(16, 12, 24), **grid)
    return [
        *("--tcss", leave(tmp_path / "tcss", "tcss", mask)),
        *("--lfg", leave(tmp_path / "lfg", "lfg", image)),
        *("--cae", leave(tmp_path / "cae", "cae", GuideGenPipeline(vae=tiny.vae))),
    ]


def test_the_stages_become_one_pipeline_in_half_precision(stages, tiny, tmp_path):
    measured = tmp_path / "measured.json"
    measured.write_text(json.dumps({"card": {"site as prompted, all": "97.5 % of 240"}}))
    script = load_script("assemble_pipeline.py")
    call(script, *stages, "--measured", measured, "--output_dir", tmp_path / "torso")
    pipe = GuideGenPipeline.from_pretrained(tmp_path / "torso")
    assert all(part is not None for part in pipe.components.values())
    for name, network in (("mask_unet", tiny.mask_unet), ("unet", tiny.unet)):
        for a, b in zip(getattr(pipe, name).parameters(), network.parameters(), strict=True):
            torch.testing.assert_close(a, b.half().float())
    card = (tmp_path / "torso" / "README.md").read_text()
    for fact in ("| TCSS | 7 x 16 | 1.5 | two threads | 3 |", "training seeds 0 to 11", "97.5 % of 240"):
        assert fact in card
    assert json.loads((tmp_path / "torso" / "training_lfg.json").read_text())["stage"] == "LFG"
    assert not list(tmp_path.glob(".*.partial"))


def test_a_folder_without_its_record_is_named(stages, tmp_path):
    (tmp_path / "cae" / "training_cae.json").unlink()
    with pytest.raises(SystemExit, match="--cae: .* holds no training_cae.json"):
        call(load_script("assemble_pipeline.py"), *stages, "--output_dir", tmp_path / "torso")
    assert not (tmp_path / "torso").exists()


def test_stages_of_two_text_encoders_are_not_joined(stages, tmp_path):
    pipe = GuideGenPipeline.from_pretrained(tmp_path / "lfg")
    pipe.text_encoder.embeddings.word_embeddings.weight.data += 1
    pipe.save_pretrained(tmp_path / "lfg")
    with pytest.raises(SystemExit, match="different text encoders"):
        call(load_script("assemble_pipeline.py"), *stages, "--output_dir", tmp_path / "torso")


def test_a_polished_decoder_joins_and_another_encoder_does_not(stages, tmp_path):
    script, pipe = load_script("assemble_pipeline.py"), GuideGenPipeline.from_pretrained(tmp_path / "cae")
    pipe.vae.decoder[-1].bias.data += 1
    pipe.save_pretrained(tmp_path / "cae")
    before = tmp_path / "before"
    shutil.copytree(tmp_path / "cae", before)
    record = RECORD | {
        "stage": "CAE",
        "step": 2,
        "arguments": ARGUMENTS | {"pretrained_model_name_or_path": str(before)},
    }
    (tmp_path / "cae" / "training_cae.json").write_text(json.dumps(record))
    call(script, *stages, "--dtype", "fp32", "--output_dir", tmp_path / "torso")
    card = (tmp_path / "torso" / "README.md").read_text()
    assert card.index("| CAE | 7 x 16 |") < card.index("| CAE | 2 x 16 |")
    made = GuideGenPipeline.from_pretrained(tmp_path / "torso").vae
    assert torch.equal(made.decoder[-1].bias, pipe.vae.decoder[-1].bias)
    pipe.vae.encoder[0].bias.data += 1
    pipe.save_pretrained(tmp_path / "cae")
    with pytest.raises(SystemExit, match="another encoder's latents"):
        call(script, *stages, "--output_dir", tmp_path / "other")


def test_the_card_names_what_was_shown_phantoms_by_their_seeds(tmp_path):
    script = load_script("assemble_pipeline.py")
    write_phantoms(tmp_path / "set", 2, (16, 12, 24), 24.0, progress=False)
    shown = script.data_of({"train_data_dir": str(tmp_path / "set")})
    assert shown == script.data_of({"phantom": 2, "train_data_dir": None})
    assert "training seeds 0 to 1)" in shown
    write_phantoms(tmp_path / "others", 2, (16, 12, 24), 24.0, seed=5, progress=False)
    assert script.data_of({"train_data_dir": str(tmp_path / "others")}) == "2 cases of others"
    assert script.data_of({"dataset_name": "some/set"}) == "some/set"
    assert script.data_of({"seed": 0}) is None


def test_what_an_assembled_pipeline_tells_of_its_past_is_not_looked_for_in_folders_that_moved(tmp_path):
    script, folder = load_script("assemble_pipeline.py"), tmp_path / "torso"
    folder.mkdir()
    told = RECORD | {"before": RECORD, "arguments": ARGUMENTS | {"pretrained_model_name_or_path": str(folder)}}
    (folder / "training_lfg.json").write_text(json.dumps(told))
    assert script.runs(script.read_record(folder, "training_lfg.json")) == [RECORD, told]
