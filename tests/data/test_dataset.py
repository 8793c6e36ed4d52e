"""A data set on disk: what is written comes back through our loader, through `datasets` and through the Hub."""

import hashlib
import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import datasets
import nibabel as nib
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from guidegen_diffusers import Case, Grid
from guidegen_diffusers.data import CaseDataset, DatasetWriter, push_to_hub, write_case

from ..loopback_hub import LoopbackHub


SHAPE = (6, 5, 7)
PLAN = {"a": "train", "b": "test", "c": "train", "d": "validation", "e": "train"}


def some_case(name, **changes):
    rng = np.random.default_rng(sum(name.encode()))
    values = dict(
        labels=rng.integers(0, 21, SHAPE, dtype=np.uint8),
        affine=Grid.centered(SHAPE, 3.0, (10.5, -20, 300)).affine,
        ct=rng.integers(-1024, 3000, SHAPE).astype(np.int16),
        prompt=f'Patient "{name}",\nä.',
        attributes={"sex": "male", "age": None, "sites": ["left_kidney", "right_kidney"], "t": 2, "habitus": 0.25},
        provenance={"synthetic": True, "seed": ord(name), "versions": {"phantom": 1}},
    )
    return Case(**{**values, **changes})


def write(folder, plan=PLAN, **changes):
    with DatasetWriter(folder) as writer:
        for name, split in plan.items():
            if name not in writer.finished:
                writer.append(split, write_case(folder, split, name, some_case(name, **changes)))
    return Path(folder)


def content(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(Path(folder).rglob("*")) if f.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "set")


def same(case, name):
    ours = some_case(name)
    return (
        np.array_equal(case.ct, ours.ct)
        and np.array_equal(case.labels, ours.labels)
        and np.allclose(case.affine, ours.affine, atol=1e-4)
        and (case.prompt, case.attributes, case.provenance) == (ours.prompt, ours.attributes, ours.provenance)
    )


def test_cases_come_back_as_they_were_written(folder):
    for split in ("train", "validation", "test"):
        dataset = CaseDataset(folder, split)
        assert [row["name"] for row in dataset.rows] == [name for name, s in PLAN.items() if s == split]
        assert all(same(dataset.case(i), row["name"]) for i, row in enumerate(dataset.rows))


def test_an_item_is_made_of_tensors_and_words_and_fits_a_batch(folder):
    dataset = CaseDataset(folder)
    item = dataset[0]
    assert (item["ct"].dtype, item["labels"].dtype, item["affine"].dtype) == (torch.int16, torch.uint8, torch.float64)
    assert item["ct"].shape == item["labels"].shape == SHAPE
    assert item["attributes"]["t"] == "2"
    assert item["attributes"]["age"] == "unknown"
    assert item["attributes"]["sites"] == "left_kidney, right_kidney"
    batch = next(iter(DataLoader(dataset, batch_size=3)))
    assert batch["ct"].shape == (3, *SHAPE)
    assert batch["name"] == ["a", "c", "e"]


def test_workers_of_a_loader_read_it_too(folder):
    assert [row["name"] for row in pickle.loads(pickle.dumps(CaseDataset(folder))).rows] == ["a", "c", "e"]
    names = [item["name"] for item in DataLoader(CaseDataset(folder), batch_size=None, num_workers=1)]
    assert names == ["a", "c", "e"]


def test_volumes_carry_their_units_and_say_that_they_are_synthetic(folder):
    ct, labels = (nib.load(folder / "train" / kind / "a.nii.gz") for kind in ("ct", "labels"))
    assert (ct.get_data_dtype(), labels.get_data_dtype()) == (np.int16, np.uint8)
    for image in (ct, labels):
        assert image.header["descrip"].item().startswith(b"SYNTHETIC")
        assert image.header.get_xyzt_units()[0] == "mm"
        assert (image.header["sform_code"], image.header["qform_code"]) == (1, 1)


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_reads_every_split_and_value(folder, tmp_path, streaming):
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path), streaming=streaming)
    assert list(loaded) == ["train", "validation", "test"]
    for split, rows in loaded.items():
        assert rows.features["ct"] == rows.features["labels"] == datasets.Nifti()
        names = []
        for row in rows:
            ours = some_case(row["name"])
            assert np.array_equal(np.asarray(row["ct"].dataobj), ours.ct)
            assert np.array_equal(np.asarray(row["labels"].dataobj), ours.labels)
            assert np.allclose(row["ct"].affine, ours.affine, atol=1e-4)
            assert np.array_equal(row["ct"].affine, row["labels"].affine)
            assert (row["prompt"], row["sex"], row["t"]) == (ours.prompt, "male", "2")
            assert (row["sites"], row["spacing"]) == (["left_kidney", "right_kidney"], [3.0, 3.0, 3.0])
            assert (row["synthetic"], row["seed"]) == (True, ord(row["name"]))
            assert json.loads(row["provenance"]) == ours.provenance
            names.append(row["name"])
        assert names == [name for name, s in PLAN.items() if s == split]


@pytest.mark.parametrize("plan", [{"a": "train"}, {"a": "test", "b": "validation"}])
def test_fewer_splits_load_as_well(tmp_path, plan):
    folder = write(tmp_path / "set", plan)
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: rows["name"] for split, rows in loaded.items()} == {split: [name] for name, split in plan.items()}


def test_splits_of_which_one_knows_nothing_have_the_same_types(tmp_path):
    """`datasets` would call a column of nulls, or of empty lists, a type of its own and refuse the whole."""
    folder = tmp_path / "set"
    with DatasetWriter(folder) as writer:
        writer.append("train", write_case(folder, "train", "a", some_case("a")))
        unknown = some_case("b", attributes={}, provenance={}, prompt="")
        writer.append("test", write_case(folder, "test", "b", unknown))
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    row = loaded["test"][0]
    assert loaded["train"].features == loaded["test"].features
    assert (row["sex"], row["t"], row["sites"], row["synthetic"], row["seed"]) == ("unknown",) * 2 + (
        ["unknown"],
        False,
        -1,
    )


def test_a_data_set_goes_to_the_hub_and_comes_back(folder, tmp_path):
    push = "import sys; from guidegen_diffusers.data import push_to_hub; push_to_hub(sys.argv[1], 'someone/cts')"
    pull = """
import datasets, hashlib
loaded = datasets.load_dataset("someone/cts")
for split in loaded:
    for row in loaded[split]:
        print("ROW", split, row["name"], hashlib.sha256(row["ct"].dataobj.__array__().tobytes("F")).hexdigest())
"""

    def run(script, *arguments):
        call = [sys.executable, "-c", script, *map(str, arguments)]
        done = subprocess.run(call, env=hub.environment(tmp_path / "home"), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("ROW")]

    (folder / "report.csv").write_text("not for the Hub")
    with LoopbackHub() as hub:
        run(push, folder)
        assert {f for f in hub.files("datasets/someone/cts") if "/" in f} == {f for f in content(folder) if "/" in f}
        assert "report.csv" not in hub.files("datasets/someone/cts")
        assert hub.private == {"datasets/someone/cts"}  # patients are not published by default
        rows = run(pull)
    (folder / "report.csv").unlink()
    expected = [
        [split, name, hashlib.sha256(some_case(name).ct.tobytes("F")).hexdigest()]
        for split in ("train", "validation", "test")
        for name in PLAN
        if PLAN[name] == split
    ]
    assert rows == expected


def test_what_is_no_data_set_is_not_pushed(tmp_path):
    with pytest.raises(FileNotFoundError, match="no whole data set"):
        push_to_hub(tmp_path, "someone/cts")


def test_the_order_in_which_cases_come_leaves_no_trace(folder, tmp_path):
    backwards = write(tmp_path / "set", dict(reversed(PLAN.items())))
    assert content(backwards) == content(folder)


def test_a_run_killed_at_any_write_goes_on_to_the_same_bytes(folder, tmp_path):
    """SIGKILL before each rename and after each, and in the middle of a row."""
    replace, whole = os.replace, content(folder)

    def killed_at(moment):
        moments = itertools.count()

        def do(*arguments):
            if next(moments) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(*arguments)
            if next(moments) == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        return do

    for moment in range(2 * (2 * len(PLAN) + 1)):  # two volumes a case, and the card
        target = tmp_path / str(moment)
        if (child := os.fork()) == 0:
            os.replace = killed_at(moment)
            write(target)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status)
        rows = target / "train" / "metadata.jsonl"
        if rows.exists():  # what a kill within the write of a row leaves
            with rows.open("ab") as file:
                file.write(b'{"ct_file_name": "ct/z')
        write(target)
        assert content(target) == whole


def test_a_row_whose_volume_was_lost_is_made_again(tmp_path, folder):
    again = write(tmp_path / "set")
    (again / "train" / "labels" / "c.nii.gz").unlink()
    with DatasetWriter(again) as writer:
        assert writer.finished == {"a", "b", "d", "e"}
    write(again)
    assert content(again) == content(folder)


def test_overwriting_forgets_the_cases_and_nothing_else(tmp_path):
    folder = write(tmp_path / "set")
    (folder / "notes.txt").write_text("mine")
    with DatasetWriter(folder, overwrite=True) as writer:
        assert writer.finished == set()
    assert [f for f in content(folder) if f.endswith((".gz", ".jsonl"))] == []
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_card_that_someone_wrote_stays(tmp_path):
    folder = write(tmp_path / "set", {"a": "train"})
    (folder / "README.md").write_text("Mine.")
    write(folder)
    assert (folder / "README.md").read_text() == "Mine."


def test_one_grid_and_one_name_a_case(tmp_path):
    folder = write(tmp_path / "set", {"a": "train"})
    with DatasetWriter(folder) as writer:
        with pytest.raises(ValueError, match="is in .* already"):
            writer.append("test", write_case(tmp_path / "other", "test", "a", some_case("a")))
        coarse = some_case("b", affine=Grid.centered(SHAPE, 6.0).affine)
        with pytest.raises(ValueError, match="holds cases of 6 x 5 x 7 voxels of 3 x 3 x 3 mm, got .* 6 x 6 x 6 mm"):
            writer.append("test", write_case(folder, "test", "b", coarse))
        with pytest.raises(FileNotFoundError, match="`write_case` comes before"):
            writer.append("test", {**writer.rows["train"][0], "name": "z", "ct_file_name": "ct/z.nii.gz"})


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".a", "2021-03-04", "a\n", "a" * 201, "a[1]", None])
def test_names_that_make_no_file_or_no_string_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="case name"):
        write_case(tmp_path, "train", name, some_case("a"))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_whole_case_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="has no CT"):
        write_case(tmp_path, "train", "a", some_case("a", ct=None))
    with pytest.raises(ValueError, match="expected one of train, validation, test"):
        write_case(tmp_path, "val", "a", some_case("a"))
    with pytest.raises(ValueError, match="Out of range"):
        write_case(tmp_path, "train", "a", some_case("a", attributes={"t": float("nan")}))
    assert list(tmp_path.iterdir()) == []


def test_damaged_data_sets_are_refused_with_what_is_wrong(tmp_path):
    def damaged(name, do):
        folder = write(tmp_path / name)
        do(folder / "train")
        return folder

    def edit(change):
        def do(train):
            rows = [json.loads(line) for line in (train / "metadata.jsonl").read_text().splitlines()]
            change(rows)
            (train / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

        return do

    with pytest.raises(FileNotFoundError, match="is no data set of ours"):
        CaseDataset(tmp_path)
    with pytest.raises(FileNotFoundError, match="has the splits train"):
        CaseDataset(write(tmp_path / "one", {"a": "train"}), "test")
    with pytest.raises(ValueError, match="split: got 'training'"):
        CaseDataset(tmp_path, "training")
    with pytest.raises(ValueError, match="is empty"):
        CaseDataset(damaged("empty", lambda train: (train / "metadata.jsonl").write_text("")))
    with pytest.raises(ValueError, match="line 2: is no row of ours"):
        CaseDataset(damaged("row", edit(lambda rows: rows[1].pop("shape"))))
    with pytest.raises(FileNotFoundError, match=r"c\.nii\.gz: no such file, though"):
        CaseDataset(damaged("lost", lambda train: (train / "ct" / "c.nii.gz").unlink()))
    with pytest.raises(ValueError, match="expected one grid"):
        CaseDataset(damaged("mixed", edit(lambda rows: rows[1].update(spacing=[1.0, 1.0, 1.0]))))
    folder = damaged("half", lambda t: (t / "ct" / "c.nii.gz").write_bytes((t / "ct" / "c.nii.gz").read_bytes()[:99]))
    with pytest.raises(ValueError, match=r"c\.nii\.gz: is no NIfTI file"):
        CaseDataset(folder)[1]
    folder = damaged("other", lambda t: os.replace(t / "ct" / "c.nii.gz", t / "labels" / "c.nii.gz") or 0)
    with pytest.raises(FileNotFoundError, match=r"ct/c\.nii\.gz"):
        CaseDataset(folder)

    def move(train):
        image = nib.load(train / "ct" / "c.nii.gz")
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine + np.eye(4, k=3)), train / "ct" / "c.nii.gz")

    with pytest.raises(ValueError, match="c: CT and labels lie on different affines"):
        CaseDataset(damaged("moved", move))[1]
    folder = damaged(
        "cut", lambda t: nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)), t / "ct/c.nii.gz")
    )
    with pytest.raises(ValueError, match="as listed"):
        CaseDataset(folder)[1]
