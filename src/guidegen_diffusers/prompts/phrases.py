"""A sentence's tokens as phrases of the lexicon: each item has a kind, and the longest phrase wins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .lexicon import FALSE_FRIENDS, LEXICON, MENDED, PLURALS
from .spelling import Speller, fold
from .tokens import Token


__all__ = ["SPELLER", "Item", "entries", "phrases"]


@dataclass(slots=True)
class Item:
    """One phrase, mark, number or ordinary word: tokens `start` to `end` of its sentence.

    `kind` is a table of the lexicon, "number", "word", or the mark itself.
    """

    kind: str
    value: Any
    text: str
    start: int
    end: int


def entries() -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """Every phrase of the lexicon as folded words, with its kind and value."""
    for kind, table in LEXICON.items():
        for value, words in table.items():
            for phrase in words.split():
                folded = tuple(fold(word) for word in phrase.split("_"))
                yield folded, kind, value
                if kind in PLURALS and (folded[-1][-1] != "s" or folded[-1].endswith("ss")):
                    yield (*folded[:-1], _plural(folded[-1])), kind, value


def _plural(word: str) -> str:
    if word.endswith("y") and word[-2] not in "aeo":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("x", "ch", "ss")) else "s")


_PHRASES = {words: (kind, value) for words, kind, value in entries()}
_LONGEST: dict[str, int] = {}  # by first word
for _words in _PHRASES:
    _LONGEST[_words[0]] = max(len(_words), _LONGEST.get(_words[0], 0))

SPELLER = Speller(
    words=(word for words in _PHRASES for word in words),
    mended=MENDED.split(),
    left_alone=FALSE_FRIENDS.split(),
)


def phrases(tokens: list[Token]) -> list[Item]:
    """`tokens` without a gap: phrases where the lexicon has one, single tokens elsewhere."""
    words = [token.word for token in tokens]
    items: list[Item] = []
    at = 0
    while at < len(words):
        for length in range(min(_LONGEST.get(words[at], 0), len(words) - at), 0, -1):
            found = _PHRASES.get(tuple(words[at : at + length]))
            if found:
                items.append(Item(*found, " ".join(words[at : at + length]), at, at + length))
                at += length
                break
        else:
            token = tokens[at]
            kind = "number" if token.value is not None else "word" if token.word[0].isalpha() else token.word
            items.append(Item(kind, token.value, token.word, at, at + 1))
            at += 1
    return items
