"""measure_spread.py finds how volumes and latents vary beside what is said, and tells a pipeline."""

import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given
from hypothesis import strategies as st

from guidegen_diffusers import GuideGenPipeline, LatentSpread
from guidegen_diffusers.data.phantom_set import write_phantoms
from guidegen_diffusers.labels import NUM_CLASSES, TUMOR

from .launch import call, load_script


@pytest.fixture
def script():
    return load_script("measure_spread.py")


@pytest.fixture
def tiny(tiny):
    """With a CT network that says x_0 of noise alone."""
    scheduler = DDIMScheduler.from_config(tiny.scheduler.config, prediction_type="v_prediction")
    tiny.register_modules(scheduler=scheduler)
    return tiny


def test_a_common_factor_and_what_is_each_classs_own_are_told_apart(script):
    draw = np.random.default_rng(0)
    common, own = np.full(NUM_CLASSES, 0.1), np.linspace(0.05, 0.2, NUM_CLASSES)
    common[TUMOR], own[TUMOR] = 0, 0.6
    away = common * draw.normal(size=(4000, 1)) + own * draw.normal(size=(4000, NUM_CLASSES))
    away[::3, TUMOR] = np.nan  # no tumour there
    away[5, 4] = np.nan  # no stomach
    spread = np.array(script.volume_spread(away, np.ones_like(away)))
    assert spread[0].tolist() == [0, 0]
    assert spread[1:, 0] == pytest.approx(common[1:], abs=0.02)
    assert spread[1:, 1] == pytest.approx(own[1:], abs=0.02)


def test_a_tumour_counts_as_much_as_is_expected_of_it(script):
    draw = np.random.default_rng(0)
    away, expected = 0.1 * draw.normal(size=(4000, NUM_CLASSES)), np.full((4000, NUM_CLASSES), 20.0)
    expected[::2, TUMOR] = 380.0
    away[:, TUMOR] = np.where(expected[:, TUMOR] > 20, 0.3, 0.8) * draw.normal(size=4000)
    spread = script.volume_spread(away, expected)
    assert spread[TUMOR] == [0, pytest.approx((0.95 * 0.3**2 + 0.05 * 0.8**2) ** 0.5, abs=0.02)]


def test_the_scheduler_of_the_folder_is_told_and_draws_with_it(script, tiny, tmp_path, capsys):
    write_phantoms(tmp_path / "set", 30, (16, 12, 24), 24.0, 0, "train", progress=False)
    tiny.save_pretrained(tmp_path / "pipeline")
    weights = (tmp_path / "pipeline" / "mask_unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    call(script, "--model", tmp_path / "pipeline", "--data_dir", tmp_path / "set", "--count", 30, "--of", "volumes")
    config = json.loads((tmp_path / "pipeline" / "mask_scheduler" / "scheduler_config.json").read_text())
    assert config["keep_volumes"]
    assert np.array(config["volume_spread"])[TUMOR, 1] > 0.1
    assert "liver" in capsys.readouterr().out
    assert (tmp_path / "pipeline" / "mask_unet" / "diffusion_pytorch_model.safetensors").read_bytes() == weights
    pipe = GuideGenPipeline.from_pretrained(tmp_path / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    made = pipe("A male.", output="mask", mask_num_inference_steps=2, generator=torch.Generator().manual_seed(0))
    assert made.labels.any()


def test_principal_components_give_back_how_classes_vary_and_go_together(script):
    draw = torch.Generator().manual_seed(0)
    true = torch.zeros(2, NUM_CLASSES, 3)
    true[0, 3], true[0, 5], true[1, 9] = torch.tensor([[0.5, 0.1, 0], [-0.3, 0, 0.2], [0, 0.2, 0]])
    away = torch.einsum("ik,knc->inc", torch.randn((4000, 2), generator=draw), true) + 0.7  # what all have: no spread
    away[:, TUMOR] = torch.nan
    found = script.principal(away, 2)
    signs = (found.components * true).sum((1, 2)).sign()
    assert torch.allclose(found.components * signs[:, None, None], true, atol=0.03)
    assert torch.allclose(found.mean[:TUMOR], torch.tensor(0.7), atol=0.03)
    assert found.mean[TUMOR].abs().max() == 0


def test_latents_a_hu_are_the_slope_over_the_cases_that_have_a_class(script):
    draw = torch.Generator().manual_seed(0)
    true = torch.randn((NUM_CLASSES, 3), generator=draw)
    hu = 50 * torch.randn((200, NUM_CLASSES), generator=draw) + 40
    means = hu[..., None] * true + torch.randn((NUM_CLASSES, 3), generator=draw)
    hu[:100, 4], means[:100, 4] = torch.nan, torch.nan
    hu[:, TUMOR], means[:, TUMOR] = torch.nan, torch.nan
    found = script.latents_a_hu(means, hu)
    assert torch.allclose(found[:TUMOR], true[:TUMOR], rtol=1e-3, atol=1e-4)
    assert found[TUMOR].abs().max() == 0


def test_what_the_unet_leaves_of_the_latents_is_found_and_the_pipeline_draws_it(script, tiny, tmp_path):
    write_phantoms(tmp_path / "set", 30, (16, 12, 24), 24.0, 0, "train", progress=False)
    tiny.save_pretrained(tmp_path / "pipeline")
    before = {f: f.read_bytes() for f in (tmp_path / "pipeline").rglob("*.safetensors")}
    call(
        script, "--model", tmp_path / "pipeline", "--data_dir", tmp_path / "set", "--of", "latents", "--components", 4,
        "--painted", 2, "--rounds", 2,
    )  # fmt: skip
    pipe = GuideGenPipeline.from_pretrained(tmp_path / "pipeline")
    assert isinstance(pipe.latent_spread, LatentSpread)
    assert pipe.latent_spread.components.shape == (4, NUM_CLASSES, tiny.vae.config.latent_channels)
    assert pipe.latent_spread.components.abs().sum((1, 2)).min() > 0
    assert pipe.latent_spread.mean.abs().sum() > 0
    assert all(f.read_bytes() == content for f, content in before.items())
    pipe.set_progress_bar_config(disable=True)
    made = pipe(
        "A male.", num_inference_steps=2, mask_num_inference_steps=2, generator=torch.Generator().manual_seed(0)
    )
    assert made.ct.std() > 0


def test_every_round_of_painting_starts_from_what_the_rounds_before_found(script, tiny, tmp_path, monkeypatch, capsys):
    write_phantoms(tmp_path / "set", 30, (16, 12, 24), 24.0, 0, "train", progress=False)
    tiny.save_pretrained(tmp_path / "pipeline")
    seen, dark = [], torch.linspace(-20, 20, NUM_CLASSES)

    def painted(pipe, cases, spread, centred):
        assert centred.nanmean(0).nan_to_num().abs().max() < 1e-3
        seen.append(spread.mean.clone())
        return torch.stack([dark - 3, dark + 3]) / 2 ** len(seen)  # each round gives half of what was asked for

    monkeypatch.setattr(script, "missing", painted)
    folders = ("--model", tmp_path / "pipeline", "--data_dir", tmp_path / "set")
    call(script, *folders, "--of", "latents", "--rounds", 3)
    told = LatentSpread.from_pretrained(tmp_path / "pipeline" / "latent_spread").mean
    first, second, third = (b - a for a, b in zip(seen, [*seen[1:], told], strict=True))
    assert first.abs().max() > 0
    assert torch.allclose(second, first, atol=1e-5)  # half as much, asked for twice as loud
    assert torch.allclose(third, first, atol=1e-5)
    assert "round 3, missing HU on own and on drawn label maps: spleen -3 -2" in capsys.readouterr().out


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_latents_are_asked_for_what_drawn_label_maps_miss_by_their_share(script, tiny, tmp_path, monkeypatch, share):
    write_phantoms(tmp_path / "set", 30, (16, 12, 24), 24.0, 0, "train", progress=False)
    tiny.save_pretrained(tmp_path / "pipeline")
    told = []
    own, drawn = torch.linspace(-20, 20, NUM_CLASSES), torch.linspace(8, -3, NUM_CLASSES)

    def painted(pipe, cases, spread, centred):
        told.append(spread.mean.clone())
        return torch.stack([own, drawn])

    monkeypatch.setattr(script, "missing", painted)
    monkeypatch.setattr(script, "latents_a_hu", lambda means, hu: torch.ones(means.shape[1:]))
    folders = ("--model", tmp_path / "pipeline", "--data_dir", tmp_path / "set")
    call(script, *folders, "--of", "latents", "--rounds", 1, "--drawn_share", share)
    after = LatentSpread.from_pretrained(tmp_path / "pipeline" / "latent_spread").mean
    expected = ((1 - share) * own + share * drawn)[:, None].expand_as(after)
    assert torch.allclose(after - told[0], expected, atol=1e-4)


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(0.25, 1)), min_size=1, max_size=20))
def test_what_classes_give_of_what_is_asked_for_is_made_up_for(classes):
    script = load_script("measure_spread.py")
    dark, gain = torch.tensor(classes, dtype=torch.float64).T
    asked = script.asked_for(dark, None, None)
    assert torch.equal(asked, dark)
    left = dark - gain * asked
    again = script.asked_for(left, dark, asked)
    assert (left - gain * again).abs().max() < 1e-6


def test_classes_that_do_not_follow_are_left_alone(script):
    dark = torch.tensor([24.0, 24.0, 0.0, 20.0])
    asked = script.asked_for(dark, None, None)
    after = torch.tensor([25.0, 23.0, 0.0, 18.0])  # away, hardly, never asked, a tenth and so left
    again = script.asked_for(after, dark, asked)
    assert again.tolist() == [0, 0, 0, 0]
    assert script.asked_for(after, after, again).tolist() == [0, 0, 0, 0]
    weak = script.asked_for(torch.tensor([17.0]), torch.tensor([20.0]), torch.tensor([20.0]))
    assert weak.tolist() == [68.0]  # four times, though it gave less than a quarter


def test_a_share_that_is_none_is_refused_by_name(script, tmp_path, capsys):
    with pytest.raises(SystemExit):
        call(script, "--model", tmp_path, "--data_dir", tmp_path, "--drawn_share", 1.5)
    assert "--drawn_share: got 1.5, expected 0" in capsys.readouterr().err


def test_another_grid_and_too_few_cases_are_refused(script, tiny, tmp_path, capsys):
    write_phantoms(tmp_path / "set", 30, (8, 6, 12), 48.0, 0, "train", progress=False)
    write_phantoms(tmp_path / "few", 2, (16, 12, 24), 24.0, 0, "train", progress=False)
    tiny.save_pretrained(tmp_path / "pipeline")
    arguments = ("--model", tmp_path / "pipeline", "--data_dir", tmp_path / "set")
    with pytest.raises(SystemExit, match=r"--data_dir: \(8, 6, 12\) voxels a case, expected \(16, 12, 24\)"):
        call(script, *arguments)
    epsilon = DDIMScheduler.from_config(tiny.scheduler.config, prediction_type="epsilon")
    tiny.register_modules(scheduler=epsilon)
    tiny.save_pretrained(tmp_path / "epsilon")
    with pytest.raises(SystemExit, match="--of latents: the CT's scheduler predicts epsilon, expected v_prediction"):
        call(script, "--model", tmp_path / "epsilon", *arguments[2:])
    tiny.register_modules(unet=None)
    tiny.save_pretrained(tmp_path / "labels-only")
    with pytest.raises(SystemExit, match="--model: .* has no networks of latents"):
        call(script, "--model", tmp_path / "labels-only", *arguments[2:], "--of", "latents")
    with pytest.raises(SystemExit, match="--data_dir: .* holds 2 cases, expected 30 or more"):
        call(script, *arguments[:3], tmp_path / "few")
    with pytest.raises(SystemExit):
        call(script, *arguments, "--count", 29)
    assert "--count: got 29, expected 30 or more" in capsys.readouterr().err
