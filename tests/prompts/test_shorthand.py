"""Notes and dictation: abbreviations, glued letters and slips are spelled out before a text is read."""

import time

import pytest

from guidegen_diffusers.prompts import ClinicalPrompt
from guidegen_diffusers.prompts.shorthand import spell_out


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("57yoM, RUL mass", dict(sex="male", age="51-60")),
        ("66 WF, LLL tumour", dict(sex="female", age="61-70", race="white")),
        ("48 y/o AAF, L RCC, T1aN0M0", dict(sex="female", age="41-50", race="black", t=1, n=0, m=0)),
        ("femal, 52 yaers old, kidney tumour", dict(sex="female", age="51-60")),
        ("Lung cancer, T three N two M zero", dict(t=3, n=2, m=0)),
        ("Rectal cancer mrT3c N1 M0", dict(t=3, n=1, m=0)),
        ("Renal cell carcinoma, T 3 a N 0 M 0", dict(t=3, n=0, m=0)),
        ("Right upper lobe carcinoma; M0; N2; T4.", dict(sex=None, age=None, t=4, n=2, m=0)),
        ("STAGE IV COLON CANCER. MALE. 68.", dict(sex="male", age="61-70", m=1)),
        ("I am 68, they found a mass in my left kidney.", dict(age="61-70")),
        ("My mum, 76, has bowel cancer.", dict(sex="female", age="71-80")),
        ("Patient of 70 kg, tumour adjacent to T3 and T4 vertebral bodies", dict(t=None)),
    ],
)
def test_shorthand_is_read(text, stated):
    read = ClinicalPrompt.parse(text).as_dict()
    assert {key: read[key] for key in stated} == stated


@pytest.mark.parametrize(
    ("text", "sites"),
    [
        ("54F, hep flex ca", {"ascending_colon", "transverse_colon"}),
        ("spl flexure adenoca", {"transverse_colon", "descending_colon"}),
        ("asc. colon tumor", {"ascending_colon"}),
        ("sig ca 35 mm", {"sigmoid_or_rectum"}),
        ("New dx L RCC", {"left_kidney"}),
        ("R kidney tumor, 25 mm", {"right_kidney"}),
        ("put a tiny tumor into the right middle lobe", {"right_middle_lung"}),
        ("a tumor in either the left or the right lower lobe", {"left_lower_lung", "right_lower_lung"}),
        ("This is not a normal scan: there is a mass in the ascending colon.", {"ascending_colon"}),
        ("Neoplasia of colon descendens", {"descending_colon"}),
        ("CT A/P: kidneys nl, colon nl, no mass. CT chest: lungs clr.", {"none"}),
        ("Lungs clr. Kidneys nml. Colon unremark.", {"none"}),
        ("CT nl", {"none"}),
        ("R kidney nl; L kidney 4 cm mass", {"left_kidney"}),
        ("kidneys nl in size, mass in the left kidney", {"left_kidney"}),
        ("colon not nl, RCC", {"left_kidney", "right_kidney"}),
        ("platelets 250/nl, left renal mass", {"left_kidney"}),
    ],
)
def test_shorthand_of_places_is_read(text, sites):
    assert ClinicalPrompt.parse(text).sites == sites


def test_shorthand_says_normal_of_what_it_names_and_of_nothing_else():
    assert ClinicalPrompt.parse("renal fxn nl") == ClinicalPrompt()
    assert ClinicalPrompt.parse("BP nl, labs nl") == ClinicalPrompt()
    assert ClinicalPrompt.parse("kidneys nl").sites == ClinicalPrompt.parse("The kidneys are normal.").sites


@pytest.mark.parametrize(
    ("text", "sex", "age"),
    [
        ("generate sample: white grandfather aged 88, huge lung tumour", "male", ">80"),
        ("CT of a Black grandmother aged 77 with a huge lung tumour", "female", "71-80"),
        ("Asian mother, 44, huge lung tumour", "female", "41-50"),
        ("Hispanic mother of two, 44 years old, huge lung tumour", "female", "41-50"),
    ],
)
def test_a_relative_of_nobody_who_has_a_race_is_the_patient(text, sex, age):
    read = ClinicalPrompt.parse(text)
    assert (read.sex, read.age, read.size) == (sex, age, "huge")
    assert "none" not in read.sites


@pytest.mark.parametrize(
    "text",
    [
        "His white grandfather had lung cancer.",
        "The patient has a white father with lung cancer.",
        "Family history: white grandfather with lung cancer",
        "FH: white grandfather, lung cancer",
        "Lung cancer in an uncle.",
        "Grandfather aged 88 with lung cancer",
    ],
)
def test_other_relatives_stay_relatives(text):
    assert ClinicalPrompt.parse(text).sites == ClinicalPrompt().sites


def test_a_relative_is_the_patient_only_where_the_writer_is_not():
    assert ClinicalPrompt.parse("My mother is 78 and has colon cancer.").age == "71-80"
    assert ClinicalPrompt.parse("My mother has colon cancer.").sex == "female"
    mine = ClinicalPrompt.parse("My mother had colon cancer. I have a tumour in the left kidney.")
    assert mine.sites == {"left_kidney"}


def test_plain_sentences_stay_as_they_are():
    for prompt in (ClinicalPrompt(sex="male"), ClinicalPrompt(sites=frozenset({"left_kidney"}), t=2)):
        for style in range(45):
            sentence = prompt.render(style)
            assert ClinicalPrompt.parse(spell_out(sentence)) == prompt


@pytest.mark.parametrize(
    "bait", ["put " * 25_000, "T 1 N 0 " * 12_000, "my mother " * 10_000, "(m, " * 25_000, "a" * 100_000]
)
def test_time_is_linear(bait):
    def seconds(text):
        start = time.process_time()
        spell_out(text)
        return time.process_time() - start

    assert seconds(bait) < 20 * max(seconds(bait[: len(bait) // 4]), 0.01)
