"""A plan is a pure function of index and seed, from a file or from the prior; bad files are named by line."""

import json
from collections import Counter

import pytest

from guidegen_diffusers.prompts import SITES
from guidegen_diffusers.synthesis import Plan


def test_a_case_depends_on_its_index_and_seed_alone():
    short, long = (Plan.from_prior(count, seed=4) for count in (5, 50))
    assert [short[i] for i in range(5)] == [long[i] for i in range(5)]
    other = Plan.from_prior(5, seed=5)
    assert [short[i].sentence for i in range(5)] != [other[i].sentence for i in range(5)]


def test_no_two_draws_share_a_seed():
    plans = [Plan.from_prior(20, seed=seed, split=split) for seed in (0, 1) for split in ("train", "test")]
    seeds = [plan[i].seed(attempt) for plan in plans for i in range(20) for attempt in range(4)]
    assert len(set(seeds)) == len(seeds) == 320
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_case_that_is_drawn_again_keeps_its_patient_and_gets_a_new_seed():
    case = Plan.from_prior(3)[2]
    assert case.sentence == Plan.from_prior(3)[2].sentence
    assert case.seed(0) != case.seed(1)


def test_balanced_sites_come_equally_often():
    plan = Plan.from_prior(24, balance="sites")
    assert Counter(plan[i].prompt.site for i in range(24)) == dict.fromkeys(SITES, 2)
    lung = Plan.from_prior(10, ["lung", "none"], "sites")
    assert sorted(Counter(lung[i].prompt.site for i in range(10)).values()) == [1, 1, 2, 2, 2, 2]  # ten of six


def test_sites_of_the_prior_are_those_asked_for():
    plan = Plan.from_prior(40, ["kidney", "ascending_colon"])
    found = {plan[i].prompt.site for i in range(40)}
    assert found == {"left_kidney", "right_kidney", "ascending_colon"}


FILES = {
    "a.txt": "A woman with lung cancer.\n\n  no tumour \n",
    "a.jsonl": '{"prompt": "A woman with lung cancer."}\n\n{"text": "no tumour", "id": 7}\n',
    "a.csv": 'name,prompt\nx,"A woman with lung cancer."\ny,no tumour\n',
    "a.tsv": "prompt\tother\nA woman with lung cancer.\t1\nno tumour\t2\n",
}


@pytest.mark.parametrize("name", FILES)
def test_prompts_come_from_text_and_tables_alike(tmp_path, name):
    (tmp_path / name).write_text(FILES[name])
    plan = Plan.from_file(tmp_path / name)
    assert [plan[i].text for i in range(len(plan))] == ["A woman with lung cancer.", "no tumour"]
    assert plan[0].prompt.sex == "female"
    assert plan[0].prompt.site.endswith("_lung")
    assert plan[1].prompt.site == "none"


def test_fields_of_a_table_are_read_as_those_of_prepare(tmp_path):
    (tmp_path / "a.csv").write_text("sex,age,site,stage\nM,64,left_kidney,T2N0M0\n")
    (tmp_path / "b.jsonl").write_text('{"sex": "F", "site": ["left_kidney", "right_kidney"], "age": null}\n')
    first, second = (Plan.from_file(tmp_path / name)[0].prompt for name in ("a.csv", "b.jsonl"))
    assert (first.sex, first.age, first.site, first.t) == ("male", "61-70", "left_kidney", 2)
    assert second.sex == "female"
    assert second.site.endswith("kidney")


def test_more_cases_than_prompts_go_through_them_again_with_other_draws(tmp_path):
    (tmp_path / "a.txt").write_text("A woman with lung cancer.\nno tumour\n")
    plan = Plan.from_file(tmp_path / "a.txt", 4)
    assert [plan[i].text for i in range(4)] == ["A woman with lung cancer.", "no tumour"] * 2
    assert plan[1].seed(0) != plan[3].seed(0)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.txt", "\n \n", "holds no prompt"),
        ("a.csv", "", "holds no prompt"),
        ("a.csv", "colour,age\n", "holds no prompt"),
        ("a.csv", "colour\nred\n", "got columns colour; expected prompt"),
        ("a.csv", "prompt,age\nred\n", "line 2: expected 2 columns"),
        ("a.csv", "sex,site\nM,moon\n", "line 2: site: got 'moon' in the table, which is not understood"),
        ("a.jsonl", '{"prompt": "a"}\n[1]\n', "line 2: got list, expected a JSON object"),
        ("a.jsonl", "lung cancer\n", "line 1: is no JSON"),
        ("a.txt", "a\0b", "is no text"),
    ],
)
def test_a_file_that_says_nothing_is_refused_by_its_line(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=words):
        Plan.from_file(tmp_path / name)


def test_what_cannot_be_planned_is_refused(tmp_path):
    (tmp_path / "latin.txt").write_bytes("für".encode("latin-1"))
    with pytest.raises(ValueError, match="is not UTF-8"):
        Plan.from_file(tmp_path / "latin.txt")
    with pytest.raises(FileNotFoundError, match="no such file, expected prompts"):
        Plan.from_file(tmp_path / "none.txt")
    with pytest.raises(ValueError, match="sites: got brain, expected names among lung, kidney, colon"):
        Plan.from_prior(3, ["brain"])
    with pytest.raises(ValueError, match="count: got 0"):
        Plan.from_prior(0)
    with pytest.raises(ValueError, match="balance: got 'sex'"):
        Plan.from_prior(3, balance="sex")
    with pytest.raises(ValueError, match="split: got 'val'"):
        Plan.from_prior(3, split="val")


def test_plans_are_told_apart_by_what_they_ask_for(tmp_path):
    (tmp_path / "a.txt").write_text("lung cancer\n")
    (tmp_path / "b.txt").write_text("colon cancer\n")
    plans = [Plan.from_file(tmp_path / name, 3) for name in ("a.txt", "b.txt")] + [Plan.from_prior(3, seed=1)]
    assert len({json.dumps(plan.as_dict()) for plan in plans}) == 3
    assert Plan.from_file(tmp_path / "a.txt", 3).as_dict() == plans[0].as_dict()
