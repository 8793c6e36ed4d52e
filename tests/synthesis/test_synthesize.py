"""A set is the same however it came about: in one go, in groups, by two processes, killed or short of disk."""

import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tqdm import tqdm
from typer.testing import CliRunner

from guidegen_diffusers import Case, CaseDataset
from guidegen_diffusers.cli import app
from guidegen_diffusers.labels import TUMOR
from guidegen_diffusers.synthesis import Gate, NiftiForm, NnunetForm, ParquetForm, Plan, records, synthesize

from ..examples.launch import kill_family
from .phantoms import Phantoms, coarse


PLAN = Plan.from_prior(7, ["kidney", "none"], "sites", seed=1)
FORMS = {"nifti": NiftiForm(), "Dataset101_T": NnunetForm(regions=True), "datasets": ParquetForm(20_000)}


def make(folder, pipeline=None, plan=PLAN, form=None, gate=None, **options):
    return synthesize(pipeline or coarse(), plan, folder, form, gate, progress=False, **options)


def manifest(folder):
    lines = (Path(folder) / "synthesis/train/manifest.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Each form, made in one go."""
    folder = tmp_path_factory.mktemp("whole")
    for name, form in FORMS.items():
        make(folder / name, form=form)
    return folder


# -------------------------------------------------------------------------------------------------------- what is made


def test_our_loader_reads_the_set_and_its_cases_are_the_planned_ones(whole):
    cases = CaseDataset(whole / "nifti")
    assert [row["name"] for row in cases.rows] == [PLAN[i].name for i in range(7)]
    for i in range(7):
        case, phantom = cases.case(i), coarse().phantom.sample(PLAN[i].prompt, PLAN[i].seed(0))
        assert np.array_equal(case.ct, phantom.ct)
        assert (case.prompt, case.attributes) == (PLAN[i].sentence, PLAN[i].prompt.as_dict())
        assert (case.synthetic, case.provenance["seed"]) == (True, PLAN[i].seed(0))


def test_the_manifest_tells_prompt_seed_and_hashes_of_each_case(whole):
    rows = manifest(whole / "nifti")
    assert [row["index"] for row in rows] == list(range(7))
    for i, row in enumerate(rows):
        assert (row["status"], row["prompt"], row["seed"]) == ("made", PLAN[i].sentence, PLAN[i].seed(0))
        assert set(row["files"]) == {"ct", "labels"}
        for file in row["files"].values():
            assert hashlib.sha256((whole / "nifti" / file["path"]).read_bytes()).hexdigest() == file["sha256"]


def test_a_case_is_what_the_pipeline_draws_from_its_text_and_seed(tiny, tmp_path):
    (tmp_path / "a.txt").write_text("A woman with a tumour of the left kidney.\n")
    few = dict(num_inference_steps=2, mask_num_inference_steps=3)
    plan = Plan.from_file(tmp_path / "a.txt")
    make(tmp_path / "set", tiny, plan, **few)
    ours = CaseDataset(tmp_path / "set").case(0)
    drawn = tiny(plan[0].text, generator=torch.Generator().manual_seed(plan[0].seed(0)), **few).cases[0]
    assert np.array_equal(ours.ct, drawn.ct)
    assert np.array_equal(ours.labels, drawn.labels)
    assert (ours.prompt, ours.attributes) == (drawn.prompt, drawn.attributes)
    assert ours.provenance == drawn.provenance


def test_a_sentence_is_encoded_once_however_often_it_is_drawn(tiny, tmp_path, monkeypatch):
    said = []
    encode = tiny._encode_text
    monkeypatch.setattr(tiny, "_encode_text", lambda texts, device: said.append(texts) or encode(texts, device))
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": Plan.from_prior(1)[0].sentence}) + "\n")
    plan = Plan.from_file(tmp_path / "a.jsonl", 3)
    never = Gate(volumes_ml={"liver": (1e6, 2e6)}, hu={})
    with pytest.raises(ValueError, match="the gate refused every draw"):
        make(tmp_path / "set", tiny, plan, gate=never, redraws=1, num_inference_steps=1, mask_num_inference_steps=1)
    assert said.count([plan[0].sentence]) == 1


# ---------------------------------------------------------------------------------------------------------------- gate


def spoil_first_draws(plan, which):
    """The first draw of the cases `which` has no tumour."""
    seeds = {plan[i].seed(0) for i in which}

    def spoil(case, seed):
        if seed in seeds:
            case.labels[case.labels == TUMOR] = 2
        return case

    return spoil


def test_what_the_gate_refuses_is_drawn_again_with_a_new_seed_and_counted(tmp_path):
    plan = Plan.from_prior(4, ["left_kidney"], seed=1)
    summary = make(tmp_path, Phantoms(spoil=spoil_first_draws(plan, [1, 2])), plan, gate=Gate())
    assert (summary.made, summary.refused, summary.redraws, summary.reasons) == (4, 0, 2, {"site": 2})
    rows = manifest(tmp_path)
    assert [row["seed"] for row in rows] == [plan[i].seed(int(i in (1, 2))) for i in range(4)]
    assert list(rows[1]["draws"][0]["refused"]) == ["site"]
    assert rows[1]["draws"][1]["refused"] == {}
    assert rows[1]["checks"]["site"] == "left_kidney"
    assert "2 draws were made again and 0 cases given up (refused for site 2)" in (tmp_path / "README.md").read_text()
    assert CaseDataset(tmp_path).case(1).provenance["seed"] == plan[1].seed(1)


def test_what_fails_every_draw_is_given_up_counted_and_not_in_the_set(tmp_path):
    plan = Plan.from_prior(4, ["left_kidney"], seed=1)
    bad = {plan[2].seed(attempt) for attempt in range(3)}

    def spoil(case, seed):
        return Case(case.labels, case.affine, np.zeros_like(case.ct)) if seed in bad else case

    summary = make(tmp_path, Phantoms(spoil=spoil), plan, gate=Gate(), redraws=2)
    assert (summary.asked, summary.made, summary.refused, summary.redraws) == (4, 3, 1, 2)
    assert summary.reasons == {"hu": 3}
    assert "3 of 4 cases made, 1 given up" in str(summary)
    row = manifest(tmp_path)[2]
    assert (row["status"], row["files"], len(row["draws"])) == ("refused", {}, 3)
    assert "lung of 0 HU" in row["draws"][0]["refused"]["hu"]
    assert [row["name"] for row in CaseDataset(tmp_path).rows] == [plan[i].name for i in (0, 1, 3)]
    assert len(list(tmp_path.rglob("*.nii.gz"))) == 6


def test_no_set_is_made_of_cases_that_all_failed(tmp_path):
    zero = Phantoms(spoil=lambda case, seed: Case(case.labels, case.affine, np.zeros_like(case.ct)))
    with pytest.raises(ValueError, match=r"refused every draw of all 2 cases.*lung of 0 HU"):
        make(tmp_path, zero, Plan.from_prior(2), gate=Gate(), redraws=0)
    assert not (tmp_path / "train").exists()


# --------------------------------------------------------------------------------- the same set, however it came about


def test_the_seed_makes_the_set(whole, tmp_path, content):
    make(tmp_path / "same")
    make(tmp_path / "other", plan=Plan.from_prior(7, ["kidney", "none"], "sites", seed=2))
    assert content(tmp_path / "same") == content(whole / "nifti")
    hashes = [{row["files"]["ct"]["sha256"] for row in manifest(tmp_path / name)} for name in ("same", "other")]
    assert not hashes[0] & hashes[1]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_any_number_of_processes_in_any_order_make_the_same_set(whole, tmp_path, content, name, order):
    summaries = [make(tmp_path / name, form=FORMS[name], rank=rank, world=3) for rank in order]
    assert [summary.complete for summary in summaries] == [False, False, True]
    assert [summary.closed for summary in summaries] == [False, False, True]
    assert content(tmp_path / name) == content(whole / name)


def test_a_process_makes_its_share_alone(tmp_path):
    pipeline = coarse()
    make(tmp_path, pipeline, rank=1, world=3)
    assert pipeline.calls == [[PLAN[1].sentence], [PLAN[4].sentence]]


def test_groups_are_drawn_by_one_call_and_what_fails_by_another(tmp_path):
    plan = Plan.from_prior(5, ["left_kidney"], seed=1)
    pipeline = Phantoms(spoil=spoil_first_draws(plan, [1]))
    make(tmp_path, pipeline, plan, gate=Gate(), batch_size=2)
    assert [len(call) for call in pipeline.calls] == [2, 1, 2, 1]


def test_batches_of_a_real_pipeline_do_not_depend_on_what_was_there(tiny, tmp_path, content):
    few = dict(num_inference_steps=2, mask_num_inference_steps=2, batch_size=3)
    make(tmp_path / "a", tiny, **few)
    make(tmp_path / "b", tiny, **few, rank=1, world=2)
    (tmp_path / "b/synthesis/train/records/train_000004.json").unlink()  # as if killed within the second group
    make(tmp_path / "b", tiny, **few)
    assert content(tmp_path / "a") == content(tmp_path / "b")


class Stopped(BaseException):
    pass


def count_renames(monkeypatch, last=None):
    """How often a file appeared, which it does by a rename; with `last` the process ends before that one."""
    seen, replace = [], os.replace

    def counted(source, target):
        seen.append(target)
        if len(seen) - 1 == last:
            raise Stopped
        return replace(source, target)

    monkeypatch.setattr(os, "replace", counted)
    return seen


@pytest.mark.parametrize("name", FORMS)
def test_a_run_that_ends_at_any_rename_goes_on_to_the_same_set(tmp_path, content, monkeypatch, name):
    plan, form = Plan.from_prior(2, seed=1), FORMS[name]
    with monkeypatch.context() as patch:
        renames = count_renames(patch)
        make(tmp_path / "whole" / name, plan=plan, form=form)
    assert len(renames) >= 9  # plan, two volumes and a record a case, card or dataset.json, manifest
    for number in range(len(renames)):
        with monkeypatch.context() as patch:
            count_renames(patch, number)
            with pytest.raises(Stopped):
                make(tmp_path / str(number) / name, plan=plan, form=form)
        make(tmp_path / str(number) / name, plan=plan, form=form)
        assert content(tmp_path / str(number) / name) == content(tmp_path / "whole" / name), renames[number]


@pytest.mark.parametrize("name", FORMS)
def test_a_run_that_ends_before_it_has_tidied_leaves_that_to_the_next(whole, tmp_path, content, monkeypatch, name):
    def killed(*_):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(type(FORMS[name]), "tidy", killed)
        with pytest.raises(Stopped):
            make(tmp_path / name, form=FORMS[name])
    make(tmp_path / name, form=FORMS[name])
    assert content(tmp_path / name) == content(whole / name)


@pytest.mark.parametrize("name", FORMS)
def test_processes_killed_at_random_lose_and_double_nothing(whole, tmp_path, content, name):
    chance, folder, kept, killed = random.Random(0), tmp_path / name, tmp_path / name / "synthesis/train/records", 0
    for _ in range(50):
        before = {path: path.read_bytes() for path in kept.glob("train_*.json")}
        child = os.fork()  # spares the seconds of importing everything anew
        if child == 0:
            tqdm.set_lock(threading.RLock())  # its own is a semaphore, which forks share and the killed never free
            make(folder, form=FORMS[name])
            os._exit(0)
        time.sleep(chance.uniform(0, 0.15))
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        assert before.items() <= {path: path.read_bytes() for path in kept.glob("train_*.json")}.items()
        if (folder / "synthesis/train/manifest.jsonl").exists():
            break
    make(folder, form=FORMS[name])
    assert killed
    assert content(folder) == content(whole / name)


def test_a_complete_set_is_left_alone(whole, content):
    for name, form in FORMS.items():
        before, pipeline = content(whole / name), coarse()
        summary = make(whole / name, pipeline, form=form)
        assert (summary.found, summary.complete, summary.made, pipeline.calls) == (7, True, 7, [])
        assert content(whole / name) == before


def test_cases_whose_files_were_lost_are_made_anew(whole, tmp_path, content):
    make(tmp_path)
    (tmp_path / "train/ct/train_000003.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"train_000003.nii.gz: no such file, though .* remove the manifest"):
        make(tmp_path)
    (tmp_path / "synthesis/train/manifest.jsonl").unlink()
    pipeline = coarse()
    make(tmp_path, pipeline)
    assert pipeline.calls == [[PLAN[3].sentence]]
    assert content(tmp_path) == content(whole / "nifti")


# ----------------------------------------------------------------------------------------------------------- full disk


@pytest.mark.parametrize("name", FORMS)
def test_a_full_disk_ends_the_run_cleanly_and_it_goes_on_once_there_is_room(
    whole, tmp_path, content, monkeypatch, name
):
    write = Path.write_bytes

    def full(path, data):
        if "train_000003" in path.name and path.name.endswith(".nii.gz.partial"):
            write(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(
            OSError, match=r"No space left on device; [34] of 7 cases are complete and stay\. Free"
        ) as error:
            make(tmp_path / name, form=FORMS[name])
    assert error.value.errno == errno.ENOSPC
    assert not list(tmp_path.rglob("*.partial"))
    assert not (tmp_path / name / "synthesis/train/manifest.jsonl").exists()
    make(tmp_path / name, form=FORMS[name])
    assert content(tmp_path / name) == content(whole / name)


def test_another_error_of_the_disk_is_told_as_it_is(tmp_path, monkeypatch):
    def broken(path, data):
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(records, "replace_file", broken)
    with pytest.raises(PermissionError, match="no"):
        make(tmp_path)


# ----------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(plan=Plan.from_prior(8, ["kidney", "none"], "sites", seed=1)), "count: 7, now 8"),
        (dict(form=ParquetForm()), 'format: "nifti", now "datasets"'),
        (dict(gate=Gate()), "gate: null, now"),
        (dict(batch_size=2), "batch_size: 1, now 2"),
        (dict(mask_num_inference_steps=3), "settings: {}, now"),
    ],
)
def test_a_set_that_was_begun_otherwise_is_not_gone_on_with(whole, content, change, words):
    before = content(whole / "nifti")
    with pytest.raises(ValueError, match=words):
        make(whole / "nifti", **change)
    assert content(whole / "nifti") == before


def test_what_this_synthesis_did_not_make_is_not_written_over(whole, tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(FileExistsError, match="holds what this synthesis did not make"):
        make(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="this is a file, expected a folder"):
        make(tmp_path / "file")


def test_splits_share_a_folder_and_no_case(tmp_path):
    make(tmp_path)
    make(tmp_path, plan=Plan.from_prior(7, ["kidney", "none"], "sites", seed=1, split="test"))
    cases = [CaseDataset(tmp_path, split).rows for split in ("train", "test")]
    assert len({row["seed"] for rows in cases for row in rows}) == 14


def test_cases_of_several_grids_make_no_set(tmp_path):
    def spoil(case, seed):
        return case if seed != PLAN[2].seed(0) else Case(case.labels[1:], case.affine, case.ct[1:])

    with pytest.raises(ValueError, match="got cases of several grids"):
        make(tmp_path, coarse(spoil=spoil))
    assert not (tmp_path / "synthesis/train/manifest.jsonl").exists()


def test_a_pipeline_that_gives_no_pairs_is_refused(tmp_path):
    with pytest.raises(ValueError, match="gave 1 cases for 1 prompts, 1 of them without a CT"):
        make(tmp_path / "a", coarse(spoil=lambda case, seed: Case(case.labels, case.affine)))
    with pytest.raises(ValueError, match="gave 0 cases for 1 prompts"):
        make(tmp_path / "b", lambda prompt, generator: SimpleNamespace(cases=[]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(redraws=-1), "redraws: got -1"),
        (dict(batch_size=0), "batch_size: got 0"),
        (dict(rank=2, world=2), "rank: got 2, expected 0 to 1"),
    ],
)
def test_numbers_that_cannot_be_are_refused_before_anything_is_written(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        make(tmp_path / "set", **options)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------ real processes


ASKED = ["--model", "tiny", "--count", "4", "--balance", "sites", "--no-gate", "--steps", "2", "--mask-steps", "2"]
COMMAND = ["-m", "guidegen_diffusers.cli", "synthesize", *ASKED]
# `--cpu --num_processes 2` starts one process in silence; what starts two hides behind --multi_gpu
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
ALONE = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}


def run(call, folder, kill_when=lambda: False, timeout=600):
    end = time.monotonic() + timeout
    call = [sys.executable, *call, "--output", str(folder)]
    process = subprocess.Popen(call, env=os.environ | ALONE, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        while process.poll() is None and not kill_when():
            assert time.monotonic() < end, f"{call} took more than {timeout} s"
            time.sleep(0.002)
    finally:
        kill_family(process)
    return process.returncode


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "set"
    result = CliRunner().invoke(app, [*COMMAND[2:], "--output", str(folder)])
    assert result.exit_code == 0, result.output
    return folder


def test_two_processes_of_accelerate_make_the_same_bytes_as_one(alone, tmp_path, content):
    assert run([*LAUNCH, *COMMAND], tmp_path / "set") == 0
    assert content(tmp_path / "set") == content(alone)


class Alarm:
    """Rings some seconds after anything was written since it was set."""

    def __init__(self, folder, seconds):
        self.folder, self.seconds, self.begun = folder, seconds, None
        self.before = self.state()

    def state(self):
        return sorted(file.name for file in self.folder.rglob("*.json"))

    def __call__(self):
        if self.begun is None and self.state() != self.before:
            self.begun = time.monotonic()
        return self.begun is not None and time.monotonic() - self.begun > self.seconds


@pytest.mark.slow
def test_launched_processes_killed_again_and_again_end_with_the_same_bytes(alone, tmp_path, content):
    chance, folder, codes = random.Random(0), tmp_path / "set", []
    for attempt in range(3):
        call = [*LAUNCH, *COMMAND] if attempt % 2 else COMMAND
        codes.append(run(call, folder, Alarm(folder / "synthesis", chance.uniform(0, 1))))
        if codes[-1] == 0:
            break
    assert codes[0] == -signal.SIGKILL
    assert run(COMMAND, folder) == 0
    assert content(folder) == content(alone)
