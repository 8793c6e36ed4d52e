"""Tables of prompts and clinical fields: read as a whole or refused as a whole, with the line at fault."""

import json

import pytest

from guidegen_diffusers.data.prompt_table import read_prompt_table
from guidegen_diffusers.prompts import ClinicalPrompt


NAMES = {"s1", "s2", "s3"}


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def test_free_text_stays_as_it_stands(tmp_path):
    table = read_prompt_table(write(tmp_path / "t.csv", 'name,prompt\ns1,"A male patient, with a tumor, ä."\n'), NAMES)
    text, prompt = table["s1"].prompt()
    assert text == "A male patient, with a tumor, ä."
    assert prompt == ClinicalPrompt.parse(text)
    assert list(table) == ["s1"]


def test_fields_become_the_canonical_sentence(tmp_path):
    rows = [
        ("name,sex,age,race,site,t,n,m,size", "s1,M,64.0,white,left_kidney,2.0,0,X,large"),
        ("name,sex,age,race,site,t,n,size", "s1,M,064Y,Caucasian,kidney on the left,t2,N0,large"),
        ("Case;Gender;Age;Ethnicity;Tumor_Site;T;N;M;Size", "s1.nii.gz;male;61-70;White;left kidney;T2;N0;MX;large"),
        ("id\tsex\tage\trace\tsites\tstage\tsize", "s1_0000\tmale\t64\twhite\tleft_kidney\tT2N0MX\tlarge"),
    ]
    expected = ClinicalPrompt("male", "61-70", "white", frozenset({"left_kidney"}), t=2, n=0, size="large")
    for i, (header, row) in enumerate(rows):
        path = tmp_path / f"{i}.{'tsv' if i == 3 else 'csv'}"
        table = read_prompt_table(write(path, f"\ufeff{header}\r\n{row}\r\n"), NAMES)
        assert table["s1"].prompt() == (expected.render(0), expected)
    values = {"name": "s1", "sex": "male", "age": 64, "race": "white", "sites": ["left_kidney"], "t": 2, "n": 0}
    path = write(tmp_path / "t.jsonl", json.dumps({**values, "m": None, "size": "large"}) + "\n\n")
    assert read_prompt_table(path, NAMES)["s1"].prompt() == (expected.render(0), expected)


def test_what_a_row_leaves_empty_stays_open(tmp_path):
    header, empty = "name,prompt,sex,age,race,site,t,stage", "s1,,,unknown,N/A,nan,,TX"
    table = read_prompt_table(write(tmp_path / "t.csv", f"{header}\n{empty}\ns2,Free text.,male,,,,,\n"), NAMES)
    assert table["s1"].prompt() == (ClinicalPrompt().render(0), ClinicalPrompt())
    assert table["s2"].prompt()[0] == "Free text."


def test_no_tumor_and_several_sites_can_be_said(tmp_path):
    text = "name,site\ns1,none\ns2,left_kidney;right_kidney\ns3,kidney\n"
    table = read_prompt_table(write(tmp_path / "t.csv", text), NAMES)
    kidneys = frozenset({"left_kidney", "right_kidney"})
    assert [table[name].prompt()[1].sites for name in sorted(NAMES)] == [frozenset({"none"}), kidneys, kidneys]


def test_a_row_may_choose_its_split(tmp_path):
    table = read_prompt_table(write(tmp_path / "t.csv", "name,split\ns1,Val\ns2,test\ns3,\n"), NAMES)
    assert [table[name].split for name in sorted(NAMES)] == ["validation", "test", None]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ("sex\ns1,teapot", "sex"),
        ("age\ns1,old-ish", "age"),
        ("site\ns1,left elbow", "site"),
        ("site\ns1,liver", "site"),  # which is no reason to write that there is no tumour
        ("t\ns1,9", "t"),
        ("stage\ns1,whatever", "stage"),
    ],
)
def test_a_field_that_says_nothing_is_the_problem_of_its_row(tmp_path, row, field):
    table = read_prompt_table(write(tmp_path / "t.csv", f"name,{row}\ns2,\n"), NAMES)
    with pytest.raises(ValueError, match=f"^{field}: got .* not understood"):
        table["s1"].prompt()
    assert table["s2"].prompt()[1] == ClinicalPrompt()


def test_contradictions_are_the_problem_of_their_row(tmp_path):
    table = read_prompt_table(write(tmp_path / "t.csv", "name,site,t\ns1,none,3\n"), NAMES)
    with pytest.raises(ValueError, match="t: got 3"):
        table["s1"].prompt()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("t.csv", "name,prompt\ns1,a\ns9,b\n", r"names 1 cases without a CT \(s9\)"),
        ("t.csv", "name,prompt\ns1,a\ns1_0000.nii.gz,b\n", "line 3: the name s1 was given before"),
        ("t.csv", "name,prompt\n,a\n", "line 2: has no name"),
        ("t.csv", "patient,prompt\ns1,a\n", "got columns patient, prompt; expected one called name"),
        ("t.csv", "name,hospital\ns1,a\n", "expected prompt, or some of sex"),
        ("t.csv", "name,prompt\ns1\n", "line 2: expected 2 columns"),
        ("t.csv", "name,prompt\ns1,a,b\n", "line 2: expected 2 columns"),
        ("t.csv", "name,t,T\ns1,1,2\n", "line 2: has several columns for t"),
        ("t.csv", "name,split\ns1,holdout\n", "line 2: got split 'holdout'"),
        ("t.csv", "name,prompt\n", "holds no rows"),
        ("t.csv", "", "expected one called name"),
        ("t.csv", "name,prompt\ns1,a\0b\n", "null bytes"),
        ("t.jsonl", '{"name": "s1", "prompt": "a"}\n{"name": \n', "line 2: is no JSON"),
        ("t.jsonl", "[1]\n", "line 1: got list"),
        ("t.jsonl", '{"prompt": "a"}\n', "expected one called name"),
    ],
)
def test_tables_that_cannot_be_right_are_refused_as_a_whole(tmp_path, name, content, reason):
    with pytest.raises(ValueError, match=reason):
        read_prompt_table(write(tmp_path / name, content), NAMES)


def test_other_encodings_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"is not UTF-8 \(byte 15\)"):
        read_prompt_table(write(tmp_path / "t.csv", "name,prompt\ns1,äöü\n", "latin-1"), NAMES)
    with pytest.raises(ValueError, match="is not UTF-8|null bytes"):
        read_prompt_table(write(tmp_path / "t.csv", "name,prompt\ns1,a\n", "utf-16"), NAMES)
    with pytest.raises(FileNotFoundError):
        read_prompt_table(tmp_path / "nowhere.csv", NAMES)
