"""The tables of words: each word once, and slips mended without making friends of strangers."""

import pytest

from guidegen_diffusers.prompts.lexicon import FALSE_FRIENDS, MENDED
from guidegen_diffusers.prompts.phrases import SPELLER, entries, phrases
from guidegen_diffusers.prompts.spelling import fold
from guidegen_diffusers.prompts.tokens import clean, tokenize


def kinds(text: str) -> list[str]:
    (sentence,) = tokenize(clean(text), SPELLER)
    return [item.kind for item in phrases(sentence.tokens)]


def test_no_phrase_means_two_things():
    found = {}
    for words, kind, value in entries():
        assert found.setdefault(words, (kind, value)) == (kind, value), words


def test_what_is_mended_is_known_and_what_is_left_alone_is_not_mended():
    for word in MENDED.split():
        assert word in SPELLER.words
    for word in FALSE_FRIENDS.split():
        assert SPELLER.mend(word) == fold(word)


@pytest.mark.parametrize(
    ("slip", "word"),
    [
        ("tumuor", "tumor"),
        ("kidny", "kidney"),
        ("assending", "ascending"),
        ("carcenoma", "carcinoma"),
        ("sigmoyd", "sigmoid"),
        ("lober", "lobar"),
        ("metastisis", "metastasis"),
        ("rigth", "right"),
        ("tumour", "tumor"),
        ("caecum", "cecum"),
        ("oesophageal", "esophageal"),
        ("centimetres", "centimeters"),
    ],
)
def test_slips_and_spellings_are_mended(slip, word):
    assert SPELLER.mend(slip) == fold(word)


@pytest.mark.parametrize(
    "word",
    ["lunch", "male", "mail", "reigns", "lesson", "color", "rental", "light", "flower", "other", "loser", "masses"],
)
def test_other_words_are_left_alone(word):
    assert SPELLER.mend(word) == fold(word)


def test_the_longest_phrase_wins():
    assert kinds("small bowel") == ["organ"]
    assert kinds("non-small cell lung cancer") == ["tumor", "organ", "tumor"]
    assert kinds("tumour markers") == ["idiom"]
    assert kinds("no doubt") == ["affirmed"]


def test_plurals_and_hyphens_are_one_word_with_the_rest():
    assert kinds("masses") == kinds("mass") == ["tumor"]
    assert kinds("left-sided") == kinds("left sided") == ["side"]
