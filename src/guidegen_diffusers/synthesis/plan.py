"""What a set is to hold: the prompt and the seeds of each case, as a pure function of its index.

What is asked for, the lines of a file or the sites of the prior, is gone through again and again until there are
enough cases. What a prompt leaves open is drawn once a case; a case that is drawn again keeps its patient.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..data.dataset import check_split
from ..data.prompt_table import EMPTY, NAMES, TableRow
from ..prompts import SITES, ClinicalPrompt
from ..prompts.attributes import ORGANS


__all__ = ["Plan", "PlannedCase", "seed_of"]

FIELDS = {theirs: ours for ours, names in NAMES.items() if ours not in ("name", "split") for theirs in names}


def seed_of(seed: int, split: str, index: int, attempt: int) -> int:
    """The seed of a draw, 63 bits: no two splits, cases or attempts share one."""
    digest = hashlib.sha256(f"{seed} {split} {index} {attempt}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class PlannedCase:
    """One case: `text` as it was given ("" from the prior), `prompt` with all that it left open filled in."""

    index: int
    text: str
    prompt: ClinicalPrompt
    seeds: tuple[int, str]

    @property
    def name(self) -> str:
        return f"{self.seeds[1]}_{self.index:06d}"  # names are those of no other split

    @property
    def sentence(self) -> str:
        return self.prompt.render()

    def seed(self, attempt: int) -> int:
        return seed_of(*self.seeds, self.index, attempt)


@dataclass(frozen=True)
class Plan(Sequence):
    """
    Args:
        asked (`tuple[tuple[str, ClinicalPrompt], ...]`): what is asked for, text and reading; case i shows the
            i-th, and beyond the last the first again.
        count (`int`): how many cases.
        seed (`int`): of the set.
        split (`str`): train, validation or test; they share no draw.
    """

    asked: tuple[tuple[str, ClinicalPrompt], ...]
    count: int
    seed: int = 0
    split: str = "train"

    def __post_init__(self):
        check_split(self.split)
        if not self.asked:
            raise ValueError("asked: got no prompt, expected at least one.")
        for name, least in (("count", 1), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"{name}: got {value!r}, expected a whole number of at least {least}.")

    @classmethod
    def from_prior(
        cls,
        count: int,
        sites: Sequence[str] = (),
        balance: str | None = None,
        seed: int = 0,
        split: str = "train",
    ) -> Plan:
        """Patients drawn by `prompts.prior`; `sites` are organs (lung, kidney, colon) or sites, all unless given.

        With `balance="sites"` each site comes equally often, no tumour (none) like any other.
        """
        if balance not in (None, "sites"):
            raise ValueError(f"balance: got {balance!r}, expected 'sites' or None.")
        if isinstance(sites, str):
            raise TypeError(f"sites: got the string {sites!r}, expected a list of names.")
        if wrong := [site for site in sites if site not in SITES and site not in ORGANS]:
            raise ValueError(f"sites: got {', '.join(wrong)}, expected names among {', '.join((*ORGANS, *SITES))}.")
        wanted = {site for name in sites or SITES for site in ORGANS.get(name, (name,))}
        groups = [{site} for site in SITES if site in wanted] if balance else [wanted]
        return cls(tuple(("", ClinicalPrompt(sites=frozenset(group))) for group in groups), count, seed, split)

    @classmethod
    def from_file(cls, path: str | os.PathLike, count: int | None = None, seed: int = 0, split: str = "train") -> Plan:
        """The prompts of a file, one case each or `count` in all: text (a prompt a line), JSONL, CSV or TSV.

        Tables have a column `prompt`, or clinical fields as `guidegen prepare` reads them.
        """
        path = Path(path)
        asked = tuple(_table(path) if path.suffix in (".csv", ".tsv", ".jsonl", ".ndjson") else _lines(path))
        if not asked:
            raise ValueError(f"{path}: holds no prompt, expected one a line.")
        return cls(asked, len(asked) if count is None else count, seed, split)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> PlannedCase:
        if not 0 <= index < self.count:
            raise IndexError(f"index: got {index}, expected 0..{self.count - 1}.")
        text, prompt = self.asked[index % len(self.asked)]
        # the generator of the first draw, as the pipeline itself would fill in what the text leaves open
        generator = torch.Generator().manual_seed(seed_of(self.seed, self.split, index, 0))
        return PlannedCase(index, text, prompt.resolve(generator), (self.seed, self.split))

    def as_dict(self) -> dict[str, Any]:
        """JSON values that two plans share only where they are the same."""
        asked = json.dumps([(text, prompt.as_dict()) for text, prompt in self.asked])
        digest = hashlib.sha256(asked.encode()).hexdigest()
        return {"prompts": digest, "count": self.count, "seed": self.seed, "split": self.split}


def _read(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, expected prompts as text, JSONL or CSV.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8.") from error
    if "\0" in text:
        raise ValueError(f"{path}: is no text (it holds null bytes), expected prompts as text, JSONL or CSV.")
    return text


def _lines(path: Path) -> list[tuple[str, ClinicalPrompt]]:
    lines = [line.strip() for line in _read(path).splitlines()]
    return [(line, ClinicalPrompt.parse(line)) for line in lines if line]


def _table(path: Path) -> list[tuple[str, ClinicalPrompt]]:
    text = _read(path)
    rows = list(_json_rows(text, path) if "json" in path.suffix else _csv_rows(text, path))
    columns = list(dict.fromkeys(str(column).strip().lower() for _, row in rows for column in row))
    if rows and not set(columns) & set(FIELDS):
        raise ValueError(
            f"{path}: got columns {', '.join(columns)[:200]}; expected prompt, or some of sex, age, race, site, "
            "stage, t, n, m, size."
        )
    asked = []
    for number, row in rows:
        fields = {}
        for column, value in row.items():
            ours = FIELDS.get(str(column).strip().lower())
            value = ", ".join(map(str, value)) if isinstance(value, list) else str("" if value is None else value)
            if ours and value.strip().lower() not in EMPTY:
                fields[ours] = " ".join(value.split())
        try:
            asked.append(TableRow(fields).prompt())
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}.") from error
    return asked


def _json_rows(text: str, path: Path):
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: is no JSON ({error}).") from error
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number}: got {type(row).__name__}, expected a JSON object a line.")
            yield number, row


def _csv_rows(text: str, path: Path):
    header = text.split("\n", 1)[0]
    delimiter = "\t" if path.suffix == ".tsv" else ";" if header.count(";") > header.count(",") else ","
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter)
    for row in reader:
        if None in row or None in row.values():
            count = len(reader.fieldnames)
            raise ValueError(f"{path}, line {reader.line_num}: expected {count} columns as the first line has.")
        yield reader.line_num, row
