"""Attention is softmax(Q K^T / sqrt(d)) V, and a masked token might as well not be there."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guidegen_diffusers.models.attention import Attention


def textbook(attention, states, context, mask):
    """The definition, head by head in float64."""
    context = states if context is None else context
    q, k, v = (
        x.double() @ linear.weight.double().T
        for x, linear in ((states, attention.to_q), (context, attention.to_k), (context, attention.to_v))
    )
    d, heads = attention.head_dim, []
    for first in range(0, q.shape[-1], d):
        head = slice(first, first + d)
        scores = q[..., head] @ k[..., head].transpose(1, 2) / d**0.5  # (B, L, M)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], -torch.inf)
        heads.append(scores.softmax(-1) @ v[..., head])
    return torch.cat(heads, -1) @ attention.to_out.weight.double().T + attention.to_out.bias.double()


@settings(max_examples=60)
@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 9),
    context_length=st.none() | st.integers(1, 9),
    heads=st.integers(1, 3),
    head_dim=st.sampled_from([1, 4, 8]),
    masked=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_attention_equals_its_definition(batch, length, context_length, heads, head_dim, masked, seed):
    torch.manual_seed(seed)
    width, context_dim = heads * head_dim, None if context_length is None else 5
    attention = Attention(width, head_dim, context_dim)
    states = torch.randn(batch, length, width)
    context = None if context_length is None else torch.randn(batch, context_length, context_dim)
    mask = None
    if masked:
        mask = torch.rand(batch, context_length or length) < 0.5
        mask[:, 0] = True
    with torch.no_grad():
        out = attention(states, context, mask)
        assert out.shape == states.shape
        assert torch.allclose(out.double(), textbook(attention, states, context, mask), atol=1e-5)


def test_masked_tokens_are_the_same_as_absent_tokens():
    torch.manual_seed(0)
    attention = Attention(16, 8, 12)
    states, context = torch.randn(2, 7, 16), torch.randn(2, 5, 12)
    mask = torch.tensor([[True, True, True, False, False]]).expand(2, -1)
    with torch.no_grad():
        masked, absent = attention(states, context, mask), attention(states, context[:, :3])
        assert torch.allclose(masked, absent, atol=1e-6)
        assert not torch.allclose(masked, attention(states, context), atol=1e-3)


def test_self_attention_follows_a_permutation_of_its_tokens():
    torch.manual_seed(0)
    attention, states, order = Attention(16, 8), torch.randn(2, 6, 16), torch.randperm(6)
    with torch.no_grad():
        assert torch.allclose(attention(states[:, order]), attention(states)[:, order], atol=1e-6)


def test_a_head_dim_that_does_not_divide_the_width_is_an_error():
    with pytest.raises(ValueError, match=r"attention_head_dim: got 6, expected a divisor of the width 16"):
        Attention(16, 6)
