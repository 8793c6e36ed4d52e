"""A clinical prompt: checked when made, drawn where it is open, and read from any text."""

import json
import sys
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guidegen_diffusers.prompts import AGES, RACES, SEXES, SITES, SIZES, ClinicalPrompt

from .any_prompt import prompts, sentences


RESOLVED = ClinicalPrompt("male", "61-70", "white", frozenset({"left_kidney"}), 3, 1, 0, "large")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sex": "M"}, "sex: got 'M', expected one of female, male"),
        ({"age": "62"}, "age: got '62'"),
        ({"race": "White"}, "race: got 'White'"),
        ({"size": "tiny"}, "size: got 'tiny'"),
        ({"t": 5}, "t: got 5, expected a whole number from 0 to 4"),
        ({"n": -1}, "n: got -1"),
        ({"m": True}, "m: got True"),
        ({"t": 1.0}, "t: got 1.0"),
        ({"sites": frozenset()}, "sites: got an empty set"),
        ({"sites": {"liver", "left_kidney"}}, "sites: got liver, expected names among"),
        ({"sites": {"none"}, "t": 1}, "t: got 1 where sites is"),
        ({"sites": {"none"}, "size": "small"}, "no stage and no size"),
    ],
)
def test_what_cannot_be_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        ClinicalPrompt(**fields)


def test_one_site_is_given_as_a_set():
    with pytest.raises(TypeError, match="expected a set"):
        ClinicalPrompt(sites="left_kidney")
    assert ClinicalPrompt(sites=["left_kidney"]).sites == frozenset({"left_kidney"})


def test_nothing_said_leaves_everything_open():
    assert ClinicalPrompt.parse("").as_dict() == {
        "sex": None,
        "age": None,
        "race": None,
        "sites": list(SITES),
        "t": None,
        "n": None,
        "m": None,
        "size": None,
    }


@given(prompts())
def test_the_dictionary_is_json_and_makes_the_same_prompt(prompt):
    fields = json.loads(json.dumps(prompt.as_dict()))
    assert fields["sites"] == [site for site in SITES if site in prompt.sites]
    assert ClinicalPrompt(**{**fields, "sites": frozenset(fields["sites"])}) == prompt


def test_an_open_site_is_no_site():
    assert RESOLVED.site == "left_kidney"
    with pytest.raises(ValueError, match="call `resolve` first"):
        _ = ClinicalPrompt().site


@given(prompts(), st.integers(0, 1000))
def test_resolving_fills_what_is_open_and_nothing_else(prompt, seed):
    resolved = prompt.resolve(torch.Generator().manual_seed(seed))
    assert resolved.site in prompt.sites
    assert (resolved.sex in SEXES, resolved.age in AGES, resolved.race in RACES) == (True, True, True)
    for name in ("sex", "age", "race"):
        assert getattr(prompt, name) in (None, getattr(resolved, name))
    for name in ("t", "n", "m", "size"):
        given_value, value = getattr(prompt, name), getattr(resolved, name)
        if resolved.site == "none":
            assert value is None
        else:
            assert value is not None
            assert given_value in (None, value)
    assert resolved == prompt.resolve(torch.Generator().manual_seed(seed))
    assert resolved.resolve(None) == resolved


def test_a_resolved_prompt_draws_nothing():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert RESOLVED.resolve(generator) == RESOLVED
    assert torch.equal(generator.get_state(), before)


def test_every_value_is_drawn_sometimes():
    generator = torch.Generator().manual_seed(0)
    drawn = [ClinicalPrompt().resolve(generator) for _ in range(1500)]
    assert {p.site for p in drawn} == set(SITES)
    assert {p.age for p in drawn} == set(AGES)
    assert {p.race for p in drawn} == set(RACES)
    assert {p.size for p in drawn} == {*SIZES, None}
    assert {p.t for p in drawn} == {1, 2, 3, 4, None}
    assert {p.n for p in drawn} == {0, 1, 2, 3, None}
    assert {p.m for p in drawn} == {0, 1, None}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_generator_on_a_gpu_serves():
    generator = torch.Generator("cuda").manual_seed(0)
    assert ClinicalPrompt().resolve(generator).site in SITES


@settings(max_examples=300)
@given(
    st.one_of(st.text(max_size=200), sentences(), st.lists(st.one_of(st.text(max_size=9), sentences())).map("\n".join))
)
def test_any_text_is_read(text):
    prompt = ClinicalPrompt.parse(text)
    assert prompt.sites
    assert ClinicalPrompt.parse(prompt.render()) == prompt


@settings(max_examples=100)
@given(prompts(), st.integers(0, 40))
def test_capitals_and_line_breaks_change_nothing(prompt, style):
    text = prompt.render(style)
    assert ClinicalPrompt.parse(text.upper()) == prompt
    assert ClinicalPrompt.parse(f"\n\n  {text}\n") == prompt


@pytest.mark.parametrize("text", [None, 3, b"lung cancer", ["lung cancer"]])
def test_what_is_no_text_is_refused(text):
    with pytest.raises(TypeError, match="text: got"):
        ClinicalPrompt.parse(text)


BAIT = [
    "a",
    "no ",
    "(",
    "1",
    "1 ",
    "1-",
    "1 x ",
    "5 cm x ",
    "T3N1M0",
    "t",
    "tn",
    "lung ",
    "left ",
    "left lung, ",
    "left lung or the ",
    "mass in the left lung and ",
    "no mass, ",
    "and resected ",
    "tumor is not seen and ",
    "his mother, ",
    "kidny ",
    "((no|not)*)+ ",
    "62 m, m, ",
    "cannot exclude ",
    "\n",
    "a\n",
    "a-\n",
    "a.b.",
    "?",
    " ?a",
    "'",
    "a'",
    "<a",
    "\N{GRINNING FACE}",
    "\u202eאב ",
    "\0",
    "\ud800",
    "a\u0301\u0316",
    "\uff14\u0663\xb2 ",
]


@pytest.mark.parametrize("bait", BAIT, ids=ascii)
def test_work_grows_with_length_and_not_faster(bait):
    def steps(length: int) -> int:
        """Calls of functions, methods and generators: a count, for clocks differ."""
        count = 0

        def step(*_):
            nonlocal count
            count += 1

        sys.setprofile(step)
        try:
            ClinicalPrompt.parse(bait * (length // len(bait)))
        finally:
            sys.setprofile(None)
        return count

    assert steps(16_000) < 2.5 * steps(8_000) + 2000


def test_a_long_text_is_read_in_moments():
    report = (
        "The lungs are clear, without nodules. There is a 4.2 cm mass in the left kidney of this 62-year-old man. "
    )
    start = time.process_time()
    prompt = ClinicalPrompt.parse(report * 1000)
    assert time.process_time() - start < 5
    assert (prompt.sites, prompt.age, prompt.sex, prompt.size) == ({"left_kidney"}, "61-70", "male", "medium")
