"""Hypothesis strategies: every prompt that the constructor allows, and text of all kinds."""

import re

from hypothesis import strategies as st

from guidegen_diffusers.prompts import AGES, RACES, SEXES, SITES, SIZES, ClinicalPrompt


def maybe(values):
    return st.sampled_from([None, *values])


@st.composite
def prompts(draw):
    sites = draw(
        st.one_of(
            st.sampled_from(SITES).map(lambda site: frozenset({site})),
            st.sampled_from([frozenset(SITES), frozenset(SITES) - {"none"}]),
            st.sets(st.sampled_from(SITES), min_size=1).map(frozenset),
        )
    )
    person = {"sex": draw(maybe(SEXES)), "age": draw(maybe(AGES)), "race": draw(maybe(RACES))}
    if sites == {"none"}:
        return ClinicalPrompt(sites=sites, **person)
    tumor = {
        "t": draw(maybe(range(5))),
        "n": draw(maybe(range(4))),
        "m": draw(maybe(range(2))),
        "size": draw(maybe(SIZES)),
    }
    return ClinicalPrompt(sites=sites, **person, **tumor)


# words that mean something to the reader, so that random sentences reach its corners
WORDS = re.findall(
    r"\S+",
    """no not without tumor tumour cancer mass left right upper lower lobe lung kidney colon the of in and or but
    except metastases lymph nodes history family mother possible cannot exclude ruled out resected clear
    normal s/p either T3 N1 M0 T3N1M0 5 cm x 62 y/o M F 62M year old aged over 80 small large bowel site
    located in it is with RUL RCC new one""",
)
MARKS = [".", ",", ";", ":", "?", "(", ")", "-"]


def sentences():
    return st.lists(st.sampled_from(WORDS + MARKS * 4), max_size=60).map(" ".join)
