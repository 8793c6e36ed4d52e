"""The age of a patient: "62-year-old", "62M", "aged 61-70", "in his sixties", "over 80", "octogenarian".

A number is an age only in company that makes it one; "5 years ago", "40 pack-years" and "60 mm" are none. Vague bounds
("over 70") that span several bins are none either.
"""

from __future__ import annotations

from math import inf

from .attributes import AGES
from .tokens import Token


__all__ = ["age_bin", "read_age", "read_age_word"]

_BINS = ((0, 30), (31, 40), (41, 50), (51, 60), (61, 70), (71, 80), (81, 125))
_YEARS = frozenset("year years yr yrs y yo y/o".split())
_SHORT_TIMES = frozenset("month months mo mos week weeks wk wks day days".split())
_UNITS = frozenset("mm cm cms % kg g mg ml l pack hu kv min minutes hours percent x times slices".split())
# "for 5 years", "5 years ago": a time and no age
_TIME_BEFORE = frozenset(
    "for past last since within in after every next previous during first nearly almost some few than approximately".split()
)
_TIME_BEHIND = frozenset(
    """ago earlier later prior before after history pack follow followup survival duration interval back course since
    smoking smoker postoperative status free disease now""".split()
)
_ABOVE = frozenset("over above beyond > older".split())
_BELOW = frozenset("under below < younger".split())
_OR_MORE = frozenset("older over above more".split())
_OR_LESS = frozenset("younger under below less".split())
_DECADES = dict(
    zip("twenties thirties forties fifties sixties seventies eighties nineties".split(), range(20, 100, 10), strict=True)
)
_LEADS = frozenset("his her their early mid late".split())  # to "sixties", which may be a decade of the century
_WORDS = {
    **dict.fromkeys("infant newborn neonate baby toddler child teenager teenage adolescent teens".split(), 10),
    "quinquagenarian": 55,
    "sexagenarian": 65,
    "septuagenarian": 75,
    "octogenarian": 85,
    "nonagenarian": 95,
    "centenarian": 100,
}
_SEX_WORDS = frozenset("m f male female man woman gentleman lady boy girl patient pt person".split())
_TITLES = frozenset("mr mrs ms miss".split())
_STAGE_LETTERS = frozenset("t n m pt ct yp stage grade grades type level segment no number".split())


def age_bin(low: float, high: float) -> str | None:
    """The bin of AGES that holds most of the years `low` to `high`, the later of two alike."""
    if low > high or low > _BINS[-1][1]:
        return None
    if high == inf:
        return AGES[-1] if low >= 80 else None
    years = [min(high, last) - max(low, first) for first, last in _BINS]
    return AGES[max(range(len(AGES)), key=lambda i: (years[i], i))]


def read_age_word(tokens: list[Token], at: int) -> str | None:
    """The bin of a word that is an age by itself."""
    word = tokens[at].word
    if word in _WORDS:
        return age_bin(_WORDS[word], _WORDS[word])
    if word in _DECADES and _word(tokens, at - 1) in _LEADS:
        return age_bin(_DECADES[word] + 1, _DECADES[word] + 9)
    return None


def read_age(tokens: list[Token], at: int) -> tuple[str, bool] | None:
    """The bin that the number at `at` stands for, and whether it dates an event; None where it is no age."""
    if _word(tokens, at - 1) in ("to", "and") and _value(tokens, at - 2) is not None:
        return None  # the second of a range
    low = high = int(tokens[at].value)
    start, end = at, at + 1
    if _word(tokens, end) in ("to", "and") and _value(tokens, end + 1) is not None:
        if _word(tokens, end) == "to" or _word(tokens, at - 1) == "between":
            high, end = int(tokens[end + 1].value), end + 2
    if _word(tokens, end) == "s" and low % 10 == 0 and 20 <= low < 100:  # "60s"
        if _word(tokens, at - 1) in _LEADS or _word(tokens, at - 1) in ("the", "in", "aged"):
            return age_bin(low + 1, low + 9), False
        return None

    before = _word(tokens, at - 1)
    words = (_word(tokens, at - 2), before)
    bounded = True
    if before in _ABOVE or words in (("older", "than"), ("more", "than")):
        low, high, start = low + 1, inf, at - 1 - (before == "than")
    elif before == ">=" or words == ("at", "least"):
        high, start = inf, at - 1 - (before == "least")
    elif before in _BELOW or words in (("younger", "than"), ("less", "than")):
        low, high, start = 0, high - 1, at - 1 - (before == "than")
    elif before == "<=" or words in (("at", "most"), ("up", "to")):
        low, start = 0, at - 1 - (before != "<=")
    elif _word(tokens, end) == "+":
        high, end = inf, end + 1
    else:
        bounded = False

    kind = _kind(tokens, start, end, bounded)
    if kind is None:
        return None
    if kind == "infant":
        low = high = 0
    if _after_years(tokens, end) == "or":
        behind = _word(tokens, _years_end(tokens, end) + 1)
        if behind in _OR_MORE:
            high = inf
        elif behind in _OR_LESS:
            low = 0
        bounded = True
    if bounded and low == 0 and high > 30:
        return None
    found = age_bin(low, high)
    return None if found is None else (found, kind == "dated")


def _kind(tokens: list[Token], start: int, end: int, bounded: bool) -> str | None:
    """What makes the number an age: "years", "infant", "dated", or nothing."""
    before, behind = _word(tokens, start - 1), _word(tokens, end)
    if (before in _STAGE_LETTERS and tokens[end - 1].value < 10) or behind in _UNITS or "pack" in (before, behind):
        return None
    if behind in _SHORT_TIMES:
        return "infant" if _word(tokens, end + 1) in ("old", "of") else None
    if before in ("aged", "ages", "age") or _is_keyed(tokens, start):
        return "dated" if before == "age" and _word(tokens, start - 2) == "at" else "years"
    if before in ("of", "is", "was", "around", "about", "group", "range", "between") and _word(tokens, start - 2) in ("age", "aged"):
        at = start - 3 if _word(tokens, start - 3) != "the" else start - 4
        return "dated" if _word(tokens, at) == "at" else "years"
    if behind in _YEARS:
        return _years_kind(tokens, start, end, bounded)
    if behind in _SEX_WORDS or (behind == "/" and _word(tokens, end + 1) in _SEX_WORDS):
        return _sex_kind(tokens, end + (behind == "/"))
    if _word(tokens, end + 1) in _SEX_WORDS - {"m", "f"} and behind.isalpha() and behind not in ("and", "or", "in", "of", "the"):
        return "years"  # "62 white male"
    if behind == "old":
        return "years"
    subject = _word(tokens, start - 2) if before in ("is", "was") else before
    if subject in ("he", "she", "patient", "pt") and (not behind.isalpha() or behind in ("and", "with")):
        return "years"  # "he is 55"
    if bounded and tokens[end - 1].value and _opens(tokens, start) and not behind.isalpha():
        return "years"  # "a patient over 80"
    return "years" if _stands_beside_sex(tokens, start, end) else None


def _years_kind(tokens: list[Token], start: int, end: int, bounded: bool) -> str | None:
    after = _after_years(tokens, end)
    if after in ("old", "olds", "of", "aged") or _word(tokens, end) in ("yo", "y/o"):
        return None if after == "of" and _word(tokens, end + 2) != "age" else "years"
    before = _word(tokens, start - 1)
    if after in _TIME_BEHIND or before in _TIME_BEFORE:
        return None
    if bounded or after == "or" or after in _SEX_WORDS:
        return "years"
    closes = not after.isalpha() or after in ("with", "who", "presenting", "and", "diagnosed")
    return "years" if closes and _opens(tokens, start) else None


def _opens(tokens: list[Token], start: int) -> bool:
    """Whether what stands before lets an age begin: nothing, a mark, or the patient."""
    before = _word(tokens, start - 1)
    if before == "of":
        before = _word(tokens, start - 2)
    return not before.isalpha() and before not in (">", "<") or before in _SEX_WORDS or before in ("is", "was", "being")


def _sex_kind(tokens: list[Token], sex: int) -> str | None:
    """ "62M" is an age, the 1 of "N1M0" is none."""
    if _word(tokens, sex) in ("m", "f") and (_value(tokens, sex + 1) is not None or _word(tokens, sex + 1) == "x"):
        return None
    return "years"


def _stands_beside_sex(tokens: list[Token], start: int, end: int) -> bool:
    """ "male, 62", "a man of 62", "woman (71)", "M/62", and nothing behind that counts something else."""
    behind = _word(tokens, end)
    if behind.isalpha() and behind not in ("with", "who", "has", "presenting", "presents", "admitted", "diagnosed"):
        return False
    at = start - 1
    while at >= 0 and _word(tokens, at) in (",", "(", "/", "of", "aged", "-", "."):
        at -= 1
    word = _word(tokens, at)
    if _word(tokens, start - 1) == behind == ",":  # "Mrs Smith, 54, has ..."
        return any(_word(tokens, i) in _SEX_WORDS | _TITLES for i in range(max(0, start - 5), start - 1))
    if word in ("m", "f"):
        return at == 0 and at < start - 1 or at == 0 and behind in ("", ",")
    return at < start - 1 and word in _SEX_WORDS and word not in ("patient", "pt", "person") or (
        word in ("man", "woman", "male", "female") and at == start - 1
    )


def _is_keyed(tokens: list[Token], start: int) -> bool:
    """ "age: 62", "age (years): 62"."""
    if _word(tokens, start - 1) not in (":", "="):
        return False
    return any(_word(tokens, at) == "age" for at in range(start - 5, start - 1))


def _years_end(tokens: list[Token], end: int) -> int:
    """Behind "years", "years old" and "years of age"."""
    while _word(tokens, end) in _YEARS or _word(tokens, end) in ("of", "age", "old"):
        end += 1
    return end


def _after_years(tokens: list[Token], end: int) -> str:
    if _word(tokens, end) == "or":
        return "or"
    after = _word(tokens, end + 1)
    if after in ("old", "of") and _word(tokens, _years_end(tokens, end)) == "or":
        return "or"
    return after


def _word(tokens: list[Token], at: int) -> str:
    return tokens[at].word if 0 <= at < len(tokens) else ""


def _value(tokens: list[Token], at: int) -> float | None:
    return tokens[at].value if 0 <= at < len(tokens) else None
