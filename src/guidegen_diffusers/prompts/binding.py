"""Which finding a place belongs to.

To the noun behind it ("left kidney mass"); behind a preposition to the noun before ("mass in the left kidney"); with
a neighbour in a list to the same as the neighbour; in a clause of its own to the nearest noun; otherwise it is a
subject and belongs to what is said of it ("the left kidney shows a mass"). Findings other than tumours draw their own
places to themselves: cysts, metastases, lymph nodes, normal organs, operations. A tumour that lies in such a finding,
or that the finding comes with, shares its place ("thickening of the sigmoid with a mass").
"""

from __future__ import annotations

from .attributes import ORGANS
from .clauses import AFTER, HEADS, PLACES, Clauses
from .phrases import Item
from .places import Place, complete


__all__ = ["Binding", "bind", "is_keyed"]

_OWNERS = HEADS | {"surgery", "locator"}
_INSIDE_A_NOUN = frozenset(
    ["word", "size", "number", "hedge", "past", "removed", "other", "nontumor", "seen", "treated"]
)
_HOLDERS = ("seat", "feature")  # benign findings that a tumour may lie in, or that may be its own
_INSIDE = frozenset(["in", "at", "within", "on"])
_HOLDING = frozenset(["containing", "contains", "harboring", "harbors"])
_CAUSES = frozenset(["due to", "d/t", "because of", "caused by", "secondary to"])
_REACH = 9  # items between a place and its noun


class Binding:
    """The places of each head, by the head's item; `unbound` are those that nothing is said of."""

    def __init__(self, heads: list[int]):
        self.places: dict[int, list[Place]] = {head: [] for head in heads}
        self.unbound: list[Place] = []


def bind(items: list[Item], clauses: Clauses, places: list[Place]) -> Binding:
    heads = [i for i, item in enumerate(items) if item.kind in _OWNERS]
    binder = _Binder(items, clauses, places, heads)
    return binder.bind()


def is_keyed(items: list[Item], at: int) -> bool:
    """Whether the word at `at` is a key whose value follows: "site: left kidney", "the location is the rectum"."""
    return at + 1 < len(items) and (items[at + 1].kind in (":", "=", "-") or items[at + 1].text == "is")


class _Binder:
    def __init__(self, items: list[Item], clauses: Clauses, places: list[Place], heads: list[int]):
        self.items, self.clauses, self.places = items, clauses, places
        self.heads = heads
        self.binding = Binding(heads)
        self.owners: list[int | None] = [None] * len(places)
        self.roles: list[str | None] = [None] * len(places)

    def bind(self) -> Binding:
        for k, place in enumerate(self.places):
            self._to_noun_behind(k, place)
        for k in range(len(self.places) - 2, -1, -1):
            shares = self.places[k + 1].joined in ("and", "comma") and self.roles[k + 1] == "noun"
            leads = (None, "no")
            if shares and self.roles[k] is None and self._lead(self.places[k]) in leads:  # "lung and liver metastases"
                self.roles[k], self.owners[k] = "noun", self.owners[k + 1]
        for k, place in enumerate(self.places):
            if self.roles[k] is None:
                self._to_what_stands_before(k, place)
        for place, owner in zip(self.places, self.owners, strict=True):
            if owner is not None:
                self.binding.places[owner].append(place)
        for place, owner, role in zip(self.places, self.owners, self.roles, strict=True):
            if owner is None or self.items[owner].kind not in ("tumor", "benign"):
                continue
            for tumor in (self._partner(owner, place, role), self._companion(owner, place, role)):
                if tumor is not None and not self.binding.places[tumor]:
                    self.binding.places[tumor].append(place)
        located = {head for head, places in self.binding.places.items() if any(place.organ for place in places)}
        end = len(self.items)
        for k in range(len(self.places) - 1, -1, -1):
            if self.roles[k] == "subject":
                self._to_predicate(self.places[k], end, located)
                if not self.places[k].joined:  # subjects of one list share their predicate
                    end = self.places[k].start
        for places in self.binding.places.values():
            places.sort(key=lambda place: place.start)
        return self.binding

    def _to_noun_behind(self, k: int, place: Place) -> None:
        for i in range(place.end, min(place.end + _REACH, len(self.items))):
            item = self.items[i]
            if item.kind in ("idiom", "surgery"):
                self.roles[k] = "away"
                return
            if item.kind in HEADS:
                self.roles[k], self.owners[k] = "noun", i
                return
            if item.kind in PLACES and place.named and not self._goes_on(k, i):
                return
            if item.text in AFTER or (item.kind not in _INSIDE_A_NOUN and item.kind not in PLACES):
                return

    def _goes_on(self, k: int, at: int) -> bool:
        """Whether the word at `at` says of place `k` again what organ it is: "LLL squamous cell lung cancer"."""
        place, following = self.places[k], self.places[k + 1] if k + 1 < len(self.places) else None
        again = following is not None and following.start <= at < following.end and following.named == place.named
        return again and complete(place, following) is not None

    def _to_what_stands_before(self, k: int, place: Place) -> None:
        lead = self._lead(place)
        if lead == "away":
            self.roles[k] = "away"
            return
        before = self._head_before(place)
        if lead is not None:
            if before is None or self._is_fronted(before, place):
                self.roles[k] = "subject"
            else:
                self.roles[k], self.owners[k] = "preposition", before
        elif place.joined and k and self.roles[k - 1]:
            self.roles[k], self.owners[k] = self.roles[k - 1], self.owners[k - 1]
        elif before is not None and (self._touches(before, place) or self._stands_alone(before, place)):
            self.roles[k], self.owners[k] = "apposition", before
        else:
            self.roles[k] = "subject"

    def _to_predicate(self, place: Place, end: int, located: set[int]) -> None:
        """A subject takes all that is said of it up to the next one; behind "is normal" only what "except" adds."""
        said = normal_at = None
        for head in self.heads:
            item = self.items[head]
            if not place.end <= head < end or item.kind not in HEADS:
                continue
            if normal_at is not None and not any(self.items[i].kind == "turn" for i in range(normal_at, head)):
                break
            normal_at = head if item.kind == "normal" else None
            said = head
            organ = item.value[1] if item.kind == "tumor" else None
            free = head not in located or self._narrows(place, head)
            if free and organ in (None, place.organ):
                self.binding.places[head].append(place)
        if said is None:
            self.binding.unbound.append(place)

    def _narrows(self, place: Place, head: int) -> bool:
        """Whether the places of a head are the whole of what the subject names a part of: "left kidney: RCC confined
        to the kidney"."""
        whole = self.binding.places[head]
        return all(not (other.side or other.part) and place.sites < other.sites for other in whole)

    def _lead(self, place: Place) -> str | None:
        """What leads up to a place: "away" where it bounds a tumour rather than holding it, or a preposition."""
        for i in range(place.start - 1, max(-1, place.start - 5), -1):
            item = self.items[i]
            if item.kind == "away":
                return "away"
            if item.kind == "no":
                return "no"
            if item.kind in ("preposition", "locator"):
                behind = self.items[i - 1].kind if i else None
                return "away" if behind == "away" else item.text
            if item.kind not in ("determiner", "word", "patient", "part", "noun", "size", "other", "normal", "family"):
                return None
        return None

    def _head_before(self, place: Place) -> int | None:
        """The nearest noun to the left. "Located" passes the place on to the tumour that it speaks of, and so does
        "metastatic" a side: "colon cancer, metastatic, right-sided"."""
        at, passed = place.start, None
        for head in reversed([h for h in self.heads if h < at]):
            kind, value = self.items[head].kind, self.items[head].value
            if kind == "locator" and not is_keyed(self.items, head):
                passed = head if passed is None else passed
            elif self.items[head].text == "metastatic" and not place.named and self._fills_clause(head):
                continue
            elif kind == "benign" and value == "feature" and head and self._is_attribute(head):
                if head + 1 < at and self.items[head + 1].text == "of":  # "with thickening of the gallbladder"
                    return head
            else:
                return head
        return passed

    def _fills_clause(self, head: int) -> bool:
        return self.clauses.start(head) == head and self.clauses.end(head) == head + 1

    def _partner(self, head: int, place: Place, role: str | None) -> int | None:
        """The tumour before the finding at `head` that shares its place: "a mass and atelectasis in the left lower
        lobe", "recurrence at the anastomosis in the rectum", "carcinoma in a sigmoid polyp"."""
        beside = role == "preposition" and self._lead(place) == "in"
        holds = self.items[head].value in _HOLDERS and bool(place.sites)
        joined = inside = False
        for i in range(head - 1, max(-1, head - 6), -1):
            kind = self.items[i].kind
            if kind == "tumor":
                shared = (joined and beside and self._fits(i)) or (inside and self._fits(i, place))
                return i if shared else None
            if holds and self.items[i].text in _INSIDE:
                inside = True
            elif kind in PLACES:
                beside = False
            elif kind not in ("conjunction", "determiner", "word", "size", "with"):
                return None
            joined = joined or kind in ("conjunction", "with")
        return None

    def _companion(self, head: int, place: Place, role: str | None) -> int | None:
        """The tumour that is said of the finding at `head` once its place is named: "thickening of the sigmoid with a
        mass", "opacity in the lingula, likely carcinoma". An "and" says so only of what may be a tumour's own."""
        local = self.items[head].value in _HOLDERS
        at = self._joint_behind(max(head + 1, place.end))
        joint = self.items[at] if at < len(self.items) else None
        if joint is None or self.items[head].kind != "benign" or place.named not in ORGANS:
            return None
        holds = joint.kind == "with" or joint.text in _HOLDING
        same = joint.kind == "link" and joint.text not in _CAUSES
        adds = joint.value == "and" and self.items[head].value == "feature"
        if not (same or adds or (holds and (local or role == "preposition"))):
            return None
        for i in range(at + 1, min(len(self.items), at + _REACH)):
            if self.items[i].kind == "tumor":
                return i if self._fits(i, place if local or same else None) else None
            if self.items[i].kind not in ("determiner", "link", *_INSIDE_A_NOUN) or self.items[i].value == "the":
                return None
            if self.items[i].text in _CAUSES and not local:
                return None
        return None

    def _joint_behind(self, at: int) -> int:
        """The word at `at` or behind a comma that joins a tumour to a finding, or the "consistent with" that follows
        on measures and qualities of the finding: "over 6 cm, irregular, consistent with carcinoma"."""
        for i in range(at, min(len(self.items) - 1, at + _REACH)):
            item = self.items[i]
            if item.kind == "link":
                return i
            led = item.kind == "preposition" and self.items[i + 1].kind == "number"
            if item.kind not in ("word", "number", "size", "verb", "conjunction", ",", "(", ")") and not led:
                break
        return at + (at < len(self.items) and self.items[at].kind in (",", "("))

    def _fits(self, head: int, place: Place | None = None) -> bool:
        """Whether the tumour at `head` names no organ, or none but that of the place."""
        strength, organ = self.items[head].value
        return strength != "elsewhere" and (organ is None or (place is not None and organ == place.named))

    def _is_attribute(self, head: int) -> bool:
        """Whether a feature such as calcification is one of the tumour's: "a mass with calcifications"."""
        for i in range(head - 1, max(-1, head - 4), -1):
            if self.items[i].kind == "with":
                return True
            if self.items[i].kind not in ("word", "size", "conjunction", "benign"):
                return False
        return False

    def _is_fronted(self, before: int, place: Place) -> bool:
        """Whether the place opens a clause that has a noun of its own: "lungs clear, in the left kidney a mass"."""
        if not any(self.clauses.bounds(i) for i in range(before + 1, place.start)):
            return False
        for i in range(place.end, self.clauses.end(place.end)):
            if self.items[i].kind in HEADS:
                return True
            if self.items[i].kind == "with":
                return False
        return False

    def _touches(self, before: int, place: Place) -> bool:
        """Whether nothing but a measure stands between: "mass 4 cm RLL", "the site is the rectum"."""
        keyed = is_keyed(self.items, before)
        normal = self.items[before].kind == "normal" and place.start - before < 4  # "normal appearance left kidney"
        return all(
            self.items[i].kind in ("number", "determiner", "hedge")
            or self.items[i].text in ("cm", "mm", "x")
            or (normal and self.items[i].kind == "word")
            or (keyed and self.items[i].kind in (":", "=", "-", "verb"))
            for i in range(before + 1, place.start)
        )

    def _stands_alone(self, before: int, place: Place) -> bool:
        """Whether the place fills its clause: ", left upper lobe,"."""
        start, end = self.clauses.start(place.start), self.clauses.end(place.end)
        rest = [*range(start, place.start), *range(place.end, end)]
        filled = all(
            self.items[i].kind in (*PLACES, "number", "determiner", "word", "size", "conjunction", "no") for i in rest
        )
        return filled and not any(self.items[i].kind == "turn" for i in range(before, place.start))
