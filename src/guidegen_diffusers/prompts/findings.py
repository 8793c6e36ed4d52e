"""The findings of one sentence: which tumours it states, doubts, denies or calls removed, and where."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .attributes import ORGANS
from .binding import Binding, bind, is_keyed
from .clauses import HEADS, PLACES, SEPARATORS, Clauses
from .heads import T_CODES, name_heads
from .phrases import Item, phrases
from .places import SIDES, Place, complete, find_places
from .scopes import FAMILY, HEDGED, NEGATED, NEUTRAL, REMOVED, Scopes
from .spelling import words
from .story import Finding
from .tokens import Sentence


__all__ = ["Context", "Reading", "read_sentence"]


@dataclass(frozen=True, slots=True)
class Context:
    """What earlier sentences leave for the next.

    Args:
        told (`bool`): a tumour was spoken of, so "it is in the left lung" has something to refer to.
        asked (`bool`): the last sentence was a question, so "No." answers it.
        place (`Place`, *optional*): the last that was named, so "the right one" has an opposite.
        topic (`Place`, *optional*): one that stood alone, as a heading or a key does: "Kidney: right."
        form (`bool`): the topic is that of a form for a tumour: "organ: kidney".
    """

    told: bool = False
    asked: bool = False
    place: Place | None = None
    topic: Place | None = None
    form: bool = False


@dataclass(slots=True)
class Reading:
    """What a sentence says: its findings in order, and whether nodes and metastases are affirmed or denied in it."""

    items: list[Item]
    scopes: Scopes
    context: Context  # for the next sentence
    findings: list[Finding] = field(default_factory=list)
    tumors: list[int] = field(default_factory=list)  # items that state or doubt one
    nodes: set[bool] = field(default_factory=set)
    metastases: set[bool] = field(default_factory=set)

    @property
    def of_relatives(self) -> list[bool]:
        """Of each token of the sentence, whether it speaks of a relative."""
        marks = self.scopes.marks
        return [bool(marks[at] & FAMILY) for at, item in enumerate(self.items) for _ in range(item.start, item.end)]


_LOCAL = words("local locally locoregional anastomotic anastomosis stump")
_SIGNS = words("evidence sign signs trace traces indication indications hint suggestion proof")


def read_sentence(sentence: Sentence, context: Context) -> Reading:
    items = phrases(sentence.tokens)
    name_heads(items, context.told)
    places = find_places(items, context.place)
    clauses = Clauses(items, places)
    scopes = Scopes(items, clauses, sentence.question)
    binding = bind(items, clauses, places)
    topic = _topic(items, binding.unbound, context.topic)
    form = context.form or any(item.text == "organ" and is_keyed(items, at) for at, item in enumerate(items))
    ahead = Context(
        asked=sentence.question,
        place=places[-1] if places else context.place,
        topic=topic,
        form=form and not any(item.kind in HEADS for item in items),
    )
    return _Findings(Reading(items, scopes, ahead), binding, context).read()


def _topic(items: list[Item], unbound: list[Place], before: Place | None) -> Place | None:
    """The place that a sentence without a finding sets as a topic: "Kidney: right.", "Organ: kidney. Side: right." """
    if any(item.kind in HEADS for item in items):
        return None
    keys = {i - 1 for i, item in enumerate(items) if item.kind in (":", "=")}
    bare = (*PLACES, *SEPARATORS, "=", "determiner", "preposition", "conjunction", "scan", "locator")
    if any(item.text in ("specimen", "specimens") and item.kind == "scan" for item in items):
        bare = (*bare, "word")  # "specimen: laparoscopic resection of the sigmoid"
    inside = {i for place in unbound for i in range(place.start, place.end)}  # "left radical nephrectomy"
    if not unbound or not all(item.kind in bare or i in keys or i in inside for i, item in enumerate(items)):
        return before
    topic = unbound[0]
    for place in unbound[1:]:
        topic = complete(topic, place) or topic
    return (before and complete(before, topic)) or topic


class _Findings:
    def __init__(self, reading: Reading, binding: Binding, context: Context):
        self.reading, self.binding, self.context = reading, binding, context
        self.items, self.scopes = reading.items, reading.scopes

    def read(self) -> Reading:
        for at, item in enumerate(self.items):
            if self.scopes.marks[at] & (FAMILY | NEUTRAL):
                continue
            if item.kind == "tumor":
                self._tumor(at, *item.value)
            elif item.kind == "locator":
                self._locator(at)
            elif item.kind == "metastasis":
                self._metastasis(at)
            elif item.kind == "node":
                self._node(at)
            elif item.kind == "normal":
                self._normal(at)
            elif item.kind == "resolved":
                self._resolved(at)
            elif at in self.scopes.dangling and self.context.told:
                self._add("removed", ORGANS.get(item.value, frozenset()))
        if len(self.items) == 1 and self.items[0].kind == "no" and self.context.asked:
            self._add("removed")  # "A tumor? No."
        self._fragment()
        self._sized()
        return self.reading

    def _add(self, status: str, sites: frozenset[str] = frozenset(), **more: bool) -> None:
        self.reading.findings.append(Finding(status, sites, **more))

    def _status(self, at: int) -> str:
        if self.scopes.has(at, NEGATED):
            return "denied"
        return "doubted" if self.scopes.has(at, HEDGED) else "stated"

    def _tumor(self, at: int, strength: str, organ: str | None) -> None:
        presupposed = self._is_presupposed(at)
        places: dict[str, list[Place]] = {}
        for place in self._places(at, organ):
            status = self._status(max(at, place.start))
            if status == "stated" and self.scopes.has(at, HEDGED):
                status = "doubted"
            places.setdefault("stated" if presupposed else status, []).append(place)
        own = "stated" if presupposed else self._status(at)
        if not places or (own != "denied" and set(places) == {"denied"}):  # "lung cancer, not in the left lung"
            places[own] = []
        for status, group in places.items():
            sites, elsewhere = _where(group, organ, explicit=strength == "elsewhere", narrow=status != "denied")
            elsewhere = not sites and (elsewhere or strength == "elsewhere")
            if status != "denied" and self._is_removed(at, sites):
                self._add("removed", sites, elsewhere=elsewhere)
            elif status != "denied":
                self.reading.tumors.append(at)
                refers, again = organ is None and self._is_definite(at), self._is_recurrence(at) and self._is_local(at)
                self._add(status, sites, elsewhere=elsewhere, refers=refers, again=again)
            elif self._is_recurrence(at):
                self._add("removed", whole=True)
            elif sites:
                self._add("denied", sites)
            elif not elsewhere:
                self._add("denied", whole=strength == "strong" and not self._is_qualified(at))

    def _places(self, at: int, organ: str | None) -> list[Place]:
        """The places of the tumour at `at`. A bare side is one of the organ that is named beside it, and the topic
        counts where the sentence itself names no organ."""
        places = self.binding.places[at]
        named = organ or next(
            (place.organ or place.fallback for place in places if place.organ or place.fallback), None
        )
        topic = self.context.topic
        if topic and topic.organ in ORGANS and any(place.implied not in (None, topic.organ) for place in places):
            topic = None  # a tumour of an upper lobe under "Kidney: left."
        if topic and named in (None, topic.organ) and not any(place.organ and place.side for place in places):
            places = [replace(topic, start=0, end=0, joined=None), *places]
            named = topic.organ
        return [replace(place, organ=named) if named and not place.named else place for place in places]

    def _is_removed(self, at: int, sites: frozenset[str]) -> bool:
        if not self.scopes.has(at, REMOVED) or any(
            self.items[i].text in ("recurrent", "new", "residual") for i in range(max(0, at - 4), at)
        ):
            return False
        operated = self.scopes.surgery.get(at)
        return operated is None or not sites or bool(sites & operated)

    def _is_presupposed(self, at: int) -> bool:
        """Whether something about the tumour is denied and not the tumour: "no extension of the tumor"."""
        start = at - 1
        while start > 0 and self.items[start].kind in ("word", "size", "part", "side", "organ", "place"):
            start -= 1
        if not (self.scopes.has(at, NEGATED) and start > 1 and self.items[start].value == "the"):
            return False
        noun, preposition = self.items[start - 2], self.items[start - 1]
        return preposition.text in ("of", "by", "from") and noun.kind == "word" and noun.text not in _SIGNS

    def _is_recurrence(self, at: int) -> bool:
        """Whether it is the recurrence or the rest of an earlier tumour: "no recurrence", "no residual tumor"."""
        around = self.items[max(0, at - 4) : at + 2]
        return any(item.text.startswith(("recurr", "relapse", "residual", "viable")) for item in around)

    def _is_local(self, at: int) -> bool:
        """Whether a recurrence is where the earlier tumour was: "local recurrence", "relapse at the anastomosis"."""
        return any(item.text in _LOCAL for item in self.items[max(0, at - 2) : at + 4])

    def _is_definite(self, at: int) -> bool:
        for i in range(at - 1, max(-1, at - 6), -1):
            if self.items[i].kind == "determiner":
                return self.items[i].value == "the"
            if self.items[i].kind not in ("word", "size", "number", "past", "seen", "nontumor"):
                return False
        return False

    def _is_qualified(self, at: int) -> bool:
        """Whether a denial is about other tumours ("no other tumor") or about the past ("never had cancer")."""
        around = range(max(0, at - 8), min(len(self.items), at + 3))
        return any(self.items[i].kind in ("other", "past") or self.items[i].text in ("never", "known") for i in around)

    def _locator(self, at: int) -> None:
        """ "Site: left kidney", "it is located in the left kidney"."""
        keyed = is_keyed(self.items, at)
        places = self.binding.places[at]
        if keyed and at + 2 < len(self.items) and self.items[at + 2].kind == "no" and not places:
            self._add("denied", whole=True)
        elif places and (keyed or self.context.told):
            self._refer(places, self._status(places[-1].start))

    def _resolved(self, at: int) -> None:
        """The patient is free of disease, or an organ is."""
        sites, elsewhere = _where(self.binding.places[at], None, narrow=False)
        if sites:
            self._add("denied", sites)
        elif not elsewhere:
            self._add("removed", whole=True)

    def _fragment(self) -> None:
        """A sentence with places and no finding, after a tumour: "It is in the left kidney.", "Left side." """
        if not self.binding.unbound or any(item.kind in HEADS for item in self.items):
            return
        if self._is_staged():  # "cT3 colon"
            self._refer(self.binding.unbound, "stated")
            return
        if not self.context.told:
            return
        bare = (*PLACES, "determiner", "preposition", "number", "size", "conjunction", *(SEPARATORS - {":"}))
        if self.items[0].kind == "pronoun" or self.items[0].value == "the" or all(i.kind in bare for i in self.items):
            self._refer(self.binding.unbound, self._status(self.binding.unbound[-1].start))

    def _sized(self) -> None:
        """What a form gives the size of is a tumour: "organ: kidney; side: right; size: 6 cm"."""
        topic = self.context.topic if self.context.form and not self.context.told else None
        sized = len(self.items) > 2 and self.items[0].text == "size" and self.items[2].kind in ("number", "size")
        if topic and topic.organ in ORGANS and sized and is_keyed(self.items, 0):
            self._add("stated", topic.sites)

    def _is_staged(self) -> bool:
        """Whether the sentence gives a T, and not a vertebra or the weighting of an image."""
        for at, item in enumerate(self.items[:-1]):
            if item.text in ("tis", "ptis", "ctis") and self.items[at + 1].kind in (*PLACES, ","):
                return True
            code = item.text in T_CODES and self.items[at + 1].value in (1, 2, 3, 4)
            behind = self.items[at + 2] if at + 2 < len(self.items) else None
            if code and (
                behind is None or behind.text[0] in "nm" or (behind.kind != "word" and behind.value != "other")
            ):
                return True
        return False

    def _refer(self, places: list[Place], status: str) -> None:
        sites, elsewhere = _where(places, None)
        if not sites and not elsewhere:
            sites = frozenset().union(*(SIDES[place.side] for place in places if place.side))
        self._add(status, sites, elsewhere=elsewhere, refers=True)

    def _metastasis(self, at: int) -> None:
        places = [place for place in self.binding.places[at] if not self._comes_from(place)]
        for place in self.binding.places[at]:
            if place not in places and place.sites and self._status(place.start) != "denied":
                self._add("stated", place.sites)  # "lung metastases from the left kidney"
        of_nodes = "nodal" in self.items[at].text or self._is_of_nodes(at)
        denied = self.scopes.has(at, NEGATED) or self.items[at].value == "denied"
        if denied and of_nodes:
            self.reading.nodes.add(False)
        elif denied and not places:
            self.reading.metastases.add(False)
        elif not denied and not of_nodes and not self.scopes.marks[at] & (HEDGED | REMOVED):
            self.reading.metastases.add(True)

    def _comes_from(self, place: Place) -> bool:
        for i in range(place.start - 1, max(-1, place.start - 4), -1):
            if self.items[i].kind != "determiner":
                return self.items[i].text == "from"
        return False

    def _is_of_nodes(self, at: int) -> bool:
        if at and self.items[at - 1].kind == "node":
            return True
        for i in range(at + 1, min(len(self.items), at + 6)):
            if self.items[i].kind == "node":
                return True
            if self.items[i].kind not in ("preposition", "determiner", "word", "organ", "side", "place"):
                return False
        return False

    def _node(self, at: int) -> None:
        far = any(self.items[i].text in ("axillary", "inguinal", "cervical") for i in range(max(0, at - 3), at))
        behind = self.items[at + 1 : min(at + 4, self.scopes.clauses.end(at + 1))]
        denied = self.scopes.has(at, NEGATED) or self.items[at].value == "denied"
        if denied or any(item.kind == "no" for item in behind):  # "lymph nodes are not involved"
            if not far:
                self.reading.nodes.add(False)
        elif not self.scopes.has(at, HEDGED) and self._is_involved(at):
            self.reading.nodes.add(True)

    def _is_involved(self, at: int) -> bool:
        around = self.items[max(0, at - 2) : at] + self.items[at + 1 : at + 5]
        return not any(item.kind == "normal" for item in around)

    def _normal(self, at: int) -> None:
        if self.scopes.marks[at] & (NEGATED | HEDGED | REMOVED) or (at and self.items[at - 1].text == "otherwise"):
            return
        places = [place for place in self.binding.places[at] if not self._is_remainder(place)]
        if self.binding.places[at]:
            sites, _ = _where(places, None, narrow=False)
            if sites:
                self._add("denied", sites)
            return
        start, end = self.scopes.clauses.start(at), self.scopes.clauses.end(at)
        kinds = {self.items[i].kind for i in range(start, end)}
        if "node" in kinds:
            self.reading.nodes.add(False)
        elif self._speaks_of_all(at, kinds):
            keyed = at > 1 and self.items[at - 1].kind in (":", "=") and self.items[at - 2].kind == "scan"
            self._add("denied", whole=self.context.form and keyed)  # "organ: kidney; size: 10 cm; finding: normal"

    def _is_remainder(self, place: Place) -> bool:
        """ "The remaining colon is normal" says nothing of the part that is not."""
        return any(self.items[i].kind == "other" for i in range(max(0, place.start - 4), place.start))

    def _speaks_of_all(self, at: int, kinds: set[str]) -> bool:
        text = self.items[at].text
        if text == "healthy":
            return not (at and self.items[at - 1].text == "previously")
        if "scan" in kinds or " " in text or text in ("nad", "wnl"):
            return True
        return kinds <= {"normal", "verb", "determiner", "pronoun", "patient", "conjunction"}


def _where(
    places: list[Place], organ: str | None, explicit: bool = False, narrow: bool = True
) -> tuple[frozenset[str], bool]:
    """Our sites among `places` of a tumour of `organ`, and whether one of them is in an organ that is none of ours.

    `explicit` asks for places that name their organ: a hepatoma "in the right lobe" is not in the lung. `narrow`
    leaves out places that hold a smaller one: "in the lung, in the left upper lobe".
    """
    whole: list[Place] = []
    for place in places:
        if organ and place.named in (None, organ):
            place = replace(place, organ=organ)
        elif place.named is None and place.fallback:
            place = replace(place, organ=place.fallback)
        joint = complete(whole[-1], place) if whole and place.joined != "and" else None
        if joint:
            whole[-1] = joint
        else:
            whole.append(place)
    elsewhere = any(place.named == "other" for place in whole)
    ours = [place for place in whole if place.sites and (place.organ or not explicit)]
    named = {place.sites for place in ours}
    if narrow:
        named -= {place.sites for place in ours if place.part is None and any(sites < place.sites for sites in named)}
    if organ and not any(sites & ORGANS[organ] for sites in named):
        named.add(ORGANS[organ])
    return frozenset().union(*named), elsewhere
