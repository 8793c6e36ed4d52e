"""The spread of the classes' latents: classes move together as they were told to, a cell with its voxels, and means
that were kept come back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guidegen_diffusers import LatentSpread
from guidegen_diffusers.labels import NUM_CLASSES, TUMOR
from guidegen_diffusers.models.latent_spread import class_means, class_shares, move_to_means


@pytest.fixture
def spread():
    """The first component lifts class 3 and lowers the tumour, the second moves class 5 alone."""
    model = LatentSpread(num_components=2, latent_channels=2)
    model.components[0, 3] = torch.tensor([0.5, 0.1])
    model.components[0, TUMOR] = torch.tensor([-0.2, 0.0])
    model.components[1, 5] = torch.tensor([0.0, 0.3])
    return model


def slabs(*classes):
    """Slabs of 2 voxels each, along X."""
    return torch.tensor(classes, dtype=torch.uint8).repeat_interleave(2).view(1, -1, 1, 1).expand(1, -1, 4, 4)


def test_each_class_moves_by_the_sum_of_its_components_and_its_mean(spread):
    spread.mean[5] = torch.tensor([1.0, 0.0])
    moved = spread(class_shares(slabs(3, TUMOR, 5, 0), (4, 2, 2)), torch.tensor([[2.0, -1.0]]))
    assert moved.shape == (1, 2, 4, 2, 2)
    expected = torch.tensor([[1.0, 0.2], [-0.4, 0.0], [1.0, -0.3], [0.0, 0.0]])
    assert torch.allclose(moved[0], expected.T[..., None, None].expand(2, 4, 2, 2))


def test_a_cell_of_several_classes_moves_by_the_mean_of_its_voxels(spread):
    labels = slabs(3, 0).clone()
    labels[0, 0] = 0  # half of the first cell
    moved = spread(class_shares(labels, (2, 2, 2)), torch.tensor([[1.0, 0.0]]))
    assert moved[0, 0, 0, 0, 0].item() == pytest.approx(0.25)


def test_over_many_draws_classes_vary_and_go_together_as_measured(spread):
    normal = torch.randn((4000, 2), generator=torch.Generator().manual_seed(0))
    shares = class_shares(slabs(3, TUMOR, 5, 0), (4, 1, 1)).expand(4000, -1, -1, -1, -1)
    moved = spread(shares, normal).flatten(2)
    assert moved.std(0)[0].tolist() == pytest.approx([0.5, 0.2, 0.0, 0.0], rel=0.05)
    together = torch.corrcoef(torch.stack([moved[:, 0, 0], moved[:, 0, 1], moved[:, 1, 2]]))
    assert together[0, 1].item() == pytest.approx(-1.0, abs=1e-4)
    assert abs(together[0, 2].item()) < 0.05


def test_shares_are_of_voxels_and_sum_to_one():
    labels = slabs(3, 0).clone()
    labels[0, 0] = 0
    shares = class_shares(labels, (2, 2, 2))
    assert shares.shape == (1, NUM_CLASSES, 2, 2, 2)
    assert shares[0, 3, 0, 0, 0].item() == shares[0, 0, 0, 0, 0].item() == 0.5
    assert torch.equal(shares.sum(1), torch.ones(1, 2, 2, 2))


def test_a_class_mean_is_over_its_cells_and_absent_classes_have_none():
    labels = torch.zeros(1, 4, 4, 8, dtype=torch.uint8)
    labels[..., 4:] = 7
    latents = torch.arange(4.0).view(1, 1, 1, 1, 4).expand(1, 2, 2, 2, 4)
    means = class_means(latents, class_shares(labels, (2, 2, 4)))[0]
    assert means.shape == (NUM_CLASSES, 2)
    assert means[0].tolist() == [0.5, 0.5]
    assert means[7].tolist() == [2.5, 2.5]
    others = [k for k in range(NUM_CLASSES) if k not in (0, 7)]
    assert means[others].isnan().all()


@given(st.integers(0, 2**31), st.lists(st.integers(0, TUMOR), min_size=1, max_size=5, unique=True))
@settings(max_examples=50)
def test_means_that_were_kept_come_back(seed, classes):
    """Anatomy is in pieces larger than a cell, which classes share at its edges."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.tensor(classes, dtype=torch.uint8)[torch.randint(len(classes), (2, 3, 3, 3), generator=draw)]
    labels = coarse.repeat_interleave(5, 1).repeat_interleave(5, 2).repeat_interleave(5, 3)[:, :12, :12, :12]
    before, after = (torch.randn((2, 4, 6, 6, 6), generator=draw) for _ in range(2))
    shares = class_shares(labels, (6, 6, 6))
    kept = class_means(before, shares)
    back = class_means(after + move_to_means(after, shares, kept), shares)
    assert torch.equal(back.isnan(), kept.isnan())
    missing = (kept - class_means(after, shares)).nan_to_num().abs().max()
    assert (kept - back).nan_to_num().abs().max() <= 0.1 * missing + 1e-6


def test_means_that_are_as_they_were_move_nothing():
    labels = slabs(3, 0, 5)
    shares = class_shares(labels, (3, 2, 2))
    latents = torch.randn((1, 4, 3, 2, 2), generator=torch.Generator().manual_seed(0))
    assert move_to_means(latents, shares, class_means(latents, shares)).abs().max() == 0


def test_it_is_saved_and_loaded_and_learns_nothing(spread, tmp_path):
    spread.mean += 0.5
    spread.save_pretrained(tmp_path)
    again = LatentSpread.from_pretrained(tmp_path)
    assert torch.equal(again.components, spread.components)
    assert torch.equal(again.mean, spread.mean)
    assert not any(p.requires_grad for p in again.parameters())
