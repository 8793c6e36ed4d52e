"""How large a sentence calls its tumour: by a word for it, or by the largest dimension that it gives.

"Small bowel" and "large cell" are no sizes (the lexicon knows them as phrases), nor is the thickness of a slice, and
what is said of a cyst or a lymph node is not said of the tumour.
"""

from __future__ import annotations

from .clauses import HEADS, PLACES
from .findings import Reading
from .phrases import Item
from .scopes import NEGATED
from .spelling import words


__all__ = ["read_diameters", "read_size_words"]

_UNITS = {
    "mm": 1.0,
    "millimeter": 1.0,
    "millimeters": 1.0,
    "cm": 10.0,
    "cms": 10.0,
    "centimeter": 10.0,
    "centimeters": 10.0,
}
_BETWEEN = ("x", "by", "to", "*")
_INSIDE_A_NOUN = (*PLACES, "word", "size", "number", "nontumor", "hedge", "past", "seen", ",", "conjunction", "benign")
# a length that belongs to the scan, to a distance or to the past
_FOREIGN = words("""
    thickness slice slices sliced section sections thick interval collimation kernel increment spacing margin margins
    distance previously formerly prior away above below proximal distal deep cranial caudal apart anal verge skin from
    voxel resolution
    """)
_EARLIER = words("previously formerly prior")
_CHANGING = words("increased decreased grown shrunk enlarged now")
_MEASURING = words("measures measuring measured size diameter diameters dimension dimensions across large long wide")


def read_size_words(reading: Reading, told: bool) -> set[str]:
    """The size words of the tumours that the sentence states."""
    items = reading.items
    found = set()
    for at, item in enumerate(items):
        if item.kind != "size" or reading.scopes.has(at, NEGATED):
            continue
        head = _noun_behind(items, at)
        if head is None:
            head = _subject_before(items, at)
        if head is None:
            keyed = at > 1 and items[at - 2].text == "size" and items[at - 1].kind in (":", "=")
            alone = told and not any(i.kind in HEADS for i in items) and _is_predicate(items, at)
            if keyed or alone:
                found.add(item.value)
        elif head in reading.tumors:
            found.add(item.value)
    return found


def read_diameters(reading: Reading, told: bool) -> list[float]:
    """Largest dimensions in mm of the tumours that the sentence states."""
    items, found = reading.items, []
    at = 0
    while at < len(items):
        if items[at].kind != "number":
            at += 1
            continue
        end, diameter = _measure(items, at)
        if diameter is not None and not _is_foreign(items, at, end):
            head = _measured(items, at, end)
            keyed = at > 1 and items[at - 1].kind in (":", "=") and items[at - 2].text in _MEASURING
            alone = at == 0 and end == len(items)  # "RCC. 5.8 cm."
            of_earlier = told and (alone or any(item.text in _MEASURING for item in items) or _changes(items))
            if head in reading.tumors or (head is None and (keyed or of_earlier)):
                found.append(diameter)
        at = max(end, at + 1)
    return found


def _changes(items: list[Item]) -> bool:
    """Whether the sentence tells how something that it does not name has grown: "it has increased to 4 cm"."""
    named = any(item.kind in (*PLACES, "patient") for item in items)
    return not named and any(item.text in _CHANGING for item in items)


def _measured(items: list[Item], start: int, end: int) -> int | None:
    """The finding that a measure belongs to: the noun that it touches, or else the nearest, first to the left."""
    if start and items[start - 1].kind in HEADS:
        return start - 1
    head = _noun_behind(items, end - 1)
    if head is not None and all(items[i].kind != "," for i in range(end, head)):
        return head
    heads = [i for i in range(start - 1, -1, -1) if items[i].kind in HEADS]
    before = next((i for i in heads if not _is_where(items, i) or i == heads[-1]), None)
    if before is not None or head is not None:
        return before if before is not None else head
    return next((i for i in range(end, len(items)) if items[i].kind in HEADS), None)


def _is_where(items: list[Item], head: int) -> bool:
    """Whether the finding at `head` tells where another is: "recurrence at the anastomosis, 3 cm"."""
    at = head - 1
    while at > 0 and items[at].kind in ("determiner", *PLACES):
        at -= 1
    return items[head].value == "seat" and at >= 0 and items[at].text == "at"


def _measure(items: list[Item], at: int) -> tuple[int, float | None]:
    """Where the measure that begins at `at` ends, and its largest dimension in mm: "38 x 30 mm", "3 cm by 4 cm". Of a
    change, "from 6 cm to 4 cm", the last counts."""
    changed = at > 0 and items[at - 1].text == "from"
    more = at > 0 and items[at - 1].text in (">", "over", "exceeding", "above", "than")
    values, unit = [items[at].value], None
    at += 1
    while at < len(items):
        if items[at].text in _UNITS:
            unit = unit or _UNITS[items[at].text]
            at += 1
        elif items[at].text in _BETWEEN and at + 1 < len(items) and items[at + 1].kind == "number":
            values = [] if changed and items[at].text == "to" else values
            values.append(items[at + 1].value)
            at += 2
        else:
            break
    if unit is None or any(value is None for value in values) or (at < len(items) and items[at].kind == "number"):
        return at, None  # the last would be "N1 cM0"
    return at, unit * max(values) + (0.1 if more else 0)  # more than 7 cm is not 7 cm


def _is_foreign(items: list[Item], start: int, end: int) -> bool:
    before = " ".join(item.text for item in items[max(0, start - 3) : start]).split()
    if before[-1:] == ["from"] and any(item.text == "to" for item in items[start:end]):
        return False  # "increased from 2 to 4 cm"
    behind = " ".join(item.text for item in items[end : end + 2]).partition(",")[0].split()
    if _is_followed_up(items, end):
        behind = []
    return bool(_FOREIGN & set(before)) or bool(_FOREIGN & set(behind[:2]))


def _is_followed_up(items: list[Item], end: int) -> bool:
    """Whether an earlier measure stands behind the one that ends at `end`: "6 cm (previously 4 cm)"."""
    end += end < len(items) and items[end].kind == "("
    if end == len(items) or items[end].text not in _EARLIER:
        return False
    end += 1 + (end + 1 < len(items) and items[end + 1].kind == "verb")
    return end < len(items) and items[end].kind == "number"


def _noun_behind(items: list[Item], at: int) -> int | None:
    """The finding that a word at `at` is an adjective of."""
    for i in range(at + 1, min(len(items), at + 9)):
        if items[i].kind in HEADS:
            return i
        if items[i].kind not in _INSIDE_A_NOUN:
            return None
    return None


def _subject_before(items: list[Item], at: int) -> int | None:
    """The finding that a word at `at` is said of: "the tumor is large", "a mass of huge size"."""
    if not _is_predicate(items, at):
        return None
    return next((i for i in range(at - 1, max(-1, at - 20), -1) if items[i].kind in HEADS), None)


def _is_predicate(items: list[Item], at: int) -> bool:
    around = items[max(0, at - 4) : at] + items[at + 1 : at + 3]
    if any(item.text in ("size", "sized", "dimensions") for item in around):
        return True
    behind = items[at + 1] if at + 1 < len(items) else None
    ends = behind is None or behind.kind in (",", "conjunction", ")", "-", "preposition", "with")
    return ends and any(item.kind in ("verb", ",", "(", "-", ":", "link") for item in items[max(0, at - 4) : at])
