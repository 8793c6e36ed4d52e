"""train_cae.py leaves an autoencoder at unit variance, goes on from any death as if there had been none, and keeps the
judges, the perceptual network and the rescaler in their places."""

import functools
import json
import random
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file
from torch import nn
from transformers import ResNetConfig, ResNetModel

from guidegen_diffusers import GuideGenPipeline, TorsoPhantom, VQModel3D, codebook_use, load_config
from guidegen_diffusers.data.phantom_set import write_phantoms
from guidegen_diffusers.labels import NUM_CLASSES
from guidegen_diffusers.phantom import SEEDS

from ..loopback_hub import LoopbackHub
from .launch import KILLED, call, launch, load_script, refused


SCRIPT = "train_cae.py"
SIZE, SPACING = (16, 12, 24), 24.0
STEPS, JOIN = 12, 6  # the discriminators join half-way
VAE = "pipeline/vae/diffusion_pytorch_model.safetensors"
FEW = ["--config", "tiny", "--crop_size", 8, 8, 8, "--num_validation_cases", 2, "--discriminator_width", 8]
CHECKED = ["--max_train_steps", STEPS, "--checkpointing_steps", 2, "--train_batch_size", 2, "--use_ema"]
CHECKED += ["--discriminator_start", JOIN, "--restart_steps", 3]
SHORT = ["--max_train_steps", 2, "--checkpointing_steps", 100]


@pytest.fixture(scope="module")
def script():
    return load_script(SCRIPT)


def saved(folder, seed=0, usage=None, **changes):
    """The pipeline of an untrained autoencoder."""
    torch.manual_seed(seed)
    vae = VQModel3D.from_config({**load_config("tiny")["vae"], **changes})
    if usage is not None:
        vae.quantizer.usage.fill_(usage)
    GuideGenPipeline(vae=vae, sample_size=SIZE, spacing=SPACING).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def worn(tmp_path_factory):
    """An autoencoder whose every code is dead after two steps without use; it takes hundreds from the start."""
    return saved(tmp_path_factory.mktemp("worn"), usage=0.0101)


@pytest.fixture(scope="module")
def shown(worn):
    return [*FEW, "--phantom", 4, "--pretrained_model_name_or_path", worn]


@pytest.fixture(scope="module")
def finished(script, shown, tmp_path_factory):
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("finished")
    call(script, *shown, *CHECKED, "--validation_steps", 6, "--output_dir", folder)
    return folder


@pytest.fixture(scope="module")
def made(finished):
    return GuideGenPipeline.from_pretrained(finished / "pipeline")


def checkpoints(folder):
    return sorted((p.name for p in folder.glob("checkpoint-*")), key=lambda name: int(name.split("-")[1]))


def record(folder):
    return json.loads((folder / "pipeline" / "training_cae.json").read_text())


def phantom(split, index):
    return TorsoPhantom(SIZE, SPACING).sample(None, SEEDS[split][index])


def units(ct):  # (X, Y, Z) HU -> (1, 1, X, Y, Z) in [-1, 1]
    return torch.from_numpy(ct.astype(np.float32)).clamp(-1500, 1500)[None, None] / 1500


# ------------------------------------------------------------------------------------------------- what a run leaves


def test_a_run_leaves_an_autoencoder_of_finite_weights(made):
    assert isinstance(made.vae, VQModel3D)
    assert made.sample_size == SIZE
    assert all(tensor.isfinite().all() for tensor in made.vae.state_dict().values())
    assert made.vae(units(phantom("test", 0).ct)).sample.shape == (1, 1, *SIZE)


def test_the_scaling_factor_brings_latents_of_training_crops_to_unit_variance(script, made):
    args = SimpleNamespace(phantom=4, crop_size=(8, 8, 8), discriminator_weight=0.1)
    crops = script.Crops(args, SIZE, SPACING, made.vae, "train")
    with torch.no_grad():  # other crops than those it was measured on
        latents = [made.vae.encode(crops[i % 4, 1000 + i]["ct"][None]).latents for i in range(64)]
    assert made.vae.config.scaling_factor != 1
    assert (torch.cat(latents) * made.vae.config.scaling_factor).std().item() == pytest.approx(1, abs=0.1)


@torch.no_grad()
def test_a_run_says_how_it_was_made_and_how_far_it_is_off_in_HU(finished, made):
    written = record(finished)
    assert (written["stage"], written["config"], written["step"], written["processes"]) == ("CAE", "tiny", STEPS, 1)
    assert written["seconds"] > 0
    assert "CAE, 12 steps" in (finished / "pipeline" / "README.md").read_text()
    assert written["arguments"]["crop_size"] == [8, 8, 8]
    windows = {"all": (-1500, 1501), "lung": (-1000, -400), "abdomen": (-150, 250), "bone": (250, 1500)}
    errors, indices = {name: [] for name in windows}, []
    for i in range(2):
        ct = units(phantom("validation", i).ct)
        out = made.vae(ct)
        away = ((out.sample.clamp(-1, 1) * 1500).round() - ct * 1500).abs()
        for name, (low, high) in windows.items():
            errors[name].append(away[(ct * 1500 >= low) & (ct * 1500 < high)].mean().item())
        indices.append(out.indices.flatten())
    use = dict(zip(("codes", "perplexity"), codebook_use(torch.cat(indices), 32), strict=True))
    expected = {f"mae_{name}": np.mean(values) for name, values in errors.items()} | use
    assert written["scores"] == pytest.approx(expected, rel=1e-3)


def test_a_run_draws_what_it_can_at_every_validation(finished):
    for step in (6, STEPS):
        pictures = {p.name: p.read_bytes() for p in (finished / "validation" / f"step-{step}").iterdir()}
        assert set(pictures) == {"00_ct.png", "00_made.png", "01_ct.png", "01_made.png"}
        assert all(content.startswith(b"\x89PNG") for content in pictures.values())
        assert pictures["00_ct.png"] != pictures["00_made.png"]


def test_old_checkpoints_are_pruned_and_nothing_half_written_stays(finished):
    assert checkpoints(finished) == ["checkpoint-10", "checkpoint-12"]
    assert not list(finished.rglob(".*.partial"))


def test_the_pipeline_holds_the_average_of_the_weights(finished):
    averaged, last = load_file(finished / VAE), load_file(finished / f"checkpoint-{STEPS}" / "model.safetensors")
    assert any(not torch.equal(averaged[name], last[name]) for name in last)


def test_training_lowers_the_error_on_cases_it_has_not_seen_below_that_of_any_one_value(script, tmp_path):
    run = [*FEW, "--crop_size", *SIZE, "--phantom", 8, "--discriminator_weight", 0, "--use_ema", "--ema_decay", 0.9]
    run += ["--learning_rate", 1e-3, "--lr_scheduler", "constant"]
    call(script, *run, "--max_train_steps", 1, "--output_dir", tmp_path / "start")
    call(script, *run, "--max_train_steps", 50, "--output_dir", tmp_path / "end")
    start, end = (record(tmp_path / name)["scores"]["mae_all"] for name in ("start", "end"))
    volumes = [units(phantom("validation", i).ct) * 1500 for i in range(2)]
    one_value = np.mean([(ct - ct.median()).abs().mean() for ct in volumes])
    assert end < 0.75 * start
    assert end < 0.75 * one_value


def test_a_data_set_of_phantoms_trains_as_the_phantoms_themselves(script, tmp_path):
    for split, count in (("train", 4), ("validation", 2)):
        write_phantoms(tmp_path / "set", count, SIZE, SPACING, split=split, progress=False)
    call(script, *FEW, *SHORT, "--phantom", 4, "--output_dir", tmp_path / "a")
    call(script, *FEW, *SHORT, "--train_data_dir", tmp_path / "set", "--output_dir", tmp_path / "b")
    assert (tmp_path / "a" / VAE).read_bytes() == (tmp_path / "b" / VAE).read_bytes()
    assert record(tmp_path / "a")["scores"] == record(tmp_path / "b")["scores"]


def test_workers_and_recomputation_change_no_bit(script, tmp_path):
    run = [*FEW, *SHORT, "--phantom", 3, "--train_batch_size", 2]
    call(script, *run, "--output_dir", tmp_path / "a")
    call(script, *run, "--dataloader_num_workers", 2, "--gradient_checkpointing", "--output_dir", tmp_path / "b")
    assert (tmp_path / "a" / VAE).read_bytes() == (tmp_path / "b" / VAE).read_bytes()


# ---------------------------------------------------------------------------------------------------- death and life


def different(a, b):
    """What differs: the average with its scaling factor, or the network, the judges and both optimizers it is of."""
    files = [VAE, "pipeline/vae/config.json"]
    last = f"checkpoint-{STEPS}"
    files += [f"{last}/{name}" for name in ("model.safetensors", "model_1.safetensors", "optimizer_1.bin")]
    return [file for file in files if (a / file).read_bytes() != (b / file).read_bytes()]


def last_step(folder):
    return max(int(name.split("-")[1]) for name in checkpoints(folder))


def test_a_run_killed_before_and_after_the_discriminators_join_gives_the_same_bits(shown, worn, finished, tmp_path):
    run = [SCRIPT, *shown, *CHECKED, "--output_dir", tmp_path, "--resume_from_checkpoint", "latest"]
    for step, limit in ((2, JOIN), (8, STEPS)):
        result = launch(*run, kill_when=(tmp_path / f"checkpoint-{step}").exists)
        assert result.returncode == KILLED, result.stderr
        assert step <= last_step(tmp_path) < limit
        assert not (tmp_path / "pipeline").exists()
    result = launch(*run)
    assert result.returncode == 0, result.stderr
    assert different(tmp_path, finished) == []
    moved = load_file(worn / "vae/diffusion_pytorch_model.safetensors")["quantizer.codebook"]
    moved = (load_file(finished / VAE)["quantizer.codebook"] - moved).abs().amax(1) > 0.05
    assert moved.any(), "no code died, though restarts were to be among what comes back"


@pytest.mark.slow
def test_two_processes_killed_at_any_moment_give_the_same_bits(shown, tmp_path):
    moments = random.Random(0)
    run = [SCRIPT, *shown, *CHECKED, "--gradient_accumulation_steps", 2, "--mixed_precision", "bf16"]
    began = time.monotonic()
    whole = launch(*run, "--output_dir", tmp_path / "whole", processes=2)
    length = time.monotonic() - began
    assert whole.returncode == 0, whole.stderr
    assert record(tmp_path / "whole")["processes"] == 2
    run += ["--output_dir", tmp_path / "killed", "--resume_from_checkpoint", "latest"]
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
    go_on = [*shown, "--use_ema", "--discriminator_start", JOIN, "--output_dir", tmp_path]
    go_on += ["--resume_from_checkpoint", "latest"]
    with pytest.raises(FloatingPointError, match=r"CAE: the loss .* not finite at step 1\d, batch 1\d; resume"):
        call(script, *go_on, "--max_train_steps", 20, "--learning_rate", 1e30)
    assert checkpoints(tmp_path) == ["checkpoint-12"]
    call(script, *go_on, "--max_train_steps", 14)
    assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / VAE).values())


def test_weights_that_are_no_numbers_reach_no_checkpoint(script, tmp_path):
    nothing_over_nothing = ["--adam_epsilon", 0, "--checkpointing_steps", 1, *SHORT[:2]]  # codes that nothing chose
    with pytest.raises(FloatingPointError, match="CAE: the weights are not finite at step 1, batch 0"):
        call(script, *FEW, "--phantom", 2, *nothing_over_nothing, "--output_dir", tmp_path)
    assert checkpoints(tmp_path) == []


def test_a_checkpoint_takes_the_learning_rate_of_the_arguments(script, shown, finished, tmp_path):
    shutil.copytree(finished / "checkpoint-10", tmp_path / "checkpoint-10")
    still = ["--learning_rate", 0, "--lr_scheduler", "constant", "--max_train_steps", 12]
    still += ["--discriminator_start", JOIN, "--restart_steps", 0, "--use_ema"]
    call(script, *shown, *still, "--output_dir", tmp_path, "--resume_from_checkpoint", "latest")
    for file in ("model.safetensors", "model_1.safetensors"):
        before, after = (load_file(tmp_path / f"checkpoint-{step}" / file) for step in (10, 12))
        still = [name for name in before if name != "quantizer.usage"]  # counts go on
        assert all(torch.equal(before[name], after[name]) for name in still)


# -------------------------------------------------------------------------------------------------------- the judges


class Watched(Accelerator):
    """Notes which of its networks (autoencoder, judges) each backward pass gives a gradient."""

    passes = []

    def prepare(self, *things):
        self.networks = [thing for thing in things if isinstance(thing, nn.Module)]
        return super().prepare(*things)

    def gradients(self):
        return [[None if p.grad is None else p.grad.clone() for p in net.parameters()] for net in self.networks]

    def backward(self, loss, **options):
        before = self.gradients()
        super().backward(loss, **options)
        after = self.gradients()
        self.passes.append(tuple(not same(b, a) for b, a in zip(before, after, strict=True)))


def same(before, after):
    pairs = zip(before, after, strict=True)
    return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


def test_each_pass_leaves_gradients_in_its_own_network_alone(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "Accelerator", Watched)
    monkeypatch.setattr(Watched, "passes", [])
    run = [*FEW, "--phantom", 2, "--max_train_steps", 4, "--gradient_accumulation_steps", 2]
    call(script, *run, "--discriminator_start", 2, "--output_dir", tmp_path)
    generator, discriminator = (True, False), (False, True)
    assert Watched.passes == 4 * [generator] + 4 * [generator, discriminator]


def judges_at(folder, step):
    return load_file(folder / f"checkpoint-{step}" / "model_1.safetensors")


def test_the_judges_stay_as_they_are_until_they_join(script, tmp_path):
    run = [*FEW, "--phantom", 2, "--checkpointing_steps", 1, "--checkpoints_total_limit", 9]
    call(script, *run, "--max_train_steps", 4, "--discriminator_start", 2, "--output_dir", tmp_path)
    first, second, third, fourth = (judges_at(tmp_path, step) for step in (1, 2, 3, 4))
    assert all(torch.equal(first[name], second[name]) for name in first)
    for judge in ("frame", "volume"):
        name = f"{judge}.layers.0.weight"
        assert not torch.equal(second[name], third[name])
        assert not torch.equal(third[name], fourth[name])


def test_a_weight_of_zero_leaves_the_judges_out(script, tmp_path):
    run = [*FEW, *SHORT, "--phantom", 2]
    call(script, *run, "--discriminator_start", 0, "--output_dir", tmp_path / "judged")
    call(script, *run, "--discriminator_start", 0, "--discriminator_weight", 0, "--output_dir", tmp_path / "zero")
    call(script, *run, "--discriminator_start", 9, "--output_dir", tmp_path / "later")
    weights = {name: (tmp_path / name / VAE).read_bytes() for name in ("judged", "zero", "later")}
    assert weights["zero"] == weights["later"]
    assert weights["judged"] != weights["zero"]
    zero, later = (judges_at(tmp_path / name, 2) for name in ("zero", "later"))
    assert all(torch.equal(zero[name], later[name]) for name in zero)


def test_slices_are_drawn_along_all_three_axes_and_none_twice(script):
    drawn = [script.draw_slices((2, 1, 8, 10, 3), 4, torch.Generator().manual_seed(seed)) for seed in range(300)]
    for axis, length in enumerate((8, 10, 3)):
        picked = [slices for along, slices in drawn if along == axis]
        assert len(picked) > 60
        assert all(len(slices) == len(set(slices)) == min(4, length) for slices in picked)
        assert {i for slices in picked for i in slices} == set(range(length))


@pytest.mark.parametrize("axis", range(3))
def test_one_judge_sees_the_slices_and_the_other_the_volume(script, axis):
    judges, seen = script.Discriminators(8), []
    judges.frame.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    judges.volume.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x = torch.randn(2, 1, 8, 10, 12)
    frames, volume = judges(x, (axis, [5, 0, 7]))
    assert torch.equal(seen[0], torch.stack([item.select(1 + axis, i) for item in x for i in (5, 0, 7)]))
    assert seen[1] is x
    assert (len(frames), len(volume)) == (6, 2)


def test_the_hinge_by_hand(script):
    real = [torch.tensor([2.0, 0.0, -1.0]), torch.tensor([[3.0]])]  # lacks to 1: (0, 1, 2) and (0)
    fake = [torch.tensor([-2.0, 0.0, 1.0]), torch.tensor([[0.5]])]  # beyond -1: (0, 1, 2) and (1.5)
    assert script.hinge(real, fake).item() == pytest.approx((1 + 1) / 2 + (0 + 1.5) / 2)
    assert script.hinge([torch.tensor([1.0])], [torch.tensor([-1.0])]).item() == 0


def test_the_adaptive_weight_is_the_ratio_of_both_gradients(script):
    last = nn.Parameter(torch.tensor([1.0, 2.0]))
    reconstruction, adversarial = 3 * last[0] + 4 * last[1], (6 * last[0] + 8 * last[1]).square() / 44
    weight = script.adaptive_weight(reconstruction, adversarial, last)
    assert weight.item() == pytest.approx(5 / 10, rel=1e-4)  # |(3, 4)| over |(6, 8)|
    assert last.grad is None
    assert not weight.requires_grad
    (reconstruction + adversarial).backward()  # both graphs are still there
    assert torch.allclose(last.grad, torch.tensor([9.0, 12.0]))


def test_the_adaptive_weight_is_bounded_where_the_judge_pushes_nowhere(script):
    last = nn.Parameter(torch.ones(2))
    assert script.adaptive_weight(5 * last.sum(), 0 * last.sum(), last).item() == 1e4


# ------------------------------------------------------------------------------------- rescaler, perceptual network


def test_the_rescaler_stays_as_it_is_unless_it_is_to_learn(script, tmp_path):
    run = [*FEW, *SHORT, "--phantom", 2, "--learning_rate", 1e-2]
    call(script, *run, "--output_dir", tmp_path / "fixed")
    call(script, *run, "--train_rescaler", "--output_dir", tmp_path / "learning")
    fixed, learning = (load_file(tmp_path / name / VAE) for name in ("fixed", "learning"))
    assert (fixed["rescaler.k"].item(), fixed["rescaler.b"].item()) == (2, -1)
    assert learning["rescaler.k"].item() != 2


def test_an_autoencoder_without_windows_trains_too(script, tmp_path):
    start = saved(tmp_path / "start", window_sampling="none")
    run = [*FEW, *SHORT, "--phantom", 2, "--discriminator_start", 1, "--pretrained_model_name_or_path", start]
    call(script, *run, "--output_dir", tmp_path / "out")
    vae = GuideGenPipeline.from_pretrained(tmp_path / "out" / "pipeline").vae
    assert vae.rescaler is None
    before = load_file(start / "vae/diffusion_pytorch_model.safetensors")
    assert not torch.equal(vae.encoder[0].weight, before["encoder.0.weight"])


def test_a_polished_decoder_leaves_the_latents_as_they_were(script, tmp_path):
    start = saved(tmp_path / "start", scaling_factor=1.7)
    run = [*FEW, *CHECKED, "--phantom", 2, "--discriminator_weight", 0, "--learning_rate", 1e-2]
    call(script, *run, "--pretrained_model_name_or_path", start, "--decoder_only", "--output_dir", tmp_path / "out")
    before, after = (GuideGenPipeline.from_pretrained(f).vae for f in (start, tmp_path / "out" / "pipeline"))
    for name, tensor in before.named_parameters():
        assert torch.equal(tensor, after.get_parameter(name)) != name.startswith("decoder"), name
    assert after.config.scaling_factor == 1.7


def test_the_squared_error_is_of_whole_crops_as_they_are_and_weighs_as_told(script, tmp_path, monkeypatch):
    compared, plain = [], script.squared_error
    monkeypatch.setattr(script, "squared_error", lambda made, ct, *a: (compared.append(ct), plain(made, ct, *a))[1])
    run = [*FEW, "--max_train_steps", 1, "--phantom", 2, "--discriminator_weight", 0]
    call(script, *run, "--output_dir", tmp_path / "none")
    assert not compared
    call(script, *run, "--mse_weight", 100, "--output_dir", tmp_path / "some")
    args = SimpleNamespace(phantom=2, crop_size=(8, 8, 8), discriminator_weight=0)
    crops = script.Crops(args, SIZE, SPACING, VQModel3D.from_config(load_config("tiny")["vae"]), "train")
    rank = SimpleNamespace(process_index=0, num_processes=1)
    (place,) = next(iter(script.Places(2, 1, rank, 0, 0)))
    assert len(compared) == 1
    assert torch.equal(compared[0][0], crops[place]["ct"])
    assert (tmp_path / "none" / VAE).read_bytes() != (tmp_path / "some" / VAE).read_bytes()


def test_without_weights_the_squared_error_is_the_mean_and_with_them_each_class_counts_as_told(script):
    made, ct = (torch.randn((2, 1, 4, 4, 4), generator=torch.Generator().manual_seed(i)) for i in range(2))
    labels = torch.zeros((2, 4, 4, 4), dtype=torch.uint8)
    labels[1] = 13
    weights = torch.ones(NUM_CLASSES)
    assert torch.allclose(script.squared_error(made, ct, labels, weights), nn.functional.mse_loss(made, ct))
    weights[13] = 3.0
    each = (made - ct).square().mean((1, 2, 3, 4))
    assert torch.allclose(script.squared_error(made, ct, labels, weights), (each[0] + 3 * each[1]) / 2)


def test_classes_weigh_by_their_rarity_to_the_power_that_is_asked_for(script):
    crops = crops_of(script)
    counts = sum(np.bincount(phantom("train", i).labels.ravel(), minlength=NUM_CLASSES) for i in range(2))
    assert torch.equal(script.class_weights(crops, 0.0), torch.ones(NUM_CLASSES))
    weights = script.class_weights(crops, 0.5)
    assert weights[0] == 1
    for k in range(1, NUM_CLASSES):
        expected = (counts[1:].max() / counts[k]) ** 0.5 if counts[k] else 1.0
        assert weights[k].item() == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """An image model of random weights."""
    folder = tmp_path_factory.mktemp("resnet")
    torch.manual_seed(0)
    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1])).save_pretrained(folder)
    return folder


def test_the_perceptual_network_changes_the_loss_and_stays_as_it_is(script, resnet, tmp_path, monkeypatch):
    networks = []

    class Noted(script.Perceptual):
        def __init__(self, name):
            super().__init__(name)
            networks.append(self.network)

    monkeypatch.setattr(script, "Perceptual", Noted)
    run, network = [*FEW, *SHORT, "--phantom", 2], ["--perceptual_network", resnet]
    call(script, *run, "--output_dir", tmp_path / "without")
    call(script, *run, *network, "--perceptual_weight", 0, "--output_dir", tmp_path / "zero")
    call(script, *run, *network, "--output_dir", tmp_path / "with")
    weights = {name: (tmp_path / name / VAE).read_bytes() for name in ("without", "zero", "with")}
    assert weights["zero"] == weights["without"]
    assert weights["with"] != weights["without"]
    assert len(networks) == 2
    for network in networks:
        assert all(p.grad is None for p in network.parameters())
        assert not network.training
        assert all(torch.equal(network.state_dict()[k], v) for k, v in load_file(resnet / "model.safetensors").items())


def test_perceptual_distance_is_none_between_equals_and_pulls_the_reconstruction(script, resnet):
    distance, x = script.Perceptual(resnet), torch.randn(2, 1, 8, 8, 8)
    made = torch.randn(2, 1, 8, 8, 8, requires_grad=True)
    assert distance(x, x, (0, [1, 2])).item() == 0
    away = distance(x, made, (0, [1, 2]))
    away.backward()
    assert away.item() > 0
    touched = made.grad.abs().sum((0, 1, 3, 4)) > 0
    assert touched.nonzero().flatten().tolist() == [1, 2]


# ----------------------------------------------------------------------------------------------------- crops and codes


def crops_of(script, **changes):
    args = dict(phantom=2, crop_size=(8, 6, 10), discriminator_weight=0) | changes
    return script.Crops(
        SimpleNamespace(**args), SIZE, SPACING, VQModel3D.from_config(load_config("tiny")["vae"]), "train"
    )


def test_a_crop_is_a_piece_of_its_case_the_same_of_both_volumes(script):
    crops, case, starts = crops_of(script), phantom("train", 1), set()
    crops.case = functools.cache(crops.case)
    ct = units(case.ct)[0, 0]
    windows = np.lib.stride_tricks.sliding_window_view(ct.numpy(), (8, 6, 10))
    for seed in range(100):
        item = crops[1, seed]
        found = np.argwhere((windows == item["ct"][0].numpy()).all((3, 4, 5)))
        assert len(found) == 1
        i, j, k = found[0]
        assert np.array_equal(item["labels"], case.labels[i : i + 8, j : j + 6, k : k + 10])
        starts.add((i, j, k))
    for axis, last in enumerate((16 - 8, 12 - 6, 24 - 10)):
        along = {start[axis] for start in starts}
        assert {0, last} <= along <= set(range(last + 1))


def test_without_a_crop_size_the_whole_volume_is_shown(script):
    item = crops_of(script, crop_size=None)[0, 7]
    assert torch.equal(item["ct"], units(phantom("train", 0).ct)[0])


def test_a_restart_moves_dead_codes_and_the_average_of_those_alone(script):
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.manual_seed(0)
    vae = VQModel3D.from_config(load_config("tiny")["vae"]).train()
    vae.quantizer.usage[[3, 7]] = 0.001
    average = EMAModel(vae.parameters())
    average.shadow_params = [torch.randn_like(p) for p in average.shadow_params]  # far from the network
    ct, codes = torch.randn(2, 1, 8, 8, 8), vae.quantizer.codebook
    before, shadows = codes.detach().clone(), [p.clone() for p in average.shadow_params]
    script.restart_codes(Accelerator(cpu=True), vae, average, ct, torch.Generator().manual_seed(0))
    living = torch.ones(32, dtype=bool)
    living[[3, 7]] = False
    assert torch.equal(codes[living], before[living])
    with torch.no_grad():
        latents = vae.encode(ct).latents.movedim(1, -1).flatten(0, 3)
    assert all((latents == code).all(1).any() for code in codes[~living])
    assert torch.equal(vae.quantizer.usage, torch.ones(32))
    for parameter, old, new in zip(vae.parameters(), shadows, average.shadow_params, strict=True):
        if parameter is codes:
            assert torch.equal(new[living], old[living])
            assert torch.equal(new[~living], codes[~living])
        else:
            assert torch.equal(new, old)


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
        (["--phantom", 2, "--crop_size", 8, 8, 26], "got (8, 8, 26) of volumes of (16, 12, 24), expected"),
        (["--phantom", 2, "--crop_size", 8, 8, 9], "got (8, 8, 9) of volumes of (16, 12, 24), expected both in mult"),
        (["--phantom", 2, "--crop_size", 8, 8, 0], "got (8, 8, 0) of volumes"),
        (["--phantom", 2, "--crop_size", 8, 8, 6], "the crop from 8 a side"),  # too small to be judged
        (["--phantom", 2, "--pretrained_model_name_or_path", "/nowhere"], "got /nowhere, expected a pipeline"),
        (["--phantom", 2, "--decoder_only"], "expected --pretrained_model_name_or_path, whose encoder stays"),
        (["--phantom", 2, "--organ_balance", 0.5], "--organ_balance: expected --mse_weight, of which it is a part"),
        (["--phantom", 2, "--perceptual_network", "/nowhere"], "got /nowhere, expected a folder or Hub id"),
        (["--phantom", 2, "--resume_from_checkpoint", "/nowhere"], "/nowhere holds no stage.json"),
    ],
)
def test_arguments_that_cannot_be_are_refused_in_one_line(script, tmp_path, capsys, arguments, words):
    assert words in refused(capsys, script, *FEW, *SHORT, *arguments, "--output_dir", tmp_path / "out")
    assert not list(tmp_path.rglob("*/*"))


def test_a_folder_that_is_no_data_set_is_refused_in_one_line(script, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    given = [*FEW, *SHORT, "--train_data_dir", tmp_path / "empty", "--output_dir", tmp_path / "out"]
    line = refused(capsys, script, *given)
    assert line.startswith(f"--train_data_dir: got {tmp_path / 'empty'}, expected a data set")
    assert "guidegen prepare" in line


def test_a_data_set_of_another_spacing_is_refused_in_one_line(script, tmp_path, capsys):
    write_phantoms(tmp_path / "set", 1, SIZE, 12.0, progress=False)
    given = [*FEW, *SHORT, "--train_data_dir", tmp_path / "set", "--output_dir", tmp_path / "out"]
    line = refused(capsys, script, *given)
    for word in ("12.0", "24", "guidegen prepare --spacing"):
        assert word in line


def test_volumes_that_could_not_be_looked_at_whole_are_refused_before_training(script, tmp_path, capsys):
    write_phantoms(tmp_path / "set", 1, (16, 13, 24), SPACING, progress=False)
    given = [*FEW, *SHORT, "--train_data_dir", tmp_path / "set", "--output_dir", tmp_path / "out"]
    assert "volumes of (16, 13, 24), expected both in multiples of 2" in refused(capsys, script, *given)


def test_a_case_without_its_CT_is_named(script, tmp_path, capsys):
    write_phantoms(tmp_path / "set", 2, SIZE, SPACING, progress=False)
    missing = sorted((tmp_path / "set/train/ct").iterdir())[1]
    missing.unlink()
    given = [*FEW, *SHORT, "--train_data_dir", tmp_path / "set", "--output_dir", tmp_path / "out"]
    assert str(missing) in refused(capsys, script, *given)


@pytest.mark.parametrize("changed", [{"stage": "TCSS"}, {"config": "torso-6mm"}])
def test_a_checkpoint_of_something_else_is_refused_in_one_line(script, shown, finished, tmp_path, capsys, changed):
    shutil.copytree(finished / "checkpoint-12", tmp_path / "checkpoint-12")
    file = tmp_path / "checkpoint-12" / "stage.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    line = refused(capsys, script, *shown, *SHORT, "--output_dir", tmp_path, "--resume_from_checkpoint", "latest")
    assert "checkpoint-12" in line
    assert next(iter(changed.values())) in line
    assert "expected CAE with tiny" in line


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


def test_a_rescaler_that_is_not_there_is_not_trained_in_silence(script, tmp_path, capsys):
    plain = saved(tmp_path / "plain", window_sampling="none")
    run = [*FEW, *SHORT, "--phantom", 2, "--pretrained_model_name_or_path", plain, "--train_rescaler"]
    assert "--train_rescaler: this autoencoder has none" in refused(
        capsys, script, *run, "--output_dir", tmp_path / "o"
    )


def test_what_was_trained_goes_to_the_hub_with_its_record_and_card(tmp_path):
    with LoopbackHub() as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_x", "HF_HOME": str(tmp_path / "home")}
        run = [SCRIPT, *FEW, *SHORT, "--phantom", 2, "--output_dir", tmp_path / "run"]
        result = launch(*run, "--push_to_hub", "--hub_model_id", "someone/torso", environment=environment)
        assert result.returncode == 0, result.stderr
        files = hub.files("someone/torso")
    assert json.loads(files["training_cae.json"])["step"] == 2
    assert "CAE, 2 steps" in files["README.md"].decode()
    assert "vae/diffusion_pytorch_model.safetensors" in files
    assert not [name for name in files if name.endswith((".bin", ".pkl"))]
