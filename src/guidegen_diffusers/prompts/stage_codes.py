"""T, N and M codes in a text: "T3N1M0", "pT2b, N0, MX", "T: 2", "T 3 N 1 M 0".

X and Tis are no value, and two different values are none either. A T that speaks of a vertebra or of an MR sequence is
no stage.
"""

from __future__ import annotations

import re

from .spelling import words


__all__ = ["read_stage_codes", "says_stage_four"]

_RUN = re.compile(
    r"(?<![a-z0-9.])(?:(?:y?[pc])?(?:[tnm](?:[0-4](?:mi|[a-e])?|x|(?<=t)is|(?=[tnm])))){1,8}(?![a-z0-9])"
)
_CODE = re.compile(r"([tnm])([0-4])")
_KEYED = re.compile(
    r"(?<![a-z0-9])([tnm])(?: ?(?:stage|category))?['\" ]{0,2}[:=] {0,2}['\"]?(?:[pc]?[tnm])?([0-4])(?!\.?[0-9])"
)
_NAMED = re.compile(
    r"(?<![a-z0-9])(?:stage (?=[tnm] )([tnm])|([tnm])[ -](?:stage|category))"
    r" (?:is |of )?(?:[pc]?[tnm])?([0-4])(?!\.?[0-9])"
)
_SPACED = re.compile(r"(?<![a-z0-9])t ([0-4])[a-d]?[ ,/]{0,3}n ([0-3x])[a-c]?(?:[ ,/]{0,3}m ([01x])(?![a-z0-9]))?")
_STAGE_FOUR = re.compile(r"(?<![a-z])stage[ :-]{1,2}(?:iv|4)(?:[ -]?[abc])?(?![a-z0-9])")
_HIGHEST = {"t": 4, "n": 3, "m": 1}
_NEXT_WORD = re.compile(r"[\s,/-]{0,2}(?:to |and |through )?([a-z]{1,20}|[0-9])")
_LAST_WORD = re.compile(r"([a-z]{1,20})[\s:,-]{0,2}(?:of |the ){0,2}$")
# what follows, or comes before, a T that is a vertebra, a nerve root or a sequence
_NO_STAGE_BEHIND = words(
    """vertebra vertebrae vertebral level levels rib ribs weighted weighting wi w hyperintense hyperintensity
    hypointense hypointensity isointense signal bright dark image images imaging sequence sequences relaxation mapping
    map shortening prolongation spine spinal body bodies endplate fracture fractures compression nerve root dermatome
    process spinous disc disk pedicle transverse dm diabetes flair segment phase burst height wedge"""
)
_NO_STAGE_BEFORE = words(
    "level levels vertebra vertebrae vertebral rib ribs spine thoracic dermatome at from fracture"
)


def read_stage_codes(text: str) -> dict[str, int | None]:
    """The one value of each of t, n and m that a lower-case text gives, or None."""
    found: dict[str, set[int]] = {"t": set(), "n": set(), "m": set()}
    for run in _RUN.finditer(text):
        if run[0][-1:].isdigit() and _is_no_stage(text, run):
            continue
        _collect(found, _CODE.findall(run[0]))
    _collect(found, _KEYED.findall(text))
    _collect(found, [(one or other, digit) for one, other, digit in _NAMED.findall(text)])
    for t, n, m in _SPACED.findall(text):
        _collect(found, [("t", t), ("n", n), ("m", m)])
    return {letter: values.pop() if len(values) == 1 else None for letter, values in found.items()}


def says_stage_four(text: str) -> bool:
    """Whether a lower-case text speaks of stage IV."""
    return _STAGE_FOUR.search(text) is not None


def _collect(found: dict[str, set[int]], codes: list[tuple[str, str]]) -> None:
    for letter, digit in codes:
        if digit.isdigit() and int(digit) <= _HIGHEST[letter]:
            found[letter].add(int(digit))


def _is_no_stage(text: str, run: re.Match) -> bool:
    """Only a bare "t4" or "m1" can be something else; a run of codes is a stage."""
    if len(_CODE.findall(run[0])) != 1 or "n" in run[0]:
        return False
    behind = _NEXT_WORD.match(text, run.end())
    if behind and behind[1] in _NO_STAGE_BEHIND:
        return True
    context = text[max(0, run.start() - 40) : run.start()]
    before = _LAST_WORD.search(context)
    if before is None:
        return False
    if before[1] in ("to", "in") and "metasta" in context:
        return True
    return before[1] in _NO_STAGE_BEFORE and "stage" not in context
