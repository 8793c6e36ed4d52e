"""The card of a data set: its YAML says to `datasets` and the Hub which splits there are, its text what they hold."""

from __future__ import annotations

from ..labels import CLASSES


__all__ = ["MARK", "dataset_card"]

MARK = "<!-- written by guidegen-diffusers: remove this line to keep your own words -->"


def dataset_card(counts: dict[str, int], grid: str, synthetic: int, about: str = "") -> str:
    """Markdown for cases counted by split, `synthetic` of them made and not scanned."""
    total = sum(counts.values())
    origin = {0: "No case is synthetic.", total: "Every case is synthetic: it shows no patient."}
    return _BODY.format(
        mark=MARK,
        files="\n".join(f"      - split: {split}\n        path: {split}/**" for split in counts),
        splits="\n".join(f"| {split} | {number} |" for split, number in counts.items()),
        first=next(iter(counts)),
        grid=grid,
        origin=origin.get(synthetic, f"{synthetic} of {total} cases are synthetic, as the column `synthetic` says."),
        about=f"{about}\n\n" if about else "",
        classes=", ".join(f"{c.id} {c.name}" for c in CLASSES),
    )


_BODY = """---
pretty_name: CT of the torso with label maps
task_categories:
  - image-segmentation
tags:
  - guidegen
  - medical
  - computed-tomography
configs:
  - config_name: default
    data_files:
{files}
---
{mark}

# CT of the torso with label maps

{about}{origin} All volumes have {grid}, in RAS orientation.
`ct` is in HU (`int16`), `labels` holds class ids (`uint8`) on the same affine: {classes}.

| split | cases |
|---|---|
{splits}

```python
from datasets import load_dataset
from guidegen_diffusers.data import CaseDataset

row = load_dataset("FOLDER_OR_HUB_ID", split="{first}")[0]  # row["ct"] and row["labels"] are nibabel images
case = CaseDataset("FOLDER", "{first}").case(0)  # the same as a case
```

What is not known of a patient is "unknown" in the columns; `attributes` and `provenance` are JSON.
"""
