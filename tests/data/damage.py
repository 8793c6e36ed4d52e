"""Bytes of a file as a broken disk or a cut transfer leaves them."""

import numpy as np


def damaged(content: bytes, kind: str, rng: np.random.Generator, flips_within: int | None = None) -> bytes:
    """`content` cut short, with 40 bytes of zeros, or with 8 bits flipped (within the first bytes, if so many)."""
    content = bytearray(content)
    where = int(rng.integers(len(content)))
    if kind == "cut":
        content = content[:where]
    elif kind == "zero":
        content[where : where + 40] = bytes(len(content[where : where + 40]))
    else:
        for i in rng.integers(flips_within or len(content), size=8):
            content[i] ^= 1 << rng.integers(8)
    return bytes(content)
