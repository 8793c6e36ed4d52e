"""`Conv3d` is `nn.Conv3d`, by another kernel."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.profiler import ProfilerActivity, profile

from guidegen_diffusers import CategoricalUNet3DConditionModel, LatentUNet3DConditionModel
from guidegen_diffusers.configs import load_config
from guidegen_diffusers.models.conv_3d import Conv3d


onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="a torch without oneDNN")


def pair(*args, **kwargs) -> tuple[Conv3d, nn.Conv3d]:
    """Ours and torch's, of the same weights."""
    ours, torchs = Conv3d(*args, **kwargs), nn.Conv3d(*args, **kwargs)
    torchs.load_state_dict(ours.state_dict())
    return ours, torchs


def kernels(call) -> set[str]:
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        call()
    return {event.key for event in profiler.key_averages()}


@settings(max_examples=60)
@given(
    batch=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    groups=st.integers(1, 2),
    kernel=st.sampled_from([1, 2, 3, (3, 1, 5)]),
    stride=st.integers(1, 2),
    padding=st.sampled_from([0, 1, 2, (1, 0, 2)]),
    dilation=st.integers(1, 2),
    bias=st.booleans(),
    last=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_values_and_gradients_are_those_of_torch_in_float64(
    batch, channels, groups, kernel, stride, padding, dilation, bias, last, seed
):
    torch.manual_seed(seed)
    sizes = (groups * channels[0], groups * channels[1], kernel)
    ours, torchs = pair(*sizes, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=bias)
    memory_format = torch.channels_last_3d if last else torch.contiguous_format
    ours.to(memory_format=memory_format)
    x = torch.randn(batch, groups * channels[0], 9, 6, 10)
    x = x.contiguous(memory_format=memory_format).requires_grad_()
    y, torchs = x.detach().double().requires_grad_(), torchs.double()
    found, expected = ours(x), torchs(y)
    assert torch.allclose(found.double(), expected, atol=1e-5)
    weights = torch.randn(found.shape)
    gradients = torch.autograd.grad((found * weights).sum(), [x, *ours.parameters()])
    exact = torch.autograd.grad((expected * weights.double()).sum(), [y, *torchs.parameters()])
    for gradient, exact_gradient in zip(gradients, exact, strict=True):
        assert torch.allclose(gradient.double(), exact_gradient, atol=1e-3, rtol=1e-4)


@onednn
@pytest.mark.parametrize("kernel", [1, 3])
def test_one_small_volume_takes_the_fast_kernel(kernel):
    with torch.no_grad():
        found = kernels(lambda: Conv3d(4, 4, kernel)(torch.randn(1, 4, 6, 6, 6)))
    assert "aten::mkldnn_convolution" in found
    assert "aten::slow_conv3d_forward" not in found


@onednn
def test_no_network_has_a_convolution_that_takes_the_slow_kernel():
    config = load_config("tiny")
    mask_unet = CategoricalUNet3DConditionModel.from_config(config["mask_unet"])
    unet = LatentUNet3DConditionModel.from_config(config["unet"])
    text = torch.randn(1, 4, config["unet"]["cross_attention_dim"])
    labels = torch.zeros(1, *config["mask_unet"]["sample_size"], dtype=torch.uint8)
    latents = torch.randn(1, config["unet"]["in_channels"], 8, 8, 8)
    with torch.no_grad():
        for call in (lambda: mask_unet(labels, 5, text), lambda: unet(latents, 5, text)):
            found = kernels(call)
            assert "aten::mkldnn_convolution" in found
            assert "aten::slow_conv3d_forward" not in found


def test_autocast_and_other_precisions_are_left_to_torch():
    conv, x = Conv3d(2, 3, 3, padding=1), torch.randn(1, 2, 5, 5, 5)
    with torch.no_grad():
        expected = nn.functional.conv3d(x.double(), conv.weight.double(), conv.bias.double(), padding=1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = conv(x)
        assert found.dtype == torch.bfloat16
        assert torch.allclose(found.double(), expected, atol=0.1)
        assert torch.equal(conv.double()(x.double()), expected)


@pytest.mark.parametrize(
    "padding", [{"padding": "same"}, {"padding": "valid"}, {"padding": 1, "padding_mode": "circular"}], ids=str
)
def test_other_paddings_are_left_to_torch(padding):
    ours, torchs = pair(2, 3, 3, **padding)
    x = torch.randn(1, 2, 5, 5, 5)
    assert torch.equal(ours(x), torchs(x))


@pytest.mark.parametrize("shape", [(1, 3, 5, 5, 5), (1, 2, 2, 1, 1)])
def test_what_does_not_fit_is_refused_as_by_torch(shape):
    with pytest.raises(RuntimeError) as ours:
        Conv3d(2, 3, 3)(torch.randn(shape))
    with pytest.raises(RuntimeError) as torchs:
        nn.Conv3d(2, 3, 3)(torch.randn(shape))
    assert str(ours.value) == str(torchs.value)


def test_an_item_without_a_batch_and_an_empty_batch_are_as_with_torch():
    conv = Conv3d(2, 3, 3, padding=1)
    assert conv(torch.randn(2, 5, 5, 5)).shape == (3, 5, 5, 5)
    assert conv(torch.randn(0, 2, 5, 5, 5)).shape == (0, 3, 5, 5, 5)
