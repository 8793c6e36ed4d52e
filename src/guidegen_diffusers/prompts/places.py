"""Places in the body: "upper left lobe", "kidney (left)", "the ascending or transverse colon" as sets of tumour sites.

A place has an organ, a side and a part, in whatever order they are named, and is the intersection of what each of them
allows. Neighbours joined by a comma complete each other ("left lung, upper lobe"); those joined by "and" or "or" stay
two, and lend each other what one of them leaves out ("left and right upper lobes").
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .attributes import COLON, KIDNEY, LUNG, TUMOR_SITES
from .phrases import Item
from .spelling import words


__all__ = ["Place", "complete", "find_places"]

ORGANS = {
    "lung": LUNG,
    "kidney": KIDNEY,
    "colon": COLON,
    "chest": LUNG,
    "abdomen": KIDNEY | COLON,
    "pelvis": frozenset({"sigmoid_or_rectum"}),
    "other": frozenset(),
}
SIDES = {
    "left": frozenset(s for s in TUMOR_SITES if s.startswith("left")) | {"descending_colon", "sigmoid_or_rectum"},
    "right": frozenset(s for s in TUMOR_SITES if s.startswith("right")) | {"ascending_colon", "transverse_colon"},
    "both": TUMOR_SITES,
}
PARTS = {
    "upper": frozenset({"left_upper_lung", "right_upper_lung"}),
    "middle": frozenset({"right_middle_lung"}),
    "lower": frozenset({"left_lower_lung", "right_lower_lung"}),
    "ascending": frozenset({"ascending_colon"}),
    "transverse": frozenset({"transverse_colon"}),
    "descending": frozenset({"descending_colon"}),
    "sigmoid": frozenset({"sigmoid_or_rectum"}),
    "hepatic flexure": frozenset({"ascending_colon", "transverse_colon"}),
    "splenic flexure": frozenset({"transverse_colon", "descending_colon"}),
    "right": frozenset({"ascending_colon", "transverse_colon"}),
    "left": frozenset({"descending_colon", "sigmoid_or_rectum"}),
}
_IMPLIED = {"lobe": "lung", "zone": "lung", "apex": "lung", "base": "lung", "pole": "kidney"}  # by the noun
_PART_OF_NOUN = {"apex": "upper", "base": "lower"}
_COMPONENTS = ("side", "part", "noun", "organ", "place")
_GLUE = words(
    """of in on at within side sided aspect portion half third segment region area level
    radical partial total laparoscopic robotic"""  # "left radical nephrectomy specimen"
)
_SEGMENTS = ("segment", "segments")
_PAIRS = ({"left", "right"}, {"left", "both"}, {"right", "both"})
_FINDINGS = ("tumor", "benign", "metastasis", "node", "normal")
_NEAR = 8  # items between a side and the tumour that it follows
_SEPARATORS = frozenset([",", "(", ")", "-", "/", ":", "+"])


@dataclass(frozen=True, slots=True)
class Place:
    """Items `start` to `end`. `implied` is the organ of a noun such as "lobe", which a named organ overrides;
    `fallback` that of the place to which a bare side is the opposite; `joined` says how the place hangs on the one
    before it: "and", "comma", "not", or not at all."""

    organ: str | None = None
    side: str | None = None
    part: str | None = None
    implied: str | None = None
    fallback: str | None = None
    start: int = 0
    end: int = 0
    joined: str | None = None

    @property
    def named(self) -> str | None:
        return self.organ or self.implied

    @property
    def sites(self) -> frozenset[str]:
        """What the place allows of our sites; nothing where it names no organ of ours."""
        if self.named is None:
            return frozenset()
        organ = ORGANS[self.named]
        side, part = SIDES[self.side or "both"], PARTS.get(self.part, TUMOR_SITES)
        if self.named == "colon":  # its parts lie where they lie: "left transverse colon" is the transverse colon
            return organ & part & side or organ & part or organ & side
        return organ & part & side or organ & side  # there is no left middle lobe, and poles have no lobes

    @property
    def partial(self) -> bool:
        """Whether it says where in an organ, but not in which."""
        return self.organ is None


def complete(one: Place, other: Place) -> Place | None:
    """Both as one place, or None where they contradict each other or say the same."""
    slots = {}
    for name in ("organ", "side", "part"):
        mine, theirs = getattr(one, name), getattr(other, name)
        if mine and theirs and mine != theirs:
            return None
        slots[name] = mine or theirs
    implied = one.implied or other.implied
    if one.implied and other.implied and one.implied != other.implied:
        return None
    organ = slots["organ"]
    if implied and organ and implied != organ and organ not in ("other", "chest"):
        return None
    return replace(one, **slots, implied=implied)


def find_places(items: list[Item], before: Place | None = None) -> list[Place]:
    """The places of a sentence in order; a bare side counts as one, for it may complete another.

    `before` is the last place of the sentence before, to which "the left one" may be the opposite.
    """
    groups: list[Place] = []
    for at, item in enumerate(items):
        if item.kind not in _COMPONENTS or _names_segment(items, at):
            continue
        piece = _piece(item, at)
        last = groups[-1] if groups else None
        if last and _is_tight(items, last.end, at) and not _belongs_to_next(items, at, last):
            whole = _attach(last, piece)
            if whole:
                groups[-1] = replace(whole, end=at + 1)
                continue
        groups.append(piece)
    places = _settle(items, groups)
    for i, place in enumerate(places):
        opposite = places[i - 1] if i else before
        if not place.named and opposite and opposite.named and {place.side, opposite.side} in _PAIRS:
            places[i] = replace(place, fallback=opposite.named)
    return places


def _names_segment(items: list[Item], at: int) -> bool:
    """Whether "upper" is said of a segment within a part that is named: "superior segment of the left lower lobe"."""
    if items[at].kind not in ("part", "noun") or at + 1 == len(items) or items[at + 1].text not in _SEGMENTS:
        return False
    at += 2
    while at < len(items) and (items[at].kind in ("side", "determiner") or items[at].text in _GLUE):
        at += 1
    return at < len(items) and (items[at].kind == "part" or (items[at].kind == "place" and bool(items[at].value[2])))


def _piece(item: Item, at: int) -> Place:
    span = {"start": at, "end": at + 1}
    if item.kind == "side":
        return Place(side=item.value, **span)
    if item.kind == "part":
        implied = None if item.value in ("upper", "middle", "lower") else "colon"
        return Place(part=item.value, implied=implied, **span)
    if item.kind == "noun":
        return Place(implied=_IMPLIED[item.value], part=_PART_OF_NOUN.get(item.value), **span)
    if item.kind == "organ":
        return Place(organ=item.value, **span)
    organ, side, part = item.value
    return Place(organ=organ, side=side, part=part, **span)


def _attach(last: Place, piece: Place) -> Place | None:
    """`complete`, except that a named organ overrides what a noun implies: "the right lobe of the liver"."""
    if last.organ and piece.implied and last.organ != piece.implied:
        piece = replace(piece, implied=None)
    if piece.organ and last.implied and piece.organ != last.implied:
        last = replace(last, implied=None)
    return complete(last, piece)


def _is_tight(items: list[Item], start: int, end: int) -> bool:
    return all(items[i].text in _GLUE or items[i].value == "the" for i in range(start, end))


def _belongs_to_next(items: list[Item], at: int, last: Place) -> bool:
    """Whether a side that follows an organ opens the next place: "lungs left kidney"."""
    if items[at].kind != "side" or not last.named or last.end != at:
        return False
    following = items[at + 1] if at + 1 < len(items) else None
    return (
        following is not None and following.kind in ("organ", "place") and _attach(last, _piece(following, 0)) is None
    )


def _settle(items: list[Item], groups: list[Place]) -> list[Place]:
    """Neighbours complete each other or lend to each other."""
    merged: list[Place] = []
    for place in groups:
        if merged:
            joint = _joint(items, merged[-1].end, place.start)
            if joint == "comma" and _closes(items, merged[-1], place):
                joint = None
            place = replace(place, joined=joint)
            one_place = joint == "comma" and _adds(merged[-1], place) and not _parts(items, merged[-1], place)
            whole = complete(merged[-1], place) if one_place else None
            if whole:
                merged[-1] = replace(whole, end=place.end)
                continue
        merged.append(place)
    for i in range(len(merged) - 2, -1, -1):  # "left and right upper lobes": the first borrows from the second
        one, other = merged[i], merged[i + 1]
        if other.joined in ("and", "comma") and not one.named and other.named:
            lent = replace(one, organ=other.organ, implied=other.implied, side=one.side or other.side)
            merged[i] = replace(lent, part=one.part or other.part)
        elif other.joined and one.implied == "colon" and not one.organ and other.organ == "colon":
            merged[i] = replace(one, organ="colon")
    for i in range(1, len(merged)):  # "the right upper and middle lobes", "the left kidney, not the right"
        one, other = merged[i - 1], merged[i]
        if not other.joined or not one.named or _parts(items, one, other):
            continue
        if not other.named and other.side and not other.part:
            merged[i] = replace(other, organ=one.organ, implied=one.implied, part=one.part)
        elif other.joined == "and" and other.named == one.named and not other.side and one.side and other.part:
            lent = replace(other, side=one.side)
            if SIDES[one.side] & PARTS.get(other.part, TUMOR_SITES):
                merged[i] = lent
    return [place for place in merged if place.named or place.side in ("left", "right")]


def _adds(one: Place, other: Place) -> bool:
    """Whether each of two places says something that the other leaves out, or one is only a side."""
    mine = {name for name in ("organ", "side", "part", "implied") if getattr(one, name)}
    theirs = {name for name in ("organ", "side", "part", "implied") if getattr(other, name)}
    return not mine & theirs - {"implied"} or (bool(theirs - mine) and bool(mine - theirs))


def _parts(items: list[Item], one: Place, other: Place) -> bool:
    """Whether two findings meet here and not two words of a place: "pneumonia of the left lung, lung cancer"."""
    behind = items[other.end].kind if other.end < len(items) else ""
    before = one.start - 1
    while before >= 0 and items[before].kind == "determiner":
        before -= 1
    led = before >= 0 and items[before].kind == "preposition"
    return behind in _FINDINGS[:-1] and (led or other.organ is not None)


def _closes(items: list[Item], one: Place, other: Place) -> bool:
    """Whether a bare side ends what is said of a tumour whose organ is named, and the next place is that of another
    finding: "kidney cancer, right-sided, lung deposits"."""
    behind = other.end
    while behind < len(items) and items[behind].kind in (*_COMPONENTS, "conjunction"):
        behind += 1
    if one.named or one.part or not other.organ or behind == len(items) or items[behind].kind not in _FINDINGS:
        return False
    for i in range(one.start - 1, max(-1, one.start - _NEAR), -1):
        if items[i].kind == "tumor":
            return items[i].value[1] is not None or (i > 0 and items[i - 1].kind in _COMPONENTS)
        passes = items[i].kind in ("number", "word", "determiner", "preposition", *_SEPARATORS)
        if not passes and items[i].text != "metastatic":
            return False
    return False


def _joint(items: list[Item], start: int, end: int) -> str | None:
    """How two places hang together, from what stands between them."""
    joint = None
    for item in items[start:end]:
        if item.kind == "conjunction":
            joint = "not" if joint == "not" else "and"
        elif item.kind in _SEPARATORS:
            joint = joint or ("and" if item.kind in "/+" else "comma")
        elif item.kind in ("no", "turn"):
            joint = "not"
        elif not (item.kind in ("determiner", "preposition") or item.text in _GLUE):
            return None
    return joint
