"""train_text_encoder.py leaves an encoder that reads clinical sentences, the same bits however often it was killed."""

import re
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from guidegen_diffusers import GuideGenPipeline, load_config
from guidegen_diffusers.prompts import SITES

from .launch import KILLED, launch, load_script


SCRIPT = "train_text_encoder.py"
STEPS = 40
CHECKED = ["--config", "tiny", "--max_train_steps", STEPS, "--checkpointing_steps", 5]
FAST = ["--learning_rate", 1e-2, "--lr_warmup_steps", 0, "--train_batch_size", 32, "--vocab_size", 400]
ENCODER = "text_encoder/model.safetensors"


@pytest.fixture(scope="module")
def script():
    return load_script(SCRIPT)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that nothing disturbed, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    result = launch(SCRIPT, *CHECKED, *FAST, "--output_dir", folder)
    assert result.returncode == 0, result.stderr
    return folder, result.stderr


@pytest.fixture(scope="module")
def tokenizer(script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pieces") / "tokenizer"
    script.make_tokenizer(folder, 400, 256, 0)
    return AutoTokenizer.from_pretrained(folder)


# ------------------------------------------------------------------------------------------------- what a run leaves


def test_an_encoder_loads_whole_and_has_the_size_of_its_config(finished):
    folder, _ = finished
    encoder, info = AutoModel.from_pretrained(folder / "text_encoder", output_loading_info=True)
    assert not any(info.values())
    for key, value in load_config("tiny")["text_encoder"].items():
        assert getattr(encoder.config, key) == value
    tokens = AutoTokenizer.from_pretrained(folder / "tokenizer")("A white male.", return_tensors="pt")
    assert encoder(**tokens).last_hidden_state.isfinite().all()


def test_a_pipeline_takes_the_encoder(finished):
    folder, _ = finished
    pipe = GuideGenPipeline.from_config(
        "tiny",
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=AutoModel.from_pretrained(folder / "text_encoder"),
    )
    pipe.set_progress_bar_config(disable=True)
    assert pipe("A white male.", output="mask", mask_num_inference_steps=2).labels.shape == (1, 16, 12, 24)


def test_training_makes_it_read(finished):
    _, printed = finished
    reading = [float(value) for value in re.findall(r"reading=([\d.]+)", printed)]
    assert sum(reading[-5:]) < 0.8 * sum(reading[:5])


def test_a_run_that_is_killed_and_resumed_gives_the_same_bits(script, finished, tmp_path):
    run = [SCRIPT, *CHECKED, *FAST, "--output_dir", tmp_path]
    result = launch(*run, kill_when=lambda: (tmp_path / "checkpoint-5").exists())
    assert result.returncode == KILLED, result.stderr
    assert not (tmp_path / "text_encoder").exists()
    last = script.checkpoints(tmp_path)[-1].name.split("-")[1]
    result = launch(*run, "--resume_from_checkpoint", "latest")
    assert result.returncode == 0, result.stderr
    assert f" {last}/{STEPS} [" in result.stderr
    assert f" {int(last) - 1}/{STEPS} [" not in result.stderr
    folder, _ = finished
    for file in (ENCODER, "tokenizer/tokenizer.json", f"checkpoint-{STEPS}/model.safetensors"):
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes(), file


# ------------------------------------------------------------------------------------------------------------- parts


def test_the_sentences_of_a_step_are_a_function_of_the_step_alone(script):
    def drawn(step, process=0, seed=0):
        args = SimpleNamespace(seed=seed, canonical_share=0.4)
        prompts, sentences, generator = script.draw_batch(args, step, process, 8)
        return prompts, sentences, torch.rand(3, generator=generator).tolist()

    first = drawn(5)
    others = [drawn(6), drawn(5, process=1), drawn(5, seed=1)]
    assert drawn(5) == first
    for other in others:
        assert not set(other[1]) <= set(first[1])


def test_the_canonical_share_is_of_sentences_as_the_pipeline_writes_them(script):
    args = SimpleNamespace(seed=0, canonical_share=1.0)
    prompts, sentences, _ = script.draw_batch(args, 0, 0, 16)
    assert sentences == [prompt.render() for prompt in prompts]


def test_fifteen_percent_of_the_words_are_hidden_and_nothing_else(script, tokenizer):
    _, sentences, draw = script.draw_batch(SimpleNamespace(seed=0, canonical_share=0.4), 0, 0, 512)
    text = tokenizer(sentences, padding=True, return_tensors="pt")
    ids = text["input_ids"]
    shown, labels = script.masked(ids, text["attention_mask"], tokenizer, draw)
    chosen = labels != -100
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    assert not (chosen & special).any()
    assert (ids[special] == shown[special]).all()
    assert chosen[~special].float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert (labels[chosen] == ids[chosen]).all()
    assert (shown[~chosen] == ids[~chosen]).all()
    hidden = shown[chosen] == tokenizer.mask_token_id
    assert hidden.float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert (shown[chosen][~hidden] == ids[chosen][~hidden]).all()


def test_every_sentence_is_spelt_without_an_unknown_piece(script, tokenizer):
    _, sentences, _ = script.draw_batch(SimpleNamespace(seed=1, canonical_share=0.0), 0, 0, 256)
    pieces = tokenizer([*sentences, "Zebra #42: q/w {x}~"])["input_ids"]
    assert not any(tokenizer.unk_token_id in line for line in pieces)


def test_heads_are_asked_for_what_the_prompt_says(script):
    prompts, _, _ = script.draw_batch(SimpleNamespace(seed=0, canonical_share=0.4), 0, 0, 64)
    attributes, allowed = script.targets(prompts)
    for i, prompt in enumerate(prompts):
        for name, values in script.HEADS.items():
            said = (None, *values)[attributes[name][i]]
            assert said == getattr(prompt, name)
        assert {site for site, open_ in zip(SITES, allowed[i], strict=True) if open_} == set(prompt.sites)
