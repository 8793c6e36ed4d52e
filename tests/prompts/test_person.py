"""Sex, age and race, and what is none of them."""

import pytest

from guidegen_diffusers.prompts.age import age_bin
from guidegen_diffusers.prompts.reader import read


AGES = """
61-70 | 62M
61-70 | 62 y/o
61-70 | 62 y/o man
61-70 | 62yo male
51-60 | 55 y.o. M
61-70 | 62-year-old
61-70 | a 62yr-old
61-70 | aged 62
61-70 | age 62
61-70 | Age: 62
61-70 | 62 years of age
61-70 | sixty-two years old
61-70 | SIXTY TWO YEAR OLD MAN
61-70 | in his sixties
61-70 | in her early 60s
71-80 | in her mid-seventies
61-70 | 61-70 years
61-70 | 61\u201370 years old
61-70 | aged 60-70
61-70 | age group 61 to 70
31-40 | between 31 and 40 years old
51-60 | Age group: 51-60
>80 | an octogenarian
71-80 | septuagenarian man
>80 | over 80
>80 | older than 80 years
>80 | age >80
>80 | 80+ years old
>80 | aged 80 or older
>80 | 101-year-old
<=30 | under 30
<=30 | younger than 30 years
<=30 | <=30
<=30 | ≤30 years
<=30 | 30 years old or younger
<=30 | a 6-month-old infant
<=30 | a 3-day-old baby girl
<=30 | a 7 year old girl
<=30 | 30-year-old
31-40 | 31-year-old
71-80 | 80-year-old
71-80 | woman, 71, lung cancer
51-60 | Mrs Smith, 54, was seen
41-50 | The patient (female, 44)
51-60 | he is 55
51-60 | The woman is 55 and has a cough.
51-60 | This gentleman is 55, lung cancer
<=30 | a woman of 29 years
71-80 | 71/M
61-70 | M/62
61-70 | 62 white male
51-60 | His mother, 85, had colon cancer. He's 55.
61-70 | Colon cancer diagnosed at age 50; the patient is now 63 years old.
51-60 | diagnosed at the age of 58
61-70 | A small sigmoid cancer in a black patient of 63
61-70 | a patient of 63 with lung cancer
71-80 | a Black pt of 71
61-70 | My husband is 66 and has lung cancer
61-70 | my dad is 69 and the doctors found a tumour in his left kidney
71-80 | My aunt (77) has rectal cancer
31-40 | My father is 72 and had lung cancer, and I am 40.
- | a patient of 63 kg
- | one patient of 12 had cancer
- | unknown age
- | young adult
- | over 70
- | 5 years ago
- | for 62 years
- | a 40 pack-year smoker
- | T2 60 mm
- | 62 mm
- | 130-year-old
- | 5-year survival
- | born in 1962
- | at T12 62
- | The woman is 3 months pregnant.
- | his sister (45F) has breast cancer
- | 62-year-old man, 45 years old
"""
SEXES = r"""
male | a man
male | 62M
male | M, 62
male | 55 y.o. M
male | Sex: M
male | gender - male
male | Mr. Jones
male | gentleman
male | a 6-year-old boy
male | He has cancer.
male | cancer; he's 71
female | colon cancer, she 62
male | his father died of lung cancer
male | 68 y.o. white M
female | a woman
female | 70F
female | F 45 yrs
female | sex: F
female | Mrs. Smith
female | Ms. Lee is 48
female | an elderly lady
female | She has cancer.
female | her husband
female | mother of two
female | a pregnant patient
female | A female patient; he was seen by her physician
- | the patient
- | T3N1M0
- | HER2-positive
- | HER 2 negative
- | male or female
- | he or she
- | sex unknown
- | 5 ms
- | known MS
- | the mother had cancer
"""
RACES = r"""
white | a white male
white | Caucasian
white | European woman
white | non-Hispanic white female
white | Hispanic white male
black | a Black man
black | African American
black | African-American female
black | Afro-Caribbean
black | Race: Black or African American
black | a black African American of unknown age and non-Hispanic or Latino race
black | Mr. White, a black man
asian | Asian
asian | Chinese male
asian | person of Japanese descent
asian | Korean
asian | Indian gentleman
other | Hispanic
other | Latina
other | Native American
other | American Indian woman
other | Pacific Islander
other | mixed race
other | race: other
other | of other race
- | the patient
- | non-white
- | non-Hispanic
- | white matter
- | white blood cells
- | black stool
- | blackout
- | white-out of the left lung
- | Dr Black
- | Asian or black
- | race unknown
"""


def cases(table: str) -> list:
    lines = [line.split("|", 1) for line in table.strip().splitlines()]
    return [
        pytest.param(None if value.strip() == "-" else value.strip(), text.strip(), id=text.strip())
        for value, text in lines
    ]


@pytest.mark.parametrize(("expected", "text"), cases(AGES))
def test_ages(expected, text):
    assert read(text)["age"] == expected


@pytest.mark.parametrize(("expected", "text"), cases(SEXES))
def test_sexes(expected, text):
    assert read(text)["sex"] == expected


@pytest.mark.parametrize(("expected", "text"), cases(RACES))
def test_races(expected, text):
    assert read(text)["race"] == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (30, 30, "<=30"),
        (31, 31, "31-40"),
        (60, 70, "61-70"),
        (66, 75, "71-80"),
        (126, 126, None),
        (80, float("inf"), ">80"),
    ],
)
def test_the_bin_of_a_range_holds_most_of_its_years(low, high, expected):
    assert age_bin(low, high) == expected
