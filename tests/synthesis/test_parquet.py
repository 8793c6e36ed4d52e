"""The form for `datasets`: shards that load and stream with their volumes within, and go to the Hub."""

import json

import datasets
import numpy as np
import pytest

from guidegen_diffusers import CaseDataset
from guidegen_diffusers.synthesis import ParquetForm, Plan, synthesize
from guidegen_diffusers.synthesis.parquet import push_to_hub

from ..loopback_hub import LoopbackHub
from .phantoms import coarse


PLAN = Plan.from_prior(5, seed=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parquet") / "set"
    synthesize(coarse(), PLAN, folder, ParquetForm(shard_bytes=8_000), None, progress=False)
    return folder


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_reads_the_volumes_and_words_that_the_nifti_form_has(folder, tmp_path, streaming):
    synthesize(coarse(), PLAN, tmp_path / "nifti", gate=None, progress=False)
    ours = CaseDataset(tmp_path / "nifti")
    rows = list(
        datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"), streaming=streaming)
    )
    assert [row["name"] for row in rows] == [row["name"] for row in ours.rows]
    for i, row in enumerate(rows):
        case = ours.case(i)
        assert np.array_equal(np.asarray(row["ct"].dataobj), case.ct)
        assert np.array_equal(np.asarray(row["labels"].dataobj), case.labels)
        assert np.array_equal(row["ct"].affine, row["labels"].affine)
        assert json.loads(row["provenance"]) == case.provenance
        assert {k: v for k, v in row.items() if k not in ("ct", "labels")} == {
            k: v for k, v in ours.rows[i].items() if not k.endswith("_file_name")
        }


def test_columns_know_that_they_are_volumes(folder, tmp_path):
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path))
    assert loaded["train"].features["ct"] == loaded["train"].features["labels"] == datasets.Nifti()


def test_shards_end_at_their_size_and_the_manifest_says_where_each_case_lies(folder):
    shards = sorted(path.name for path in (folder / "train").iterdir())
    assert len(shards) > 1
    assert shards[0] == f"00000-of-{len(shards):05d}.parquet"
    rows = [json.loads(line) for line in (folder / "synthesis/train/manifest.jsonl").read_text().splitlines()]
    for shard in shards:
        held = datasets.Dataset.from_parquet(str(folder / "train" / shard), cache_dir=str(folder.parent / "c"))["name"]
        assert list(held) == [row["name"] for row in rows if row["files"]["ct"]["path"] == f"train/{shard}"]


def test_a_complete_set_keeps_no_case_twice(folder):
    assert not list(folder.rglob("*.nii.gz"))
    assert not list(folder.rglob("*.partial"))


def test_a_set_goes_to_the_hub_as_it_lies_here(folder, monkeypatch):
    with LoopbackHub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        push_to_hub(folder, "a/b", token="hf_test")
        assert "datasets/a/b" in hub.private
        uploaded = {name: data for name, data in hub.files("datasets/a/b").items() if name != ".gitattributes"}
    kept = [*folder.glob("train/*"), folder / "README.md", folder / "synthesis/train/manifest.jsonl"]
    assert uploaded == {path.relative_to(folder).as_posix(): path.read_bytes() for path in kept}


def test_what_is_not_complete_is_not_uploaded(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no complete set of shards"):
        push_to_hub(tmp_path, "a/b")
