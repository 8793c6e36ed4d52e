"""The semantic encoder: two maps to one latent grid, with organs that look at the tumour."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guidegen_diffusers.models.semantic_encoder import SemanticEncoder3D, TumorFusion3D


def encoder(**changes):
    config = {"block_out_channels": (8, 16), "latent_channels": 2, "attention_head_dim": 8, "max_tumor_tokens": 64}
    torch.manual_seed(0)
    return SemanticEncoder3D(**{**config, **changes})


def maps(size=(8, 4, 12), batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    organ = torch.randint(0, 20, (batch, *size), generator=generator, dtype=torch.uint8)
    tumor = torch.zeros_like(organ)
    tumor[:, : size[0] // 2, 1:3, 2:5] = 1
    return organ, tumor


@pytest.mark.parametrize("semantic_conditioning", ["attention", "downsample"])
@pytest.mark.parametrize("widths", [(8,), (8, 16)])
@pytest.mark.parametrize("size", [(8, 4, 12), (4, 16, 8)])
def test_latents_have_the_shape_of_the_latent_grid(semantic_conditioning, widths, size):
    model = encoder(block_out_channels=widths, semantic_conditioning=semantic_conditioning)
    factor = model.downscale_factor
    assert factor == 2 ** len(widths)
    organ, tumor = maps(size)
    with torch.no_grad():
        latents = model(organ, tumor).latents
        assert latents.shape == (2, 4, *(n // factor for n in size))
        assert latents.isfinite().all()
        assert torch.equal(model(organ, tumor, return_dict=False)[0], latents)


@pytest.mark.parametrize("widths", [(8,), (8, 16)])
def test_the_organ_latents_look_at_the_tumor(widths):
    model = encoder(block_out_channels=widths)
    organ, tumor = maps()
    with torch.no_grad():
        here, moved = model(organ, tumor).latents, model(organ, tumor.roll(4, 1)).latents
        assert not torch.allclose(here[:, :2], moved[:, :2], atol=1e-5)
        assert not torch.allclose(here[:, 2:], moved[:, 2:], atol=1e-5)
        without = model(organ, torch.zeros_like(tumor)).latents
        assert not torch.allclose(here[:, :2], without[:, :2], atol=1e-5)


def test_the_tumor_latents_do_not_look_at_the_organs():
    model = encoder()
    organ, tumor = maps()
    with torch.no_grad():
        here, other = model(organ, tumor).latents, model(19 - organ, tumor).latents
        assert torch.equal(here[:, 2:], other[:, 2:])
        assert not torch.allclose(here[:, :2], other[:, :2], atol=1e-3)


def test_the_downsample_ablation_keeps_organs_and_tumor_apart():
    model = encoder(semantic_conditioning="downsample")
    organ, tumor = maps()
    with torch.no_grad():
        here, moved = model(organ, tumor).latents, model(organ, tumor.roll(4, 1)).latents
        assert torch.equal(here[:, :2], moved[:, :2])
        assert not torch.allclose(here[:, 2:], moved[:, 2:], atol=1e-3)


def test_the_downsample_ablation_embeds_the_shrunk_maps():
    model = encoder(semantic_conditioning="downsample")
    small, _ = maps((2, 1, 3))
    organ = small.repeat_interleave(4, 1).repeat_interleave(4, 2).repeat_interleave(4, 3)
    tumor = torch.zeros_like(organ)
    tumor[:, :4, :4, :3] = 1  # three quarters of the first cell
    with torch.no_grad():
        latents = model(organ, tumor).latents
        assert torch.equal(latents[:, :2], model.organ_embedding(small.long()).movedim(-1, 1))
        weight, bias = model.tumor_embedding.weight.flatten(), model.tumor_embedding.bias
        assert torch.allclose(latents[0, 2:, 0, 0, 0], 0.75 * weight + bias)
        assert torch.allclose(latents[0, 2:, 1, 0, 2], bias)


@settings(max_examples=100)
@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 20)),
    max_tumor_tokens=st.sampled_from([1, 4, 64, 100, 512]),
)
def test_keys_are_at_most_max_tumor_tokens(size, max_tumor_tokens):
    fusion, lengths = TumorFusion3D(2, 2, max_tumor_tokens), []
    fusion.attention.to_k.register_forward_hook(lambda module, args, out: lengths.append(out.shape[1]))
    with torch.no_grad():
        assert fusion(torch.zeros(1, 2, 1, 2, 3), torch.randn(1, 2, *size)).shape == (1, 2, 1, 2, 3)
    assert 1 <= lengths[0] <= max_tumor_tokens
    if math.prod(size) <= max_tumor_tokens:
        assert lengths[0] == math.prod(size), "what fits is not pooled"


def test_a_large_grid_takes_the_pooled_path():
    organ, tumor = maps((16, 16, 24), batch=1)
    lengths = []
    model = encoder()
    for fusion in model.fusions:
        fusion.attention.to_k.register_forward_hook(lambda module, args, out: lengths.append(out.shape[1]))
    with torch.no_grad():
        pooled = model(organ, tumor).latents
        assert lengths == [3 * 3 * 4, 2 * 2 * 3]  # 8 x 8 x 12 = 768 keys by 3 a side, 4 x 4 x 6 = 96 by 2
        moved = model(organ, tumor.roll(8, 1)).latents
        whole = encoder(max_tumor_tokens=768)(organ, tumor).latents
    assert pooled.shape == (1, 4, 4, 4, 6)
    assert not torch.allclose(pooled[:, :2], moved[:, :2], atol=1e-5)
    assert not torch.allclose(pooled[:, :2], whole[:, :2], atol=1e-6)


def test_an_item_of_a_batch_is_a_single_run():
    model = encoder()
    organ, tumor = maps()
    tumor[1] = 0
    with torch.no_grad():
        batch = model(organ, tumor).latents
        for i in range(2):
            assert torch.allclose(model(organ[i : i + 1], tumor[i : i + 1]).latents, batch[i : i + 1], atol=1e-5)


def test_gradient_checkpointing_gives_the_same_gradients():
    model, losses, gradients, calls = encoder(), [], [], []
    model.fusions[0].register_forward_pre_hook(lambda *_: calls.append(1))
    for checkpointing in (False, True):
        if checkpointing:
            model.enable_gradient_checkpointing()
        model.zero_grad()
        loss = model(*maps()).latents.square().mean()
        loss.backward()
        losses.append(loss.item())
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert len(calls) == 1 + 2, "checkpointing runs the fusion a second time"
    assert losses[0] == pytest.approx(losses[1], abs=1e-7)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("semantic_conditioning", ["attention", "downsample"])
def test_a_training_step_reaches_every_parameter_and_lowers_the_loss(semantic_conditioning):
    model = encoder(semantic_conditioning=semantic_conditioning)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=3e-3), []
    for _ in range(3):
        loss = (model(*maps()).latents - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.any() for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]


@pytest.mark.parametrize("semantic_conditioning", ["attention", "downsample"])
def test_a_saved_model_gives_the_same_output(tmp_path, semantic_conditioning):
    model = encoder(semantic_conditioning=semantic_conditioning)
    model.save_pretrained(tmp_path)
    assert [f.suffix for f in tmp_path.iterdir() if f.suffix != ".json"] == [".safetensors"]
    loaded = SemanticEncoder3D.from_pretrained(tmp_path)
    assert loaded.config.semantic_conditioning == semantic_conditioning
    assert tuple(loaded.config.block_out_channels) == (8, 16)
    with torch.no_grad():
        assert torch.equal(loaded(*maps()).latents, model(*maps()).latents)


@pytest.mark.parametrize("semantic_conditioning", ["attention", "downsample"])
def test_bfloat16_runs(semantic_conditioning):
    model = encoder(semantic_conditioning=semantic_conditioning)
    with torch.no_grad():
        reference = model(*maps()).latents
        latents = model.to(torch.bfloat16)(*maps()).latents
    assert latents.dtype == torch.bfloat16
    assert torch.allclose(latents.float(), reference, atol=0.1)


def test_modules_that_stay_whole_exist():
    names = {type(module).__name__ for module in encoder().modules()}
    assert names >= {*SemanticEncoder3D._no_split_modules, *SemanticEncoder3D._repeated_blocks}


@pytest.mark.parametrize("semantic_conditioning", ["attention", "downsample"])
def test_wrong_maps_are_errors_that_say_what_came(semantic_conditioning):
    model = encoder(semantic_conditioning=semantic_conditioning)
    organ, tumor = maps()
    with pytest.raises(ValueError, match=r"\(2, 6, 4, 12\).*multiples of 4"):
        model(organ[:, :6], tumor[:, :6])
    with pytest.raises(ValueError, match=r"\(2, 8, 4, 12\) and \(2, 4, 4, 12\), expected the same"):
        model(organ, tumor[:, :4])
    with pytest.raises(ValueError, match=r"\(8, 4, 12\)"):
        model(organ[0], tumor[0])


def test_wrong_configs_are_errors():
    with pytest.raises(ValueError, match="semantic_conditioning: got 'concat', expected 'attention' or 'downsample'"):
        encoder(semantic_conditioning="concat")
    with pytest.raises(ValueError, match="attention_head_dim: got 5"):
        encoder(attention_head_dim=5)
