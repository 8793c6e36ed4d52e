"""What became of each case of a run: one line of `report.csv`, written or refused, and why.

Lines are added as cases come and sorted at the end. A run that goes on reads what an earlier one has left.
"""

from __future__ import annotations

import csv
import io
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path


__all__ = ["Report", "ReportLine"]

WRITTEN, REFUSED = "written", "refused"


@dataclass(frozen=True)
class ReportLine:
    """A case: `status` is written or refused; the figures are empty where it was refused before they were known."""

    name: str
    status: str
    split: str
    reason: str = ""
    ct_shape: str = ""
    ct_spacing: str = ""
    organs: str = ""
    tumor_ml: str = ""


COLUMNS = [field.name for field in fields(ReportLine)]


class Report:
    """A context manager over `report.csv`; `lines` by name."""

    def __init__(self, path: Path, overwrite: bool = False):
        self.path = path
        self.lines: dict[str, ReportLine] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and not overwrite:
            text = path.read_text(encoding="utf-8")
            whole = text[: text.rfind("\n") + 1]  # a killed run may have left half a line
            for row in csv.DictReader(io.StringIO(whole)):
                if set(row) == set(COLUMNS) and all(value is not None for value in row.values()):
                    self.lines[row["name"]] = ReportLine(**row)
        self._replace()

    def add(self, line: ReportLine) -> None:
        self.lines[line.name] = line
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(_csv([line]))

    def _replace(self) -> None:
        partial = self.path.with_name(f".{self.path.name}.partial")
        lines = [self.lines[name] for name in sorted(self.lines)]
        partial.write_text(",".join(COLUMNS) + "\n" + _csv(lines), encoding="utf-8", newline="")
        os.replace(partial, self.path)

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *error: object) -> None:
        self._replace()


def _csv(lines: list[ReportLine]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, COLUMNS, lineterminator="\n").writerows(asdict(line) for line in lines)
    return text.getvalue()
