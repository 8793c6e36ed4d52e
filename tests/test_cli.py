"""`guidegen generate` writes a case, says where, and fails in one line."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from guidegen_diffusers import Case, CaseDataset, GuideGenPipeline
from guidegen_diffusers.cli import app


FEW = ["--steps", "2", "--mask-steps", "3"]


def generate(*arguments):
    model = [] if "--model" in arguments else ["--model", "tiny"]
    return CliRunner().invoke(app, ["generate", *model, *map(str, arguments)])


def test_a_sentence_becomes_four_files(tmp_path):
    result = generate("A white male.", "--output", tmp_path / "case", *FEW)
    assert result.exit_code == 0, result.output
    for name in ("ct.nii.gz", "labels.nii.gz", "preview.png", "case.json"):
        assert (tmp_path / "case" / name).is_file()
        assert name in result.output
    assert "random weights" in result.output
    case = Case.load(tmp_path / "case")
    assert "white male" in case.prompt
    assert f"understood: {case.prompt}" in result.output
    assert case.provenance["text"] == "A white male."
    assert case.provenance["seed"] == 0


def test_the_default_model_is_the_trained_one_that_ships(tmp_path):
    asked = ["generate", "A man with a tumour of the left kidney.", "--only", "mask", "--mask-steps", "4"]
    result = CliRunner().invoke(app, [*asked, "--output", str(tmp_path / "case")])
    assert result.exit_code == 0, result.output
    assert "random weights" not in result.output
    case = Case.load(tmp_path / "case")
    assert case.provenance["model"] == "torso-6mm"
    assert case.labels.shape == (64, 48, 96)


def test_cases_depend_on_the_seed_alone(tmp_path):
    generate("A", "--output", tmp_path / "many", "--num", 2, "--seed", 5, *FEW)
    generate("A", "--output", tmp_path / "one", "--seed", 6, *FEW)
    first, second = (Case.load(tmp_path / "many" / name) for name in ("case_000", "case_001"))
    assert np.array_equal(second.ct, Case.load(tmp_path / "one").ct)
    assert not np.array_equal(first.labels, second.labels)


def test_a_label_map_can_be_made_alone_and_painted_later(tmp_path):
    assert generate("A", "--output", tmp_path / "mask", "--only", "mask", *FEW).exit_code == 0
    assert not (tmp_path / "mask" / "ct.nii.gz").exists()
    mask = tmp_path / "mask" / "labels.nii.gz"
    assert generate("A", "--output", tmp_path / "pair", "--mask", mask, *FEW).exit_code == 0
    assert np.array_equal(Case.load(tmp_path / "pair").labels, Case.load(tmp_path / "mask").labels)


def test_a_saved_pipeline_is_a_model(tiny, tmp_path):
    tiny.save_pretrained(tmp_path / "model")
    result = generate("A", "--output", tmp_path / "case", "--model", tmp_path / "model", *FEW)
    assert result.exit_code == 0, result.output
    assert "random weights" not in result.output
    assert json.loads((tmp_path / "case" / "case.json").read_text())["provenance"]["model"] == "model"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "num_inference_steps: got 0"),
        (["--model", "a/b/c"], "a/b/c"),
        (["--mask", "nowhere.nii.gz"], "nowhere.nii.gz: no such file"),
        (["--model", "torso-7mm"], "torso-7mm"),
        (["--device", "nothing"], "nothing"),
        (["--device", "cuda:77"], "cuda"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, arguments, message):
    result = generate("A", "--output", tmp_path / "case", *arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_case_is_not_overwritten_unless_asked(tmp_path):
    assert generate("A", "--output", tmp_path / "case", *FEW).exit_code == 0
    again = generate("B", "--output", tmp_path / "case", *FEW)
    assert again.exit_code == 1
    assert "overwrite" in again.output
    assert generate("B", "--output", tmp_path / "case", "--overwrite", *FEW).exit_code == 0
    assert Case.load(tmp_path / "case").provenance["text"] == "B"


def test_a_pipeline_that_cannot_be_loaded_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(GuideGenPipeline, "from_config", lambda name: 1 / 0)
    result = generate("A", "--output", tmp_path / "case")
    assert result.exit_code != 0
    assert list(tmp_path.iterdir()) == []


def run(*arguments, **options):
    return CliRunner().invoke(app, [*map(str, arguments)], **options)


def test_parse_prints_what_each_text_says_as_a_line_of_json():
    result = run("parse", "62M, NSCLC of the RUL, T2aN1M0", "no tumour")
    first, second = map(json.loads, result.output.splitlines())
    assert list(first) == ["sex", "age", "race", "sites", "t", "n", "m", "size"]
    assert first == dict(sex="male", age="61-70", race=None, sites=["right_upper_lung"], t=2, n=1, m=0, size=None)
    assert second["sites"] == ["none"]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", "رئة 🫁".encode(), b"lung cancer"])
def test_parse_reads_any_bytes_from_the_standard_input(content):
    result = run("parse", "-", input=content)
    assert result.exit_code == 0
    assert json.loads(result.output)["sites"]


def test_what_was_understood_is_said_before_the_work_and_kept_with_the_case(tmp_path):
    result = generate("62M, NSCLC of the RUL, T2aN1M0", "--output", tmp_path / "case", "--only", "mask", *FEW)
    said = result.stdout.splitlines()[0].removeprefix("understood: ")
    assert "right upper" in said
    assert Case.load(tmp_path / "case").prompt == said


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_networks_run_in_half_precision(tiny, tmp_path, dtype):
    tiny.save_pretrained(tmp_path / "model")
    result = generate("A", "--output", tmp_path / "case", "--model", tmp_path / "model", "--dtype", dtype, *FEW)
    assert result.exit_code == 0, result.output
    assert Case.load(tmp_path / "case").ct.dtype == np.int16


@pytest.mark.parametrize(
    ("capable", "precision"), [({"amx_bf16": True}, "bfloat16"), ({"avx512_bf16": True}, "bfloat16"), ({}, "float32")]
)
def test_networks_run_in_bf16_where_the_cpu_has_it_and_in_fp32_elsewhere(monkeypatch, tmp_path, capable, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capable, raising=False)
    result = generate("A", "--output", tmp_path / "case", "--only", "mask", *FEW)
    assert result.exit_code == 0, result.output
    assert Case.load(tmp_path / "case").provenance["dtype"] == precision


def test_a_patient_is_drawn_where_no_prompt_is_given(tmp_path):
    result = generate("--output", tmp_path / "case", "--only", "mask", *FEW)
    assert result.exit_code == 0, result.output
    assert None not in [v for k, v in Case.load(tmp_path / "case").attributes.items() if k in ("sex", "age", "race")]


def test_a_raw_prompt_is_saved_as_it_is(tmp_path):
    generate("my text", "--output", tmp_path / "case", "--raw-prompt", "--only", "mask", *FEW)
    assert Case.load(tmp_path / "case").prompt == "my text"


PHANTOMS = ["phantom", "--size", 16, 12, 24, "--spacing", 24]


def tree(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_phantoms_of_one_seed_are_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        assert run(*PHANTOMS, "--count", 3, "--seed", 7, "--output", tmp_path / name).exit_code == 0
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_phantoms_go_on_where_they_were_stopped(tmp_path):
    assert "2 written, 0 were there" in run(*PHANTOMS, "--count", 2, "--output", tmp_path / "a").output
    assert "2 written, 2 were there" in run(*PHANTOMS, "--count", 4, "--output", tmp_path / "a").output
    run(*PHANTOMS, "--count", 4, "--output", tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_phantoms_of_two_splits_share_a_folder_and_no_seed(tmp_path):
    for split in ("train", "test"):
        run(*PHANTOMS, "--count", 2, "--split", split, "--output", tmp_path)
    seeds = {row["seed"] for split in ("train", "test") for row in CaseDataset(tmp_path, split).rows}
    assert len(seeds) == 4


def test_phantoms_show_what_they_are_asked_for(tmp_path):
    run(*PHANTOMS, "--count", 2, "--prompt", "a tumour of the left kidney", "--output", tmp_path)
    assert [row["sites"] for row in CaseDataset(tmp_path, "train").rows] == [["left_kidney"]] * 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--count", 2, "--split", "exam"], "expected one of train, validation, test"),
        (["--count", 2, "--spacing", 0], "expected 0.5 to 50 mm"),
        (["--count", 2, "--seed", 10**9], "expected whole numbers within"),
    ],
)
def test_phantoms_of_nowhere_are_refused_in_one_line(tmp_path, arguments, words):
    result = run("phantom", *arguments, "--output", tmp_path / "a")
    assert result.exit_code == 1
    assert words in result.output
    assert not (tmp_path / "a").exists()


UNTRAINED = ["synthesize", "--model", "tiny", "--steps", 2, "--mask-steps", 2]
SET = [*UNTRAINED, "--no-gate"]


@pytest.fixture
def threads():
    """The command computes in as many threads as it is told."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_a_file_of_prompts_becomes_a_set_and_a_second_call_finds_it(tmp_path):
    (tmp_path / "a.txt").write_text("A woman with lung cancer.\nno tumour\n")
    asked = [*SET, "--prompts", tmp_path / "a.txt", "--split", "test", "--output", tmp_path / "set"]
    assert "2 of 2 cases made\n" in run(*asked).output
    assert [row["sites"] for row in CaseDataset(tmp_path / "set", "test").rows][1] == ["none"]
    assert "2 of 2 cases made; 2 cases were there" in run(*asked).output


@pytest.mark.usefixtures("threads")
def test_a_set_of_the_prior_takes_the_form_it_is_asked_for(tmp_path):
    asked = ["--count", 1, "--sites", "kidney", "--format", "nnunet", "--classes", "tumor", "--classes", "kidney"]
    assert run(*SET, *asked, "--regions", "--output", tmp_path / "Dataset007_K").exit_code == 0
    labels = json.loads((tmp_path / "Dataset007_K/dataset.json").read_text())["labels"]
    assert labels["kidney"] == [1, labels["kidney_tumor"]]


@pytest.mark.usefixtures("threads")
def test_noise_does_not_pass_the_gate_and_the_command_says_so(tmp_path):
    result = run(*UNTRAINED, "--count", 1, "--redraws", 1, "--output", tmp_path)
    assert result.exit_code == 1
    assert "the gate refused every draw of all 1 cases" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--count: got none, expected how many cases the prior is to draw"),
        (["--prompts", "a.txt", "--sites", "lung"], "--sites, --balance: got them with --prompts"),
        (["--count", 1, "--regions"], "--classes, --regions: got --format nifti, expected nnunet"),
        (["--count", 1, "--format", "nnunet", "--push-to-hub", "a/b"], "--push-to-hub: got --format nnunet"),
        (["--prompts", "nowhere.txt"], "nowhere.txt: no such file, expected prompts as text, JSONL or CSV"),
    ],
)
def test_sets_that_cannot_be_asked_for_are_refused_in_one_line(tmp_path, arguments, words):
    result = run(*SET, *arguments, "--output", tmp_path / "set")
    assert result.exit_code == 1
    assert words in result.output
    assert not (tmp_path / "set").exists()
