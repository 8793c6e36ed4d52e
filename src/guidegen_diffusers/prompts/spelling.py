"""One spelling of a word: British and American forms fold together, and slips in medical words are mended.

A slip is one letter dropped, added, exchanged or swapped with its neighbour, after the first letter. Every form with
one letter missing stands in an index, so that looking a word up costs its length and not the lexicon's.
"""

from __future__ import annotations

from collections.abc import Iterable


__all__ = ["Speller", "fold", "words"]

LONGEST = 24  # letters; longer words are not looked up


def fold(word: str) -> str:
    """The form in which "tumour" and "tumor", "caecum" and "cecum", "centre" and "center" are one."""
    if len(word) < 5:
        return word
    word = word.replace("ae", "e").replace("our", "or").replace("isa", "iza").replace("ise", "ize")
    for british, american in (("tre", "ter"), ("tres", "ters"), ("bre", "ber")):
        if word.endswith(british):
            word = word.removesuffix(british) + american
    return word if len(word) < 6 else word.replace("oe", "e")


def words(text: str) -> frozenset[str]:
    """A table of words, folded."""
    return frozenset(fold(word) for word in text.split())


class Speller:
    """
    Args:
        words: every word of the lexicon, folded; these are right as they are.
        mended: those of them that slips are mended to.
        left_alone: words that look like a slip and are none.
    """

    def __init__(self, words: Iterable[str], mended: Iterable[str], left_alone: Iterable[str]):
        self.words = frozenset(words)
        self._left_alone = frozenset(left_alone)
        self._by_gap: dict[str, list[str]] = {}
        for word in mended:
            for gap in _with_a_gap(word):
                self._by_gap.setdefault(gap, []).append(word)

    def mend(self, word: str) -> str:
        """`word` folded, or the medical word it is a slip of."""
        word = fold(word)
        if word in self.words or not 4 <= len(word) <= LONGEST or word in self._left_alone:
            return word
        slips = {
            right: _slip(word, right)
            for gap in _with_a_gap(word)
            for right in self._by_gap.get(gap, ())
            if right[0] == word[0]
        }
        fitting = {right: at for right, at in slips.items() if at is not None}
        return max(fitting, key=lambda right: (fitting[right], right), default=word)


def _with_a_gap(word: str) -> list[str]:
    return [word, *(word[:i] + word[i + 1 :] for i in range(1, len(word)))]


def _slip(one: str, other: str) -> int | None:
    """Where one insertion, deletion, exchange or swap of neighbours makes `other` of `one`, if one does."""
    at = 0
    while at < min(len(one), len(other)) and one[at] == other[at]:
        at += 1
    one, other = one[at:], other[at:]
    if len(one) == len(other):
        fits = one[1:] == other[1:] or (one[:2] == other[1::-1] and one[2:] == other[2:])
    else:
        fits = one[1:] == other if len(one) > len(other) else one == other[1:]
    return at if fits else None
