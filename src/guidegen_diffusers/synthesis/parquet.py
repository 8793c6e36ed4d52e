"""A set as Parquet shards with Nifti columns: what `datasets` streams and the Hub shows.

Cases lie beside the set as files until all are there; then shards are written of them, so a set needs its room twice.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from ..case import Case
from ..data.card import MARK, dataset_card
from ..data.dataset import CARD, SPLITS, replace_file, write_case
from ..grid import describe_grid
from .form import Form


__all__ = ["ParquetForm", "features", "push_to_hub"]

SHARD_BYTES = 400_000_000  # the Hub asks for less than 500 MB
ROWS_HELD = 8  # at a time, and in a row group


def features():
    """The columns as `datasets.Features`; it and pyarrow are heavy, and loaded where shards are written."""
    import datasets

    word, whole = datasets.Value("string"), datasets.Value("int64")
    return datasets.Features(
        {
            "ct": datasets.Nifti(),
            "labels": datasets.Nifti(),
            **dict.fromkeys(("name", "prompt", "sex", "age", "race"), word),
            "sites": datasets.List(word),
            **dict.fromkeys(("t", "n", "m", "size"), word),
            "synthetic": datasets.Value("bool"),
            "seed": whole,
            "shape": datasets.List(whole),
            "spacing": datasets.List(datasets.Value("float64")),
            **dict.fromkeys(("attributes", "provenance"), word),
        }
    )


class ParquetForm(Form):
    """`DIR/SPLIT/00000-of-00002.parquet` and a card; the columns are those of our data sets, the volumes within.

    Args:
        shard_bytes (`int`): a shard ends with the case that reaches this.
    """

    def __init__(self, shard_bytes: int = SHARD_BYTES):
        self.shard_bytes = shard_bytes

    def as_dict(self) -> dict[str, Any]:
        return {"format": "datasets", "shard_bytes": self.shard_bytes}

    def home(self, output: Path, split: str) -> Path:
        return output / split

    def files(self, output: Path, split: str, name: str) -> dict[str, Path]:
        return {volume: self._parts(output, split) / split / volume / f"{name}.nii.gz" for volume in ("ct", "labels")}

    def write(self, output: Path, split: str, name: str, case: Case) -> dict[str, Any]:
        return write_case(self._parts(output, split), split, name, case)

    def close(self, output: Path, split: str, rows: Sequence[dict[str, Any]], about: str) -> list[dict[str, Path]]:
        shards = list(self._shards(output, split, rows))
        shutil.rmtree(output / split, ignore_errors=True)  # of a process that was killed while it closed the set
        places = []
        for number, shard in enumerate(shards):
            path = output / split / f"{number:05d}-of-{len(shards):05d}.parquet"
            self._write_shard(path, self._parts(output, split), split, shard)
            places += [{"ct": path, "labels": path}] * len(shard)
        self._write_card(output, rows[0], about)
        return places

    def tidy(self, output: Path, split: str) -> None:
        shutil.rmtree(self._parts(output, split), ignore_errors=True)

    @staticmethod
    def _parts(output: Path, split: str) -> Path:
        return output / "synthesis" / split / "parts"

    def _shards(self, output: Path, split: str, rows: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        shard, size = [], 0
        for row in rows:
            shard.append(row)
            size += sum(path.stat().st_size for path in self.files(output, split, row["name"]).values())
            if size >= self.shard_bytes:
                yield shard
                shard, size = [], 0
        if shard:
            yield shard

    def _write_shard(self, path: Path, parts: Path, split: str, rows: list[dict[str, Any]]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path.parent.mkdir(parents=True, exist_ok=True)
        partial, schema = path.with_name(f".{path.name}.partial"), features().arrow_schema
        try:
            with pq.ParquetWriter(partial, schema) as writer:
                for start in range(0, len(rows), ROWS_HELD):
                    held = [_with_volumes(row, parts / split, schema.names) for row in rows[start : start + ROWS_HELD]]
                    writer.write_table(pa.Table.from_pylist(held, schema))
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def _write_card(self, output: Path, row: dict[str, Any], about: str) -> None:
        from pyarrow.parquet import read_metadata

        card = output / CARD
        if card.exists() and MARK not in card.read_text(encoding="utf-8", errors="replace"):
            return  # someone's own words
        counts = {
            split: sum(read_metadata(path).num_rows for path in (output / split).glob("*.parquet")) for split in SPLITS
        }
        counts = {split: count for split, count in counts.items() if count}
        text = dataset_card(counts, describe_grid(row["shape"], row["spacing"]), sum(counts.values()), about)
        lines = [line for line in text.splitlines() if "CaseDataset" not in line]  # it reads NIfTI files alone
        replace_file(card, ("\n".join(lines) + "\n").encode())


def _with_volumes(row: dict[str, Any], folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """A row with the bytes of its volumes in place of their files' names."""
    columns = {column: row[column] for column in names if column in row}
    for volume in ("ct", "labels"):
        name = row[f"{volume}_file_name"]
        columns[volume] = {"bytes": (folder / name).read_bytes(), "path": name}
    return columns


def push_to_hub(folder: str | os.PathLike, repo_id: str, private: bool = True, token: str | bool | None = None) -> str:
    """Upload shards, card and manifests to the Hub, private unless said otherwise; returns the set's address."""
    folder = Path(folder)
    splits = [split for split in SPLITS if (folder / "synthesis" / split / "manifest.jsonl").is_file()]
    if not any([*(folder / split).glob("*.parquet")] for split in splits) or not (folder / CARD).is_file():
        raise FileNotFoundError(f"{folder}: holds no complete set of shards, expected what `synthesize` has closed.")
    hub = HfApi(token=token)
    url = hub.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    hub.upload_folder(
        repo_id=url.repo_id,
        repo_type="dataset",
        folder_path=folder,
        allow_patterns=[
            CARD,
            *(pattern for split in splits for pattern in (f"{split}/*.parquet", f"synthesis/{split}/manifest.jsonl")),
        ],
        delete_patterns=[f"{split}/*" for split in SPLITS],  # what an earlier upload held and this one does not
        commit_message="Upload cases",
    )
    return str(url)
