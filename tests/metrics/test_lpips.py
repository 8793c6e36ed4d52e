"""LPIPS is 0 for like volumes, grows with the change, and is the published metric's figure where that is installed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from guidegen_diffusers import Segmenter3D, TorsoPhantom
from guidegen_diffusers.metrics import SegmenterLPIPS, SliceLPIPS
from guidegen_diffusers.metrics.lpips import perceptual_distance


@pytest.fixture
def segmenter():
    torch.manual_seed(0)
    return Segmenter3D(spacing=24.0, block_out_channels=(4, 8, 12))


@pytest.fixture(scope="module")
def volumes():
    phantom = TorsoPhantom((16, 12, 24), 24.0)
    return [phantom.sample(None, seed).ct for seed in range(2)]


def test_the_formula_by_hand():
    """Orthogonal features lie at 2, opposite ones at 4, parallel ones at 0 whatever their length."""
    up, right = torch.tensor([0.0, 3.0]), torch.tensor([5.0, 0.0])
    a = torch.stack([up, right, up, up], 1)[None]  # (1, 2, 4): four places
    b = torch.stack([right, up, -up, 7 * up], 1)[None]
    assert perceptual_distance([a], [b]).item() == pytest.approx((2 + 2 + 4 + 0) / 4)
    assert perceptual_distance([a, a], [b, a]).item() == pytest.approx(2.0)
    weights = [torch.tensor([1.0, 0.0])]
    assert perceptual_distance([a], [b], weights).item() == pytest.approx((1 + 1 + 0 + 0) / 4)


def test_features_of_0_on_both_sides_are_no_nan():
    zero = torch.zeros(1, 3, 2, 2)
    assert perceptual_distance([zero], [zero]).item() == 0.0


def test_like_volumes_lie_at_0_and_noise_moves_them_apart(segmenter, volumes):
    lpips, rng = SegmenterLPIPS(segmenter), np.random.default_rng(0)
    noise = rng.standard_normal(volumes[0].shape)
    distances = [lpips(volumes[0], volumes[0] + scale * noise) for scale in (0, 20, 200)]
    assert distances[0] == 0.0
    assert 0 < distances[1] < distances[2] < 4 * 3
    assert lpips(*volumes) == pytest.approx(lpips(*volumes[::-1]), rel=1e-5)


def test_its_levels_are_the_segmenters_and_no_hook_stays(segmenter, volumes):
    lpips = SegmenterLPIPS(segmenter)
    assert "3 levels" in lpips.name
    assert lpips.version
    lpips(*volumes)
    assert not any(block._forward_hooks for block in segmenter.down)


def test_volumes_of_two_shapes_are_named(segmenter, volumes):
    with pytest.raises(ValueError, match="the same for all"):
        SegmenterLPIPS(segmenter)(volumes[0], volumes[1][:8])


# ------------------------------------------------------------------------------------------------ the published metric


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory):
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    network = models.alexnet(weights=None)
    path = tmp_path_factory.mktemp("alexnet") / "alexnet.pth"
    torch.save(network.state_dict(), path)
    return network, path


@pytest.fixture(scope="module")
def published(alexnet):
    """The `lpips` package's metric on the same random backbone, and its heads."""
    lpips = pytest.importorskip("lpips")
    heads = Path(lpips.__file__).parent / "weights" / "v0.1" / "alex.pth"
    return (lambda use_heads: theirs(lpips, "alex", alexnet[0], use_heads)), heads


def theirs(lpips, name, network, use_heads):
    metric = lpips.LPIPS(net=name, lpips=use_heads, pnet_rand=True, verbose=False).eval()
    layers = [layer for part in metric.net.children() for layer in part.children()]
    for layer, ours in zip(layers, network.features, strict=False):
        layer.load_state_dict(ours.state_dict())
    return metric


@pytest.mark.parametrize("use_heads", [True, False])
def test_images_lie_as_far_apart_as_in_the_published_package(alexnet, published, use_heads):
    a, b = (torch.rand(4, 3, 64, 48, generator=torch.Generator().manual_seed(seed)) * 2 - 1 for seed in range(2))
    make, heads = published
    with torch.no_grad():
        expected = make(use_heads)(a, b).flatten()
    ours = SliceLPIPS("alexnet", alexnet[1], heads if use_heads else None)
    assert expected.min() > 0
    np.testing.assert_allclose(ours.of_images(a, b).numpy(), expected.numpy(), rtol=1e-5, atol=1e-7)


def test_volumes_are_the_mean_over_slices(alexnet):
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-1000, 1000, (40, 36, 3)).astype(np.int16) for _ in range(2))
    lpips = SliceLPIPS("alexnet", alexnet[1], batch_size=2)
    single = [lpips(a[..., i, None], b[..., i, None]) for i in range(3)]
    assert lpips(a, b) == pytest.approx(np.mean(single), rel=1e-4)
    assert lpips(a, a) == 0.0


def test_what_does_not_fit_is_named(alexnet, tmp_path):
    with pytest.raises(ValueError, match="alexnet, vgg16"):
        SliceLPIPS("resnet50", alexnet[1])
    with pytest.raises(ValueError, match="sagittal, coronal"):
        SliceLPIPS("alexnet", alexnet[1], planes=["oblique"])
    with pytest.raises(ValueError, match="at least 32 x 32"):
        SliceLPIPS("alexnet", alexnet[1])(np.zeros((16, 40, 3)), np.zeros((16, 40, 3)))
    torch.save({"lin0.model.1.weight": torch.zeros(1, 3, 1, 1)}, tmp_path / "heads.pth")
    with pytest.raises(ValueError, match="expected widths"):
        SliceLPIPS("alexnet", alexnet[1], heads=tmp_path / "heads.pth")
