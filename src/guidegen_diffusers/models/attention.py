"""Attention over tokens through diffusers' dispatcher, so that `set_attention_backend` and its kernels apply."""

from __future__ import annotations

import torch
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import nn


__all__ = ["Attention", "AttentionProcessor"]


class AttentionProcessor:
    _attention_backend = None
    _parallel_config = None

    def __call__(self, attn: Attention, hidden_states, encoder_hidden_states=None, attention_mask=None):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            projection(states).unflatten(-1, (-1, attn.head_dim))  # (B, L, heads, head_dim)
            for projection, states in ((attn.to_q, hidden_states), (attn.to_k, context), (attn.to_v, context))
        )
        out = dispatch_attention_fn(
            query,
            key,
            value,
            attn_mask=None if attention_mask is None else attention_mask[:, None, None],  # (B, 1, 1, L)
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )
        return attn.to_out(out.flatten(2))


class Attention(nn.Module, AttentionModuleMixin):
    """Self-attention, or cross-attention where `encoder_hidden_states` are given; the mask is boolean, `(B, L)`."""

    _default_processor_cls = AttentionProcessor
    _available_processors = [AttentionProcessor]
    _supports_qkv_fusion = False

    def __init__(self, query_dim: int, head_dim: int, cross_attention_dim: int | None = None):
        super().__init__()
        if query_dim % head_dim:
            raise ValueError(f"attention_head_dim: got {head_dim}, expected a divisor of the width {query_dim}.")
        self.head_dim = head_dim
        self.to_q = nn.Linear(query_dim, query_dim, bias=False)
        self.to_k = nn.Linear(cross_attention_dim or query_dim, query_dim, bias=False)
        self.to_v = nn.Linear(cross_attention_dim or query_dim, query_dim, bias=False)
        self.to_out = nn.Linear(query_dim, query_dim)
        self.set_processor(AttentionProcessor())

    def forward(
        self,
        hidden_states: torch.Tensor,  # (B, L, C)
        encoder_hidden_states: torch.Tensor | None = None,  # (B, M, cross_attention_dim)
        attention_mask: torch.Tensor | None = None,  # (B, M) boolean, True where a token counts
    ) -> torch.Tensor:
        return self.processor(self, hidden_states, encoder_hidden_states, attention_mask)
