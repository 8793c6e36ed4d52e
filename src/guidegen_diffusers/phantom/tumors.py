"""Tumours by site and stage: as large as the TNM system says, in or on their organ, irregular; nodes and metastases.

Everything that is drawn is drawn in the same order whatever the prompt, so that one seed compares sites and stages on
one body. The primary is the largest lesion by construction.
"""

from __future__ import annotations

import numpy as np

from ..labels import TUMOR
from ..prompts import ClinicalPrompt, diameter_range
from ..tumor_sites import lobe_depth, lung_extent
from .canvas import frame
from .organs import COLON_SEGMENTS, Organs
from .tissues import Tissue
from .torso import IDS


__all__ = ["paint_tumors"]

# what a tumour may grow into besides fat
SOFT_NEIGHBORS = tuple(IDS[name] for name in ("small_bowel", "colon", "liver", "spleen", "stomach"))


def paint_tumors(organs: Organs, prompt: ClinicalPrompt, rng: np.random.Generator) -> None:
    """Paint what a resolved prompt says onto the organs' canvas."""
    growth = _Growth(organs, rng)
    if prompt.site == "none":
        return
    low, high = diameter_range(prompt.site, prompt.t, prompt.size) if prompt.t else (30.0, 30.0)
    diameter = low + growth.uniform[0] * (high - low)
    if prompt.site.endswith("_lung"):
        center, tissue = growth.lung(prompt.site, diameter), Tissue.LUNG_TUMOR
    elif prompt.site.endswith("_kidney"):
        center, tissue = growth.kidney(prompt.site, diameter), Tissue.KIDNEY_TUMOR
    else:
        center, tissue = growth.colon(prompt.site, diameter), Tissue.COLON_TUMOR
    if prompt.t:  # T0: no primary tumour can be found
        diameter = growth.primary(center, diameter, tissue)
    growth.nodes(prompt.site, center, prompt.n or 0, diameter)
    growth.metastases(prompt.m or 0, diameter)


class _Growth:
    """Where lesions may grow, and their paint.

    Places are drawn in millimetres and judged by the ground around them; the first good one is taken, so that a coarse
    and a fine grid mostly agree.
    """

    def __init__(self, organs: Organs, rng: np.random.Generator):
        self.organs, self.canvas, self.torso = organs, organs.canvas, organs.torso
        self.normal, self.uniform = rng.standard_normal((24, 3)).clip(-2, 2), rng.random(24)
        self.spots = rng.random((2, 256, 3))
        self.rough = self.canvas.noise(rng, 17)
        self.axes, self.stretch = None, np.exp(0.1 * self.normal[0])
        self.allowed: tuple[int, ...] = ()
        self.within = self.torso.cavity < 0.96

    def _points(self, mask: np.ndarray) -> np.ndarray:
        return (np.argwhere(mask) * self.canvas.spacing + self.canvas.origin).astype(np.float32)

    def _at(self, places: np.ndarray) -> tuple[np.ndarray, ...]:
        """The voxels nearest to places (..., 3)."""
        index = np.rint((places - self.canvas.origin) / self.canvas.spacing).astype(int)
        return tuple(np.moveaxis(np.clip(index, 0, np.array(self.canvas.shape) - 1), -1, 0))

    def _first_good(self, places, reach: float, ground: tuple[int, ...], fit=True, home=None) -> np.ndarray:
        """The first of the places that fit with nearly as much ground around it as the best of them.

        Ground is asked at 27 points of a cube of half edge `reach`; `home` says which of them count.
        """
        points = places[:, None] + reach * (np.array(list(np.ndindex(3, 3, 3))) - 1)
        around = self._at(points)
        held = np.isin(self.canvas.labels[around], ground) & self.within[around]
        held = (held if home is None else held & home(points)).mean(1)
        held = np.where(fit, 1 + held, held)  # a place that does not fit only where none does
        return places[int((held >= 0.9 * held.max()).argmax())].astype(np.float32)

    def lung(self, site: str, diameter: float) -> np.ndarray:
        """A middle with as much of the lobe around it as there is."""
        canvas, lung = self.canvas, IDS["lung"]
        side = 1 if site.startswith("right") else -1
        beside = (canvas.axes[0][:, None] - self.torso.spine_x[None]) * side > 0
        points = self._points((canvas.labels == lung) & beside[:, None, :])
        self.allowed = (0, lung)
        self.within = (self.torso.cavity < 0.975) & (canvas.z > self.torso.diaphragm) & (self.torso.spine > 3)
        if not len(points):
            return self._outside()
        low, high = lung_extent(points)

        def depth(places: np.ndarray) -> np.ndarray:
            place = (places[..., 1:] - low) / np.maximum(high - low, 1e-6)
            return lobe_depth(site, up=place[..., 1], front=place[..., 0])

        places = points.min(0) + self.spots[0] * (points.max(0) - points.min(0))
        fit = (depth(places) > 0.05) & (canvas.labels[self._at(places)] == lung)
        return self._first_good(places, 0.42 * diameter, (lung,), fit, lambda points: depth(points) > 0)

    def kidney(self, site: str, diameter: float) -> np.ndarray:
        """A middle on the kidney's surface; a large tumour hangs on the lower pole, where there is room."""
        side, kidney = 1 if site.startswith("right") else -1, IDS["kidney"]
        radii = np.array((27, 27, 52)) * self.organs.patient.build
        large = np.interp(diameter, (35, 70), (0, 1))
        ways = self.normal[1:17] * (1 - large) + large * np.array((0.35 * side, 0.25, -1.2))
        ways[:, 0] = np.abs(ways[:, 0]) * side
        ways /= np.linalg.norm(ways, axis=1, keepdims=True)
        surface = 1 / np.sqrt(np.square(ways / radii).sum(1, keepdims=True))
        places = self.organs.kidneys[site.split("_")[0]] + ways * (surface - (0.3 - 0.2 * large) * diameter / 2)
        self.allowed = (0, kidney, *SOFT_NEIGHBORS)
        free = (self.torso.cavity < 0.95) & (self.canvas.z < self.torso.diaphragm - 13) & (self.torso.spine > 3)
        self.within = free | (self.canvas.labels == kidney)
        places = self.canvas.moved(places.astype(np.float32))
        return self._first_good(places, 0.42 * diameter, self.allowed)

    def colon(self, site: str, diameter: float) -> np.ndarray:
        """A polyp on the wall while small; then it rings the bowel and grows along it."""
        points, place = self.organs.colon
        first, last = COLON_SEGMENTS[site]
        wanted = first + (self.uniform[1] + 0.382 * np.arange(8)) % 1 * (last - first)
        along = np.abs(place[None] - wanted[:, None]).argmin(1)
        self.allowed = (0, IDS["colon"], IDS["small_bowel"], IDS["stomach"], IDS["urinary_bladder"])
        self.within = (self.torso.cavity < 0.985) & (self.torso.spine > 3)
        fit = self.canvas.labels[self._at(points[along, :3])] == IDS["colon"]
        middle = self._first_good(points[along, :3], 0.42 * diameter, self.allowed, fit)
        i = int(np.square(points[:, :3] - middle).sum(1).argmin())
        radius = float(points[i, 3])
        forward = points[min(i + 1, len(points) - 1), :3] - points[max(i - 1, 0), :3]
        up = (0, 0, 1) if abs(forward[2]) < 0.9 * np.linalg.norm(forward) else (0, 1, 0)
        self.axes = frame(forward, up)
        wide = max(0.65, min(1.0, 1.05 * radius / (diameter / 2)))
        self.stretch = np.array((1.0, wide, wide)) * np.exp(0.06 * self.normal[0])
        around = self.axes[:, 1] * np.cos(6.28 * self.uniform[2]) + self.axes[:, 2] * np.sin(6.28 * self.uniform[2])
        aside = np.interp(diameter, (20, 40), (1, 0)) * max(radius - 0.35 * diameter, 0) * around
        places = np.stack([middle + aside, middle - aside, middle])
        return self._first_good(places, 0.35 * diameter, (IDS["colon"],))

    def _outside(self) -> np.ndarray:
        """The organ lies outside a small field of view: a place where nothing is painted."""
        return np.full(3, 1e4, np.float32)

    def primary(self, center: np.ndarray, diameter: float, tissue: int) -> float:
        """Paint it; returns the diameter of a ball of the volume that was painted."""
        stretch = self.stretch / self.stretch.max()  # T goes by the longest diameter
        count = self._lesion(center, diameter / 2 * stretch, tissue, self.axes, 0.09, self.allowed, self.within)
        return float(np.cbrt(6 / np.pi * max(count, 1)) * self.canvas.spacing)

    def _lesion(self, center, radii, tissue: int, axes, uneven: float, only, within) -> int:
        """Paint an uneven ellipsoid, one voxel at least if it is of a voxel's size; returns how many it took."""
        canvas = self.canvas
        radii = np.broadcast_to(np.asarray(radii, np.float32), 3)
        if radii.max() < 0.5 * canvas.spacing:
            return 0
        box = canvas.box(center - 1.4 * radii.max(), center + 1.4 * radii.max())
        if any(span.start == span.stop for span in box):
            return 0
        # tumours are placed in the world, not in the warped body
        offsets = (axis[s] - c for axis, s, c in zip(canvas.axes, box, center, strict=True))
        grids = np.meshgrid(*offsets, indexing="ij", sparse=True)
        if axes is not None:
            grids = [sum(np.float32(axes[k, i]) * grids[k] for k in range(3)) for i in range(3)]
        d = np.sqrt(sum(np.square(g / r) for g, r in zip(grids, radii, strict=True)))
        d = 1.05 * d + np.float32(uneven) * self.rough[box]  # bumps outward make a tumour longer than dents shorter
        free = within[box] & np.isin(canvas.labels[box], (*only, TUMOR))
        mask = canvas.paint(box, (d < 1) & free, TUMOR, tissue)
        if not mask.any() and free.any():  # it lies between the voxels
            nearest = np.unravel_index(np.where(free, d, np.inf).argmin(), d.shape)
            if d[nearest] * radii.min() < radii.min() + canvas.spacing:
                mask[nearest] = True
                canvas.paint(box, mask, TUMOR, tissue)
        if radii.min() > 20:  # what outgrows its blood supply dies in the middle
            canvas.paint(box, mask & (d + 0.25 * self.rough[box] < 0.5), tissue=Tissue.NECROSIS)
        return int(mask.sum())

    def nodes(self, site: str, center: np.ndarray, count: int, diameter: float) -> None:
        """N1 to N3: one to three enlarged nodes where the organ drains."""
        side = 1 if (site.startswith("right") or site == "ascending_colon") else -1
        scale, ground = self.canvas.scale, (0, IDS["lung"], IDS["small_bowel"])
        if site.endswith("_lung"):  # hilum, trachea, the other side
            places = [(side * 34, -16, 150), (side * 19, -8, 206), (-side * 34, -16, 150)]
        elif site.endswith("_kidney"):  # along the great vessels
            places = [(side * 27, -26, -48), (side * 26, -22, -82), (side * 27, -30, -16)]
        else:  # in the mesentery, between the tumour and the midline
            inward = np.array((6.0, 12.0, -110.0)) * scale - center
            inward = inward / max(float(np.linalg.norm(inward)), 1.0)
            places = [center + inward * (diameter / 2 + 14 + 17 * i) for i in range(3)]
        self.within = (self.torso.cavity < 0.96) & (self.canvas.labels != TUMOR)
        near = np.array(sorted(np.ndindex(5, 5, 5), key=lambda d: sum((k - 2) ** 2 for k in d))) - 2
        for i in range(count):
            place = np.asarray(places[i], np.float32)
            if not site.endswith("_colon") and site != "sigmoid_or_rectum":
                place = self.canvas.moved((place * scale)[None].astype(np.float32))[0]
            place = place + 3 * self.normal[18 + i]
            radius = min(5 + 4 * self.uniform[4 + i], 0.36 * diameter)
            places_around = (place + 9.0 * near).astype(np.float32)
            place = self._first_good(places_around, 0.8 * radius, ground)
            self._lesion(place, radius, Tissue.NODE, None, 0.05, ground, self.within)

    def metastases(self, m: int, diameter: float) -> None:
        """M1: one or two metastases in the liver."""
        liver = IDS["liver"]
        points = self._points(self.canvas.labels == liver)
        if not m or not len(points):
            return
        self.within = self.torso.cavity < 0.9
        for i in range(1 + int(self.uniform[10] > 0.5)):
            radius = min(7 + 8 * self.uniform[13 + i], 0.36 * diameter)
            places = points.min(0) + self.spots[1, 128 * i : 128 * (i + 1)] * (points.max(0) - points.min(0))
            place = self._first_good(places, radius, (liver,), self.canvas.labels[self._at(places)] == liver)
            self._lesion(place, radius, Tissue.METASTASIS, None, 0.08, (liver,), self.within)
