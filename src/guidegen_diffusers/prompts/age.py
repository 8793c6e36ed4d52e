"""The age of a patient: "62-year-old", "62M", "aged 61-70", "in his sixties", "over 80", "octogenarian".

A number is an age only in company that makes it one; "5 years ago", "40 pack-years" and "60 mm" are none. Vague bounds
("over 70") that span several bins are none either.
"""

from __future__ import annotations

from math import inf

from .attributes import AGES
from .spelling import words
from .tokens import Token


__all__ = ["age_bin", "read_age", "read_age_word"]

_BINS = ((0, 30), (31, 40), (41, 50), (51, 60), (61, 70), (71, 80), (81, 125))
_YEARS = words("year years yr yrs y yo y/o")
_SHORT_TIMES = words("month months mo mos week weeks wk wks day days")
_UNITS = words("mm cm cms kg g mg ml l pack hu kv min minutes hours percent x times slices")
# "for 5 years", "5 years ago": a time and no age
_TIME_BEFORE = words(
    "for past last since within in after every next previous during first nearly almost some few than approximately"
)
_TIME_BEHIND = words(
    """ago earlier later prior before after history pack follow followup survival duration interval back course since
    smoking smoker postoperative status free disease now"""
)
_ABOVE, _BELOW = words("over above beyond > older"), words("under below < younger")
_OR_MORE, _OR_LESS = words("older over above more"), words("younger under below less")
_DECADES = {
    "twenties": 20,
    "thirties": 30,
    "forties": 40,
    "fifties": 50,
    "sixties": 60,
    "seventies": 70,
    "eighties": 80,
    "nineties": 90,
}
_LEADS = words("his her their early mid late")  # to "sixties", which may be a decade of the century
_CHILDREN = words("infant newborn neonate baby toddler child teenager teenage adolescent")
_ELDERS = {
    "quinquagenarian": 55,
    "sexagenarian": 65,
    "septuagenarian": 75,
    "octogenarian": 85,
    "nonagenarian": 95,
    "centenarian": 100,
}
_PEOPLE = words("male female man woman gentleman lady boy girl")
_SUBJECTS = _PEOPLE | words("he she patient pt")
_ANYONE = _PEOPLE | words("m f patient pt person")
_TITLES = words("mr mrs ms miss")
_SUBJECTS_GO_ON = words("with who has presenting presents admitted diagnosed")
_KEY_JOINTS = words("of is was around about group range between")
_COUNTED = words("t n m pt ct yp stage grade grades type level segment no number")  # "T2", "grade 3"


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
    if word in _CHILDREN:
        return AGES[0]
    if word in _ELDERS:
        return age_bin(_ELDERS[word], _ELDERS[word])
    if word in _DECADES and _word(tokens, at - 1) in _LEADS:
        return age_bin(_DECADES[word] + 1, _DECADES[word] + 9)
    return None


def read_age(tokens: list[Token], at: int) -> tuple[str, bool] | None:
    """The bin that the number at `at` stands for, and whether it dates an event; None where it is no age."""
    if _word(tokens, at - 1) in ("to", "and") and _value(tokens, at - 2) is not None:
        return None  # the second of a range
    low = high = int(tokens[at].value)
    end = at + 1
    joint = ("to", "and") if _word(tokens, at - 1) == "between" else ("to",)
    if _word(tokens, end) in joint and _value(tokens, end + 1) is not None:
        high, end = int(tokens[end + 1].value), end + 2
    if _word(tokens, end) == "s" and low % 10 == 0 and 20 <= low < 100:  # "in her 60s"
        leads = _word(tokens, at - 1) in _LEADS | {"the", "in", "aged"}
        return (age_bin(low + 1, low + 9), False) if leads else None

    start, low, high, bounded = _bounds(tokens, at, low, high)
    if _word(tokens, end) == "+":
        high, end, bounded = inf, end + 1, True
    kind = _kind(tokens, start, end, bounded)
    if kind is None:
        return None
    if kind == "infant":
        low = high = 0
    behind = _behind_years(tokens, end)
    if _word(tokens, behind) == "or":
        if _word(tokens, behind + 1) in _OR_MORE:
            high = inf
        elif _word(tokens, behind + 1) in _OR_LESS:
            low = 0
    if low == 0 and high > 30:
        return None
    found = age_bin(low, high)
    return None if found is None else (found, kind == "dated")


def _bounds(tokens: list[Token], at: int, low: float, high: float) -> tuple[int, float, float, bool]:
    """What "over", "at most" and the like before the number make of it, and where they begin."""
    before = _word(tokens, at - 1)
    pair = (_word(tokens, at - 2), before)
    if before in _ABOVE:
        return at - 1, low + 1, inf, True
    if pair in (("older", "than"), ("more", "than")):
        return at - 2, low + 1, inf, True
    if before == ">=" or pair == ("at", "least"):
        return at - 1 - (before == "least"), low, inf, True
    if before in _BELOW:
        return at - 1, 0, high - 1, True
    if pair in (("younger", "than"), ("less", "than")):
        return at - 2, 0, high - 1, True
    if before == "<=" or pair in (("at", "most"), ("up", "to")):
        return at - 1 - (before != "<="), 0, high, True
    return at, low, high, False


def _kind(tokens: list[Token], start: int, end: int, bounded: bool) -> str | None:
    """What makes the number an age: "years", "infant" or "dated", or nothing."""
    before, behind = _word(tokens, start - 1), _word(tokens, end)
    if (before in _COUNTED and tokens[end - 1].value and tokens[end - 1].value < 10) or behind in _UNITS:
        return None
    if "pack" in (before, behind):
        return None
    if behind in _SHORT_TIMES:
        return "infant" if _word(tokens, end + 1) in ("old", "of") else None
    keyed = _kind_by_key(tokens, start)
    if keyed:
        return keyed
    if behind in _YEARS:
        return _kind_by_years(tokens, start, end, bounded)
    slash = behind == "/"
    if _word(tokens, end + slash) in _ANYONE:  # "62M", "62/M", but not the 1 of "N1M0"
        sex, next_value = _word(tokens, end + slash), _value(tokens, end + slash + 1)
        return None if sex in ("m", "f") and next_value is not None else "years"
    if behind == "old":
        return "years"
    if _word(tokens, end + 1) in _PEOPLE and behind.isalpha() and behind not in ("and", "or", "in", "of", "the"):
        return "years"  # "62 white male"
    subject = _word(tokens, start - 2) if before in ("is", "was") else before
    if subject in _SUBJECTS and (not behind.isalpha() or behind in ("and", "with")):
        return "years"  # "he is 55"
    if bounded and _opens(tokens, start) and not behind.isalpha():
        return "years"  # "a patient over 80"
    return "years" if _stands_beside_sex(tokens, start, end) else None


def _kind_by_key(tokens: list[Token], start: int) -> str | None:
    """ "aged 62", "age: 62", "age group 61-70", "at the age of 62"."""
    before, second = _word(tokens, start - 1), _word(tokens, start - 2)
    if before in (":", "="):
        return "years" if any(_word(tokens, i) == "age" for i in range(start - 5, start - 1)) else None
    if before in ("aged", "ages"):
        return "years"
    if before == "age":
        return "dated" if second == "at" else "years"
    if second in ("age", "aged") and before in _KEY_JOINTS:
        article = _word(tokens, start - 3) == "the"
        return "dated" if _word(tokens, start - 3 - article) == "at" else "years"
    return None


def _kind_by_years(tokens: list[Token], start: int, end: int, bounded: bool) -> str | None:
    """ "62 years old", "62 years of age", "62 y/o"; "62 years" only where nothing makes it a length of time."""
    after = _word(tokens, end + 1)
    if _word(tokens, end) in ("yo", "y/o") or after in ("old", "aged"):
        return "years"
    if after == "of":
        return "years" if _word(tokens, end + 2) == "age" else None
    if after in _TIME_BEHIND or _word(tokens, start - 1) in _TIME_BEFORE:
        return None
    if bounded or after == "or" or after in _ANYONE:
        return "years"
    closes = not after.isalpha() or after in ("with", "who", "presenting", "and", "diagnosed")
    return "years" if closes and _opens(tokens, start) else None


def _opens(tokens: list[Token], start: int) -> bool:
    """Whether what stands before lets an age begin: nothing, a mark, or the patient."""
    before = _word(tokens, start - 1)
    if before == "of":
        before = _word(tokens, start - 2)
    if before in _ANYONE or before in ("is", "was", "being"):
        return True
    return not before.isalpha() and before not in (">", "<")


def _stands_beside_sex(tokens: list[Token], start: int, end: int) -> bool:
    """ "male, 62", "a man of 62", "woman (71)", "M/62", "Mrs Smith, 54," and nothing behind that is counted."""
    behind = _word(tokens, end)
    if behind.isalpha() and behind not in _SUBJECTS_GO_ON:
        return False
    if _word(tokens, start - 1) == behind == ",":
        return any(_word(tokens, i) in _ANYONE | _TITLES for i in range(max(0, start - 5), start - 1))
    at = start - 1
    while at >= 0 and _word(tokens, at) in (",", "(", "/", "of", "aged", "-"):
        at -= 1
    if _word(tokens, at) in ("m", "f"):
        return at == 0 and (at < start - 1 or behind in ("", ","))
    patient = _word(tokens, start - 1) == "of" and _word(tokens, at) in ("patient", "pt")  # "a patient of 62"
    return patient or _word(tokens, at) in _PEOPLE


def _behind_years(tokens: list[Token], end: int) -> int:
    """Behind "years", "years old" and "years of age"."""
    while _word(tokens, end) in _YEARS or _word(tokens, end) in ("of", "age", "old"):
        end += 1
    return end


def _word(tokens: list[Token], at: int) -> str:
    return tokens[at].word if 0 <= at < len(tokens) else ""


def _value(tokens: list[Token], at: int) -> float | None:
    return tokens[at].value if 0 <= at < len(tokens) else None
