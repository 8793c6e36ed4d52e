"""train_lfg.py leaves a pipeline that paints CTs, goes on from any death as if there had been none, and mixes up the
latents of no two autoencoders."""

import json
import random
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from guidegen_diffusers import (
    CaseDataset,
    ClinicalPrompt,
    GuideGenPipeline,
    TorsoPhantom,
    VQModel3D,
    load_config,
)
from guidegen_diffusers.data.phantom_set import write_phantoms
from guidegen_diffusers.labels import CLASSES, NUM_CLASSES, TUMOR, split_tumor
from guidegen_diffusers.phantom import SEEDS
from guidegen_diffusers.text_encoder import small_text_encoder

from ..loopback_hub import LoopbackHub
from .launch import KILLED, call, launch, load_script, refused


SCRIPT = "train_lfg.py"
SIZE, SPACING = (16, 12, 24), 24.0
STEPS = 12
UNET = "pipeline/unet/diffusion_pytorch_model.safetensors"
SEMANTIC = "pipeline/semantic_encoder/diffusion_pytorch_model.safetensors"
FEW = ["--config", "tiny", "--num_validation_cases", 2, "--validation_sampling_steps", 2]
CHECKED = ["--max_train_steps", STEPS, "--checkpointing_steps", 3, "--train_batch_size", 2, "--use_ema"]
CHECKED += ["--snr_gamma", 5, "--tumor_weight", 20, "--organ_balance", 0.5, "--high_noise_share", 0.5]
SHORT = ["--max_train_steps", 2, "--checkpointing_steps", 100]


@pytest.fixture(scope="module")
def script():
    return load_script(SCRIPT)


def phantom(split, index):
    return TorsoPhantom(SIZE, SPACING).sample(None, SEEDS[split][index])


def units(ct):  # (X, Y, Z) HU -> (1, 1, X, Y, Z) in [-1, 1]
    return torch.from_numpy(ct.astype(np.float32)).clamp(-1500, 1500)[None, None] / 1500


@torch.no_grad()
def autoencoder():
    """Untrained, its latents at unit variance."""
    torch.manual_seed(0)
    vae = VQModel3D.from_config(load_config("tiny")["vae"]).eval()
    vae.register_to_config(scaling_factor=float(1 / vae.encode(units(phantom("train", 0).ct)).latents.std()))
    return vae


def saved(folder, vae):
    GuideGenPipeline(vae=vae, sample_size=SIZE, spacing=SPACING).save_pretrained(folder)
    return folder


def saved_encoder(folder, **changes):
    torch.manual_seed(0)
    tokenizer, encoder = small_text_encoder(**load_config("tiny")["text_encoder"] | changes)
    tokenizer.save_pretrained(folder / "tokenizer")
    encoder.save_pretrained(folder / "text_encoder")
    return folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """What LFG stands on: the autoencoder and the text encoder."""
    folder = tmp_path_factory.mktemp("parts")
    return ["--vae", saved(folder / "cae", autoencoder()), "--text_encoder", saved_encoder(folder / "encoder")]


@pytest.fixture(scope="module")
def shown(parts, tmp_path_factory):
    """What every run below is shown: 8 phantoms, 3 epochs of them in `STEPS` steps of 2."""
    return [*FEW, *parts, "--phantom", 8, "--cache_dir", tmp_path_factory.mktemp("cache")]


@pytest.fixture(scope="module")
def finished(script, shown, tmp_path_factory):
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("finished")
    call(script, *shown, *CHECKED, "--validation_steps", 6, "--output_dir", folder)
    return folder


@pytest.fixture(scope="module")
def made(finished):
    pipe = GuideGenPipeline.from_pretrained(finished / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def checkpoints(folder):
    return sorted((p.name for p in folder.glob("checkpoint-*")), key=lambda name: int(name.split("-")[1]))


def record(folder):
    return json.loads((folder / "pipeline" / "training_lfg.json").read_text())


# ------------------------------------------------------------------------------------------------- what a run leaves


def test_a_run_leaves_a_pipeline_that_paints_a_CT_on_a_label_map(finished, made):
    case = phantom("test", 0)
    painted = made(mask=case, num_inference_steps=3, generator=torch.Generator().manual_seed(0)).cases[0]
    assert painted.ct.shape == SIZE
    assert np.array_equal(painted.labels, case.labels)
    assert np.allclose(painted.affine, case.affine)
    assert (painted.provenance["mask"], painted.synthetic) == ("given", True)
    for file in (finished / "pipeline").rglob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(file).values())


def test_a_run_says_how_it_was_made_and_how_far_each_class_is_off_in_HU(finished, made):
    written = record(finished)
    assert (written["stage"], written["config"], written["step"], written["processes"]) == ("LFG", "tiny", STEPS, 1)
    assert written["seconds"] > 0
    assert "LFG, 12 steps" in (finished / "pipeline" / "README.md").read_text()
    assert (written["arguments"]["phantom"], written["arguments"]["snr_gamma"]) == (8, 5)
    away = {}
    for i in range(2):
        case, draw = phantom("validation", i), torch.Generator().manual_seed(i)
        ct = made(case.prompt, mask=case, num_inference_steps=2, guidance_scale=1.0, generator=draw).cases[0].ct
        for c in CLASSES[1:]:
            if (case.labels == c.id).any():
                off = ct[case.labels == c.id].mean() - case.ct[case.labels == c.id].mean()
                away.setdefault(c.name, []).append(abs(off))
    away = {name: np.mean(values) for name, values in away.items()}
    assert written["scores"]["hu_of"] == pytest.approx(away, rel=1e-2, abs=1)
    assert written["scores"]["hu"] == pytest.approx(np.mean(list(away.values())), rel=1e-2)
    assert written["scores"]["hu_worst"] == pytest.approx(max(away.values()), rel=1e-2)


def test_a_run_draws_what_it_can_at_every_validation(finished):
    for step in (6, STEPS):
        pictures = {p.name: p.read_bytes() for p in (finished / "validation" / f"step-{step}").iterdir()}
        assert set(pictures) == {"00_case.png", "00_made.png", "01_case.png", "01_made.png"}
        assert all(content.startswith(b"\x89PNG") for content in pictures.values())
        assert pictures["00_case.png"] != pictures["00_made.png"]


def test_old_checkpoints_are_pruned_and_nothing_half_written_stays(finished, shown):
    assert checkpoints(finished) == ["checkpoint-9", "checkpoint-12"]
    assert not list(finished.rglob(".*.partial"))
    assert not list(shown[-1].rglob(".*.partial"))


def test_the_autoencoder_and_the_text_encoder_stay_as_they_are(finished, parts):
    for folder, here in ((parts[1], "vae"), (parts[3], "text_encoder")):
        files = [file.relative_to(folder) for file in (folder / here).glob("*.safetensors")]
        assert len(files) == 1
        before, after = load_file(folder / files[0]), load_file(finished / "pipeline" / files[0])
        assert all(torch.equal(before[name], after[name]) for name in before)


@torch.no_grad()
def mean_loss(script, folder):
    """Over validation cases and times spread evenly, the same noise each time."""
    pipe, losses = GuideGenPipeline.from_pretrained(folder / "pipeline"), []
    for i, t in enumerate((100, 300, 500, 700, 900) * 2):
        case, t = phantom("validation", i % 4), torch.tensor([t])
        clean = pipe.vae.encode(units(case.ct)).latents * pipe.vae.config.scaling_factor
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(i))
        organs, tumor = (torch.from_numpy(volume.copy())[None] for volume in split_tumor(case.labels))
        semantic = pipe.semantic_encoder(organs, tumor).latents
        text, mask = pipe.encode_prompt(case.prompt, do_classifier_free_guidance=False)[:2]
        state = torch.cat([pipe.scheduler.add_noise(clean, noise, t), semantic], dim=1)
        losses.append((pipe.unet(state, t, text, mask).sample - noise).square().mean())
    return float(torch.stack(losses).mean())


def test_training_lowers_the_loss_on_cases_it_has_not_seen(script, shown, tmp_path):
    run = [*shown, "--train_batch_size", 2, "--lr_scheduler", "constant", "--checkpointing_steps", 100]
    call(script, *run, "--learning_rate", 0, "--max_train_steps", 1, "--output_dir", tmp_path / "start")
    call(script, *run, "--learning_rate", 3e-3, "--max_train_steps", 60, "--output_dir", tmp_path / "end")
    assert mean_loss(script, tmp_path / "end") < 0.75 * mean_loss(script, tmp_path / "start")


def test_a_pipeline_is_a_start_with_its_own_autoencoder_and_encoder(script, finished, tmp_path):
    start = [*FEW, *SHORT, "--phantom", 2, "--pretrained_model_name_or_path", finished / "pipeline"]
    call(script, *start, "--learning_rate", 0, "--output_dir", tmp_path)
    for part in ("unet", "semantic_encoder", "vae"):
        file = f"pipeline/{part}/diffusion_pytorch_model.safetensors"
        assert (tmp_path / file).read_bytes() == (finished / file).read_bytes()


def test_a_pipeline_in_half_precision_is_a_start_for_mixed_precision(script, finished, tmp_path):
    GuideGenPipeline.from_pretrained(finished / "pipeline", dtype=torch.float16).save_pretrained(tmp_path / "half")
    start = [*FEW, *SHORT, "--phantom", 2, "--pretrained_model_name_or_path", tmp_path / "half"]
    call(script, *start, "--mixed_precision", "bf16", "--output_dir", tmp_path / "run")
    assert record(tmp_path / "run")["step"] == 2


def test_a_data_set_of_phantoms_trains_as_the_phantoms_themselves(script, parts, tmp_path):
    for split, count in (("train", 4), ("validation", 2)):
        write_phantoms(tmp_path / "set", count, SIZE, SPACING, split=split, progress=False)
    call(script, *FEW, *SHORT, *parts, "--phantom", 4, "--output_dir", tmp_path / "a")
    call(script, *FEW, *SHORT, *parts, "--train_data_dir", tmp_path / "set", "--output_dir", tmp_path / "b")
    assert (tmp_path / "a" / UNET).read_bytes() == (tmp_path / "b" / UNET).read_bytes()
    assert record(tmp_path / "a")["scores"] == record(tmp_path / "b")["scores"]


# ---------------------------------------------------------------------------------------------------- death and life


def different(a, b):
    """What differs: the averages, the networks, or the optimizer."""
    files = [UNET, SEMANTIC] + [f"checkpoint-{STEPS}/{name}" for name in ("model.safetensors", "optimizer.bin")]
    return [file for file in files if (a / file).read_bytes() != (b / file).read_bytes()]


def test_a_run_killed_while_it_fills_its_cache_and_while_it_trains_gives_the_same_bits(
    script, shown, finished, tmp_path
):
    cache = tmp_path / "cache"
    run = [SCRIPT, *shown, "--cache_dir", cache, *CHECKED, "--output_dir", tmp_path]
    result = launch(*run, kill_when=lambda: any(cache.glob(".*.partial/latents.npy")))
    assert result.returncode == KILLED, result.stderr
    assert [folder.name[0] for folder in cache.iterdir()] == ["."]
    result = launch(*run, kill_when=(tmp_path / "checkpoint-3").exists)
    assert result.returncode == KILLED, result.stderr
    assert not (tmp_path / "pipeline").exists()
    last = script.checkpoints(tmp_path)[-1]
    result = launch(*run, "--resume_from_checkpoint", "latest")
    assert result.returncode == 0, result.stderr
    assert f" {last.name.split('-')[1]}/{STEPS} [" in result.stderr
    assert f" 0/{STEPS} [" not in result.stderr
    assert different(tmp_path, finished) == []
    assert [folder.name for folder in cache.iterdir()] == [folder.name for folder in shown[-1].iterdir()]


@pytest.mark.slow
def test_two_processes_killed_at_any_moment_give_the_same_bits(shown, tmp_path):
    moments = random.Random(0)
    run = [SCRIPT, *shown, *CHECKED, "--gradient_accumulation_steps", 2, "--mixed_precision", "bf16"]
    began = time.monotonic()
    whole = [*run, "--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "whole"]
    result = launch(*whole, processes=2)
    length = time.monotonic() - began
    assert result.returncode == 0, result.stderr
    assert record(tmp_path / "whole")["processes"] == 2
    run += ["--output_dir", tmp_path / "killed", "--resume_from_checkpoint", "latest"]
    run += ["--cache_dir", tmp_path / "another_cache"]
    deaths = []
    for _ in range(3):
        end = time.monotonic() + moments.uniform(0.4, 0.9) * length
        deaths.append(launch(*run, kill_when=lambda end=end: time.monotonic() > end, processes=2).returncode)
    assert KILLED in deaths
    result = launch(*run, processes=2)
    assert result.returncode == 0, result.stderr
    assert different(tmp_path / "killed", tmp_path / "whole") == []
    assert not list((tmp_path / "killed").rglob(".*.partial"))


def test_a_run_killed_after_its_last_checkpoint_still_leaves_its_pipeline(script, shown, finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "pipeline")
    call(script, *shown, *CHECKED, "--output_dir", tmp_path, "--resume_from_checkpoint", "latest")
    assert different(tmp_path, finished) == []


def test_a_loss_that_is_no_number_stops_the_run_and_the_last_checkpoint_goes_on(script, shown, finished, tmp_path):
    shutil.copytree(finished / "checkpoint-12", tmp_path / "checkpoint-12")
    go_on = [*shown, "--use_ema", "--output_dir", tmp_path, "--resume_from_checkpoint", "latest"]
    with pytest.raises(FloatingPointError, match=r"LFG: the loss .* not finite at step 1\d, batch 1\d; resume"):
        call(script, *go_on, "--max_train_steps", 20, "--learning_rate", 1e30)
    assert checkpoints(tmp_path) == ["checkpoint-12"]
    call(script, *go_on, "--max_train_steps", 14)
    assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / UNET).values())


def test_weights_that_are_no_numbers_reach_no_checkpoint(script, shown, tmp_path):
    beyond_float32 = ["--learning_rate", 3e37, "--adam_weight_decay", 10, "--checkpointing_steps", 1, *SHORT[:2]]
    with pytest.raises(FloatingPointError, match="LFG: the weights are not finite at step 1, batch 0"):
        call(script, *shown, *beyond_float32, "--output_dir", tmp_path)
    assert checkpoints(tmp_path) == []


def test_a_checkpoint_takes_the_learning_rate_of_the_arguments(script, shown, finished, tmp_path):
    shutil.copytree(finished / "checkpoint-9", tmp_path / "checkpoint-9")
    still = ["--learning_rate", 0, "--lr_scheduler", "constant", "--max_train_steps", 11]
    call(script, *shown, "--use_ema", *still, "--output_dir", tmp_path, "--resume_from_checkpoint", "latest")
    before, after = (load_file(tmp_path / f"checkpoint-{step}" / "model.safetensors") for step in (9, 11))
    assert all(torch.equal(before[name], after[name]) for name in before)


# --------------------------------------------------------------------------------------------------------- the cache


def phantoms(script, count):
    return script.Cases(SimpleNamespace(phantom=count), SIZE, SPACING)


def content(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@torch.no_grad()
def test_the_cache_holds_latents_at_unit_variance_and_both_maps(script, tmp_path):
    cases, vae = phantoms(script, 4), autoencoder()
    latents, maps, texts = script.cached(cases, vae, tmp_path, 0)
    args = SimpleNamespace(prompt_dropout=0.0, raw_prompts=True)
    items, tumors = script.Latents(latents, maps, texts, args), 0
    assert latents.dtype == np.float16
    for i in range(4):
        case, item = cases[i], items[i, 7]
        expected = vae.encode(units(case.ct)).latents[0] * vae.config.scaling_factor
        np.testing.assert_allclose(item["latents"], expected, rtol=1e-3, atol=1e-6)
        organs, tumor = split_tumor(case.labels)
        assert np.array_equal(item["organs"], organs)
        assert np.array_equal(item["tumor"], tumor)
        assert item["text"] == case.prompt
        tumors += tumor.any()
    assert tumors > 0
    assert np.std(latents.astype(np.float32)) == pytest.approx(1, abs=0.1)


def test_workers_fill_the_cache_as_one_process_does(script, tmp_path):
    cases, vae = phantoms(script, 4), autoencoder()
    script.cached(cases, vae, tmp_path / "a", 0)
    script.cached(cases, vae, tmp_path / "b", 2)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_the_same_encoder_finds_its_cache_whatever_its_decoder_and_another_makes_its_own(script, tmp_path):
    cases = phantoms(script, 2)
    script.cached(cases, autoencoder(), tmp_path, 0)
    (first,) = tmp_path.iterdir()
    before = {file.name: (file.stat().st_mtime_ns, file.stat().st_ino) for file in first.iterdir()}
    script.cached(cases, autoencoder(), tmp_path, 0)
    assert list(tmp_path.iterdir()) == [first]
    assert {file.name: (file.stat().st_mtime_ns, file.stat().st_ino) for file in first.iterdir()} == before
    rescaled = autoencoder()
    rescaled.register_to_config(scaling_factor=2 * rescaled.config.scaling_factor)
    latents, _, _ = script.cached(cases, autoencoder(), tmp_path, 0)
    doubled, _, _ = script.cached(cases, rescaled, tmp_path, 0)
    assert len(list(tmp_path.iterdir())) == 2
    np.testing.assert_allclose(doubled, 2 * latents.astype(np.float32), rtol=2e-3, atol=1e-6)
    polished, trained = autoencoder(), autoencoder()
    polished.decoder[-1].bias.data += 1e-3
    script.cached(cases, polished, tmp_path, 0)
    assert len(list(tmp_path.iterdir())) == 2
    trained.encoder[-1].bias.data += 1e-3
    script.cached(cases, trained, tmp_path, 0)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_data_set_that_has_grown_makes_its_own_cache(script, tmp_path):
    def texts():
        args = SimpleNamespace(phantom=None, train_data_dir=tmp_path / "set", config="tiny")
        return script.cached(script.Cases(args, SIZE, SPACING), autoencoder(), tmp_path / "cache", 0)[2]

    write_phantoms(tmp_path / "set", 1, SIZE, SPACING, progress=False)
    assert len(texts()) == 1
    write_phantoms(tmp_path / "set", 2, SIZE, SPACING, progress=False)
    assert texts() == [row["prompt"] for row in CaseDataset(tmp_path / "set").rows]
    assert len(texts()) == 2


def test_a_cache_is_written_whole_or_not_at_all(script, tmp_path):
    class Broken(script.Cases):
        def __getitem__(self, index):
            if index == 2:
                raise OSError("the disk is gone")
            return super().__getitem__(index)

    broken, vae = Broken(SimpleNamespace(phantom=4), SIZE, SPACING), autoencoder()
    with pytest.raises(OSError, match="the disk is gone"):
        script.cached(broken, vae, tmp_path / "a", 0)
    assert [folder.name[0] for folder in (tmp_path / "a").iterdir()] == ["."]
    script.cached(phantoms(script, 4), vae, tmp_path / "a", 0)
    script.cached(phantoms(script, 4), vae, tmp_path / "b", 0)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_a_disk_too_small_is_refused_with_the_figures_before_anything_is_written(script, tmp_path, monkeypatch):
    cases, vae = phantoms(script, 3), autoencoder()
    need = 3 * (2 * 4 * 8 * 6 * 12 + 16 * 12 * 24)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=need - 1))
    with pytest.raises(SystemExit, match=f"of 3 cases take {need:,} bytes, {tmp_path} has {need - 1:,} free"):
        script.cached(cases, vae, tmp_path, 0)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=need))
    assert len(script.cached(cases, vae, tmp_path, 0)[0]) == 3


# ------------------------------------------------------------------------------------------------ sentences and loss


def sentences(script, count=200, **changes):
    text = "A 64-year-old white female with a tumour of the liver, T2N0M0."
    args = SimpleNamespace(**dict(prompt_dropout=0.1, raw_prompts=False, canonical_share=0.5) | changes)
    items = script.Latents(np.zeros((1, 4, 2, 2, 2)), np.zeros((1, 4, 4, 4), np.uint8), [text], args)
    return text, [items[0, seed]["text"] for seed in range(count)]


def test_sentences_say_the_same_in_other_words_and_some_are_dropped(script):
    text, drawn = sentences(script)
    said = [sentence for sentence in drawn if sentence]
    assert 200 * 0.04 < len(drawn) - len(said) < 200 * 0.2
    assert len(set(said)) > 3
    assert all(ClinicalPrompt.parse(sentence) == ClinicalPrompt.parse(text) for sentence in said)
    canonical = ClinicalPrompt.parse(text).render()
    assert 0.4 < np.mean([sentence == canonical for sentence in said]) < 0.75
    assert sentences(script)[1] == drawn, "the place in the run decides"


def test_sentences_are_as_they_were_written_or_canonical_where_asked(script):
    text, raw = sentences(script, raw_prompts=True, prompt_dropout=0)
    assert set(raw) == {text}
    _, canonical = sentences(script, canonical_share=1, prompt_dropout=0)
    assert set(canonical) == {ClinicalPrompt.parse(text).render()}


KINDS = ("epsilon", "sample", "v_prediction")


def scheduler_of(kind):
    return DDIMScheduler.from_config(load_config("tiny")["scheduler"] | {"prediction_type": kind})


def some(seed, *names):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(3, 4, 2, 3, 2, dtype=torch.float64, generator=draw) for _ in names]


def meaning(kind, x_0, noisy, abar):
    """A guess of x_0 in the terms of a prediction type."""
    noise = (noisy - abar.sqrt() * x_0) / (1 - abar).sqrt()
    return {"epsilon": noise, "sample": x_0, "v_prediction": abar.sqrt() * noise - (1 - abar).sqrt() * x_0}[kind]


@pytest.mark.parametrize("gamma", [None, 5.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_none_at_the_target_and_the_mean_square_elsewhere(script, kind, gamma):
    scheduler, t = scheduler_of(kind), torch.tensor([10, 500, 900])
    clean, noise, off = some(0, "clean", "noise", "off")
    abar = scheduler.alphas_cumprod[t].double().view(3, 1, 1, 1, 1)
    target = meaning(kind, clean, abar.sqrt() * clean + (1 - abar).sqrt() * noise, abar)
    assert script.lfg_loss(target, clean, noise, t, scheduler, gamma).item() == pytest.approx(0, abs=1e-6)
    if gamma is None:
        got = script.lfg_loss(target + off, clean, noise, t, scheduler, gamma).item()
        assert got == pytest.approx(off.square().mean().item(), rel=1e-5)


@settings(max_examples=50)
@given(
    t=st.lists(st.integers(0, 900), min_size=3, max_size=3),
    gamma=st.sampled_from([0.5, 5.0, 1e9]),
    seed=st.integers(0, 2**16),
)
def test_min_SNR_asks_the_same_of_every_prediction_type(script, t, gamma, seed):
    clean, noise, guess = some(seed, "clean", "noise", "guess")
    abar = scheduler_of("epsilon").alphas_cumprod[torch.tensor(t)].double().view(3, 1, 1, 1, 1)
    noisy = abar.sqrt() * clean + (1 - abar).sqrt() * noise
    snr = (abar / (1 - abar)).clamp(max=gamma)
    by_hand = (snr * (guess - clean).square()).mean().item()
    for kind in KINDS:
        predicted = meaning(kind, guess, noisy, abar)
        got = script.lfg_loss(predicted, clean, noise, torch.tensor(t), scheduler_of(kind), gamma).item()
        assert got == pytest.approx(by_hand, rel=1e-3)


def test_timesteps_are_uniform_and_the_high_noise_share_is_of_the_upper_half_alone(script):
    draw = torch.Generator().manual_seed(0)
    t = script.draw_timesteps(50_000, 10, 0.0, draw)
    np.testing.assert_allclose(torch.bincount(t, minlength=10) / 50_000, 0.1, atol=0.01)
    high = script.draw_timesteps(50_000, 1000, 1.0, draw)
    assert (high.min(), high.max()) == (500, 999)
    some = script.draw_timesteps(50_000, 1000, 0.6, draw)
    assert (some.min(), some.max()) == (0, 999)
    assert (some >= 500).float().mean().item() == pytest.approx(0.6 + 0.4 / 2, abs=0.01)


def test_a_cell_weighs_as_much_as_the_heaviest_class_it_holds(script):
    organs, tumor = torch.zeros(2, 2, 8, 4, 6, dtype=torch.uint8)
    organs[0, :2, :2] = 3
    organs[0, 3, 3, 5] = 4
    organs[1, 2:4] = 3
    tumor[1, 3, 0, 5] = 1
    weights = torch.ones(NUM_CLASSES)
    weights[[3, 4, TUMOR]] = torch.tensor([2.0, 5.0, 20.0])
    expected = torch.ones(2, 1, 4, 2, 3)
    expected[0, 0, 0, 0] = 2
    expected[0, 0, 1, 1, 2] = 5
    expected[1, 0, 1] = 2
    expected[1, 0, 1, 0, 2] = 20
    assert torch.equal(script.cell_weights(organs, tumor, (4, 2, 3), weights), expected)


def test_classes_weigh_by_a_power_of_their_rarity_among_organs_and_the_tumour_as_told(script):
    maps = np.zeros((2, 4, 4, 4), np.uint8)
    maps[:, 0], maps[0, 1, 0], maps[1, 1, 0, 0] = 3, 4, 5 + script.TUMOR_BIT  # 32, 4 and 1 voxels
    maps[1, 1, 0, 1:] = 5
    expected = torch.ones(NUM_CLASSES)
    expected[[4, 5, TUMOR]] = torch.tensor([8**0.5, 8**0.5, 20.0])
    torch.testing.assert_close(script.class_weights(maps, 0.5, 20.0), expected)
    plain = script.class_weights(maps, 0.0, 1.0)
    assert plain.eq(1).all()


def test_a_weighted_loss_is_the_mean_of_weighted_squares(script):
    clean, noise, off = some(0, "clean", "noise", "off")
    weights, t = torch.ones(3, 1, 2, 3, 2), torch.tensor([10, 500, 900])
    weights[0, 0, 1, 2, 0] = 7
    got = script.lfg_loss(clean + off, clean, noise, t, scheduler_of("sample"), None, weights).item()
    assert got == pytest.approx((weights * off.square()).mean().item(), rel=1e-6)


def test_the_loss_teaches_the_semantic_encoder_and_the_unet(script, tiny):
    painter = script.Painter(tiny.semantic_encoder, tiny.unet).train()
    case, t = phantom("train", 0), torch.tensor([400])
    organs, tumor = (torch.from_numpy(volume.copy())[None] for volume in split_tumor(case.labels))
    clean, noise = torch.randn(2, 1, 4, 8, 6, 12, generator=torch.Generator().manual_seed(0))
    text, mask = script.encode(tiny.tokenizer, tiny.text_encoder, [case.prompt], 256, "cpu")
    noisy = tiny.scheduler.add_noise(clean, noise, t)
    script.lfg_loss(painter(noisy, t, organs, tumor, text, mask), clean, noise, t, tiny.scheduler, None).backward()
    assert (case.labels == TUMOR).any()
    for network in (tiny.semantic_encoder, tiny.unet):
        untaught = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        assert untaught == []
    assert all(p.grad is None for p in tiny.text_encoder.parameters())


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "expected one of --train_data_dir, --dataset_name and --phantom"),
        (
            ["--phantom", 2, "--train_data_dir", "data"],
            "expected one of --train_data_dir, --dataset_name and --phantom",
        ),
        (["--phantom", 0], "--phantom: got 0, expected 1 or more"),
        (["--phantom", 2, "--num_validation_cases", 0], "--num_validation_cases: got 0, expected 1 or more"),
        (["--phantom", 2, "--vae", "/nowhere"], "--vae: got /nowhere, expected a pipeline with an autoencoder"),
        (["--phantom", 2, "--text_encoder", "/nowhere"], "--text_encoder: got /nowhere, expected a folder"),
        (["--phantom", 2, "--pretrained_model_name_or_path", "/nowhere"], "got /nowhere, expected a pipeline"),
        (["--phantom", 2, "--resume_from_checkpoint", "/nowhere"], "/nowhere holds no stage.json"),
    ],
)
def test_arguments_that_cannot_be_are_refused_in_one_line(script, parts, tmp_path, capsys, arguments, words):
    given = [*FEW, *SHORT, *parts, *arguments, "--output_dir", tmp_path / "out"]
    assert words in refused(capsys, script, *given)
    assert not list(tmp_path.rglob("*/*"))


@pytest.mark.parametrize("missing", ["--vae", "--text_encoder"])
def test_what_it_stands_on_must_be_given(script, parts, tmp_path, capsys, missing):
    i = parts.index(missing)
    given = [*FEW, *SHORT, *parts[:i], *parts[i + 2 :], "--phantom", 2, "--output_dir", tmp_path / "out"]
    assert f"{missing}: expected" in refused(capsys, script, *given)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"block_out_channels": [8, 8, 16]}, "it shrinks 4 times to 4 channels, tiny expects 2 times to 4"),
        ({"latent_channels": 8}, "it shrinks 2 times to 8 channels, tiny expects 2 times to 4"),
    ],
)
def test_an_autoencoder_of_another_config_is_refused_in_one_line(script, parts, tmp_path, capsys, changes, words):
    other = saved(tmp_path / "other", VQModel3D.from_config({**load_config("tiny")["vae"], **changes}))
    given = [*FEW, *SHORT, *parts, "--vae", other, "--phantom", 2, "--output_dir", tmp_path / "out"]
    assert f"--vae: {words}" in refused(capsys, script, *given)
    assert not list((tmp_path / "out").iterdir())


def test_a_text_encoder_of_another_width_is_refused_in_one_line(script, parts, tmp_path, capsys):
    wide = saved_encoder(tmp_path / "wide", hidden_size=24)
    given = [*FEW, *SHORT, *parts, "--text_encoder", wide, "--phantom", 2, "--output_dir", tmp_path / "out"]
    assert "24 wide, the U-Net expects 16" in refused(capsys, script, *given)


def test_a_folder_that_is_no_data_set_is_refused_in_one_line(script, parts, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    given = [*FEW, *SHORT, *parts, "--train_data_dir", tmp_path / "empty", "--output_dir", tmp_path / "out"]
    line = refused(capsys, script, *given)
    assert line.startswith(f"--train_data_dir: got {tmp_path / 'empty'}, expected a data set")
    assert "guidegen prepare" in line


@pytest.mark.parametrize(("size", "spacing"), [(SIZE, 12.0), ((12, 12, 24), SPACING)])
def test_a_data_set_on_another_grid_is_refused_in_one_line(script, parts, tmp_path, capsys, size, spacing):
    write_phantoms(tmp_path / "set", 1, size, spacing, progress=False)
    given = [*FEW, *SHORT, *parts, "--train_data_dir", tmp_path / "set", "--output_dir", tmp_path / "out"]
    line = refused(capsys, script, *given)
    for word in (str(size), f"{spacing:g}", str(SIZE), f"{SPACING:g}", "guidegen prepare"):
        assert word in line


def test_a_case_without_its_CT_is_named(script, parts, tmp_path, capsys):
    write_phantoms(tmp_path / "set", 2, SIZE, SPACING, progress=False)
    missing = sorted((tmp_path / "set/train/ct").iterdir())[1]
    missing.unlink()
    given = [*FEW, *SHORT, *parts, "--train_data_dir", tmp_path / "set", "--output_dir", tmp_path / "out"]
    assert str(missing) in refused(capsys, script, *given)


@pytest.mark.parametrize("changed", [{"stage": "CAE"}, {"config": "torso-6mm"}])
def test_a_checkpoint_of_something_else_is_refused_in_one_line(script, shown, finished, tmp_path, capsys, changed):
    shutil.copytree(finished / "checkpoint-12", tmp_path / "checkpoint-12")
    file = tmp_path / "checkpoint-12" / "stage.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    line = refused(capsys, script, *shown, *SHORT, "--output_dir", tmp_path, "--resume_from_checkpoint", "latest")
    assert "checkpoint-12" in line
    assert next(iter(changed.values())) in line
    assert "expected LFG with tiny" in line


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_an_output_that_cannot_be_written_is_refused_in_one_line(script, shown, tmp_path, capsys, place):
    (tmp_path / "file").write_text("mine")
    line = refused(capsys, script, *shown, *SHORT, "--output_dir", tmp_path / place)
    assert line.startswith(f"--output_dir: got {tmp_path / place}, expected a folder")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_new_run_does_not_start_among_the_checkpoints_of_another(script, shown, finished, capsys):
    line = refused(capsys, script, *shown, *CHECKED, "--output_dir", finished)
    assert "checkpoint-12" in line
    assert "--resume_from_checkpoint latest" in line


def test_what_was_trained_goes_to_the_hub_with_its_record_and_card(shown, tmp_path):
    with LoopbackHub() as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_x", "HF_HOME": str(tmp_path / "home")}
        run = [SCRIPT, *shown, *SHORT, "--output_dir", tmp_path / "run"]
        result = launch(*run, "--push_to_hub", "--hub_model_id", "someone/torso", environment=environment)
        assert result.returncode == 0, result.stderr
        files = hub.files("someone/torso")
    assert json.loads(files["training_lfg.json"])["step"] == 2
    assert "LFG, 2 steps" in files["README.md"].decode()
    for part in ("unet", "semantic_encoder"):
        assert f"{part}/diffusion_pytorch_model.safetensors" in files
    assert not [name for name in files if name.endswith((".bin", ".pkl"))]
