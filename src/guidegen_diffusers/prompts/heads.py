"""Words that are a tumour, a side or something else by their company.

"Ca" is a cancer beside an organ and calcium elsewhere, a "benign nodule" is no tumour, a "nodule consistent with a
cyst" is a cyst, the "metastatic nodules" of another tumour say nothing of where that tumour is, and an operation is
over unless its specimen is spoken of, which is a place.
"""

from __future__ import annotations

from .attributes import ORGANS
from .clauses import HEADS, PLACES, SEPARATORS
from .phrases import Item


__all__ = ["T_CODES", "name_heads"]


T_CODES = ("t", "pt", "ct", "ypt", "tis", "ptis", "ctis")
_SPECIMENS = ("specimen", "specimens")
_RECTAL = ("sigmoidectomy", "proctectomy", "anterior resection", "low anterior resection")
_GROWTHS = ("polyp", "ulcer", "stricture", "cyst")


def name_heads(items: list[Item], told: bool) -> None:
    """Settle the words that are a tumour, a side, or nothing, by their company."""
    last = "tumor" if told else None
    for at, item in enumerate(items):
        last = item.kind if item.kind in HEADS else last
        if item.kind == "surgery" and _is_specimen(items, at):
            _name_specimen(items, at)
        elif item.text == "primary" and at + 1 < len(items) and items[at + 1].kind in (":", "="):
            item.kind = "locator"
        elif item.text in ("ca", "primary", "primaries", "spot", "shadow") and _touches_place(items, at):
            item.kind, item.value = "tumor", ("weak" if item.text != "ca" else "strong", None)
        elif item.text in T_CODES and _is_staged_place(items, at):
            item.kind, item.value = "tumor", ("strong", None)
        elif item.text in ("l", "r") and _abbreviates_side(items, at):
            item.kind, item.value = "side", {"l": "left", "r": "right"}[item.text]
        elif item.text in ("one", "ones") and last == "tumor" and at and items[at - 1].kind in ("size", "other"):
            item.kind, item.value = "tumor", ("weak", None)  # "and a large one in the left kidney"
        elif item.kind == "nontumor" and not (at and items[at - 1].kind == "no"):
            weak = _near_weak(items, at)
            if weak is not None:  # "a benign nodule", "the nodule is benign"
                items[weak].kind, items[weak].value = "benign", None
        elif item.kind == "metastasis" and item.text.startswith("metastatic"):
            weak = _noun_behind(items, at)
            if weak is not None and items[weak].value[0] == "weak":  # "metastatic pulmonary nodules"
                items[weak].kind, items[weak].value = "benign", None
        elif item.text in _GROWTHS and at and items[at - 1].text in ("malignant", "cancerous"):
            item.kind, item.value = "tumor", ("strong", None)
        elif item.kind == "link" or item.text in ("is", "are", "was", "were"):
            _follow_link(items, at, copula=item.kind == "verb")


def _is_specimen(items: list[Item], at: int) -> bool:
    """Whether what was taken out lies before the pathologist, or its bed in the scan: "left nephrectomy specimen",
    "specimen: right upper lobectomy". Otherwise an operation is over."""
    behind = items[at + 1].text if at + 1 < len(items) else ""
    if behind in ("bed", "site", "stump"):
        return True
    if any(item.text == "s/p" or item.kind == "past" for item in items[:at]):
        return False
    if behind in (*_SPECIMENS, ":"):  # "right hemicolectomy: adenocarcinoma"
        return True
    for i in range(at - 1, max(-1, at - 8), -1):
        if items[i].text in _SPECIMENS:
            return True
        if items[i].kind not in (*PLACES, "word", "determiner", ":", "preposition"):
            return False
    return False


def _name_specimen(items: list[Item], at: int) -> None:
    """An operation as the place that it took out; a "resection" is none, for the place stands beside it."""
    surgery = items[at]
    of_organ = any(item.kind in ("organ", "place") for item in items[max(0, at - 3) : at])  # "thyroid lobectomy"
    if surgery.value in (None, "other") or of_organ:
        surgery.kind = "organ" if surgery.value == "other" else "word"
    elif surgery.text in _RECTAL:
        surgery.kind, surgery.value = "place", ("colon", None, "sigmoid")
    else:
        surgery.kind = "organ"
    for item in items[max(0, at - 8) : at + 2]:
        if item.text in _SPECIMENS:
            item.kind = "scan"  # a thing examined


def _is_staged_place(items: list[Item], at: int) -> bool:
    """Whether a T that is the sentence's only tumour begins a stage "of" an organ of ours: "Tis of the sigmoid"."""
    numbered = not items[at].text.endswith("is")
    if numbered and not (at + 1 < len(items) and items[at + 1].value in (1, 2, 3, 4)):
        return False
    end = at + 1
    while end < min(len(items), at + 8) and items[end].text != "of" and len(items[end].text) <= 2:
        end += 1  # "T1aN0M0"
    if end == len(items) or items[end].text != "of" or any(item.kind == "tumor" for item in items):
        return False
    end += 1
    while end < len(items) and items[end].kind in ("determiner", "side", "part"):
        end += 1
    return end < len(items) and (items[end].kind in ("noun", "place") or items[end].value in ORGANS)


def _abbreviates_side(items: list[Item], at: int) -> bool:
    """ "R kidney", "RCC (L)"."""
    before, behind = items[at - 1].kind if at else "", items[at + 1].kind if at + 1 < len(items) else ""
    return behind in PLACES or (before in ("(", ",", *PLACES) and behind in ("", ")", ","))


def _touches_place(items: list[Item], at: int) -> bool:
    if at and items[at - 1].kind in PLACES and items[at - 1].kind != "side":
        return True
    following = at + 1
    while following < len(items) and (
        items[following].text in ("of", "in", "on", "the", "a", "from") or items[following].kind in ("side", "part")
    ):
        following += 1
    return following < len(items) and items[following].kind in PLACES


def _near_weak(items: list[Item], at: int) -> int | None:
    behind = _noun_behind(items, at)
    if behind is not None:
        return behind if items[behind].value[0] == "weak" else None
    for i in range(at - 1, max(-1, at - 12), -1):
        if items[i].kind in HEADS:
            return i if items[i].kind == "tumor" and items[i].value[0] == "weak" else None
        if items[i].kind == "turn":
            return None
    return None


def _noun_behind(items: list[Item], at: int) -> int | None:
    """The tumour that an adjective at `at` belongs to."""
    for i in range(at + 1, min(len(items), at + 6)):
        if items[i].kind == "tumor":
            return i
        if items[i].kind not in (*PLACES, "word", "size", "number"):
            return None
    return None


def _follow_link(items: list[Item], at: int, copula: bool) -> None:
    """A nodule "consistent with" a cyst or a metastasis is one, and so is one that "is a" cyst."""
    before = next((i for i in range(at - 1, max(-1, at - 12), -1) if items[i].kind in HEADS), None)
    if before is None or items[before].kind != "tumor" or items[before].value[0] != "weak":
        return
    for i in range(at + 1, min(len(items), at + 10)):
        if items[i].kind == "tumor" and not (i + 1 < len(items) and items[i + 1].kind == "metastasis"):
            return
        if items[i].kind in ("benign", "metastasis"):
            items[before].kind, items[before].value = "benign", None
            return
        if items[i].kind in SEPARATORS or items[i].kind == "turn":
            return
        if copula and items[i].kind not in ("determiner", "word", "nontumor", "link", "hedge"):
            return
