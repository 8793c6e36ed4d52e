"""The segmenter reads HU, learns, and gives a crop what it gives the whole."""

import pytest
import torch
import torch.nn.functional as F
from accelerate.utils import convert_to_fp32

from guidegen_diffusers import Segmenter3D
from guidegen_diffusers.models import Segmenter3DOutput


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
