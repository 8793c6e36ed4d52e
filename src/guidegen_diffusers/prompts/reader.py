"""Any text as the attributes of a clinical prompt.

The text is cut into sentences (tokens.py) of phrases (phrases.py over lexicon.py); in each, words that take back or
doubt mark what they govern (scopes.py), places are read (places.py) and given to the finding they belong to
(binding.py), and the tumours are read off with their status (findings.py). Here the sentences become one story: what
is stated, narrowed by what is denied. Person (person.py), stage (stage_codes.py) and size (tumor_size.py) are read
beside it. Every step takes time in proportion to the text, for no step looks beyond its sentence and sentences are
cut at a fixed length.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .attributes import COLON, LUNG, TUMOR_SITES
from .findings import Context, Finding, read_sentence
from .person import Person
from .phrases import SPELLER
from .stage_codes import read_stage_codes, says_stage_four
from .staging import size_word
from .tokens import clean, tokenize
from .tumor_size import read_diameters, read_size_words


__all__ = ["read"]


def read(text: str) -> dict[str, Any]:
    """The fields of a `ClinicalPrompt`, as far as the text states them."""
    if not isinstance(text, str):
        raise TypeError(f"text: got {type(text).__name__}, expected a string.")
    text = clean(text)
    story, person = Story(), Person()
    nodes: set[bool] = set()
    metastases: set[bool] = set()
    size_words: set[str] = set()
    diameters: list[float] = []
    context = Context()
    for sentence in tokenize(text, SPELLER):
        reading = read_sentence(sentence, context)
        for finding in reading.findings:
            story.add(finding)
        nodes |= reading.nodes
        metastases |= reading.metastases
        context = replace(reading.context, told=story.told)
        size_words |= read_size_words(reading, story.told)
        diameters += read_diameters(reading, story.told)
        person.add(sentence.tokens, reading.of_relatives)

    lower = text.lower()
    stage = read_stage_codes(lower)
    sites = story.sites(staged=bool(stage["t"]), metastatic=True in metastases)
    if sites == {"none"}:
        return {**person.attributes(), "sites": sites}
    if says_stage_four(lower) and (sites <= LUNG or sites <= COLON):  # in the kidney, T4 alone is stage IV
        metastases.add(True)
    if stage["n"] is None and nodes == {False}:
        stage["n"] = 0
    if stage["m"] is None and len(metastases) == 1:
        stage["m"] = int(metastases.pop())
    size = size_word(max(diameters)) if diameters else next(iter(size_words)) if len(size_words) == 1 else None
    return {**person.attributes(), "sites": sites, **stage, "size": size}


class Story:
    """The findings of a text in order, and the set of sites that they leave possible."""

    def __init__(self):
        self._stated: dict[frozenset[str], int] = {}  # sites by the time of the last statement; no sites: somewhere
        self._doubted: dict[frozenset[str], int] = {}
        self._denied: dict[frozenset[str], int] = {}
        self._elsewhere = False
        self._none = self._removed = False  # some tumour was denied, or removed
        self._last: frozenset[str] = frozenset()
        self._time = 0

    @property
    def told(self) -> bool:
        return bool(self._stated or self._doubted or self._elsewhere)

    def add(self, finding: Finding) -> None:
        self._time += 1
        getattr(self, f"_add_{finding.status}")(finding)

    def _add_stated(self, finding: Finding) -> None:
        if finding.elsewhere:
            self._elsewhere = True
            return
        sites = finding.sites
        if finding.refers and sites & self._last:  # "lung cancer. It is on the left side."
            sites &= self._last
            if self._last in self._doubted and self._last not in self._stated:
                self._doubted[sites] = self._time
                return
            self._stated.pop(self._last, None)
        self._stated[sites] = self._time
        self._last = sites or self._last

    def _add_doubted(self, finding: Finding) -> None:
        if finding.elsewhere:
            self._elsewhere = True
        else:
            self._doubted[finding.sites] = self._time
            self._last = finding.sites or self._last

    def _add_denied(self, finding: Finding) -> None:
        if finding.sites:
            self._denied[finding.sites] = self._time
            return
        self._none = True
        self._doubted.clear()
        if finding.whole:
            self._stated.clear()

    def _add_removed(self, finding: Finding) -> None:
        self._removed = True
        if finding.whole:
            self._stated.clear()
            self._doubted.clear()
        elif finding.sites:
            for sites in [s for s in self._stated if s <= finding.sites or finding.sites <= s]:
                del self._stated[sites]
        elif not finding.elsewhere:
            last = self._stated or self._doubted
            if last:
                del last[max(last, key=last.__getitem__)]

    def sites(self, staged: bool, metastatic: bool) -> frozenset[str]:
        """`staged` and `metastatic`: the text gives a T above 0 or speaks of metastases, and so of some tumour."""
        stated, doubted = self._remaining(self._stated), self._remaining(self._doubted)
        localized = any(self._stated)
        somewhere = TUMOR_SITES.difference(*self._denied)
        if localized and stated:
            sites = stated | doubted
        elif doubted:
            sites = doubted | {"none"}
        elif localized or self._elsewhere:
            sites = frozenset()
        elif self._stated:
            sites = somewhere
        elif self._doubted:
            sites = somewhere | {"none"}
        elif self._removed or (self._none and not metastatic):
            sites = frozenset()
        elif metastatic or staged:
            sites = somewhere
        else:
            sites = somewhere | {"none"}
        return sites or frozenset({"none"})

    def _remaining(self, told: dict[frozenset[str], int]) -> frozenset[str]:
        """The union of the places in `told`, the most specific ones only, without what was denied.

        A denial of the whole ("the lungs are clear") leaves a part of it that was named, and of two statements about
        the same place the later one holds.
        """
        remaining: set[str] = set()
        for sites, time in told.items():
            if any(other and other < sites for other in self._stated):
                continue
            for denied, when in self._denied.items():
                if not (sites < denied or (sites == denied and time > when)):
                    sites -= denied
            remaining |= sites
        return frozenset(remaining)
