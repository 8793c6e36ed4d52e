"""What notes and dictation abbreviate or swap, spelled out before a text is read: "57yoM", "66 WF", "L RCC".

Plain rewrites that each look at a few characters, so that reading stays linear. Slips are mended here where a word is
too short, or too much like another, for the spelling of the lexicon.
"""

from __future__ import annotations

import re


__all__ = ["spell_out"]

_SEXES = {"M": "male", "F": "female"}
_RACES = {"W": "white", "B": "black", "AA": "African American", "H": "Hispanic", "A": "Asian"}
_DIGITS = {"zero": "0", "one": "1", "two": "2", "three": "3", "four": "4"}
_SLIPS = {
    **dict.fromkeys(("mlae", "amle", "maile", "masculine"), "male"),
    **dict.fromkeys(("femal", "femle", "femlae", "feamle", "famale", "fmale", "femail", "feminine"), "female"),
    **dict.fromkeys(("wman", "womn", "woamn", "womna"), "woman"),
    **dict.fromkeys(("gentelman", "gentelmen", "gentlman"), "gentleman"),
    **dict.fromkeys(("whtie", "wihte", "whiet"), "white"),
    **dict.fromkeys(("balck", "blcak"), "black"),
    **dict.fromkeys(("smal", "samll", "smll"), "small"),
    **dict.fromkeys(("lagre", "larg", "lareg"), "large"),
    **dict.fromkeys(("yaers", "yeras", "yeasr"), "years"),
    "rectm": "rectum",
    "ascendens": "ascending",
    "ascendent": "ascending",
    "descendens": "descending",
    "descendent": "descending",
    "transversum": "transverse colon",
    "neg": "negative",
    "nml": "normal",
    "clr": "clear",
    **dict.fromkeys(("unremark", "unrem"), "unremarkable"),
    **dict.fromkeys(("fn", "fxn"), "function"),
    "mets": "metastases",
}
# a relative of whoever writes is the patient where the writer is not
_RELATIVES = {
    **dict.fromkeys(("mother", "mum", "mom", "wife", "sister", "aunt", "daughter", "grandmother", "gran"), "woman"),
    **dict.fromkeys(("father", "dad", "husband", "brother", "uncle", "son", "grandfather", "grandpa"), "man"),
}
_MINE = re.compile(rf"^\W{{0,3}}(?:(?:hi|hello|dear doctor)\W{{1,3}})?my ({'|'.join(_RELATIVES)})\b", re.IGNORECASE)
# and so is one who is nobody's and has a race, which is not told of a family: "CT: white grandfather aged 88"
_NOBODYS = re.compile(
    r"((?:^|[.;\n]|(?<!istory)(?<!fh)(?<!fhx):|\b(?:ct|scan|image) of|\bgenerate) ?(?:an? )?"
    rf"(?:white|caucasian|black|african american|asian|hispanic) )({'|'.join(_RELATIVES)})\b(?! of)",
    re.IGNORECASE,
)
_SPEAKER = re.compile(r"(?<![\w'])(?:I|I'm|I've|me)(?![\w])")
_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<![\w.])(\d{1,3}) ?(yo|y/o|yr|y) ?([MF])(?!\w)", r"\1 \2 \3"),  # 57yoM
        (r"\((m|f|M|F),? (\d{1,3})\)", r"(\2 \1)"),
        (r"\b([2-9]0) ?- ?something\b", r"in the \g<1>s"),
        (r"(?<=[a-z,] )(?<!the )(?<!his )(?<!her )([2-9]0s)(?=,)", r"in the \1"),  # Male 70s, ...
        (r"\bbetween (\d\d) and (\d\d)(?=,| years)", r"aged \1-\2"),
        (r"\bin the (\d\d ?[-\u2013] ?\d\d) age (?:group|range|bracket)", r"aged \1"),
        (r"\b(over|above|under|below) the age of (?=\d)", r"\1 "),
        (r"(?<![\w/])(?:nl|NL)\b", "normal"),  # "250/nl" counts cells
        (r"\bnot an? (?:normal|unremarkable|healthy|clear)\b", "an abnormal"),
        (r"\b[Mm]et(?:astatic)? (?=RCC\b|NSCLC\b|CRC\b|ca\b)", "metastatic "),
        (r"\bmetastatic work[ -]?up\b", "staging work"),
        (r"\b[Ss]t(?:age)? ?(?=IV\b)", "stage "),
        (r"(?<![\w.])L (?=(?:RCC|NSCLC|CRC|kidney|renal|lung|colon|upper|lower|apex|apical)\b)", "left "),
        (r"(?<![\w.])R (?=(?:RCC|NSCLC|CRC|kidney|renal|lung|colon|upper|middle|lower|apex|apical)\b)", "right "),
        (r"\b[Hh]ep(?:at|atic)?\.? flex(?:ure)?\b\.?", "hepatic flexure"),
        (r"\b[Ss]pl(?:en|enic)?\.? flex(?:ure)?\b\.?", "splenic flexure"),
        (r"\b[Aa]sc\.? (?=colon\b)", "ascending "),
        (r"\b[Dd]esc\.? (?=colon\b)", "descending "),
        (r"\b[Tt]r(?:ans)?v?\.? (?=colon\b)", "transverse "),
        (r"\b[Ss]ig\.? (?=colon\b|ca\b|cancer\b)", "sigmoid "),
        (r"\bT (?=colon\b)", "transverse "),
        (r"\b(upper|lower) part of (?:(?:his|her|my|the|their) )?(left|right) lung\b", r"\1 lobe of the \2 lung"),
        (r"\bbrain (?=MRI\b|CT\b)", ""),
        (r"\b(man|woman|guy|lady|female|male|Chinese|Asian), (\d\d)(?=[,.]|$)", r"\1, aged \2"),
        (r"\b\d'\d{1,2}\"", ""),  # feet and inches
        (r"\bmid[ -](?=transverse|ascending|descending|sigmoid)", ""),
        (r"\b(?:mr|u|r|a)([TNM])(?=[0-4X])", r"\1"),  # MR, ultrasound, recurrence, autopsy
        (r"\b([TN]) ?, ?(?=[NM] ?[0-4])", r"\1 "),
        (r"\bT ([0-4]) ?([a-d]?) N ([0-3X]) M ([01X])\b", r"T\1\2N\3M\4"),
        (r"\b[TLC]\d{1,2} (?:and|to|or) (?=[TLC]\d{1,2} (?:vertebra|level|bod))", ""),
        (r"\bI(?:'m| am)(?: only)? (?=\d\d\b)", "I am aged "),
        (r"\b((?:[Ff]e)?[Mm]ale|(?:FE)?MALE)[.;] (\d\d)(?=[.;]|$)", r"\1, aged \2"),
        (r"\b(put|place|insert|add|paint|draw)( [^.\n]{1,60}?) into ", r"\1\2 in "),
        (r"\bhas (?:gone|moved|travelled|traveled) to\b", "has metastasized to"),
        (r"\beither the (left|right) or the (left|right) ", r"the \1 or \2 "),
    )
)
_RACE_AND_SEX = re.compile(r"(?<=[\dyo] )(AA|W|B|H|A)([MF])(?!\w)")
_DICTATED = re.compile(rf"\b([TNM]) ({'|'.join(_DIGITS)})\b")
_WORD = re.compile(r"[A-Za-z]{3,12}")


def spell_out(text: str) -> str:
    """The text with shorthand spelled out."""
    mine = _MINE.match(text)
    if mine and not _SPEAKER.search(text):
        text = f"The {_RELATIVES[mine[1].lower()]}{text[mine.end() :]}"
    text = _NOBODYS.sub(lambda m: m[1] + _RELATIVES[m[2].lower()], text)
    text = _RACE_AND_SEX.sub(lambda m: f"{_RACES[m[1]]} {_SEXES[m[2]]}", text)
    text = _DICTATED.sub(lambda m: m[1] + _DIGITS[m[2]], text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return _WORD.sub(lambda m: _SLIPS.get(m[0].lower(), m[0]), text)
