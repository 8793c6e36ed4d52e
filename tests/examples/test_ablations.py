"""Ablations change what they say they change, and are measured as pipelines are."""

import sys
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler

from guidegen_diffusers import Grid, GuideGenPipeline, TorsoPhantom, load_config
from guidegen_diffusers.labels import NUM_CLASSES
from guidegen_diffusers.metrics import organ_volumes
from guidegen_diffusers.prompts import SITES
from guidegen_diffusers.text_encoder import small_text_encoder

from .launch import EXAMPLES


SIZE, SPACING = (16, 12, 24), 24.0


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(EXAMPLES / "ablations"))
    import continuous_masks

    yield continuous_masks
    sys.path.remove(str(EXAMPLES / "ablations"))


@pytest.fixture(scope="module")
def scheduler():
    return DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="sample", timestep_spacing="trailing")


def test_a_network_that_knows_the_map_draws_it(script, scheduler):
    labels = torch.from_numpy(TorsoPhantom(SIZE, SPACING).sample(None, 3, ct=False).labels)
    known = script.one_hot(labels[None])
    assert known.sum(1).unique().tolist() == [2 - NUM_CLASSES]  # one class a voxel
    args = SimpleNamespace(num_inference_steps=4, per_site=1, first_seed=0, free_text=None, guidance_scale=2.0)
    tokenizer, encoder = small_text_encoder(**load_config("tiny")["text_encoder"])
    rows = script.draw_cases(lambda x, *_: known.expand_as(x), scheduler, tokenizer, encoder, 64, SIZE, SPACING, args)
    volumes = organ_volumes(labels.numpy(), Grid.centered(SIZE, SPACING).affine)
    assert all(row["made"]["volumes"] == volumes for row in rows)
    assert sorted(row["sites"][0] for row in rows) == sorted(SITES)
    assert script.table(rows, {})["site as prompted, all"].endswith(f"of {len(SITES)}")


@pytest.mark.parametrize("file", sorted((EXAMPLES / "ablations").glob("*.json")), ids=lambda file: file.stem)
def test_configurations_make_pipelines(file):
    pipe = GuideGenPipeline.from_config(str(file))
    assert pipe.config.spacing == load_config(file)["spacing"]


def test_the_network_has_the_trunk_of_the_categorical_one_and_learns(script):
    torch.manual_seed(0)
    network = script.ContinuousMaskUNet(load_config("tiny")["mask_unet"])
    x = script.one_hot(torch.randint(0, NUM_CLASSES, (1, *SIZE), dtype=torch.uint8))
    text, mask = torch.randn(1, 5, 16), torch.ones(1, 5, dtype=torch.bool)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = (network(x, torch.tensor([10]), text, mask) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.stem.parameters())
