"""A layout draws sizes with their spread, and a place in proportion; the place follows, the piece keeps its size."""

import math

import pytest
import torch
from scipy import ndimage

from guidegen_diffusers.schedulers.layout import Layout, spread_volumes


def ball(shape, centre, radius):
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij")
    return sum((x - c) ** 2 for x, c in zip(axes, centre, strict=True)) <= radius**2


def decide(f, pick):
    return Layout.decide(torch.tensor([0.0, f.sum().item()]), f, 1, torch.tensor([pick], dtype=torch.float64))


def test_volumes_are_spread_as_told_around_their_means():
    expected, spread = torch.tensor([2800.0, 600.0, 600.0]), torch.tensor([[0.0, 0.0], [0.2, 0.1], [0.2, 0.0]])
    draw = torch.Generator().manual_seed(0)
    volumes = torch.stack([spread_volumes(expected, spread, torch.randn(4, generator=draw)) for _ in range(2000)])
    assert torch.allclose(volumes.sum(1), expected.sum())
    logs = volumes.log()
    assert volumes.mean(0).tolist() == pytest.approx(expected.tolist(), rel=0.02)
    assert logs[:, 1:].std(0).tolist() == pytest.approx([math.hypot(0.2, 0.1), 0.2], rel=0.06)
    assert torch.corrcoef(logs[:, 1:].T)[0, 1] == pytest.approx(0.2 / math.hypot(0.2, 0.1), abs=0.03)


def test_a_place_is_drawn_the_oftener_the_likelier_it_is():
    f = torch.zeros(24, 24, 24)
    f[ball(f.shape, (6, 6, 6), 3)] = 0.2
    f[ball(f.shape, (17, 17, 17), 3)] = 0.1
    first = [decide(f, pick).place[0] < 12 for pick in torch.linspace(0, 0.999, 100).tolist()]
    assert sum(first) == pytest.approx(80, abs=2)  # f times f around it: 4 to 1


@pytest.mark.parametrize("trace", [1e-4, 9e-4])
def test_a_trace_everywhere_is_no_piece_and_a_voxel_in_one_place_is(trace):
    f = torch.full((16, 16, 16), trace)
    assert decide(f, 0.5).place is None
    f[5, 6, 7] = 1.0
    layout = decide(f, 0.5)
    assert layout.place.tolist() == [5, 6, 7]
    assert layout.piece == round(f.sum().item())


def test_a_small_piece_that_may_lie_anywhere_in_a_lobe_is_one():
    f = torch.full((24, 24, 24), 5e-4)
    lobe = ball(f.shape, (12, 12, 12), 7)
    f[lobe] = 9e-3
    assert all(lobe[tuple(decide(f, pick).place.int())] for pick in (0, 0.3, 0.6, 0.99))


def test_a_place_follows_what_is_near_and_not_what_is_far():
    f = torch.zeros(24, 24, 24)
    f[ball(f.shape, (8, 8, 8), 2)] = 0.9
    layout = decide(f, 0.5)
    moved = torch.zeros_like(f)
    moved[ball(f.shape, (10, 8, 8), 2)] = 0.9
    moved[ball(f.shape, (20, 20, 20), 3)] = 1.0
    for _ in range(4):
        layout.follow(moved)
    assert layout.place.tolist() == pytest.approx([10, 8, 8], abs=0.1)
    layout.follow(torch.zeros_like(f))
    assert layout.place.tolist() == pytest.approx([10, 8, 8], abs=0.1)  # nothing to follow


@pytest.mark.parametrize("voxels", [1, 17, 400])
def test_a_piece_is_one_of_its_size_about_its_place(voxels):
    layout = Layout(torch.tensor([0.0, 5.0]), voxels, torch.tensor([11.0, 12.0, 13.0]))
    piece = layout.draw_piece(torch.full((24, 24, 24), 0.01)).numpy()
    assert piece.sum() == voxels
    assert ndimage.label(piece)[1] == 1
    assert ndimage.center_of_mass(piece) == pytest.approx((11, 12, 13), abs=0.5)
