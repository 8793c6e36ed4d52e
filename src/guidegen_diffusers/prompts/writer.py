"""A clinical prompt in words: the canonical sentence, and many other ways in which clinics say the same.

Each style is a template (templates.py) whose slots are filled here from the prompt. Whatever is written is read back
by the reader to the same prompt, open attributes included.
"""

from __future__ import annotations

import re

from .attributes import AGES, ALL_SITES, ORGANS, SITES
from .templates import BRIEF, SITE_NAMES, TEMPLATES


__all__ = ["MAX_CANONICAL", "NUM_STYLES", "write"]

NUM_STYLES = len(TEMPLATES)
MAX_CANONICAL = 200  # characters; what a text encoder reads well

_NOTHING = "This is the CT scan of a patient."
_SLOT = re.compile(r"{(\w+)}")
_RACES = {"asian": ("Asian", "Asian"), "black": ("black", "African American"), "white": ("white", "Caucasian")}
_DECADES = dict(
    zip(AGES, ["twenties", "thirties", "forties", "fifties", "sixties", "seventies", "eighties"], strict=True)
)
_FULL = {"<=30": "30 years old or younger", ">80": "over 80 years old"}
_AGED = {"<=30": "aged 30 or younger", ">80": "aged over 80"}
_ABBREVIATIONS = {  # RUL for the right upper lobe
    name: "".join(word[0] for word in name.split()).upper() for name in SITE_NAMES.values() if name.endswith("lobe")
}
_POSSESSIVES = {"female": "her", "male": "his", None: "their"}


def write(prompt, style: int) -> str:
    if type(style) is not int or not 0 <= style < NUM_STYLES:
        raise ValueError(f"style: got {style!r}, expected a whole number from 0 to {NUM_STYLES - 1}.")
    slots = {**_person(prompt, style), **_tumor(prompt), **_stage(prompt)}
    text = _fill(TEMPLATES[style], slots)
    return _fill(BRIEF, slots) if style == 0 and len(text) > MAX_CANONICAL else text


def _fill(template: str, slots: dict[str, str]) -> str:
    sentences = []
    for sentence in template.split(" / "):
        first, *others = sentence.split(" + ")
        text = _fill_part(first, slots)
        if text:
            sentences.append(text + "".join(_fill_part(part, slots) for part in others) + ".")
    said = any(_SLOT.search(sentence) is None for sentence in template.split(" / ")) or sentences
    return " ".join(sentences) if said else _NOTHING


def _fill_part(part: str, slots: dict[str, str]) -> str:
    """The part with its slot filled and joined to what stands before, or nothing."""
    slot = _SLOT.search(part)
    if slot:
        value = slots[slot[1].lower()]
        if not value:
            return ""
        value = value[0].upper() + value[1:] if slot[1][0].isupper() else value
        part = part.replace(slot[0], value)
    return f" {part}" if part.startswith(("(", "[", "and ")) else part


def _person(prompt, style: int) -> dict[str, str]:
    """The patient as a noun phrase, in the shapes that templates ask for; all empty where nothing is known."""
    sex, age, race = prompt.sex, prompt.age, prompt.race
    adjective = _RACES[race][style % 2] + " " if race in _RACES else ""
    behind = " of other race" if race == "other" else ""
    years = str(_exact_years(age, style)) if age else ""
    noun = adjective + (sex or "person") + behind
    word = adjective + {"female": "woman", "male": "man", None: "patient"}[sex] + behind
    slots = {
        "person": _article(noun) + (f", {_FULL.get(age, f'{age} years old')}" if age else ""),
        "aged": _article(word) + (f"{',' if behind else ''} {_AGED.get(age, f'aged {age}')}" if age else ""),
        "exact": _article(f"{years}-year-old {word}" if age else word),
        "decade": _article(word) + (f" in {_POSSESSIVES[sex]} {_DECADES[age]}" if age else ""),
        "brief": _brief(sex, years, (adjective + behind).strip()),
    }
    known = sex or age or race
    return {name: text if known else "" for name, text in slots.items()} | {
        "sex": sex or "",
        "years": years,
        "race": race or "",
    }


def _brief(sex: str | None, years: str, race: str) -> str:
    """ "64M, white"."""
    person = f"{years}{sex[0].upper()}" if sex and years else f"{years} y/o" if years else sex or ""
    return ", ".join(part for part in (person, race) if part)


def _exact_years(age: str, style: int) -> int:
    """Some age of the bin, another in each style."""
    first, last = {"<=30": (18, 30), ">80": (81, 95)}.get(age) or map(int, age.split("-"))
    return first + (3 + 7 * style) % (last - first + 1)


def _article(noun: str) -> str:
    return ("an " if noun[0] in "AEIOaeio8" or noun.startswith(("11", "18")) else "a ") + noun


def _tumor(prompt) -> dict[str, str]:
    """The tumour in five wordings: none, one, or either, where the prompt leaves even that open."""
    sites = prompt.sites - {"none"}
    if not sites:
        return {
            "tumor": "no tumor",
            "tumour": "no tumour",
            "mass": "no mass",
            "malignancy": "no malignancy",
            "abbreviated": "no tumor",
        }
    if prompt.sites == ALL_SITES and prompt.t is prompt.n is prompt.m is prompt.size is None:
        return dict.fromkeys(("tumor", "tumour", "mass", "malignancy", "abbreviated"), "")
    names = _names(sites) if len(sites) < len(SITES) - 1 else []
    organ = next((organ for organ, all_of_it in ORGANS.items() if sites <= all_of_it), None)
    size = f"{prompt.size} " if prompt.size else ""
    places = " or ".join(f"the {name}" for name in names)
    place = "" if organ and names == [organ] else f" in {places}" if names else ""
    of_place = f" of {places}" if names else ""
    open_ended = "none" in prompt.sites
    return {
        "tumor": ("either no tumor or " if open_ended else "")
        + _article(f"{size}{f'{organ} cancer' if organ else 'tumor'}{place}"),
        "tumour": ("possibly " if open_ended else "") + _article(f"{size}tumour{of_place}"),
        "mass": _article(f"{'possible ' if open_ended else ''}{size}mass{f' in {places}' if names else ''}"),
        "malignancy": ("either no malignancy or " if open_ended else "") + _article(f"{size}malignancy{of_place}"),
        "abbreviated": f"{'possible ' if open_ended else ''}{size}{_abbreviated(names)}",
    }


def _names(sites: frozenset[str]) -> list[str]:
    """`sites` as few disjoint places, each with a name of its own."""
    names, rest = [], set(sites)
    for group, name in SITE_NAMES.items():
        if group <= rest:
            names.append(name)
            rest -= group
    return names


def _abbreviated(names: list[str]) -> str:
    """ "RUL mass", "left renal mass", "mass in LUL, RLL or left kidney"."""
    names = [_ABBREVIATIONS.get(name, name) for name in names]
    if len(names) == 1 and " or " not in names[0] and " of " not in names[0]:
        return names[0].replace("kidney", "renal") + " mass"
    return f"mass in {' or '.join([', '.join(names[:-1]), names[-1]] if names[1:] else names)}" if names else "mass"


def _stage(prompt) -> dict[str, str]:
    """The stage as codes, X for what is open, and in words."""
    t, n, m = prompt.t, prompt.n, prompt.m
    if t is n is m is None:
        return dict.fromkeys(("tnm", "spaced", "commas", "words"), "")
    codes = [letter + ("X" if value is None else str(value)) for letter, value in zip("TNM", (t, n, m), strict=True)]
    words = [
        "" if t is None else f"T{t}",
        "" if n is None else f"N{n}" if n else "no nodal involvement",
        "" if m is None else "with distant metastases" if m else "no distant metastases",
    ]
    return {
        "tnm": "".join(codes),
        "spaced": " ".join(codes),
        "commas": ", ".join(codes),
        "words": ", ".join(word for word in words if word),
    }
