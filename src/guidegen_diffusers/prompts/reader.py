"""Any text as the attributes of a clinical prompt.

The text is cut into sentences (tokens.py) of phrases (phrases.py over lexicon.py); in each, words that take back or
doubt mark what they govern (scopes.py), places are read (places.py) and given to the finding they belong to
(binding.py), and the tumours are read off with their status (findings.py). The findings become one story (story.py).
Person (person.py), stage (stage_codes.py) and size (tumor_size.py) are read beside it. Time grows with the length of
the text and no faster, for no step looks beyond its sentence and sentences are cut at a fixed length.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .attributes import COLON, LUNG
from .findings import Context, read_sentence
from .person import Person
from .phrases import SPELLER
from .shorthand import spell_out
from .stage_codes import read_stage_codes, says_stage_four
from .staging import size_word
from .story import Story
from .tokens import clean, tokenize
from .tumor_size import read_diameters, read_size_words


__all__ = ["read"]


def read(text: str) -> dict[str, Any]:
    """The fields of a `ClinicalPrompt`, as far as the text states them."""
    if not isinstance(text, str):
        raise TypeError(f"text: got {type(text).__name__}, expected a string.")
    text = clean(spell_out(text))
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
