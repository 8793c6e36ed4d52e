"""What the findings of a text come to: the set of sites that they allow, what is stated narrowed by what is denied.

A tumour that is stated somewhere may be in any of our sites; one whose place is named is there; a doubted one is there
or nowhere. Names of wholes give way to names of parts, a denial takes its sites away, and a text that says nothing
allows everything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .attributes import TUMOR_SITES


__all__ = ["Finding", "Story"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A tumour as a sentence speaks of it.

    Args:
        status (`str`): "stated", "doubted", "denied" or "removed".
        sites (`frozenset[str]`): where, of our sites; empty where no place of ours is named.
        elsewhere (`bool`): in an organ that is none of ours.
        refers (`bool`): it speaks of a tumour that was named before ("the tumor", "it").
        again (`bool`): it has come back where an earlier one was.
        whole (`bool`): of a denial or removal, that it is about any tumour and about now.
    """

    status: str
    sites: frozenset[str] = frozenset()
    elsewhere: bool = False
    refers: bool = False
    again: bool = False
    whole: bool = False


class Story:
    """The findings of a text in order, and the set of sites that they leave possible."""

    def __init__(self):
        self._stated: dict[frozenset[str], int] = {}  # sites by the time of the last statement; no sites: somewhere
        self._doubted: dict[frozenset[str], int] = {}
        self._denied: dict[frozenset[str], int] = {}
        self._elsewhere = False
        self._none = self._removed = False  # some tumour was denied, or removed
        self._last: frozenset[str] = frozenset()
        self._over: frozenset[str] = frozenset()  # sites of the tumour that was removed last
        self._time = 0

    @property
    def told(self) -> bool:
        return bool(self._stated or self._doubted or self._elsewhere)

    def add(self, finding: Finding) -> None:
        self._time += 1
        if finding.again and not finding.sites:
            finding = replace(finding, sites=self._over)
        getattr(self, f"_add_{finding.status}")(finding)

    def _add_stated(self, finding: Finding) -> None:
        if finding.elsewhere:
            self._elsewhere = True
            return
        sites = finding.sites
        if finding.refers and sites & self._last:  # "lung cancer. It is on the left side."
            sites &= self._last
            if self._last in self._doubted and self._last not in self._stated:
                self._doubted[sites] = self._time
                return
            self._stated.pop(self._last, None)
        self._stated[sites] = self._time
        self._last = sites or self._last

    def _add_doubted(self, finding: Finding) -> None:
        if finding.elsewhere:
            self._elsewhere = True
        else:
            self._doubted[finding.sites] = self._time
            self._last = finding.sites or self._last

    def _add_denied(self, finding: Finding) -> None:
        if finding.sites:
            self._denied[finding.sites] = self._time
            return
        self._none = True
        self._doubted.clear()
        if finding.whole:
            self._stated.clear()

    def _add_removed(self, finding: Finding) -> None:
        self._removed = True
        self._over = finding.sites or self._over
        if finding.whole:
            self._stated.clear()
            self._doubted.clear()
        elif finding.sites:
            for sites in [s for s in self._stated if s <= finding.sites or finding.sites <= s]:
                del self._stated[sites]
        elif not finding.elsewhere:
            last = self._stated or self._doubted
            if last:
                del last[max(last, key=last.__getitem__)]

    def sites(self, staged: bool, metastatic: bool) -> frozenset[str]:
        """`staged` and `metastatic`: the text gives a T above 0 or speaks of metastases, and so of some tumour."""
        stated, doubted = self._remaining(self._stated), self._remaining(self._doubted)
        localized = any(self._stated)
        somewhere = TUMOR_SITES.difference(*self._denied)
        if localized and stated:
            sites = stated | doubted
        elif doubted:
            sites = doubted | {"none"}
        elif localized or self._elsewhere:
            sites = frozenset()
        elif self._stated:
            sites = somewhere
        elif self._doubted:
            sites = somewhere | {"none"}
        elif self._removed or (self._none and not metastatic):
            sites = frozenset()
        elif metastatic or staged:
            sites = somewhere
        else:
            sites = somewhere | {"none"}
        return sites or frozenset({"none"})

    def _remaining(self, told: dict[frozenset[str], int]) -> frozenset[str]:
        """The union of the places in `told`, the most specific ones only, without what was denied.

        A denial of the whole ("the lungs are clear") leaves a part of it that was named, and of two statements about
        the same place the later one holds.
        """
        remaining: set[str] = set()
        for sites, time in told.items():
            if any(other and other < sites for other in self._stated):
                continue
            for denied, when in self._denied.items():
                if not (sites < denied or (sites == denied and time > when)):
                    sites -= denied
            remaining |= sites
        return frozenset(remaining)
