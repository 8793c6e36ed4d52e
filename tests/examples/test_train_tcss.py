"""train_tcss.py leaves a pipeline that works, goes on from any death as if none had been, and refuses in one line."""

import itertools
import json
import random
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from guidegen_diffusers import GuideGenPipeline, load_config
from guidegen_diffusers.data.phantom_set import write_phantoms
from guidegen_diffusers.labels import NUM_CLASSES, TUMOR
from guidegen_diffusers.text_encoder import small_text_encoder

from ..loopback_hub import LoopbackHub
from .launch import KILLED, call, launch, load_script, refused


SCRIPT = "train_tcss.py"
SIZE, SPACING = (16, 12, 24), 24.0
STEPS = 12
WEIGHTS = "pipeline/mask_unet/diffusion_pytorch_model.safetensors"
FEW = ["--config", "tiny", "--num_validation_prompts", 2, "--validation_sampling_steps", 2]
CHECKED = ["--max_train_steps", STEPS, "--checkpointing_steps", 3, "--use_ema"]
CHECKED += ["--cross_entropy_weight", 0.1, "--tumor_weight", 10, "--organ_balance", 0.5]
SHORT = ["--max_train_steps", 2, "--checkpointing_steps", 100]
ONE_OF = "expected one of --train_data_dir, --dataset_name and --phantom"


@pytest.fixture(scope="module")
def script():
    return load_script(SCRIPT)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    tokenizer, encoder = small_text_encoder(**load_config("tiny")["text_encoder"])
    tokenizer.save_pretrained(folder / "tokenizer")
    encoder.save_pretrained(folder / "text_encoder")
    return folder


@pytest.fixture(scope="module")
def shown(encoder, tmp_path_factory):
    """What most runs below are shown: 5 phantoms, more than two epochs of them in `STEPS` steps."""
    return [*FEW, "--text_encoder", encoder, "--phantom", 5, "--cache_dir", tmp_path_factory.mktemp("cache")]


@pytest.fixture(scope="module")
def finished(shown, tmp_path_factory):
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("finished")
    result = launch(SCRIPT, *shown, *CHECKED, "--validation_steps", 6, "--output_dir", folder)
    assert result.returncode == 0, result.stderr
    return folder


def checkpoints(folder):
    return sorted((p.name for p in folder.glob("checkpoint-*")), key=lambda name: int(name.split("-")[1]))


def record(folder):
    return json.loads((folder / "pipeline" / "training_tcss.json").read_text())


# ------------------------------------------------------------------------------------------------- what a run leaves


def test_a_run_leaves_a_pipeline_that_makes_a_label_map(finished):
    pipe = GuideGenPipeline.from_pretrained(finished / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    case = pipe("A white male.", output="mask", mask_num_inference_steps=3).cases[0]
    assert case.labels.shape == SIZE
    np.testing.assert_allclose(case.grid.spacing, SPACING)
    for file in (finished / "pipeline").rglob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(file).values())


def test_a_run_says_how_it_was_made(finished):
    made = record(finished)
    assert (made["stage"], made["config"], made["step"], made["processes"]) == ("TCSS", "tiny", STEPS, 1)
    assert made["seconds"] > 0
    assert set(made["scores"]) == {"bound", "site", "organs"}
    assert all(np.isfinite(list(made["scores"].values())))
    assert (made["arguments"]["phantom"], made["arguments"]["use_ema"]) == (5, True)


def test_a_run_draws_what_it_can_at_every_validation(finished):
    for step in (6, STEPS):
        pictures = list((finished / "validation" / f"step-{step}").glob("*.png"))
        assert len(pictures) == 2
        assert all(p.read_bytes().startswith(b"\x89PNG") for p in pictures)


def test_old_checkpoints_are_pruned_and_nothing_half_written_stays(finished):
    assert checkpoints(finished) == ["checkpoint-9", "checkpoint-12"]
    assert not list(finished.rglob(".*.partial"))


def test_training_lowers_the_bound_of_cases_it_has_not_seen(script, shown, tmp_path):
    hard = ["--kl_weight", 0, "--cross_entropy_weight", 1, "--lr_scheduler", "constant", "--checkpointing_steps", 100]
    call(script, *shown, *hard, "--learning_rate", 0, "--max_train_steps", 1, "--output_dir", tmp_path / "start")
    call(script, *shown, *hard, "--learning_rate", 3e-3, "--max_train_steps", 30, "--output_dir", tmp_path / "end")
    start, end = (record(tmp_path / name)["scores"]["bound"] for name in ("start", "end"))
    assert end < 0.5 * start


def test_a_pipeline_is_a_start_with_its_own_encoder(script, finished, tmp_path):
    start = [*FEW, *SHORT, "--phantom", 2, "--pretrained_model_name_or_path", finished / "pipeline"]
    call(script, *start, "--learning_rate", 0, "--output_dir", tmp_path)
    assert (tmp_path / WEIGHTS).read_bytes() == (finished / WEIGHTS).read_bytes()


def test_detail_is_added_and_trained_with_all_else_as_it_was(script, finished, tmp_path):
    start = [*FEW, *SHORT, "--phantom", 2, "--pretrained_model_name_or_path", finished / "pipeline"]
    call(script, *start, "--detail_channels", 8, "--detail_only", "--learning_rate", 1e-2, "--output_dir", tmp_path)
    before, after = (GuideGenPipeline.from_pretrained(f / "pipeline").mask_unet for f in (finished, tmp_path))
    for name, tensor in before.named_parameters():
        assert torch.equal(tensor, after.get_parameter(name)), name
    assert after.config.detail_channels == 8
    assert after.detail.conv_out.weight.any()


def test_a_pipeline_in_half_precision_is_a_start_for_mixed_precision(script, finished, tmp_path):
    GuideGenPipeline.from_pretrained(finished / "pipeline", dtype=torch.float16).save_pretrained(tmp_path / "half")
    start = [*FEW, *SHORT, "--phantom", 2, "--pretrained_model_name_or_path", tmp_path / "half"]
    call(script, *start, "--mixed_precision", "bf16", "--output_dir", tmp_path / "run")
    assert record(tmp_path / "run")["step"] == 2


def test_a_data_set_of_phantoms_trains_as_the_phantoms_themselves(script, encoder, tmp_path):
    for split, count in (("train", 4), ("validation", 2)):
        write_phantoms(tmp_path / "set", count, SIZE, SPACING, split=split, progress=False)
    here = [*FEW, *SHORT, "--text_encoder", encoder]
    call(script, *here, "--phantom", 4, "--output_dir", tmp_path / "a")
    call(script, *here, "--train_data_dir", tmp_path / "set", "--output_dir", tmp_path / "b")
    assert (tmp_path / "a" / WEIGHTS).read_bytes() == (tmp_path / "b" / WEIGHTS).read_bytes()


# ---------------------------------------------------------------------------------------------------- death and life


def same_weights(a, b):
    files = [WEIGHTS, f"checkpoint-{STEPS}/model.safetensors"]  # the average, and the network it is of
    return all((a / file).read_bytes() == (b / file).read_bytes() for file in files)


def test_a_run_that_is_killed_gives_the_same_bits_and_reads_no_half_checkpoint(script, shown, finished, tmp_path):
    run = [SCRIPT, *shown, *CHECKED, "--output_dir", tmp_path]
    result = launch(*run, kill_when=lambda: (tmp_path / "checkpoint-3").exists())
    assert result.returncode == KILLED, result.stderr
    assert not (tmp_path / "pipeline").exists()
    last = script.checkpoints(tmp_path)[-1]
    shutil.copytree(last, tmp_path / ".checkpoint-99.partial")
    (tmp_path / ".checkpoint-99.partial" / "model.safetensors").write_bytes(b"half")
    (tmp_path / "checkpoint-xyz").mkdir()
    result = launch(*run, "--resume_from_checkpoint", "latest")
    assert result.returncode == 0, result.stderr
    done = int(last.name.split("-")[1])
    assert f" {done}/{STEPS} [" in result.stderr
    assert f" {done - 1}/{STEPS} [" not in result.stderr
    assert same_weights(tmp_path, finished)


@pytest.mark.slow
def test_two_processes_killed_at_any_moment_give_the_same_bits(script, shown, tmp_path):
    moments = random.Random(0)
    run = [SCRIPT, *shown, *CHECKED, "--gradient_accumulation_steps", 2, "--mixed_precision", "bf16"]
    began = time.monotonic()
    whole = launch(*run, "--output_dir", tmp_path / "whole", processes=2)
    length = time.monotonic() - began
    assert whole.returncode == 0, whole.stderr
    assert record(tmp_path / "whole")["processes"] == 2

    def after(seconds):
        end = time.monotonic() + seconds
        return lambda: time.monotonic() > end

    def while_writing(since):
        def written():
            for partial in (tmp_path / "killed").glob(".checkpoint-*.partial/model.safetensors"):
                try:
                    if partial.stat().st_mtime > since:
                        return True
                except FileNotFoundError:  # it is complete by now
                    continue
            return False

        return written

    run += ["--output_dir", tmp_path / "killed", "--resume_from_checkpoint", "latest"]
    deaths = []
    for kind in ("writing", "any", "writing", "any"):
        moment = while_writing(time.time()) if kind == "writing" else after(moments.uniform(0.4, 0.9) * length)
        result = launch(*run, kill_when=moment, processes=2)
        assert result.returncode in (KILLED, 0), result.stderr
        deaths.append(result.returncode)
    assert deaths[0] == KILLED  # the others depend on how fast the machine is
    result = launch(*run, processes=2)
    assert result.returncode == 0, result.stderr
    assert same_weights(tmp_path / "killed", tmp_path / "whole")
    assert not list((tmp_path / "killed").rglob(".*.partial"))


def test_a_run_killed_after_its_last_checkpoint_still_leaves_its_pipeline(script, shown, finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "pipeline")
    call(script, *shown, *CHECKED, "--output_dir", tmp_path, "--resume_from_checkpoint", "latest")
    assert same_weights(tmp_path, finished)


def test_a_loss_that_is_no_number_stops_the_run_and_the_last_checkpoint_goes_on(script, shown, finished, tmp_path):
    shutil.copytree(finished / "checkpoint-12", tmp_path / "checkpoint-12")
    go_on = [*shown, "--use_ema", "--output_dir", tmp_path, "--resume_from_checkpoint", "latest"]
    with pytest.raises(FloatingPointError, match=r"TCSS: the loss .* not finite at step 1\d, batch 1\d; resume"):
        call(script, *go_on, "--max_train_steps", 20, "--learning_rate", 1e30)
    assert checkpoints(tmp_path) == ["checkpoint-12"]
    call(script, *go_on, "--max_train_steps", 14)
    assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / WEIGHTS).values())


def test_weights_that_are_no_numbers_reach_no_checkpoint(script, shown, tmp_path):
    without_end = ["--adam_weight_decay", 1e60, "--checkpointing_steps", 1, "--max_train_steps", 3]
    with pytest.raises(FloatingPointError, match="TCSS: the weights are not finite at step 1, batch 0"):
        call(script, *shown, *without_end, "--output_dir", tmp_path)
    assert checkpoints(tmp_path) == []


def test_a_checkpoint_takes_the_learning_rate_of_the_arguments(script, shown, finished, tmp_path):
    shutil.copytree(finished / "checkpoint-9", tmp_path / "checkpoint-9")
    still = ["--learning_rate", 0, "--lr_scheduler", "constant", "--max_train_steps", 11]
    call(script, *shown, "--use_ema", *still, "--output_dir", tmp_path, "--resume_from_checkpoint", "latest")
    before, after = (load_file(tmp_path / f"checkpoint-{step}" / "model.safetensors") for step in (9, 11))
    assert all(torch.equal(before[name], after[name]) for name in before)


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ONE_OF),
        (["--phantom", 2, "--train_data_dir", "data"], ONE_OF),
        (["--phantom", 0], "--phantom: got 0, expected 1 or more"),
        (["--phantom", 2, "--kl_weight", 0], "expected a loss"),
        (["--phantom", 2, "--num_validation_prompts", 0], "--num_validation_prompts: got 0, expected 1 or more"),
        (["--phantom", 2, "--detail_only"], "--detail_only: the network has no detail"),
        (["--phantom", 2, "--detail_channels", 6], "--detail_channels: got 6, expected"),
        (["--phantom", 2, "--text_encoder", "/nowhere"], "--text_encoder: got /nowhere, expected a folder"),
        (["--phantom", 2, "--pretrained_model_name_or_path", "/nowhere"], "got /nowhere, expected a pipeline"),
        (["--phantom", 2, "--resume_from_checkpoint", "/nowhere"], "/nowhere holds no stage.json"),
    ],
)
def test_arguments_that_cannot_be_are_refused_in_one_line(script, encoder, tmp_path, capsys, arguments, words):
    given = [*FEW, *SHORT, "--text_encoder", encoder, *arguments, "--output_dir", tmp_path / "out"]
    assert words in refused(capsys, script, *given)
    assert not list(tmp_path.rglob("*/*"))


def test_a_folder_that_is_no_data_set_is_refused_in_one_line(script, encoder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    given = [*FEW, *SHORT, "--text_encoder", encoder, "--output_dir", tmp_path / "out"]
    line = refused(capsys, script, *given, "--train_data_dir", tmp_path / "empty")
    assert line.startswith(f"--train_data_dir: got {tmp_path / 'empty'}, expected a data set")
    assert "guidegen prepare" in line


@pytest.mark.parametrize(("size", "spacing"), [(SIZE, 12.0), ((12, 12, 24), SPACING)])
def test_a_data_set_on_another_grid_is_refused_in_one_line(script, encoder, tmp_path, capsys, size, spacing):
    write_phantoms(tmp_path / "set", 1, size, spacing, progress=False)
    given = [*FEW, *SHORT, "--text_encoder", encoder, "--output_dir", tmp_path / "out"]
    line = refused(capsys, script, *given, "--train_data_dir", tmp_path / "set")
    for word in (str(size), f"{spacing:g}", str(SIZE), f"{SPACING:g}", "guidegen prepare"):
        assert word in line


@pytest.mark.parametrize("changed", [{"stage": "CAE"}, {"config": "torso-6mm"}])
def test_a_checkpoint_of_something_else_is_refused_in_one_line(script, shown, finished, tmp_path, capsys, changed):
    shutil.copytree(finished / "checkpoint-12", tmp_path / "checkpoint-12")
    file = tmp_path / "checkpoint-12" / "stage.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    line = refused(capsys, script, *shown, *SHORT, "--output_dir", tmp_path, "--resume_from_checkpoint", "latest")
    assert "checkpoint-12" in line
    assert next(iter(changed.values())) in line
    assert "expected TCSS with tiny" in line


def test_an_encoder_of_another_width_is_refused_in_one_line(script, tmp_path, capsys):
    tokenizer, encoder = small_text_encoder(**load_config("tiny")["text_encoder"] | {"hidden_size": 24})
    tokenizer.save_pretrained(tmp_path / "wide" / "tokenizer")
    encoder.save_pretrained(tmp_path / "wide" / "text_encoder")
    given = [*FEW, *SHORT, "--phantom", 2, "--output_dir", tmp_path / "out", "--text_encoder", tmp_path / "wide"]
    assert "24 wide, the mask network expects 16" in refused(capsys, script, *given)


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


# ------------------------------------------------------------------------------------------------------------- parts


@pytest.mark.parametrize("total", [1, 2, 7, 10])
def test_timesteps_are_uniform_on_1_to_T_both_ends_included(script, total):
    t = script.draw_timesteps(50_000, total, 0.0, torch.Generator().manual_seed(0))
    counts = torch.bincount(t, minlength=total + 1)
    assert (counts[0], len(counts)) == (0, total + 1)
    np.testing.assert_allclose(counts[1:] / 50_000, 1 / total, atol=0.01)


def test_the_high_noise_share_is_of_the_upper_half_alone(script):
    draw = torch.Generator().manual_seed(0)
    high = script.draw_timesteps(50_000, 1000, 1.0, draw)
    assert (high.min(), high.max()) == (501, 1000)
    some = script.draw_timesteps(50_000, 1000, 0.6, draw)
    assert (some.min(), some.max()) == (1, 1000)
    assert (some > 500).float().mean().item() == pytest.approx(0.6 + 0.4 / 2, abs=0.01)


def places(script, count, size, process=0, processes=1, first=0, batches=5, seed=0):
    rank = SimpleNamespace(process_index=process, num_processes=processes)
    return list(itertools.islice(script.Places(count, size, rank, seed, first), batches))


def test_classes_weigh_by_a_power_of_their_rarity_among_organs_and_the_tumour_as_told(script):
    labels = np.zeros((2, 4, 4, 4), np.uint8)
    labels[:, 0], labels[0, 1, 0], labels[1, 1, 0], labels[1, 2, 0] = 3, 4, 5, TUMOR  # 32, 4, 4 and 4 voxels
    expected = torch.ones(NUM_CLASSES)
    expected[[4, 5, TUMOR]] = torch.tensor([8**0.5, 8**0.5, 10.0])
    torch.testing.assert_close(script.class_weights(labels, 0.5, 10.0), expected)
    assert script.class_weights(labels, 0.0, 1.0).eq(1).all()


def test_an_epoch_shows_every_case_once_each_time_in_another_order(script):
    epochs = [[case for batch in places(script, 10, 2, first=5 * e) for case, _ in batch] for e in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_an_epoch_may_end_inside_a_batch(script):
    cases = [case for batch in places(script, 7, 2, batches=7) for case, _ in batch]
    assert sorted(cases[:7]) == sorted(cases[7:]) == list(range(7))


def test_two_processes_share_no_case_and_leave_none_out(script):
    ours, theirs = ([p for batch in places(script, 20, 2, rank, 2) for p in batch] for rank in range(2))
    assert len(ours) == len(theirs) == 10
    assert sorted(case for case, _ in ours + theirs) == list(range(20))
    assert len({seed for _, seed in ours + theirs}) == 20


@pytest.mark.parametrize("processes", [1, 3])
def test_starting_later_is_skipping(script, processes):
    every = places(script, 7, 2, processes - 1, processes, batches=20)
    assert places(script, 7, 2, processes - 1, processes, first=9, batches=11) == every[9:]


def phantoms(script, count):
    args = SimpleNamespace(phantom=count, train_data_dir=None, dataset_name=None, config="tiny")
    return script.Cases(args, SIZE, SPACING)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_cache_holds_the_cases_themselves(script, tmp_path, workers):
    cases = phantoms(script, 5)
    labels, texts = script.cached(cases, tmp_path, workers)
    assert labels.dtype == np.uint8
    for i in range(5):
        assert np.array_equal(labels[i], cases[i].labels)
        assert texts[i] == cases[i].prompt


def test_a_cache_is_written_whole_or_not_at_all(script, tmp_path):
    class Broken(script.Cases):
        def __getitem__(self, index):
            if index == 3:
                raise OSError("the disk is gone")
            return super().__getitem__(index)

    broken = Broken(SimpleNamespace(phantom=5), SIZE, SPACING)
    with pytest.raises(OSError, match="the disk is gone"):
        script.cached(broken, tmp_path, 0)
    assert not (tmp_path / broken.name).exists()
    cases = phantoms(script, 5)
    assert cases.name == broken.name
    labels, texts = script.cached(cases, tmp_path, 0)
    assert len(labels) == len(texts) == 5
    assert np.array_equal(labels[4], cases[4].labels)
    assert [p.name for p in tmp_path.iterdir()] == [cases.name]


def test_data_sets_of_one_name_share_a_cache_folder_and_no_case(script, tmp_path):
    for place, seed in (("a", 0), ("b", 1)):
        write_phantoms(tmp_path / place / "set", 1, SIZE, SPACING, seed=seed, progress=False)
        args = SimpleNamespace(phantom=None, train_data_dir=tmp_path / place / "set", dataset_name=None, config="tiny")
        cases = script.Cases(args, SIZE, SPACING)
        labels, texts = script.cached(cases, tmp_path / "cache", 0)
        assert np.array_equal(labels[0], cases[0].labels)
        assert texts == [cases[0].prompt]


def test_the_bound_is_T_times_the_mean_divergence_by_hand(script, tiny):
    cases, scheduler = phantoms(script, 4), tiny.mask_scheduler
    times = [1 + n * 999 // 15 for n in range(16)]
    assert (times[0], times[-1]) == (1, len(scheduler))
    terms = []
    for n, t in enumerate(times):
        case, time_, draw = cases[n % 4], torch.tensor([t]), torch.Generator().manual_seed(t)
        clean = torch.from_numpy(case.labels)[None]
        noisy = scheduler.add_noise(clean, scheduler.sample_noise(clean.shape, draw), time_, draw)
        with torch.no_grad():
            text = tiny.encode_prompt(case.prompt, do_classifier_free_guidance=False)[:2]
            logits = tiny.mask_unet(noisy, time_, *text).sample
        terms.append(scheduler.kl_divergence(logits, clean, noisy, time_).mean().item())
    assert script.bound(tiny, cases) == pytest.approx(len(scheduler) * np.mean(terms), rel=1e-4)


# ------------------------------------------------------------------------------------------------------------ the Hub


def test_what_was_trained_goes_to_the_hub_with_its_record_and_card(encoder, tmp_path):
    with LoopbackHub() as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_x", "HF_HOME": str(tmp_path / "home")}
        arguments = [*FEW, *SHORT, "--text_encoder", encoder, "--phantom", 3, "--output_dir", tmp_path / "run"]
        push = ["--push_to_hub", "--hub_model_id", "someone/torso"]
        result = launch(SCRIPT, *arguments, *push, environment=environment)
        assert result.returncode == 0, result.stderr
        files = hub.files("someone/torso")
    assert json.loads(files["training_tcss.json"])["step"] == 2
    assert "TCSS, 2 steps" in files["README.md"].decode()
    assert "mask_unet/diffusion_pytorch_model.safetensors" in files
    assert not [name for name in files if name.endswith((".bin", ".pkl"))]


def test_an_older_checkpoint_that_is_gone_on_from_prunes_the_others_and_not_what_is_written(script, tmp_path):
    folders = [tmp_path / f"checkpoint-{step}" for step in (3, 6, 9)]
    for folder in folders:
        folder.mkdir()
    accelerator = SimpleNamespace(
        is_main_process=True, wait_for_everyone=lambda: None, save_state=lambda path: Path(path).mkdir()
    )
    arguments = SimpleNamespace(output_dir=tmp_path, checkpoints_total_limit=1)
    script.save_checkpoint(accelerator, arguments, {"step": 5})
    assert checkpoints(tmp_path) == ["checkpoint-5"]
    arguments.checkpoints_total_limit = 0
    for step in (6, 7, 8):
        script.save_checkpoint(accelerator, arguments, {"step": step})
    assert checkpoints(tmp_path) == [f"checkpoint-{step}" for step in (5, 6, 7, 8)]
