"""A clinical prompt: what a sentence says of a patient and of a tumour, and nothing that it does not say.

What a text leaves open stays open: an unknown attribute is None, and `sites` is the set of tumour sites that the text
allows ("lung cancer" allows five lobes, silence allows everything, `none` included). `resolve` draws what is open,
`render` writes a sentence, and `parse` reads any text: `parse(render(p, style)) == p` for every prompt and style.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from . import prior
from .attributes import AGES, ALL_SITES, RACES, SEXES, SITES, SIZES
from .reader import read
from .writer import write


__all__ = ["ClinicalPrompt"]


@dataclass(frozen=True)
class ClinicalPrompt:
    """
    Args:
        sex (`str`, *optional*): one of SEXES.
        age (`str`, *optional*): one of the bins AGES, in years.
        race (`str`, *optional*): one of RACES.
        sites (`frozenset[str]`): those of SITES that are allowed, at least one; `none` is no tumour.
        t (`int`, *optional*): 0..4.
        n (`int`, *optional*): 0..3.
        m (`int`, *optional*): 0 or 1.
        size (`str`, *optional*): one of SIZES.
    """

    sex: str | None = None
    age: str | None = None
    race: str | None = None
    sites: frozenset[str] = ALL_SITES
    t: int | None = None
    n: int | None = None
    m: int | None = None
    size: str | None = None

    def __post_init__(self):
        for name, allowed in (("sex", SEXES), ("age", AGES), ("race", RACES), ("size", SIZES)):
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(allowed)}, or None.")
        for name, highest in (("t", 4), ("n", 3), ("m", 1)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not 0 <= value <= highest):
                raise ValueError(f"{name}: got {value!r}, expected a whole number from 0 to {highest}, or None.")
        if isinstance(self.sites, str):
            raise TypeError(f"sites: got the string {self.sites!r}, expected a set: frozenset({{{self.sites!r}}}).")
        object.__setattr__(self, "sites", frozenset(self.sites))
        if not self.sites:
            raise ValueError("sites: got an empty set, expected at least one site; no tumour is {'none'}.")
        if wrong := sorted(map(str, self.sites - ALL_SITES)):
            raise ValueError(f"sites: got {', '.join(wrong)}, expected names among {', '.join(SITES)}.")
        if self.sites == {"none"}:
            for name in ("t", "n", "m", "size"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{name}: got {getattr(self, name)!r} where sites is {{'none'}}, expected None: "
                        "no tumour has no stage and no size."
                    )

    @classmethod
    def parse(cls, text: str) -> ClinicalPrompt:
        """Read any text; takes time in proportion to its length and raises for none."""
        return cls(**read(text))

    @property
    def site(self) -> str:
        """The site, where only one is allowed."""
        if len(self.sites) > 1:
            raise ValueError(f"site: {len(self.sites)} are open ({', '.join(self._ordered())}); call `resolve` first.")
        return next(iter(self.sites))

    def resolve(self, generator: torch.Generator | None = None) -> ClinicalPrompt:
        """The same prompt with everything filled and one site. Only what is open is drawn, by the tables of `prior`.

        Without a tumour there is no stage and no size: they stay, or become, None.
        """
        sex = prior.draw(prior.SEX, generator) if self.sex is None else self.sex
        age = prior.draw(prior.AGE, generator) if self.age is None else self.age
        race = prior.draw(prior.RACE, generator) if self.race is None else self.race
        site = prior.draw(prior.site_weights(self._ordered()), generator) if len(self.sites) > 1 else self.site
        known = replace(self, sex=sex, age=age, race=race)
        if site == "none":
            return replace(known, sites=frozenset({site}), t=None, n=None, m=None, size=None)
        t = prior.draw(prior.t_weights(site, self.size), generator) if self.t is None else self.t
        n = prior.draw(prior.n_weights(site, t), generator) if self.n is None else self.n
        m = prior.draw(prior.m_weights(t), generator) if self.m is None else self.m
        size = prior.draw(prior.size_weights(site, t), generator) if self.size is None else self.size
        return replace(known, sites=frozenset({site}), t=t, n=n, m=m, size=size)

    def render(self, style: int = 0) -> str:
        """The prompt in words; style 0 is the canonical sentence, the others up to NUM_STYLES say the same."""
        return write(self, style)

    def as_dict(self) -> dict[str, Any]:
        """JSON values, `sites` in the order of SITES."""
        return {
            "sex": self.sex,
            "age": self.age,
            "race": self.race,
            "sites": self._ordered(),
            "t": self.t,
            "n": self.n,
            "m": self.m,
            "size": self.size,
        }

    def _ordered(self) -> list[str]:
        return [site for site in SITES if site in self.sites]
