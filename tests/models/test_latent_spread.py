"""The spread of the classes' latents: classes move together as they were told to, and a cell with its voxels."""

import pytest
import torch

from guidegen_diffusers import LatentSpread
from guidegen_diffusers.labels import TUMOR


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


def test_each_class_moves_by_the_sum_of_its_components(spread):
    moved = spread(slabs(3, TUMOR, 5, 0), torch.tensor([[2.0, -1.0]]), (4, 2, 2))
    assert moved.shape == (1, 2, 4, 2, 2)
    expected = torch.tensor([[1.0, 0.2], [-0.4, 0.0], [0.0, -0.3], [0.0, 0.0]])
    assert torch.allclose(moved[0], expected.T[..., None, None].expand(2, 4, 2, 2))


def test_a_cell_of_several_classes_moves_by_the_mean_of_its_voxels(spread):
    labels = slabs(3, 0).clone()
    labels[0, 0] = 0  # half of the first cell
    moved = spread(labels, torch.tensor([[1.0, 0.0]]), (2, 2, 2))
    assert moved[0, 0, 0, 0, 0].item() == pytest.approx(0.25)


def test_over_many_draws_classes_vary_and_go_together_as_measured(spread):
    normal = torch.randn((4000, 2), generator=torch.Generator().manual_seed(0))
    moved = spread(slabs(3, TUMOR, 5, 0).expand(4000, -1, -1, -1), normal, (4, 1, 1)).flatten(2)
    assert moved.std(0)[0].tolist() == pytest.approx([0.5, 0.2, 0.0, 0.0], rel=0.05)
    together = torch.corrcoef(torch.stack([moved[:, 0, 0], moved[:, 0, 1], moved[:, 1, 2]]))
    assert together[0, 1].item() == pytest.approx(-1.0, abs=1e-4)
    assert abs(together[0, 2].item()) < 0.05


def test_it_is_saved_and_loaded_and_learns_nothing(spread, tmp_path):
    spread.save_pretrained(tmp_path)
    again = LatentSpread.from_pretrained(tmp_path)
    assert torch.equal(again.components, spread.components)
    assert not any(p.requires_grad for p in again.parameters())
