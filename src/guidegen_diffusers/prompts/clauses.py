"""Where the clauses of a sentence end, and where a comma or an "and" begins something new rather than going on."""

from __future__ import annotations

from collections.abc import Iterable

from .phrases import Item
from .places import Place
from .spelling import words


__all__ = ["AFTER", "HEADS", "PLACES", "SEPARATORS", "Clauses"]

SEPARATORS = frozenset([",", "(", ")", "-", ":"])
HEADS = frozenset(["tumor", "benign", "metastasis", "node", "normal", "resolved"])
PLACES = frozenset(["side", "part", "noun", "organ", "place"])
AFTER = words("after following since post")  # lead to what was done before
# with these a clause of its own begins: a subject, a verb, an article, a measure
_OPENERS = words("number size pronoun verb with patient scan family turn locator no")
_NEWS = words("new known stable incidental newly")


class Clauses:
    """The clauses of a sentence. A separator within a place ("kidney (left)") parts nothing."""

    def __init__(self, items: list[Item], places: Iterable[Place] = ()):
        self.items = items
        within = {i for place in places for i in range(place.start, place.end)}
        self.separators = {i for i, item in enumerate(items) if item.kind in SEPARATORS} - within
        self._ends = [len(items)] * (len(items) + 1)
        for i in range(len(items) - 1, -1, -1):
            self._ends[i] = i if i in self.separators or items[i].kind == "turn" else self._ends[i + 1]
        self._bounds: dict[int, bool] = {}

    def end(self, at: int) -> int:
        """The first separator or turn at `at` or behind it, or the sentence's end."""
        return self._ends[at]

    def start(self, at: int) -> int:
        """Where the clause that leads up to `at` begins."""
        while at > 0 and not self.bounds(at - 1):
            at -= 1
        return at

    def bounds(self, at: int) -> bool:
        """Whether a clause begins behind item `at`."""
        if at not in self._bounds:
            kind = self.items[at].kind
            opens = at in self.separators or kind == "turn" or (kind == "conjunction" and self.begins(at + 1))
            self._bounds[at] = opens
        return self._bounds[at]

    def kinds(self, start: int, end: int) -> set[str]:
        return {self.items[i].kind for i in range(start, end)}

    def begins(self, at: int) -> bool:
        """Whether a new finding begins at `at`, behind a separator or a conjunction."""
        after_and = bool(at) and self.items[at - 1].kind == "conjunction"
        while at < len(self.items) and (self.items[at].kind == "conjunction" or self.items[at].kind in SEPARATORS):
            at += 1
        if at == len(self.items):
            return False
        first = self.items[at]
        if (
            first.kind in _OPENERS
            or first.text in _NEWS
            or first.value == "a"
            or (first.kind in ("hedge", "past") and not after_and)
        ):
            return True
        kinds = self.kinds(at, self.end(at))
        if first.kind == "tumor" and "preposition" in kinds:
            return True  # ", cancer in the left lung"
        own_place = first.kind in ("side", "place") and bool(kinds & HEADS)  # ", left renal mass"
        if after_and:
            return own_place or (bool(kinds & HEADS) and "verb" in kinds)
        return own_place or "verb" in kinds or "normal" in kinds

    def lists_on(self, at: int) -> bool:
        """Whether the comma at `at` stands in a list that an "or" will end."""
        for item in self.items[at + 1 :]:
            if (item.kind == "conjunction" and item.value == "or") or item.text == "nor":
                return True
            if item.kind in ("turn", "with", "verb", "number", "pronoun", "no") or item.value == "a":
                return False
        return False

    def list_start(self, start: int) -> int:
        """Where the list begins whose last part begins at `start`: "lung cancer, renal cancer and colon cancer"."""
        while start > 1 and self.items[start - 1].kind == ",":
            before = self.start(start - 1)
            kinds = self.kinds(before, start - 1)
            if "verb" in kinds or not kinds & (HEADS | PLACES):
                break
            start = before
        return start
