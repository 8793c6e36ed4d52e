"""The contrast rescaler: h has known values, and windows fall where the anatomy is."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guidegen_diffusers.models.contrast_rescaler import RADII, UNIFORM_SHARE, ContrastRescaler


def volume(*values):
    """One item a value, constant, (B, 1, 2, 3, 4)."""
    return torch.tensor(values)[:, None, None, None, None].expand(-1, 1, 2, 3, 4).clone()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=50)
@given(
    center=st.floats(-1, 1),
    radius=st.floats(*RADII),
    k=st.floats(-3, 3),
    b=st.floats(-3, 3),
    beyond=st.floats(0, 2),
)
def test_a_window_maps_its_edges_and_centre_to_known_values(center, radius, k, b, beyond):
    rescaler = ContrastRescaler("uniform")
    with torch.no_grad():
        rescaler.k.fill_(k)
        rescaler.b.fill_(b)
    places = (-radius - beyond, -radius, -radius / 2, 0.0, radius / 2, radius, radius + beyond)
    expected = (b, b, b + k / 4, b + k / 2, b + 3 * k / 4, b + k, b + k)
    x = volume(*(center + place for place in places))
    h = rescaler(x, torch.full((len(x),), center), torch.full((len(x),), radius))
    assert h.shape == x.shape
    assert torch.allclose(h, volume(*expected), atol=1e-4)


def test_the_window_starts_as_the_unit_range():
    rescaler, one = ContrastRescaler("uniform"), torch.ones(3)
    assert torch.equal(rescaler(volume(-1.0, 0.0, 1.0), 0 * one, one), volume(-1.0, 0.0, 1.0))


def test_every_item_has_its_own_window():
    h = ContrastRescaler("uniform")(volume(0.1, 0.1), torch.tensor([0.1, 0.6]), torch.tensor([0.2, 0.5]))
    assert torch.allclose(h, volume(0.0, -1.0), atol=1e-6)


def test_k_and_b_are_learned():
    rescaler = ContrastRescaler("uniform")
    x = volume(-0.5, 0.0, 0.25, 2.0)
    rescaler(x, torch.zeros(4), torch.full((4,), 0.5)).sum().backward()
    voxels = x[0].numel()
    assert rescaler.k.grad.item() == pytest.approx(voxels * (0.0 + 0.5 + 0.75 + 1.0))  # the clamped values
    assert rescaler.b.grad.item() == pytest.approx(voxels * 4)


@pytest.mark.parametrize("window_sampling", ["uniform", "anatomy"])
def test_windows_stay_within_bounds_and_repeat_under_a_generator(window_sampling):
    rescaler, x = ContrastRescaler(window_sampling), torch.rand(300, 1, 2, 3, 4, generator=generator()) * 2 - 1
    labels = torch.randint(0, 21, (300, 2, 3, 4), generator=generator(), dtype=torch.uint8)
    center, radius = rescaler.sample_windows(x, labels, generator(1))
    assert center.shape == radius.shape == (300,)
    assert center.min() >= -1
    assert center.max() <= 1
    assert radius.min() >= RADII[0]
    assert radius.max() <= RADII[1]
    again = rescaler.sample_windows(x, labels, generator(1))
    other = rescaler.sample_windows(x, labels, generator(2))
    assert torch.equal(center, again[0])
    assert torch.equal(radius, again[1])
    assert not torch.equal(center, other[0])


def test_uniform_windows_fill_the_whole_range():
    center, radius = ContrastRescaler("uniform").sample_windows(torch.zeros(4000, 1, 1, 1, 1), generator=generator())
    low, high = RADII
    for values, start, width in ((center, -1.0, 2.0), (radius, low, high - low)):
        shares = torch.histc((values - start) / width, bins=4, min=0, max=1) / len(values)
        assert torch.allclose(shares, torch.full((4,), 0.25), atol=0.03)


def test_anatomy_windows_are_centred_on_classes_that_are_present():
    lung, bone, items = -0.55, 0.4, 2000
    labels = torch.zeros(items, 2, 2, 4, dtype=torch.uint8)
    labels[:, 0], labels[:, 1] = 6, 12
    x = torch.where(labels == 6, lung, bone)[:, None]
    center, radius = ContrastRescaler("anatomy").sample_windows(x, labels, generator())
    on_lung, on_bone = center == x.new_tensor(lung), center == x.new_tensor(bone)
    assert (~on_lung & ~on_bone).double().mean().item() == pytest.approx(UNIFORM_SHARE, abs=0.04)
    for share in (on_lung, on_bone):
        assert share.double().mean().item() == pytest.approx((1 - UNIFORM_SHARE) / 2, abs=0.04)
    assert (radius[on_lung | on_bone] == RADII[0]).all(), "a class of one HU takes the narrowest window"


def test_anatomy_windows_follow_each_items_own_classes():
    hu = torch.tensor([-0.7, 0.3])
    labels = torch.tensor([6, 12], dtype=torch.uint8)[:, None, None, None].expand(-1, 2, 3, 4).repeat(500, 1, 1, 1)
    x = volume(*hu.tolist()).repeat(500, 1, 1, 1, 1)
    center, _ = ContrastRescaler("anatomy").sample_windows(x, labels, generator())
    assert (center[0::2] == hu[0]).double().mean() > 0.6
    assert (center[1::2] == hu[1]).double().mean() > 0.6
    assert not (center[0::2] == hu[1]).any()
    assert not (center[1::2] == hu[0]).any()


def test_anatomy_windows_are_as_wide_as_the_class():
    hu = torch.linspace(-0.2, 0.2, 101)  # 5 % at -0.18, 50 % at 0, 95 % at 0.18
    x = hu[torch.randperm(101, generator=generator())].view(1, 1, 101, 1, 1).expand(200, -1, -1, -1, -1)
    labels = torch.full((200, 101, 1, 1), 3, dtype=torch.uint8)
    center, radius = ContrastRescaler("anatomy").sample_windows(x, labels, generator())
    anatomic = center.abs() < 1e-6
    assert 0.65 < anatomic.double().mean() < 0.85
    assert torch.allclose(radius[anatomic], torch.tensor(0.36), atol=1e-5)


def test_anatomy_windows_without_labels_are_an_error():
    with pytest.raises(ValueError, match="got no labels"):
        ContrastRescaler("anatomy").sample_windows(volume(0.0))
