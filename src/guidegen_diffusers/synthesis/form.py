"""The form of a set on disk: where a case's volumes go as they come, and what closes the set once all are there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..case import Case


__all__ = ["Form"]


class Form(ABC):
    """What `synthesize` asks of a form. Both kinds of writing may be repeated, and leave the same bytes."""

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """JSON values: what sets of this form may differ in."""

    def check(self, output: Path, split: str) -> None:  # noqa: B027 - some forms have nothing to refuse
        """Raise where a set of this form cannot be made."""

    @abstractmethod
    def home(self, output: Path, split: str) -> Path:
        """The folder that holds the volumes of a split."""

    @abstractmethod
    def files(self, output: Path, split: str, name: str) -> dict[str, Path]:
        """Where `write` leaves `ct` and `labels` of a case."""

    @abstractmethod
    def write(self, output: Path, split: str, name: str, case: Case) -> dict[str, Any]:
        """Write the volumes of a case, each whole or not at all; returns its row for `close`, JSON values."""

    @abstractmethod
    def close(self, output: Path, split: str, rows: Sequence[dict[str, Any]], about: str) -> list[dict[str, Path]]:
        """Write what a set has beside its volumes, given the rows in order; returns the files of each case."""

    def tidy(self, output: Path, split: str) -> None:  # noqa: B027 - nor to remove
        """Remove what a complete set needs no more."""
