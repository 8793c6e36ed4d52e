"""A text as sentences of tokens, in one pass over its characters.

Words are lower case and in one spelling, numbers carry their value, and of the marks only those that shape a sentence
are kept. A sentence ends at a period, a semicolon, a question mark, a blank line, or a line break that reads like one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .spelling import Speller, words


__all__ = ["MAX_SENTENCE", "Sentence", "Token", "clean", "tokenize"]

MAX_SENTENCE = 200  # tokens; longer runs are cut, which bounds whatever looks around within a sentence
MAX_DIGITS = 6  # longer numbers mean nothing here

_CHARACTERS = str.maketrans(
    {
        "\u00ad": "",  # soft hyphen
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"),
        "\u2014": " - ",
        **dict.fromkeys("\u2018\u2019\u201b\u02bc\u0060\u00b4", "'"),
        **dict.fromkeys("[{", "("),
        **dict.fromkeys("]}", ")"),
        **dict.fromkeys('_"\u201c\u201d\u00ab\u00bb*#\t\u00a0', " "),
        **dict.fromkeys("\r\u2028\u2029\v\f", "\n"),
        "\u00d7": " x ",
        "\u2264": "<=",
        "\u2265": ">=",
        "\u2642": " male ",
        "\u2640": " female ",
        "\u00bf": "?",
        "\u2026": ". ",
        "\u2022": "\n",
        "|": ";",
    }
)
_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"<([A-Za-z_ ]{1,30})>", r"; \1: "),  # <site>left kidney</site>
        (r"</[A-Za-z_ ]{1,30}>", " ; "),
        (r"\b([A-Za-z])\.([A-Za-z])\b\.?", r"\1\2 "),  # y.o., e.g.
        (r"([A-Za-z])-[ ]?\n[ ]?(?=[a-z])", "\\1\x01"),  # a word broken over two lines
        (r"(?<![\w)?])\?{1,3}(?=\w)", " query "),  # ?RLL mass
        (r"(^|[.;:,(\n])[ ]{0,2}\?{1,3}[ ](?=\w)", r"\1 query "),
        (r"(?<=[0-9])[ ]?-[ ]?(?=[0-9])", " to "),  # 61-70
        (r"(?<=\w)-(?=\w)", " "),
        (r"(?<=[0-9]),(?=[0-9]{1,2} ?[cm]m\b)", "."),  # 4,2 cm
        (r"(?<![0-9])\.(?=[0-9])", " 0."),
    )
)
_TOKEN = re.compile(
    r"(?<![a-z])(?:(?:[cr]/[ow]|h/o|[dsfy]/[optu]|n/a|b/l|w/o)(?![a-z])|w/)"  # r/o, s/p, y/o
    r"|[^\W\d_]+(?:['\x01][^\W\d_]+)*|[0-9]+(?:\.[0-9]+)?|<=|>=|[.,;:()?!/&+<>=-]",
    re.IGNORECASE,
)
_TITLES = words("mr mrs ms dr prof st")
_ABBREVIATIONS = words("vs approx ca pt pts yr yrs yo resp incl dx hx abd bilat diam max min ct lt rt no cm mm")
_LENGTHS = words("cm mm")
# after these a line goes on, whatever the next one begins with
_OPEN_ENDED = words("a an the of in on at to from with and or is are was left right upper lower middle no for by")
_UNITS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9}
_TEENS = {
    "ten": 10,
    "eleven": 11,
    "twelve": 12,
    "thirteen": 13,
    "fourteen": 14,
    "fifteen": 15,
    "sixteen": 16,
    "seventeen": 17,
    "eighteen": 18,
    "nineteen": 19,
}
_TENS = {
    "twenty": 20,
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "seventy": 70,
    "eighty": 80,
    "ninety": 90,
}
_COUNTED = words("year years month months week weeks day days cm mm centimeter centimeters")


@dataclass(slots=True)
class Token:
    """One word, number or mark; `raw` keeps its capitals."""

    word: str
    raw: str
    value: float | None = None


@dataclass(slots=True)
class Sentence:
    tokens: list[Token]
    question: bool = False


def clean(text: str) -> str:
    """The text with one form of each mark, and with what marks abbreviate spelled out."""
    text = text.translate(_CHARACTERS)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text


def tokenize(text: str, speller: Speller) -> list[Sentence]:
    """The sentences of a `clean` text, none empty."""
    sentences: list[Sentence] = []
    tokens: list[Token] = []
    shouting = text.isupper()

    def close(question: bool = False) -> None:
        if tokens:
            sentences.append(Sentence(_join_numbers(tokens), question))
            tokens.clear()

    for line in text.split("\n"):
        if tokens and _begins_anew(line, tokens[-1], shouting):
            close()
        for match in _TOKEN.finditer(line):
            raw = match[0]
            if len(tokens) >= MAX_SENTENCE:
                close()
            if raw[0] in "0123456789":
                value = float(raw) if len(raw) <= MAX_DIGITS else None
                tokens.append(Token("0" if value is None else raw, raw, value))
            elif raw[0].isalnum():
                tokens.extend(_words(raw, speller))
            elif raw in "!;":
                close()
            elif raw == "?":
                close(question=True)
            elif raw == ".":
                if not (tokens and _abbreviates(tokens[-1].word, line[match.end() : match.end() + 2])):
                    close()
            elif raw == "-" and not tokens:
                continue  # a bullet
            elif not (tokens and tokens[-1].word == raw):  # a mark repeated says nothing more
                tokens.append(Token(raw, raw))
    close()
    return sentences


def _begins_anew(line: str, last: Token, shouting: bool) -> bool:
    """Whether a line begins a sentence though the one before it has not ended."""
    start = line.lstrip()[:2]
    if not start or start[0] in "-+>(":
        return True
    return last.word not in _OPEN_ENDED and last.word != "," and (shouting or not start[0].islower())


def _abbreviates(word: str, following: str) -> bool:
    if word in _TITLES:
        return True
    if word in _LENGTHS and following[1:].isdigit():  # "19 mm. 59 y/o"
        return False
    return word in _ABBREVIATIONS and following[:1] in " ," and not following[1:].isupper() and following != " "


def _words(raw: str, speller: Speller) -> list[Token]:
    word = raw.lower()
    if "\x01" in word:
        whole = word.replace("\x01", "")
        if speller.mend(whole) in speller.words:
            return [Token(speller.mend(whole), whole)]
        return [Token(speller.mend(part), part) for part in word.split("\x01") if part]
    if word == "cannot" or word.endswith("n't"):
        word = word[:-3]
        return [Token({"ca": "can", "wo": "will"}.get(word, word), raw), Token("not", "not")]
    return [Token(speller.mend(word.partition("'")[0]), raw)]


def _join_numbers(tokens: list[Token]) -> list[Token]:
    """A copy where "sixty two" is 62; "one" to "nine" only where something is counted, for they are pronouns too."""
    joined: list[Token] = []
    for i, token in enumerate(tokens):
        following = tokens[i + 1].word if i + 1 < len(tokens) else ""
        previous = tokens[i - 1].word if i else ""
        if token.word in _TEENS or token.word in _TENS:
            value = float(_TEENS.get(token.word) or _TENS[token.word])
            joined.append(Token(f"{value:.0f}", token.raw, value))
        elif token.word in _UNITS and previous in _TENS:
            value = joined[-1].value + _UNITS[token.word]
            joined[-1] = Token(f"{value:.0f}", joined[-1].raw, value)
        elif token.word in _UNITS and following in _COUNTED:
            value = float(_UNITS[token.word])
            joined.append(Token(f"{value:.0f}", token.raw, value))
        else:
            joined.append(token)
    return joined
