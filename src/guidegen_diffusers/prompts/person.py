"""Sex, age and race of the patient, as far as a text states them.

An explicit noun ("woman", "62M", "sex: F") outweighs a pronoun, and an age that describes the patient outweighs one
that dates an event. What is said of relatives does not count, and two values that contradict each other are none.
"""

from __future__ import annotations

from .age import read_age, read_age_word
from .spelling import words
from .tokens import Token


__all__ = ["Person"]


_NOUNS = {
    "male": words("m male man gentleman gent boy guy chap bloke mr mister widower businessman"),
    "female": words(
        "f female woman lady girl mrs ms miss madam widow housewife businesswoman pregnant postmenopausal"
    ),
}
_PRONOUNS = {"male": words("he his him himself"), "female": words("she her hers herself")}
_PARENTS = {"male": words("father grandfather dad"), "female": words("mother grandmother mum mom")}
_COUNTS = words("one two three four five six seven eight nine")
_TITLES = words("mr mrs ms miss dr prof professor")
_RACES = {
    "asian": words(
        """asian chinese japanese korean indian vietnamese thai filipino filipina pakistani bangladeshi malay malaysian
        taiwanese indonesian nepalese mongolian cambodian burmese"""
    ),
    "black": words("black african afro afrocaribbean nigerian ethiopian somali ghanaian kenyan haitian"),
    "white": words("white caucasian caucasoid european"),
    "other": words("multiracial biracial polynesian maori aboriginal inuit arab arabic"),
}
_PHRASES = {
    **dict.fromkeys(
        [
            ("native", "american"),
            ("american", "indian"),
            ("alaska", "native"),
            ("alaskan", "native"),
            ("native", "hawaiian"),
            ("pacific", "islander"),
            ("middle", "eastern"),
            ("mixed", "race"),
            ("mixed", "ethnicity"),
            ("other", "race"),
            ("other", "ethnicity"),
        ],
        "other",
    ),
    ("sri", "lankan"): "asian",
    **{("aa", sex): "black" for sex in ("male", "female", "man", "woman", "m", "f", "gentleman", "lady")},
}
_ETHNICITIES = words("hispanic latino latina latinx")  # people of any race; they count where none is named
_NO_RACE_BEHIND = words(
    """matter blood cell cells count coat out lung lungs noise line stool stools plaque plaques spot spots area
    areas discharge light tarry eye box mold hole ice hair coffee diet vomit pigment pigmented colored tongue
    board medicine herb herbs herbal food restaurant encephalitis ocean ink flush"""
)


class Person:
    """Gathers what the sentences of a text say of one patient."""

    def __init__(self):
        self._nouns: set[str] = set()
        self._pronouns: set[str] = set()
        self._ages: set[str] = set()
        self._dated_ages: set[str] = set()
        self._races: set[str] = set()
        self._ethnicities: set[str] = set()

    def attributes(self) -> dict[str, str | None]:
        return {
            "sex": _only(self._nouns or self._pronouns),
            "age": _only(self._ages or self._dated_ages),
            "race": _only(self._races or self._ethnicities),
        }

    def add(self, tokens: list[Token], of_relatives: list[bool]) -> None:
        """Read a sentence; `of_relatives` says of each token whether it speaks of a relative."""
        for at, token in enumerate(tokens):
            if of_relatives[at]:
                continue
            if token.value is not None:
                coded = token.value < 5 and at > 0 and tokens[at - 1].word in ("t", "n", "m")  # M0 is a stage
                age = None if coded else read_age(tokens, at)
                if age is not None:
                    (self._dated_ages if age[1] else self._ages).add(age[0])
            elif token.word[0].isalpha():
                around = [tokens[i].word if 0 <= i < len(tokens) else "" for i in range(at - 3, at + 3)]
                self._read_sex(tokens, at, around)
                self._read_race(token.word, around)
                age = read_age_word(tokens, at)
                if age is not None:
                    self._ages.add(age)

    def _read_sex(self, tokens: list[Token], at: int, around: list[str]) -> None:
        word, raw = tokens[at].word, tokens[at].raw
        before, behind = around[2], around[4]
        counts = _is_number(tokens, at + 1)  # M0 is a stage
        for sex, pronouns in _PRONOUNS.items():
            if word in pronouns and not (word == "her" and counts):  # HER2 is a gene
                self._pronouns.add(sex)
        if before in ("not", "non"):
            return
        if word in ("m", "f") and not _is_sex_letter(tokens, at, around, counts):
            return
        if word in ("ms", "miss") and (not raw[0].isupper() or raw == "MS" or not behind.isalpha()):
            return
        parent = behind == "of" and (around[5] in _COUNTS or _is_number(tokens, at + 2))  # "a mother of two"
        for sex, nouns in _NOUNS.items():
            if word in nouns or (parent and word in _PARENTS[sex]):
                self._nouns.add(sex)

    def _read_race(self, word: str, around: list[str]) -> None:
        third, second, before, _, behind, _ = around
        if (word, behind) in _PHRASES:
            self._races.add(_PHRASES[word, behind])
            return
        if word in ("other", "others", "mixed") and {before, second} & {"race", "ethnicity"}:
            self._races.add("other")
        elif word in _ETHNICITIES:
            if not {before, second, third} & {"non", "not", "nonhispanic"}:
                self._ethnicities.add("other")
        elif (
            before not in _TITLES | {"non", "not"} and behind not in _NO_RACE_BEHIND and (before, word) not in _PHRASES
        ):
            self._races.update(race for race, words in _RACES.items() if word in words)


def _is_sex_letter(tokens: list[Token], at: int, around: list[str], counts: bool) -> bool:
    """M or F behind an age, behind "sex:", before "/62", or alone between commas in a sentence that gives an age."""
    second, before, behind = around[1], around[2], around[4]
    if counts:
        return at == 0 and tokens[at + 1].value >= 10 and read_age(tokens, at + 1) is not None  # M0 is a stage
    if any(before in races for races in _RACES.values()):  # "68 y.o. white F"
        before, number = second, at - 3
    else:
        number = at - 2 if before == "/" else at - 1
    if {before, second} & {"sex", "gender"} or before in ("old", "yo", "y/o", "y", "yr", "yrs", "years", "year"):
        return True
    if number >= 0 and tokens[number].value is not None:
        return read_age(tokens, number) is not None
    if at == 0 and behind in ("/", ","):
        return True
    return (
        before in (",", "(", ":")
        and behind in ("", ",", ")", "/")
        and any(token.value is not None and read_age(tokens, i) for i, token in enumerate(tokens))
    )


def _is_number(tokens: list[Token], at: int) -> bool:
    return at < len(tokens) and tokens[at].value is not None


def _only(values: set[str]) -> str | None:
    return next(iter(values)) if len(values) == 1 else None
