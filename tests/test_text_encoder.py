"""The small text encoder reads every sentence, and respects the mask."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guidegen_diffusers.text_encoder import small_text_encoder


TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
TOKENIZER, ENCODER = small_text_encoder(max_position_embeddings=40, **TINY)


def test_token_ids_are_the_vocabularys():
    ids = TOKENIZER("The CT, 62m!")["input_ids"]
    pieces = ["[CLS]", "t", "##h", "##e", "c", "##t", ",", "6", "##2", "##m", "!", "[SEP]"]
    assert TOKENIZER.convert_ids_to_tokens(ids) == pieces
    assert ids[:2] == [2, 5 + ord("t") - ord("a")]


@settings(max_examples=30)
@given(st.text(max_size=300))
def test_any_text_is_encoded(text):
    tokens = TOKENIZER([text], padding="max_length", max_length=40, truncation=True, return_tensors="pt")
    assert tokens["input_ids"].shape == (1, 40)
    with torch.no_grad():
        assert torch.isfinite(ENCODER(**tokens).last_hidden_state).all()


def test_padding_changes_no_state():
    short = TOKENIZER(["a male"], return_tensors="pt")
    padded = TOKENIZER(["a male"], padding="max_length", max_length=40, return_tensors="pt")
    with torch.no_grad():
        a, b = ENCODER(**short).last_hidden_state, ENCODER(**padded).last_hidden_state
    torch.testing.assert_close(a, b[:, : a.shape[1]])
