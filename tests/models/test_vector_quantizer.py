"""Vector quantisation: the nearest code by any block size, the loss on the right terms, dead codes brought back."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guidegen_diffusers.models.vector_quantizer import VectorQuantizer3D, codebook_use, nearest_code


def quantizer(num_codes=8, code_dim=3, beta=0.25, seed=0):
    torch.manual_seed(seed)
    return VectorQuantizer3D(num_codes, code_dim, beta)


def latents(channels=3, size=(3, 2, 5), batch=2, seed=1):
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(seed))


def rows(z):  # (B, C, x, y, z) -> (B x y z, C)
    return z.movedim(1, -1).flatten(0, 3)


@settings(max_examples=60)
@given(
    num_vectors=st.integers(1, 70),
    # 2**17 + 3 and 2**19 codes are searched 7 and 2 vectors at a time
    num_codes=st.integers(1, 60) | st.sampled_from([2**17 + 3, 2**19]),
    dim=st.integers(1, 4),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
    seed=st.integers(0, 2**16),
)
def test_nearest_code_equals_brute_force(num_vectors, num_codes, dim, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    if num_codes > 60:
        num_vectors, dim = min(num_vectors, 9), 1  # brute force holds the whole table
    vectors = torch.randn(num_vectors, dim, generator=generator) * scale
    codes = torch.randn(num_codes, dim, generator=generator) * scale
    indices = nearest_code(vectors, codes)
    assert indices.shape == (num_vectors,)
    distances = (vectors.double()[:, None] - codes.double()).square().sum(-1)
    chosen = distances.gather(1, indices[:, None])[:, 0]
    # equal distances may fall either way, and float32 holds |v|^2 + |e|^2 to 1e-7 of its size
    slack = 1e-6 * (vectors.double().square().sum(1) + codes.double().square().sum(1).max())
    assert (chosen <= distances.amin(1) + slack).all()


def test_blocks_do_not_change_the_nearest_code():
    codes, vectors = torch.randn(1024, 4), torch.randn(2500, 4)  # blocks of 1024, 1024 and 452
    assert torch.equal(nearest_code(vectors, codes), torch.cdist(vectors.double(), codes.double()).argmin(1))


def test_a_code_is_its_own_nearest_code():
    codes = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(nearest_code(codes, codes), torch.arange(50))


def test_quantized_latents_are_the_codes_at_their_indices():
    vq, z = quantizer(), latents()
    out = vq.eval()(z)
    assert out.indices.shape == (2, 3, 2, 5)
    assert out.indices.dtype == torch.int64
    assert torch.allclose(out.sample, vq.lookup(out.indices), atol=1e-6)
    assert torch.equal(rows(vq.lookup(out.indices)), vq.codebook[out.indices.flatten()])


def test_codes_are_a_fixed_point():
    vq = quantizer().eval()
    indices = torch.arange(8).view(1, 2, 2, 2)
    out = vq(vq.lookup(indices))
    assert torch.equal(out.indices, indices)
    assert out.loss.item() == 0


def test_the_gradient_passes_straight_through():
    vq, z = quantizer(), latents().requires_grad_()
    upstream = torch.randn_like(z)
    (vq(z).sample * upstream).sum().backward()
    assert torch.equal(z.grad, upstream)
    assert vq.codebook.grad is None, "codes learn from the loss alone"


@settings(max_examples=25)
@given(beta=st.floats(0, 4), seed=st.integers(0, 2**16))
def test_beta_weighs_the_encoder_and_not_the_codes(beta, seed):
    vq, z = quantizer(beta=beta, seed=seed), latents(seed=seed + 1).requires_grad_()
    out = vq(z)
    out.loss.backward()
    e = vq.lookup(out.indices).detach()
    assert out.loss.item() == pytest.approx((1 + beta) * (z - e).square().mean().item(), rel=1e-5)
    assert torch.allclose(z.grad, beta * 2 * (z - e).detach() / z.numel(), atol=1e-7)
    pull = torch.zeros_like(vq.codebook)
    pull.index_add_(0, out.indices.flatten(), rows(2 * (e - z).detach() / z.numel()))
    assert torch.allclose(vq.codebook.grad, pull, atol=1e-6)


def test_training_counts_codes_and_evaluation_does_not():
    vq, z = quantizer(), latents()
    before = vq.usage.clone()
    indices = vq.eval()(z).indices
    assert torch.equal(vq.usage, before)
    vq.train()(z)
    counts = torch.bincount(indices.flatten(), minlength=8)
    assert counts.sum() == 60
    assert torch.allclose(vq.usage, 0.99 * before + 0.01 * counts)


def test_a_code_that_nothing_chooses_dies_and_a_chosen_one_lives():
    vq = quantizer()
    with torch.no_grad():
        vq.codebook[5] = 100.0
    for step in range(500):
        vq(latents(seed=step))
    assert vq.usage[5] < 0.01
    assert (vq.usage[torch.arange(8) != 5] > 0.01).all()


@settings(max_examples=25)
@given(dead=st.sets(st.integers(0, 7)), seed=st.integers(0, 2**16))
def test_only_dead_codes_restart_and_they_restart_on_latents(dead, seed):
    vq, z, dead = quantizer(), latents(), sorted(dead)
    alive = [code for code in range(8) if code not in dead]
    vq.usage.fill_(0.5)
    vq.usage[dead] = 0.001
    before = vq.codebook.detach().clone()
    assert vq.restart_dead_codes(z, generator=torch.Generator().manual_seed(seed)) == len(dead)
    assert torch.equal(vq.codebook[alive], before[alive])
    assert (vq.usage[alive] == 0.5).all()
    assert (vq.usage[dead] == 1).all()
    for code in dead:
        assert (rows(z) == vq.codebook[code]).all(1).any()
    assert vq.restart_dead_codes(z) == 0


def test_restarts_repeat_under_a_generator():
    books = []
    for seed in (0, 0, 1):
        vq = quantizer()
        vq.usage.zero_()
        vq.restart_dead_codes(latents(), generator=torch.Generator().manual_seed(seed))
        books.append(vq.codebook.detach())
    assert torch.equal(books[0], books[1])
    assert not torch.equal(books[0], books[2])


def test_bfloat16_latents_are_quantized_in_float32():
    vq = quantizer(num_codes=64).eval()
    z = latents().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = vq(z)
    assert out.sample.dtype == torch.bfloat16
    assert out.loss.dtype == torch.float32
    assert torch.equal(out.indices, vq(z.float()).indices)


@settings(max_examples=40)
@given(num_codes=st.integers(1, 50), used=st.integers(1, 50), repeats=st.integers(1, 5))
def test_codebook_use_of_evenly_used_codes_is_their_number(num_codes, used, repeats):
    used = min(used, num_codes)
    indices = torch.arange(used).repeat(repeats)[torch.randperm(used * repeats)]
    share, perplexity = codebook_use(indices.view(1, 1, 1, -1), num_codes)
    assert share == pytest.approx(used / num_codes)
    assert perplexity == pytest.approx(used)


def test_codebook_use_has_known_answers():
    assert codebook_use(torch.full((2, 3, 3, 3), 7), 16) == pytest.approx((1 / 16, 1.0))
    assert codebook_use(torch.arange(16).view(1, 4, 2, 2), 16) == pytest.approx((1.0, 16.0))
    share, perplexity = codebook_use(torch.tensor([0, 0, 0, 1]), 4)
    assert share == 0.5
    assert perplexity == pytest.approx(math.exp(0.75 * math.log(4 / 3) + 0.25 * math.log(4)))
