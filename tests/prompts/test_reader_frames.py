"""What a frame does to a sentence, it does for every place and every word for a tumour."""

import itertools

import pytest

from guidegen_diffusers.prompts import SITES
from guidegen_diffusers.prompts.reader import read


PLACES = {
    "left upper lobe": "left_upper_lung",
    "upper lobe of the left lung": "left_upper_lung",
    "left lung, upper lobe": "left_upper_lung",
    "lingula": "left_upper_lung",
    "base of the left lung": "left_lower_lung",
    "LLL": "left_lower_lung",
    "right apex": "right_upper_lung",
    "middle lobe": "right_middle_lung",
    "right-lower-lobe": "right_lower_lung",
    "left kidney": "left_kidney",
    "upper pole of the left kidney": "left_kidney",
    "kidney (right)": "right_kidney",
    "caecum": "ascending_colon",
    "transverse colon": "transverse_colon",
    "descendant colon": "descending_colon",
    "rectosigmoid junction": "sigmoid_or_rectum",
}
TUMORS = ["tumor", "mass", "adenocarcinoma", "malignant tumour", "lesion"]
FRAMES = {
    "stated": [
        "There is a {tumor} in the {place}.",
        "{tumor}, {place}",
        "{place}: {tumor}",
        "The {place} shows a {tumor}.",
        "In the {place} there is a 3 cm {tumor}.",
        "A {tumor} was found. It is located in the {place}.",
        "62M with {place} {tumor}",
        "{tumor} involving the {place} with liver metastases",
        "No effusion, but a {tumor} in the {place}.",
        "His mother had breast cancer. He has a {tumor} in the {place}.",
        "suspected {tumor} ({place})",
    ],
    "denied": [
        "There is no {tumor} in the {place}.",
        "The {place} shows no {tumor}.",
        "negative for {tumor} in the {place}",
        "A {tumor} in the {place} was not seen.",
        "{tumor} in the {place} was ruled out",
        "The {place} is unremarkable.",
        "{place}: no {tumor}",
    ],
    "doubted": [
        "possible {tumor} in the {place}",
        "A {tumor} of the {place} cannot be ruled out.",
        "rule out {tumor} in the {place}",
        "?{tumor} in the {place}",
        "Is there a {tumor} in the {place}?",
        "either no {tumor} or a {tumor} in the {place}",
        "{tumor} vs pneumonia in the {place}",
    ],
    "over": [
        "history of {tumor} of the {place}, resected in 2010",
        "The {tumor} in the {place} has resolved.",
        "s/p resection of {tumor} of the {place}, no recurrence",
        "{tumor} of the {place} in complete remission",
    ],
    "a relative's": [
        "mother had {tumor} in the {place}",
        "Family history of {tumor} of the {place}.",
    ],
}


def allowed(status: str, site: str) -> frozenset[str]:
    return {
        "stated": frozenset({site}),
        "denied": frozenset(SITES) - {site},
        "doubted": frozenset({site, "none"}),
        "over": frozenset({"none"}),
        "a relative's": frozenset(SITES),
    }[status]


@pytest.mark.parametrize("status", FRAMES)
def test_a_frame_does_the_same_to_every_place_and_tumour(status):
    for frame, place, tumor in itertools.product(FRAMES[status], PLACES, TUMORS):
        text = frame.format(place=place, tumor=tumor)
        assert read(text)["sites"] == allowed(status, PLACES[place]), text


OTHERS = [
    "renal cyst",
    "kidney stones",
    "emphysema",
    "pneumonia of the left lower lobe",
    "diverticulosis of the sigmoid",
]
METASTASES = ["lung metastases", "liver metastases", "bone and brain mets", "pulmonary and hepatic metastases"]
NAMED = {
    "NSCLC": SITES[:5],
    "RUL mass": ("right_upper_lung",),
    "left renal cell carcinoma": ("left_kidney",),
    "hypernephroma": SITES[5:7],
    "bowel cancer": SITES[7:11],
    "caecal carcinoma": ("ascending_colon",),
    "pancreatic carcinoma": ("none",),
}


@pytest.mark.parametrize(
    "frame",
    [
        "{tumor} and {other}",
        "{other}, {tumor}",
        "{other}. {tumor}.",
        "No {other}, but {tumor}.",
        "{tumor} with {other}",
    ],
)
def test_other_findings_beside_a_tumour_change_nothing(frame):
    for tumor, other in itertools.product(NAMED, OTHERS):
        text = frame.format(tumor=tumor, other=other)
        assert read(text)["sites"] == frozenset(NAMED[tumor]), text


@pytest.mark.parametrize(
    "frame", ["{tumor} with {spread}", "{spread} from {tumor}", "{tumor}. {spread}.", "{tumor}, no {spread}"]
)
def test_metastases_of_a_tumour_change_nothing(frame):
    for tumor, spread in itertools.product(NAMED, METASTASES):
        text = frame.format(tumor=tumor, spread=spread)
        assert read(text)["sites"] == frozenset(NAMED[tumor]), text


@pytest.mark.parametrize(
    ("frame", "counts"),
    [
        ("{one} and {two}", "both"),
        ("{one} or {two}", "both"),
        ("{one}. {two}.", "both"),
        ("no {one} but {two}", "second"),
        ("{one}, {two} was ruled out", "first"),
        ("mother had {one}, patient has {two}", "second"),
        ("history of {one}, resected; now {two}", "second"),
        ("neither {one} nor {two}", "none"),
        ("no {one}, no {two}", "none"),
    ],
)
def test_two_tumours_are_each_judged_alone(frame, counts):
    ours = {tumor: frozenset(sites) for tumor, sites in NAMED.items() if sites != ("none",)}
    for one, two in itertools.permutations(ours, 2):
        if ours[one] & ours[two]:
            continue
        expected = {
            "both": ours[one] | ours[two],
            "first": ours[one],
            "second": ours[two],
            "none": frozenset(SITES) - ours[one] - ours[two],
        }[counts]
        text = frame.format(one=one, two=two)
        assert read(text)["sites"] == expected, text
