"""The segmenter reads HU, learns, gives a crop what it gives the whole, and measures what it sees."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate.utils import convert_to_fp32

from guidegen_diffusers import Segmenter3D
from guidegen_diffusers.models import Segmenter3DOutput
from guidegen_diffusers.models.segmenter_3d import FEW, WINDOWS


@pytest.fixture
def segmenter():
    torch.manual_seed(0)
    return Segmenter3D(num_classes=5, block_out_channels=(4, 8)).eval()


def test_every_voxel_gets_a_class_and_the_coarsest_level_its_features(segmenter):
    ct = torch.randint(-1500, 1500, (2, 8, 6, 10), dtype=torch.int16)
    out = segmenter(ct)
    assert out.logits.shape == (2, 5, 8, 6, 10)
    assert out.features.shape == (2, 8, 4, 3, 5)
    labels = segmenter.segment(ct)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels, out.logits.argmax(1).byte())
    assert torch.equal(segmenter(ct, return_dict=False)[0], out.logits)


def test_hu_beyond_the_range_are_the_ranges_ends(segmenter):
    ends = torch.tensor([-1500.0, 1500.0]).repeat(4, 4, 2)[None]
    torch.testing.assert_close(segmenter(3 * ends).logits, segmenter(ends).logits)


def test_a_crop_gives_the_whole_away_from_its_edges(segmenter):
    ct = torch.randn(1, 32, 32, 32) * 500
    whole, crop = segmenter(ct).logits, segmenter(ct[:, :24]).logits
    torch.testing.assert_close(crop[:, :, :12], whole[:, :, :12], atol=1e-5, rtol=1e-4)


def test_it_learns_what_hu_tell(segmenter):
    labels = torch.randint(0, 5, (1, 8, 8, 8))
    ct = labels * 300.0 - 700
    optimizer = torch.optim.Adam(segmenter.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        F.cross_entropy(segmenter(ct).logits, labels).backward()
        optimizer.step()
    assert (segmenter.segment(ct) == labels).float().mean() > 0.95


def test_its_output_passes_through_accelerates_mixed_precision(segmenter):
    out = segmenter(torch.zeros(1, 4, 4, 4))
    again = convert_to_fp32(Segmenter3DOutput(out.logits.bfloat16(), out.features.bfloat16()))
    assert again.logits.dtype == again.features.dtype == torch.float32


def test_it_survives_a_round_trip(segmenter, tmp_path):
    segmenter.save_pretrained(tmp_path)
    again = Segmenter3D.from_pretrained(tmp_path)
    ct = torch.randn(1, 4, 4, 4) * 500
    assert torch.equal(again(ct).logits, segmenter(ct).logits)


@pytest.mark.parametrize("shape", [(1, 1, 4, 4, 4), (1, 4, 4, 5)])
def test_a_shape_that_does_not_fit_is_named(segmenter, shape):
    with pytest.raises(ValueError, match="multiples of 2"):
        segmenter(torch.zeros(shape))


def test_measures_have_known_answers(segmenter, monkeypatch):
    labels, ct = torch.zeros(1, 12, 8, 8), torch.full((1, 12, 8, 8), -1000.0)
    labels[:, 2:6], ct[:, 2:6] = 1, 50.0
    labels[:, 6:10], ct[:, 6:10] = 2, 150.0
    sure = 50 * F.one_hot(labels.long(), 5).movedim(-1, 1).float()
    monkeypatch.setattr(segmenter.conv_out, "forward", lambda x: sure)
    size, bright, place, around = segmenter.measure(ct)[0].split([1, len(WINDOWS), 3, 5], dim=1)
    assert size[[0, 1, 2, 4], 0].exp().tolist() == pytest.approx([256, 256, 256, FEW], rel=1e-4)
    low, high = np.array(WINDOWS).T
    for c, hu in ((0, -1000), (1, 50), (2, 150)):
        assert bright[c].tolist() == pytest.approx(((hu - low) / (high - low)).clip(0, 1).tolist(), abs=1e-4)
    deviation = np.std(np.arange(2, 10))
    assert place[1].tolist() == pytest.approx([-2 / deviation, 0, 0], abs=1e-3)
    assert place[2].tolist() == pytest.approx([2 / deviation, 0, 0], abs=1e-3)
    # of two layers of cells one is beside air and one beside class 2; along Y and Z the outermost look outside
    inside = (10 / 12) ** 2
    assert around[1, [0, 1, 2, 4]].tolist() == pytest.approx([inside / 6, inside * 4 / 6, inside / 6, 0], abs=1e-4)


def test_a_case_is_measured_the_same_alone_and_in_a_batch(segmenter):
    ct = torch.randint(-1000, 1000, (3, 8, 8, 16), generator=torch.Generator().manual_seed(0))
    together = segmenter.measure(ct)
    for i in range(3):
        torch.testing.assert_close(segmenter.measure(ct[i : i + 1])[0], together[i], rtol=1e-4, atol=1e-5)
