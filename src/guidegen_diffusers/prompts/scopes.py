"""What a sentence takes back, doubts or says of others: a set of marks on each of its items.

A trigger opens a scope to its right ("no", "possible", "his mother") that ends at "but", at a comma or "and" behind
which something new begins, or with the sentence; or it looks back over its own clause ("... was ruled out", "... in
his mother"). A comma inside a list ("no mass in the lungs, kidneys or colon") ends nothing.
"""

from __future__ import annotations

from .clauses import AFTER, HEADS, PLACES, SEPARATORS, Clauses
from .phrases import Item
from .places import ORGANS, SIDES
from .spelling import words


__all__ = ["FAMILY", "HEDGED", "NEGATED", "NEUTRAL", "PAST", "REMOVED", "Scopes"]

NEGATED, HEDGED, FAMILY, PAST, REMOVED, NEUTRAL = (1 << i for i in range(6))

_REPORTING = words("reports reported noticed says states stated brought noted found called accompanied")
_NUMBERS = words("one two three four five six seven eight nine")
_POINTERS = words("this it that which these they")


# kinds of items that a method of Scopes is named after
_TRIGGERS = words(
    """no normal hedge unknown past neutral family turn with patient conjunction side absent seen exclusion removed
    resolved treated surgery"""
)


class Scopes:
    """
    Args:
        items (`list[Item]`): a sentence.
        clauses (`Clauses`): where its clauses end.
        question (`bool`): whether it ends in a question mark, which leaves all of it open.

    `marks[i]` is a set of bits for item `i`; `surgery` maps an item marked REMOVED to the sites that were operated on;
    `dangling` holds removals that name no tumour in their own sentence and so speak of an earlier one.
    """

    def __init__(self, items: list[Item], clauses: Clauses, question: bool = False):
        self.items = items
        self.clauses = clauses
        self.marks = [HEDGED if question else 0] * len(items)
        self.surgery: dict[int, frozenset[str] | None] = {}
        self.dangling: set[int] = set()
        self._open = 0
        self._opened_at = 0
        self._either = self._aside = False
        for at, item in enumerate(items):
            if at in clauses.separators:
                self._separator(at, item)
            elif item.kind in _TRIGGERS:
                getattr(self, f"_{item.kind}")(at, item)
            self.marks[at] |= self._open

    def has(self, at: int, mark: int) -> bool:
        return bool(self.marks[at] & mark)

    # What opens a scope

    def _no(self, at: int, item: Item) -> None:
        if at and self.items[at - 1].kind in (":", "-", "=") and not self._speaks(at, self.clauses.end(at)):
            self._mark_back(at, NEGATED)  # "tumor: none"
        elif not self._open & HEDGED:  # "possibly no tumor" is doubt
            self._open_scope(at, NEGATED)

    def _normal(self, at: int, item: Item) -> None:
        if item.text == "negative" and at and self.items[at - 1].kind in (":", "="):
            self._mark_back(at, NEGATED)  # "tumor status: negative"

    def _hedge(self, at: int, item: Item) -> None:
        if item.text != "query" and self._ends_clause(at):  # "a tumor is unlikely"
            self._mark_back(at, HEDGED)
        else:
            self._open_scope(at, HEDGED)

    def _unknown(self, at: int, item: Item) -> None:
        if at and self.items[at - 1].kind in (":", "="):  # "tumor: unknown"
            self._mark_back(at, HEDGED)

    def _past(self, at: int, item: Item) -> None:
        self._open_scope(at, PAST)

    def _neutral(self, at: int, item: Item) -> None:
        self._open_scope(at, NEUTRAL)

    def _family(self, at: int, item: Item) -> None:
        self._aside = bool(at) and self.items[at - 1].text == "whose"
        following = self.items[at + 1] if at + 1 < len(self.items) else None
        if following and (following.text in _REPORTING or (following.text == "of" and self._counts(at + 2))):
            return  # "his wife noticed", "a mother of two"
        before = at - 1
        while before >= 0 and self.items[before].kind == "determiner":
            before -= 1
        owned = before < at - 1 and self.items[at - 1].value == "the"
        if before >= 0 and (self.items[before].text == "in" or self.items[before].kind == "("):
            self._mark_back(before, FAMILY)  # "colon cancer in his mother"
        elif before >= 0 and owned and self.items[before].text in ("with", "by", "for") and "history" not in item.text:
            return  # "lives with his daughter"
        self._open_scope(at, FAMILY)

    def _counts(self, at: int) -> bool:
        return at < len(self.items) and (self.items[at].kind == "number" or self.items[at].text in _NUMBERS)

    # What ends one

    def _turn(self, at: int, item: Item) -> None:
        tumors = [i for i in range(at) if self.items[i].kind == "tumor"]
        excepted = item.value == "except" and tumors and not self._open & NEGATED
        self._open = 0
        if excepted and not any(self.items[i].kind == "normal" for i in range(at)):
            self._open_scope(at, NEGATED)  # "lung cancer except in the left lung"

    def _with(self, at: int, item: Item) -> None:
        self._open &= ~NEGATED

    def _patient(self, at: int, item: Item) -> None:
        begins = at and self.items[at - 1].kind in ("conjunction", "turn", *SEPARATORS)
        if item.text not in ("he", "she", "i") or begins:
            self._open &= ~FAMILY

    def _conjunction(self, at: int, item: Item) -> None:
        if item.value == "or" and self._either and self._open & NEGATED:
            self._open = HEDGED  # "either no tumor or a tumor in the left kidney"
            return
        if item.value == "or":
            self._weigh(at)
        if item.value == "and" and self._open and self.clauses.begins(at + 1):
            goes_on = self.items[at + 1].kind == "verb"  # "my father is 72 and had lung cancer"
            self._close(at + 1 if goes_on else None)

    def _side(self, at: int, item: Item) -> None:
        self._either = self._either or (item.text == "either" and not self._open & NEGATED)

    def _separator(self, at: int, item: Item) -> None:
        if item.kind == ":":
            self._open &= ~NEUTRAL
        elif item.kind == ")":
            self._open &= ~(NEGATED | HEDGED)
        elif self._open:
            listed = self.clauses.lists_on(at) and not self._is_idle(at)
            if not listed and (self._is_idle(at) or self.clauses.begins(at + 1) or self._changes_subject(at)):
                self._close(at + 1)

    # What looks back

    def _absent(self, at: int, item: Item) -> None:
        self._mark_back(at, NEGATED)
        self._open_scope(at, NEGATED)  # "absent in the left lung"

    def _seen(self, at: int, item: Item) -> None:
        """After a negation and nothing but auxiliaries: "no longer visible", "could not be clearly seen"."""
        for before in range(at - 1, max(-1, at - 5), -1):
            kind = self.items[before].kind
            if kind == "no":
                self._mark_back(before, REMOVED if self.items[before].text == "no longer" else NEGATED)
                return
            if kind not in ("verb", "word"):
                return

    def _exclusion(self, at: int, item: Item) -> None:
        negation = self._before(at, ("no",), 6)
        if negation is not None:  # "cannot be ruled out"
            self._open &= ~NEGATED
            self._mark_back(negation, HEDGED)
            self._open_scope(at, HEDGED)
        elif item.value == "base":  # "to rule out"
            self._open_scope(at, HEDGED)
        elif at > 1 and self.items[at - 1].text == "be":  # "must be ruled out"
            self._mark_back(at, HEDGED)
        else:
            self._mark_back(at, NEGATED)
            self._open_scope(at, NEGATED)

    def _removed(self, at: int, item: Item) -> None:
        if self._is_planned(at):
            return
        adjectival = self._head_ahead(at)
        if adjectival is not None:  # "resected colon cancer"
            self._mark_range(at, self._end(adjectival), REMOVED)
            return
        reason = self._reason(at, 9)
        if reason is not None and self._takes_out(at, reason):  # "my left kidney was taken out for cancer"
            self._mark_range(reason, self._end(reason), REMOVED)
        elif not self._mark_back(at, REMOVED):
            self.dangling.add(at)

    def _takes_out(self, at: int, reason: int) -> bool:
        """Whether what was taken out is a place of ours and not a stent in it."""
        before = self.items[self.clauses.start(at) : reason]
        ours = any(item.kind in PLACES and item.value != "other" for item in before)
        return ours and not any(item.kind in HEADS for item in before)

    def _end(self, at: int) -> int:
        """Where what goes on at `at` ends: with its clause, or at an "and" behind which something new begins."""
        while at < self.clauses.end(at) and not self.clauses.bounds(at):
            at += 1
        return at

    def _resolved(self, at: int, item: Item) -> None:
        self._mark_back(at, REMOVED)
        self._mark_range(at, self.clauses.end(at), REMOVED)  # "in remission from lung cancer"

    def _treated(self, at: int, item: Item) -> None:
        """Treated and over, where the text says that it is past: "history of", "5 years ago", "in 2010"."""
        dated = any(i.text == "ago" or (i.kind == "number" and (i.value or 0) > 1900) for i in self.items[at:])
        if (dated or any(mark & PAST for mark in self.marks[:at])) and not self._is_planned(at):
            self._removed(at, item)

    def _surgery(self, at: int, item: Item) -> None:
        if self._is_planned(at):
            return
        sites = self._operated(at, item.value)
        reason = self._reason(at, 6)
        back = self._comes_back(at)
        if reason is not None and back:  # "recurrence after nephrectomy for RCC": the recurrence is what there is
            self._mark_range(reason, self._end(reason), NEUTRAL)
        elif reason is not None:  # "nephrectomy was done for RCC"
            self._mark_range(reason, self._end(reason), REMOVED, sites)
        elif not back and not self._mark_back(at, REMOVED, sites):
            self.dangling.add(at)

    def _reason(self, at: int, reach: int) -> int | None:
        """The "for" behind what was done at `at` that a tumour follows."""
        leads, passed = ("for", "due to", "because of"), ("verb", "word", "past")
        if self.items[at].kind == "surgery":
            leads, inside = (*leads, "of"), ()
        else:  # "took out part of the bowel for cancer"
            passed, inside = (*passed, *PLACES, "determiner", "number"), ("of", "in")
        for i in range(at + 1, min(at + reach, self.clauses.end(at))):
            text = self.items[i].text
            if text in leads and "tumor" in self.clauses.kinds(i, self.clauses.end(i)):
                return i
            if self.items[i].kind not in passed and text not in inside:
                return None
        return None

    def _comes_back(self, at: int) -> bool:
        """Whether a tumour is said to have come back after the operation: "recurrence after nephrectomy"."""
        after = next((i for i in range(at - 1, max(-1, at - 6), -1) if self.items[i].text in AFTER), None)
        if after is None:
            return False
        for i in range(self.clauses.start(after), after):
            again = self.items[i].text.startswith(("recurr", "relaps"))
            if again and "tumor" in self.clauses.kinds(i, min(i + 3, after)):
                return all(item.text != "for" for item in self.items[max(0, i - 2) : i])  # "monitoring for recurrence"
        return False

    def _operated(self, at: int, organ: str | None) -> frozenset[str] | None:
        """The sites of an operation on `organ`, of one side where that is named."""
        if organ is None:
            return None
        before = at - 1
        while before > 0 and self.items[before].kind in ("word", "part", "noun"):  # "left upper lobectomy"
            before -= 1
        side = self.items[before].value if before >= 0 and self.items[before].kind == "side" else "both"
        return ORGANS[organ] & SIDES[side]

    # Where scopes and clauses end

    def _open_scope(self, at: int, mark: int) -> None:
        self._open |= mark
        self._opened_at = at

    def _close(self, following: int | None = None) -> None:
        """A relative's history goes on over commas until the patient is spoken of again."""
        keep = 0
        if self._open & FAMILY and not self._aside and following is not None and following < len(self.items):
            item = self.items[following]
            if item.kind not in ("scan", "size", "side", "place", "patient") and item.text not in ("a", "an", "there"):
                keep = FAMILY
        self._open &= keep

    def _ends_clause(self, at: int) -> bool:
        return self.clauses.end(at) == at + 1

    def _speaks(self, start: int, end: int) -> bool:
        """Whether a finding or a place is named there."""
        return bool(self.clauses.kinds(start, end) & (HEADS | PLACES))

    def _is_idle(self, at: int) -> bool:
        """Whether the open scope has met no finding and no place that the lexicon knows: "no allergies, ..."."""
        if self._open & (FAMILY | PAST):
            return False
        return not self._speaks(self._opened_at + 1, at)

    def _changes_subject(self, at: int) -> bool:
        """Whether a tumour follows on things that are none: "no lymphadenopathy, lung cancer"."""
        before = self.clauses.kinds(self._opened_at + 1, at)
        behind = [item for item in self.items[at + 1 : self.clauses.end(at + 1)] if item.kind in (*PLACES, "tumor")]
        named = any(item.kind == "tumor" and (item.value[0] != "weak" or len(behind) > 1) for item in behind)
        return named and "tumor" not in before and not self._open & (FAMILY | PAST)

    def _mark_range(self, start: int, end: int, mark: int, sites: frozenset[str] | None = None) -> None:
        for i in range(start, end):
            self.marks[i] |= mark
            if mark == REMOVED:
                self.surgery[i] = sites

    def _mark_back(self, at: int, mark: int, sites: frozenset[str] | None = None) -> bool:
        """Mark the clause before `at`, passing over clauses that say nothing; whether anything was marked."""
        sought = HEADS - {"normal", "resolved"} if mark == REMOVED else HEADS | PLACES
        end = at
        while end > 0:
            start = self.clauses.start(end)
            kinds = self.clauses.kinds(start, end)
            if kinds & sought:
                start = self.clauses.list_start(start) if "conjunction" in kinds else start
                self._mark_range(start, at, mark, sites)
                return True
            if mark == NEGATED and end == at and self._names_something(start, end):
                return False
            points = any(self.items[i].text in _POINTERS for i in range(start, end))  # "but this was ruled out"
            if start == 0 or (self.items[start - 1].kind == "turn" and not points):
                if points:
                    self.dangling.add(at)
                return False
            end = start - 1
        return False

    def _names_something(self, start: int, end: int) -> bool:
        """Whether ordinary words stand before the first verb: "and the ascites has resolved"."""
        for i in range(start, end):
            if self.items[i].kind == "verb":
                return False
            if self.items[i].kind == "word":
                return True
        return False

    def _before(self, at: int, kinds: tuple[str, ...], reach: int) -> int | None:
        for i in range(at - 1, max(-1, at - 1 - reach), -1):
            if self.items[i].kind in kinds:
                return i
            if self.items[i].kind in HEADS or self.items[i].kind in SEPARATORS or self.items[i].kind == "turn":
                return None
        return None

    def _is_planned(self, at: int) -> bool:
        """Whether an operation is only intended, or was not done."""
        if any(self.items[i].kind == "plan" for i in range(at + 1, self.clauses.end(at))):
            return True
        for i in range(at - 1, max(-1, at - 6), -1):
            item = self.items[i]
            if item.kind in ("plan", "no", "hedge") or (item.text == "for" and i > at - 4):
                return True
            if item.kind in HEADS or item.kind in SEPARATORS:
                return False
        return False

    def _head_ahead(self, at: int) -> int | None:
        """The tumour that the word at `at` is an adjective of."""
        if self.items[at].text.endswith(" out") and at + 1 < len(self.items) and self.items[at + 1].text == "of":
            return None  # "a sample was taken out of the tumor"
        for i in range(at + 1, min(len(self.items), at + 7)):
            if self.items[i].kind == "tumor":
                return i
            takes = i <= at + 2 and (self.items[i].text in ("of", "from", "for") or self.items[i].value == "the")
            if (
                self.items[i].kind not in (*PLACES, "word", "size", "idiom") and not takes
            ):  # "cured of his", "treated for"
                return None
        return None

    def _weigh(self, at: int) -> None:
        """A tumour or something else ("mass or consolidation") is no certain tumour."""
        between = (*PLACES, "determiner", "word", "size", "number")
        if self.items[at].text != "or":  # "a mass in the left kidney versus an abscess"
            between = (*between, "preposition")
        left = self._joined_head(range(at - 1, max(-1, at - 8), -1), between)
        right = self._joined_head(range(at + 1, min(len(self.items), at + 7)), between)
        if left is None or right is None:
            return
        pair = {self.items[left].kind: left, self.items[right].kind: right}
        if set(pair) == {"tumor", "benign"}:
            self.marks[pair["tumor"]] |= HEDGED

    def _joined_head(self, reach: range, between: tuple[str, ...]) -> int | None:
        for i in reach:
            if self.items[i].kind in HEADS:
                return i
            if self.items[i].kind not in between:
                return None
        return None
