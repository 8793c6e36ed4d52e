"""What is written is read back, in every style."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guidegen_diffusers.prompts import NUM_STYLES, SITES, ClinicalPrompt
from guidegen_diffusers.prompts.writer import MAX_CANONICAL

from .any_prompt import prompts


@settings(max_examples=150)
@given(prompts())
def test_every_style_is_read_back(prompt):
    for style in range(NUM_STYLES):
        text = prompt.render(style)
        assert ClinicalPrompt.parse(text) == prompt, f"style {style}: {text}"


def test_every_set_of_sites_is_read_back_from_the_canonical_sentence():
    for count in range(1, len(SITES) + 1):
        for sites in itertools.combinations(SITES, count):
            prompt = ClinicalPrompt(sex="female", age=">80", sites=frozenset(sites))
            assert ClinicalPrompt.parse(prompt.render()) == prompt


def test_the_canonical_sentence_is_short_for_every_set_of_sites():
    for count in range(1, len(SITES) + 1):
        for sites in itertools.combinations(SITES, count):
            stage = {} if sites == ("none",) else {"t": 4, "n": 3, "m": 1, "size": "medium"}
            prompt = ClinicalPrompt("female", "<=30", "other", frozenset(sites), **stage)
            assert len(prompt.render()) <= MAX_CANONICAL


@given(prompts(), prompts())
def test_the_canonical_sentence_says_which_prompt_it_is(one, other):
    assert (one.render() == other.render()) == (one == other)


def test_the_canonical_sentence_is_the_papers():
    prompt = ClinicalPrompt("male", "61-70", "white", frozenset({"left_upper_lung"}), 3, 1, 0, "large")
    assert prompt.render() == (
        "The patient is a white male, 61-70 years old. In this CT scan, the patient's condition is described as "
        "a large lung cancer in the left upper lobe, with a TNM staging of T3N1M0."
    )
    healthy = ClinicalPrompt("female", "31-40", "asian", frozenset({"none"}))
    assert healthy.render().endswith("the patient's condition is described as no tumor.")
    assert ClinicalPrompt().render() == "This is the CT scan of a patient."


@pytest.mark.parametrize(
    ("sites", "words"),
    [
        (SITES[:5], "a lung cancer."),
        (SITES[:2], "a lung cancer in the left lung."),
        (("left_upper_lung", "right_upper_lung"), "a lung cancer in the upper lobe of either lung."),
        (SITES[5:7], "a kidney cancer."),
        (SITES[7:11], "a colon cancer."),
        (("left_kidney", "transverse_colon"), "a tumor in the left kidney or the transverse colon."),
        (("left_kidney", "none"), "either no tumor or a kidney cancer in the left kidney."),
        (SITES[:11], "a tumor."),
    ],
)
def test_sets_of_sites_have_names(sites, words):
    assert ClinicalPrompt(sites=frozenset(sites)).render().endswith(words)


def test_there_are_at_least_forty_styles_and_all_differ():
    prompt = ClinicalPrompt("male", "61-70", "white", frozenset({"right_kidney"}), 2, 0, 1, "huge")
    assert NUM_STYLES >= 40
    assert len({prompt.render(style) for style in range(NUM_STYLES)}) == NUM_STYLES


@given(prompts(), st.integers(0, NUM_STYLES - 1))
def test_sentences_are_well_formed(prompt, style):
    text = prompt.render(style)
    assert text.endswith(".")
    assert not re.search(r"[{}]|\.\.|  | [,.;]|\bNone\b", text)


@pytest.mark.parametrize("style", [-1, NUM_STYLES, 1.0, "0", True])
def test_other_styles_are_refused(style):
    with pytest.raises(ValueError, match="style: got"):
        ClinicalPrompt().render(style)
