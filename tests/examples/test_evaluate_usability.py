"""The study of usability trains the segmenter's own script on linked sets, goes on where it stopped, and can count."""

import json

import numpy as np
import pytest

from guidegen_diffusers.data.phantom_set import write_phantoms
from guidegen_diffusers.evaluation import CaseSet

from .launch import call, load_script, refused


SIZE, SPACING = (16, 12, 24), 24.0
TRAINED = ["--max_train_steps", 2, "--block_out_channels", 8, 16, "--num_validation_cases", 1, "--crop_size", 8, 8, 8]


@pytest.fixture(scope="module")
def script():
    return load_script("evaluate_usability.py")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    for name, split in (("real", "train"), ("made", "validation"), ("held-out", "test")):
        write_phantoms(folder / name, 3, SIZE, SPACING, split=split, progress=False)
    return folder


@pytest.fixture
def asked(sets, tmp_path):
    where = ["--real", sets / "real/train", "--synthetic", sets / "made/validation", "--test", sets / "held-out/test"]
    return [*where, "--seeds", 1, "--output", tmp_path / "out"]


def test_a_linked_set_holds_the_first_cases_of_each_part(script, sets, tmp_path):
    script.link_set(tmp_path, [("real", sets / "real/train", 2), ("synthetic", sets / "made/validation", 1)])
    cases, real, made = CaseSet(tmp_path), CaseSet(sets / "real"), CaseSet(sets / "made")
    assert cases.names == [f"real_{real.names[0]}", f"real_{real.names[1]}", f"synthetic_{made.names[0]}"]
    for case, source in zip(cases, [real[0], real[1], made[0]], strict=True):
        assert np.array_equal(case.labels, source.labels)
        assert np.array_equal(case.ct, source.ct)


def test_a_study_trains_what_is_missing_and_tells_its_table(script, asked, tmp_path, capsys):
    mixtures = ["--real_counts", 0, 2, "--synthetic_counts", 0]
    call(script, *asked, *mixtures, *TRAINED)
    log = tmp_path / "out" / "runs.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(row["real"], row["synthetic"], row["seed"]) for row in rows] == [(2, 0, 0)]  # nothing learns from nothing
    assert len(rows[0]["dice"]) == 3
    assert 0 <= min(rows[0]["dice"]) <= max(rows[0]["dice"]) < 1
    capsys.readouterr()

    log.write_text(log.read_text() + '{"real": 0, "synth')  # killed while it wrote
    invented = {"real": 2, "synthetic": 3, "seed": 0, **{key: rows[0][key] for key in rows[0] if "dice" in key}}
    invented |= {"hd95": rows[0]["hd95"], "tumor_hd95": rows[0]["tumor_hd95"]}
    log.write_text(log.read_text().replace('{"real": 0, "synth', json.dumps(invented) + '\n{"real": 0, "synth'))
    call(script, *asked, *mixtures, *TRAINED)
    told = capsys.readouterr().out
    assert "| 2 | 0 | " in told
    assert "| 2 | 3 | " in told
    assert len(log.read_text().splitlines()) == 2
    assert told.strip() in (tmp_path / "out" / "usability.md").read_text()


def test_the_table_has_known_answers(script):
    def run(real, synthetic, seed, shift):
        dice = [0.5 + shift + 0.01 * i for i in range(8)]
        return {"real": real, "synthetic": synthetic, "seed": seed, "dice": dice, "hd95": [10.0], "tumor_dice": []} | {
            "tumor_hd95": []
        }

    rows = [run(5, 0, 0, 0.0), run(5, 0, 1, 0.02), run(5, 9, 0, 0.1), run(0, 9, 0, 0.0)]
    told = script.table(rows).splitlines()
    assert told[2:] == [
        "| 0 | 9 | 0.535 | 10.0 | - | - | - |",
        "| 5 | 0 | 0.545 (0.014) | 10.0 (0.0) | - | - | - |",
        "| 5 | 9 | 0.635 | 10.0 | - | - | 0.0078 |",  # 2 / 2^8
    ]


def test_what_cannot_be_is_refused_before_anything_is_trained(script, asked, sets, tmp_path, capsys):
    assert "holds 3 cases, expected counts from 0 to that" in refused(
        capsys, script, *asked, "--real_counts", 4, *TRAINED
    )
    assert "holds no metadata.jsonl" in refused(capsys, script, *asked, "--real", tmp_path, *TRAINED)
    write_phantoms(tmp_path / "other", 1, (8, 6, 12), 48.0, progress=False)
    other = ["--test", tmp_path / "other/train", "--real_counts", 1, "--synthetic_counts", 1]
    assert "lie on different grids" in refused(capsys, script, *asked, *other, *TRAINED)
    assert not (tmp_path / "out").exists()


def test_a_run_that_fails_is_told_with_its_reason(script, asked):
    with pytest.raises(SystemExit, match="max_train_steps"):
        call(script, *asked, "--real_counts", 1, "--synthetic_counts", 0)
