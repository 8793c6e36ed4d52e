"""The shipped configurations run at their full size, untrained, in a few steps."""

import numpy as np
import pytest
import torch

from guidegen_diffusers import (
    Case,
    CategoricalDDPMScheduler,
    CategoricalUNet3DConditionModel,
    GuideGenPipeline,
    load_config,
)


pytestmark = pytest.mark.slow
SENTENCE = "The patient is a white male. In this CT scan, the condition is described as lung cancer."


@pytest.mark.parametrize(("name", "shape"), [("torso-6mm", (64, 48, 96)), ("torso-3mm", (128, 96, 192))])
def test_a_torso_configuration_takes_a_sentence_to_a_saved_pair(name, shape, tmp_path):
    torch.manual_seed(0)
    pipe = GuideGenPipeline.from_config(name)
    case = pipe(SENTENCE, num_inference_steps=2, mask_num_inference_steps=2).cases[0]
    assert case.labels.shape == case.ct.shape == shape
    again = Case.load(case.save(tmp_path / "case"))
    np.testing.assert_allclose(again.grid.spacing * shape, (384, 288, 576))


def test_tiles_decode_a_full_size_volume_as_it_is():
    torch.manual_seed(0)
    pipe = GuideGenPipeline.from_config("torso-6mm")
    latents = torch.randn(1, 8, 32, 24, 48)
    with torch.no_grad():
        whole = pipe.vae.decode(latents).sample
        pipe.vae.enable_tiling(tile_size=24, tile_overlap=16)
        tiled = pipe.vae.decode(latents).sample
    assert (whole - tiled).abs().max() <= 1e-3 * (whole.max() - whole.min())


def test_the_papers_mask_network_takes_a_step_at_128():
    config = load_config("paper-128")
    torch.manual_seed(0)
    network = CategoricalUNet3DConditionModel.from_config(config["mask_unet"]).eval()
    scheduler = CategoricalDDPMScheduler.from_config(config["mask_scheduler"])
    scheduler.set_timesteps(250)
    x = scheduler.sample_noise((1, 128, 128, 128))
    with torch.no_grad():
        logits = network(x, 1000, torch.randn(1, 20, 768)).sample
    assert logits.shape == (1, 21, 128, 128, 128)
    assert scheduler.step(logits, 1000, x).prev_sample.shape == x.shape


@pytest.mark.parametrize("stage", ["mask_unet", "unet"])
def test_a_network_compiled_by_inductor_gives_the_same(stage):
    torch.manual_seed(0)
    network = getattr(GuideGenPipeline.from_config("tiny"), stage)
    text, mask = torch.randn(2, 9, 16), torch.ones(2, 9, dtype=torch.bool)
    if stage == "mask_unet":
        sample = torch.randint(0, 21, (2, 16, 12, 24), dtype=torch.uint8)
    else:
        sample = torch.randn(2, 8, 8, 6, 12)
    t = torch.tensor(500)
    with torch.no_grad():
        expected = network(sample, t, text, mask).sample
        compiled = torch.compile(network, fullgraph=True)(sample, t, text, mask).sample
    torch.testing.assert_close(compiled, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("stage", ["mask_unet", "unet"])
def test_repeated_blocks_of_a_full_size_network_compile_without_recompiling_each(stage):
    torch.manual_seed(0)
    network = getattr(GuideGenPipeline.from_config("torso-6mm", tokenizer=None, text_encoder=None), stage)
    if stage == "mask_unet":
        sample = torch.randint(0, 21, (1, 64, 48, 96), dtype=torch.uint8)
    else:
        sample = torch.randn(1, network.config.in_channels, 32, 24, 48)
    text = torch.randn(1, 9, 128)
    with torch.no_grad():
        expected = network(sample, 500, text).sample
        network.compile_repeated_blocks(fullgraph=True, backend="eager")
        torch.testing.assert_close(network(sample, 500, text).sample, expected)
