"""What a synthesis knows of itself on disk, so that it may be killed anywhere and goes on in any number of processes.

    DIR/synthesis/SPLIT/plan.json           what was asked for; another run has to ask for the same
    DIR/synthesis/SPLIT/records/NAME.json   one a case, written after its volumes: with it the case is complete
    DIR/synthesis/SPLIT/manifest.jsonl      all of them, written last: with it the set is complete

Every file appears whole or not at all. Processes need not talk to each other: they share cases by index, and whoever
finds all records there closes the set, under a lock that the system takes back from a killed process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..data.dataset import replace_file


__all__ = ["MADE", "REFUSED", "Records"]

MADE, REFUSED = "made", "refused"


class Records:
    """The records of one split of the set in `output`."""

    def __init__(self, output: Path, split: str):
        self.folder = output / "synthesis" / split
        self.plan, self.manifest = self.folder / "plan.json", self.folder / "manifest.jsonl"
        self._lock = output / "synthesis" / "lock"

    def lock(self) -> FileLock:
        return FileLock(self._lock)

    def open(self, asked: dict[str, Any], home: Path) -> None:
        """Begin, or go on where the same was asked for; `home` is where the form keeps its volumes."""
        asked = json.loads(json.dumps(asked))
        if self._lock.parent.parent.exists() and not self._lock.parent.parent.is_dir():
            raise FileExistsError(f"{self._lock.parent.parent}: this is a file, expected a folder for a set.")
        if home.exists() and not self.plan.is_file():
            raise FileExistsError(f"{home}: holds what this synthesis did not make; choose another folder or split.")
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.lock():
            if not self.plan.is_file():
                replace_file(self.plan, (json.dumps(asked, indent=2) + "\n").encode())
                return
            before = json.loads(self.plan.read_text(encoding="utf-8"))
        if different := [key for key in {**before, **asked} if before.get(key) != asked.get(key)]:
            told = "; ".join(f"{key}: {_short(before.get(key))}, now {_short(asked.get(key))}" for key in different)
            raise ValueError(
                f"{self.folder}: was begun with other settings ({told}); ask for the same, choose another folder, or "
                "remove it."
            )

    def path(self, name: str) -> Path:
        return self.folder / "records" / f"{name}.json"

    def read(self, name: str) -> dict[str, Any] | None:
        """The record of a case; None while there is none."""
        try:
            return json.loads(self.path(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def write(self, name: str, record: dict[str, Any]) -> None:
        replace_file(self.path(name), _line(record))

    def count(self) -> int:
        """How many records there are, whoever wrote them."""
        try:
            return sum(name.endswith(".json") for name in os.listdir(self.folder / "records"))
        except FileNotFoundError:
            return 0

    def close(self, rows: Iterable[dict[str, Any]]) -> None:
        replace_file(self.manifest, b"".join(map(_line, rows)))

    def rows(self) -> list[dict[str, Any]]:
        """The lines of the manifest."""
        return [json.loads(line) for line in self.manifest.read_text(encoding="utf-8").splitlines()]


def _line(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
