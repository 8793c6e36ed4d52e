"""A small BERT to start from where no other text encoder is given: it spells words, and its weights are random.

Any `transformers` encoder with a `last_hidden_state` can take its place; for real data a medical one.
"""

from __future__ import annotations

import string


__all__ = ["small_text_encoder"]

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def small_text_encoder(**config):
    """A tokenizer of single characters and an untrained `BertModel` with the given `BertConfig` values."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    characters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = [*SPECIAL, *characters, *(f"##{c}" for c in characters)]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    bert = BertConfig(vocab_size=len(vocabulary), pad_token_id=0, **config)
    tokenizer = BertTokenizerFast(vocab=vocabulary, model_max_length=bert.max_position_embeddings)
    return tokenizer, BertModel(bert).eval()
