"""What is known of each patient, from a table: CSV, TSV or JSON lines of names with prompts or clinical fields.

Free text is kept as it stands. Fields become a `ClinicalPrompt`, which writes the sentence; each is read as free text
is, so that "M", "male" and "man", or 64 and "61-70", mean the same.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..prompts import ClinicalPrompt
from ..prompts.attributes import ALL_SITES, TUMOR_SITES
from .dataset import SPLITS
from .sources import case_name


__all__ = ["TableRow", "read_prompt_table"]

NAMES = {
    "name": ("name", "id", "case"),
    "prompt": ("prompt", "text"),
    "sex": ("sex", "gender"),
    "age": ("age",),
    "race": ("race", "ethnicity"),
    "site": ("site", "sites", "tumor_site", "tumour_site"),
    "stage": ("stage", "tnm"),
    "t": ("t",),
    "n": ("n",),
    "m": ("m",),
    "size": ("size", "tumor_size", "tumour_size"),
    "split": ("split",),
}
SPLIT_NAMES = {name: name for name in SPLITS} | {"val": "validation", "valid": "validation", "training": "train"}
EMPTY = ("", "na", "n/a", "nan", "null", "unknown")
CLAUSES = {  # how a field alone reads in a report, and what it may say
    "sex": ("The patient is {}.", ("sex",)),
    "age": ("The patient is {} years old.", ("age",)),
    "race": ("The patient is {}.", ("race",)),
    "site": ("There is a tumor in the {}.", ("sites",)),
    "stage": ("The tumor is of stage {}.", ("t", "n", "m")),
    "t": ("The tumor is of stage T{}.", ("t",)),
    "n": ("The tumor is of stage N{}.", ("n",)),
    "m": ("The tumor is of stage M{}.", ("m",)),
    "size": ("There is a {} tumor.", ("size",)),
}
NO_TUMOR = ("none", "no", "no tumor", "no tumour", "healthy")
SEXES = {"m": "male", "f": "female"}


@dataclass(frozen=True)
class TableRow:
    """The fields of a case by our names, as text, without the empty ones."""

    fields: dict[str, str]

    @property
    def split(self) -> str | None:
        return SPLIT_NAMES[self.fields["split"].lower()] if "split" in self.fields else None

    def prompt(self) -> tuple[str, ClinicalPrompt]:
        """The sentence and what it says; an error where a field says nothing that we understand."""
        if "prompt" in self.fields:
            return self.fields["prompt"], ClinicalPrompt.parse(self.fields["prompt"])
        known = {}
        for field in CLAUSES.keys() & self.fields.keys():
            known |= _understand(field, self.fields[field])
        prompt = ClinicalPrompt(**known)
        return prompt.render(0), prompt


def _understand(field: str, value: str) -> dict[str, object]:
    value = value.lower()
    if field in ("sex", "age", "race", "size"):
        with suppress(ValueError):
            return {field: getattr(ClinicalPrompt(**{field: SEXES.get(value, value)}), field)}
    if field == "site":
        sites = (
            {"none"} if value in NO_TUMOR else {site.strip().replace(" ", "_") for site in re.split("[,;|]", value)}
        )
        if sites <= ALL_SITES:
            return {"sites": frozenset(sites)}
    if field == "age":
        value = re.sub(r"^0*(\d{1,3})y$", r"\1", value)  # 064Y, as DICOM has it
    if field in ("t", "n", "m"):
        value = value.removeprefix(field)
    if field in ("t", "n", "m", "stage") and not re.search(r"\d", value) and "x" in value:
        return {}  # TX and the like: not assessed
    clause, attributes = CLAUSES[field]
    read = ClinicalPrompt.parse(clause.format(value.replace("_", " ")))
    known = {a: getattr(read, a) for a in attributes if getattr(read, a) is not None}
    # a site in another organ is none of ours, but no reason to write that there is no tumour
    if not known or (field == "site" and ("none" in read.sites or read.sites == TUMOR_SITES)):
        raise ValueError(f"{field}: got {value!r} in the table, which is not understood; leave it empty or reword it")
    return known


def read_prompt_table(path: Path, names: Collection[str]) -> dict[str, TableRow]:
    """The rows by case; `names` are those of the CTs, and a table that speaks of others is refused as a whole."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 (byte {error.start}); save the table as UTF-8.") from error
    rows = _json_rows(text, path) if path.suffix in (".jsonl", ".ndjson") else _csv_rows(text, path)
    table: dict[str, TableRow] = {}
    for number, row in rows:
        fields = {}
        for column, value in row.items():
            ours = next((name for name, theirs in NAMES.items() if str(column).strip().lower() in theirs), None)
            value = _text(value)
            if ours and value.lower() not in EMPTY:
                if ours in fields:
                    raise ValueError(f"{path}, line {number}: has several columns for {ours}, expected one.")
                fields[ours] = value
        if "name" not in fields:
            raise ValueError(f"{path}, line {number}: has no name, expected one in a column name, id or case.")
        name = case_name(Path(fields.pop("name")))
        if name in table:
            raise ValueError(f"{path}, line {number}: the name {name} was given before, expected one row a case.")
        if "split" in fields and fields["split"].lower() not in SPLIT_NAMES:
            raise ValueError(f"{path}, line {number}: got split {fields['split']!r}, expected {', '.join(SPLITS)}.")
        table[name] = TableRow(fields)
    if not table:
        raise ValueError(f"{path}: holds no rows, expected one a case.")
    if strangers := sorted(table.keys() - set(names)):
        listed = ", ".join(strangers[:5]) + (" ..." if len(strangers) > 5 else "")
        raise ValueError(f"{path}: names {len(strangers)} cases without a CT ({listed}); expected names of CT files.")
    return table


def _text(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    text = "" if value is None else " ".join(str(value).split())
    return re.sub(r"^(\d+)\.0$", r"\1", text)  # a column of whole numbers with gaps, as spreadsheets write it


def _csv_rows(text: str, path: Path) -> list[tuple[int, dict]]:
    header = text.split("\n", 1)[0]
    delimiter = "\t" if path.suffix == ".tsv" else ";" if header.count(";") > header.count(",") else ","
    if "\0" in text:
        raise ValueError(f"{path}: is no text (it holds null bytes), expected CSV, TSV or JSON lines.")
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter)
    columns = [str(column).strip().lower() for column in reader.fieldnames or []]
    _check_columns(columns, path)
    rows = []
    for row in reader:
        if None in row or None in row.values():
            raise ValueError(f"{path}, line {reader.line_num}: expected {len(columns)} columns as the first line has.")
        rows.append((reader.line_num, row))
    return rows


def _json_rows(text: str, path: Path) -> list[tuple[int, dict]]:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: is no JSON ({error}).") from error
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number}: got {type(row).__name__}, expected a JSON object a line.")
            rows.append((number, row))
    _check_columns(list({str(key).strip().lower() for _, row in rows for key in row}), path)
    return rows


def _check_columns(columns: list[str], path: Path) -> None:
    if not set(columns) & set(NAMES["name"]):
        raise ValueError(f"{path}: got columns {', '.join(columns)[:200]}; expected one called name, id or case.")
    if not set(columns) & {theirs for name, names in NAMES.items() if name != "name" for theirs in names}:
        raise ValueError(
            f"{path}: got columns {', '.join(columns)[:200]}; expected prompt, or some of sex, age, race, site, "
            "stage, t, n, m, size, split."
        )
