"""The VQ autoencoder: straight through the codebook, and the same volume whole, sliced or in tiles."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guidegen_diffusers.models.vq_model_3d import VQModel3D, _tile_axis


def autoencoder(**changes):
    config = {"block_out_channels": (8, 16), "latent_channels": 4, "num_codes": 32}
    torch.manual_seed(0)
    return VQModel3D(**{**config, **changes}).eval()


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ct(*size, batch=2):
    return noise(batch, 1, *size).clamp(-1, 1)


def error(result, reference):
    """Largest and mean difference as shares of the reference's range."""
    difference = (result - reference).abs() / (reference.max() - reference.min())
    return difference.max().item(), difference.mean().item()


@pytest.mark.parametrize(("widths", "factor"), [((8, 16), 2), ((8, 16, 24), 4)])
@pytest.mark.parametrize("size", [(8, 4, 12), (4, 16, 8)])
def test_shapes_follow_the_downscale_factor(widths, factor, size):
    model, x = autoencoder(block_out_channels=widths), ct(*size)
    small = tuple(n // factor for n in size)
    assert model.downscale_factor == factor
    with torch.no_grad():
        latents = model.encode(x).latents
        assert latents.shape == (2, 4, *small)
        assert model.decode(latents).sample.shape == x.shape
        out = model(x)
        assert out.sample.shape == x.shape
        assert out.indices.shape == (2, *small)
        assert out.vq_loss.shape == ()
        assert out.sample.isfinite().all()
        tuples = (model.encode(x, return_dict=False), model.decode(latents, return_dict=False))
        assert torch.equal(tuples[0][0], latents)
        assert torch.equal(tuples[1][0], out.sample)
        assert all(torch.equal(a, b) for a, b in zip(model(x, return_dict=False), out.to_tuple(), strict=True))


def test_more_channels_come_and_go():
    with torch.no_grad():
        assert autoencoder(in_channels=3)(noise(1, 3, 4, 4, 4)).sample.shape == (1, 3, 4, 4, 4)


def test_the_gradient_passes_straight_through_the_codebook_to_the_encoder():
    model, x = autoencoder(), ct(8, 4, 12)
    latents = model.encode(x).latents
    latents.retain_grad()
    quantized = model.quantizer(latents).sample
    quantized.retain_grad()
    model.decode(quantized, force_not_quantize=True).sample.square().mean().backward()
    assert torch.equal(latents.grad, quantized.grad)
    assert latents.grad.any()
    through_parts = [p.grad.clone() for p in model.encoder.parameters()]
    assert all(gradient.any() for gradient in through_parts)
    model.zero_grad()
    model(x).sample.square().mean().backward()
    whole = [p.grad for p in model.encoder.parameters()]
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(through_parts, whole, strict=True))
    assert model.quantizer.codebook.grad is None


def test_decode_indices_equals_the_quantised_path():
    model, x = autoencoder(), ct(8, 4, 12)
    with torch.no_grad():
        out, latents = model(x), model.encode(x).latents
        assert torch.allclose(model.decode_indices(out.indices).sample, out.sample, atol=1e-5)
        assert torch.allclose(model.decode(latents).sample, out.sample, atol=1e-5)
        unquantised = model.decode(latents, force_not_quantize=True).sample
        assert not torch.allclose(unquantised, out.sample, atol=1e-2)
        as_tuple = model.decode_indices(out.indices, return_dict=False)
        assert torch.equal(as_tuple[0], model.decode_indices(out.indices).sample)


def test_only_training_counts_codes():
    model, x = autoencoder(), ct(8, 4, 12)
    with torch.no_grad():
        model(x)
        assert (model.quantizer.usage == 1).all()
        model.train()(x)
        assert not (model.quantizer.usage == 1).all()


# ---- slicing and tiling


def test_slicing_equals_the_whole_batch():
    model, x, runs = autoencoder(), ct(8, 4, 12, batch=3), []
    model.encoder.register_forward_pre_hook(lambda module, args: runs.append(len(args[0])))
    model.decoder.register_forward_pre_hook(lambda module, args: runs.append(len(args[0])))
    with torch.no_grad():
        whole = model(x)
        model.enable_slicing()
        sliced = model(x)
        model.disable_slicing()
        model(x)
    assert runs == [3, 3, 1, 1, 1, 1, 1, 1, 3, 3]
    assert torch.allclose(sliced.sample, whole.sample, atol=1e-5)
    assert torch.equal(sliced.indices, whole.indices)


@settings(max_examples=200)
@given(length=st.integers(1, 90), tile=st.integers(1, 40), share=st.floats(0, 0.999), scale=st.sampled_from([1, 2, 4]))
def test_tile_weights_sum_to_one(length, tile, share, scale):
    total, reach = torch.zeros(length * scale), 0
    tiles = _tile_axis(length, tile, int(tile * share), scale)
    for start, size, weight in tiles:
        assert start <= reach, "no gap between tiles"
        reach = start + size
        assert size == min(tile, length)
        assert weight.shape == (size * scale,)
        assert (weight >= 0).all()
        total[start * scale : reach * scale] += weight
    assert reach == length
    assert torch.allclose(total, torch.ones_like(total), atol=1e-5)


# The tiny networks see 7 latents far; three eighths of an overlap of 20 are context enough to be exact.
NON_CUBIC = (41, 3, 37)  # no multiple of any tile below, one axis shorter than a tile


@pytest.mark.parametrize("widths", [(8, 16), (8, 8, 8)])
def test_tiled_decode_equals_full_decode(widths):
    model, latents = autoencoder(block_out_channels=widths), noise(1, 4, *NON_CUBIC)
    with torch.no_grad():
        full = model.decode(latents).sample
        model.enable_tiling(28, 20)
        assert error(model.decode(latents).sample, full)[0] < 1e-5
        model.enable_tiling()
        worst, mean = error(model.decode(latents).sample, full)
        assert worst < 1e-3, "the default overlap leaves out the outermost latent or two of what a voxel sees"
        assert mean < 1e-5
        model.enable_tiling(24, 2)
        assert error(model.decode(latents).sample, full)[0] > 1e-1, "too little overlap shows"
        model.disable_tiling()
        assert torch.equal(model.decode(latents).sample, full)


@pytest.mark.parametrize("widths", [(8, 16), (8, 8, 8)])
def test_tiled_encode_equals_full_encode(widths):
    model = autoencoder(block_out_channels=widths)
    x = ct(*(n * model.downscale_factor for n in NON_CUBIC), batch=1)
    with torch.no_grad():
        full = model.encode(x).latents
        model.enable_tiling(28, 20)
        assert error(model.encode(x).latents, full)[0] < 1e-5
        model.enable_tiling()
        worst, mean = error(model.encode(x).latents, full)
        assert worst < 1e-3
        assert mean < 1e-5
        model.enable_tiling(24, 2)
        assert error(model.encode(x).latents, full)[0] > 1e-1, "too little overlap shows"


def test_more_overlap_is_closer_to_the_full_decode():
    model, latents = autoencoder(), noise(1, 4, 60, 5, 5)
    errors = []
    with torch.no_grad():
        full = model.decode(latents).sample
        for overlap in (0, 4, 8, 12, 16):
            model.enable_tiling(32, overlap)
            errors.append(error(model.decode(latents).sample, full)[1])
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1e4 * errors[-1]


@pytest.mark.parametrize("axis", [2, 3, 4])
def test_every_axis_is_tiled_to_the_tile_size(axis):
    model, size, seen = autoencoder(), [5, 4, 3], []
    size[axis - 2] = 29
    model.decoder.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape[2:])))
    model.enable_tiling(12, 4)
    with torch.no_grad():
        assert model.decode(noise(1, 4, *size)).sample.shape[2:] == tuple(2 * n for n in size)
    size[axis - 2] = 12
    assert seen == [tuple(size)] * 4  # starts 0, 8, 16 and 17


def test_a_volume_of_one_tile_is_not_tiled():
    model, latents = autoencoder(), noise(2, 4, 6, 3, 5)
    with torch.no_grad():
        full = model.decode(latents).sample
        model.enable_tiling(6, 2)
        assert torch.equal(model.decode(latents).sample, full)


def test_tiling_and_slicing_work_together():
    model, latents = autoencoder(), noise(2, 4, 20, 3, 3)
    model.enable_tiling(12, 6)
    with torch.no_grad():
        tiled = model.decode(latents).sample
        model.enable_slicing()
        assert torch.allclose(model.decode(latents).sample, tiled, atol=1e-5)


def test_tiling_quantises_as_the_whole():
    model, latents = autoencoder(), noise(1, 4, 20, 3, 3)
    model.enable_tiling(12, 6)
    with torch.no_grad():
        out = model.quantizer(latents)
        quantised = model.decode(latents).sample
        assert torch.allclose(quantised, model.decode(out.sample, force_not_quantize=True).sample, atol=1e-5)
        assert torch.allclose(quantised, model.decode_indices(out.indices).sample, atol=1e-5)


# ---- training, saving, dtypes


def test_gradient_checkpointing_gives_the_same_gradients():
    model, x, losses, gradients, calls = autoencoder(), ct(8, 4, 12), [], [], []
    model.encoder[1].register_forward_pre_hook(lambda *_: calls.append(1))
    for checkpointing in (False, True):
        if checkpointing:
            model.enable_gradient_checkpointing()
        model.zero_grad()
        out = model(x)
        loss = (out.sample - x).square().mean() + out.vq_loss
        loss.backward()
        losses.append(loss.item())
        gradients.append([p.grad.clone() for name, p in model.named_parameters() if "rescaler" not in name])
    assert len(calls) == 1 + 2, "checkpointing runs the block a second time"
    assert losses[0] == pytest.approx(losses[1], abs=1e-7)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_a_training_step_reaches_every_parameter_and_lowers_the_loss():
    model, x, losses = autoencoder().train(), ct(8, 4, 12), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    center, radius = torch.tensor([0.0, 0.2]), torch.tensor([1.0, 0.8])
    for _ in range(4):
        out = model(x)
        contrast = model.rescaler(x, center, radius) - model.rescaler(out.sample, center, radius)
        loss = contrast.abs().mean() + out.vq_loss + (model.rescaler.b + 1).square()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        assert all(p.grad.any() for name, p in model.named_parameters() if name != "rescaler.b")
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("max_shard_size", ["10GB", "20KB"])
def test_a_saved_model_gives_the_same_output(tmp_path, max_shard_size):
    model, x = autoencoder(window_sampling="anatomy", scaling_factor=0.7), ct(8, 4, 12)
    model.train()(x)  # usage is part of what is saved
    model.eval().save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (max_shard_size == "20KB")
    loaded = VQModel3D.from_pretrained(tmp_path)
    assert loaded.config.scaling_factor == 0.7
    assert loaded.rescaler.window_sampling == "anatomy"
    assert torch.equal(loaded.quantizer.usage, model.quantizer.usage)
    with torch.no_grad():
        assert torch.equal(loaded(x).sample, model(x).sample)


def test_the_quantizer_stays_in_float32(tmp_path):
    model, x = autoencoder(), ct(8, 4, 12)
    model.save_pretrained(tmp_path)
    loaded = VQModel3D.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert {p.dtype for p in [*loaded.encoder.parameters(), *loaded.decoder.parameters()]} == {torch.bfloat16}
    assert loaded.quantizer.codebook.dtype == loaded.quantizer.usage.dtype == torch.float32
    assert torch.equal(loaded.quantizer.codebook, model.quantizer.codebook)
    assert loaded.dtype == torch.bfloat16
    with torch.no_grad():
        out = loaded(x.bfloat16())
        assert out.sample.dtype == torch.bfloat16
        assert torch.equal(loaded.decode_indices(out.indices).sample, out.sample)
        indices = model.quantizer(loaded.encode(x.bfloat16()).latents.float()).indices
        assert torch.equal(out.indices, indices)


def test_casting_reaches_every_parameter():
    model, x = autoencoder().to(torch.bfloat16), ct(8, 4, 12).bfloat16()
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        out = model(x)
        model.enable_tiling(3, 1)
        assert model(x).sample.dtype == torch.bfloat16
    assert out.sample.dtype == torch.bfloat16
    assert out.sample.isfinite().all()
    assert out.vq_loss.dtype == torch.float32
    assert {p.dtype for p in autoencoder().double().encoder.parameters()} == {torch.float64}


def test_no_window_sampling_has_no_rescaler_and_loads_back(tmp_path):
    model, x = autoencoder(window_sampling="none"), ct(8, 4, 12)
    assert model.rescaler is None
    assert not [name for name in model.state_dict() if "rescaler" in name]
    assert [name for name in autoencoder().state_dict() if "rescaler" in name] == ["rescaler.k", "rescaler.b"]
    model.save_pretrained(tmp_path)
    loaded = VQModel3D.from_pretrained(tmp_path)
    assert loaded.rescaler is None
    with torch.no_grad():
        assert torch.equal(loaded(x).sample, model(x).sample)


def test_norms_have_no_statistics_over_space():
    """What lies far away changes nothing: the ground on which tiling stands."""
    model, latents = autoencoder(), noise(1, 4, 30, 3, 3)
    changed = latents.clone()
    changed[:, :, 20:] *= 5
    with torch.no_grad():
        before, after = model.decoder(latents), model.decoder(changed)
    assert torch.equal(before[:, :, :24], after[:, :, :24])  # 8 latents and more from the change
    assert not torch.allclose(before[:, :, 38:], after[:, :, 38:], atol=1e-3)


def test_modules_that_stay_whole_exist():
    names = {type(module).__name__ for module in autoencoder().modules()}
    assert names >= {*VQModel3D._no_split_modules, *VQModel3D._repeated_blocks}
    assert all(hasattr(autoencoder(), name) for name in VQModel3D._keep_in_fp32_modules)


@pytest.mark.parametrize("shape", [(1, 1, 6, 8, 8), (1, 1, 8, 8, 7), (1, 2, 8, 8, 8), (1, 8, 8, 8)])
def test_a_wrong_volume_is_an_error_that_says_what_came(shape):
    model = autoencoder(block_out_channels=(8, 8, 8))
    with pytest.raises(ValueError, match=r"x: got shape \([\d, ]+\), expected \(B, 1, X, Y, Z\).*multiples of 4"):
        model.encode(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 5, 2, 2, 2), (4, 2, 2, 2)])
def test_wrong_latents_are_an_error_that_says_what_came(shape):
    with pytest.raises(ValueError, match=r"latents: got shape \([\d, ]+\), expected \(B, 4, x, y, z\)"):
        autoencoder().decode(torch.zeros(shape))


def test_wrong_settings_are_errors():
    with pytest.raises(ValueError, match="window_sampling: got 'random', expected 'uniform', 'anatomy' or 'none'"):
        autoencoder(window_sampling="random")
    for overlap in (8, 9, -1):
        with pytest.raises(ValueError, match=rf"tile_overlap: got {overlap}, expected 0\.\.7"):
            autoencoder().enable_tiling(8, overlap)
