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
    normal, uniform, spots = rng.standard_normal((12, 3)), rng.random(24), rng.random(16)
    rough = organs.canvas.noise(rng, 17)
    if prompt.site == "none":
        return
    low, high = diameter_range(prompt.site, prompt.t, prompt.size)
    diameter = low + uniform[0] * (high - low)
    growth = _Growth(organs, rough, normal, uniform, spots)
    if prompt.site.endswith("_lung"):
        center, tissue = growth.lung(prompt.site, diameter), Tissue.LUNG_TUMOR
    elif prompt.site.endswith("_kidney"):
        center, tissue = growth.kidney(prompt.site, diameter), Tissue.KIDNEY_TUMOR
    else:
        center, tissue = growth.colon(prompt.site, diameter), Tissue.COLON_TUMOR
    size = growth.primary(center, diameter, tissue) if prompt.t else 30.0  # T0: no primary tumour can be found
    growth.nodes(prompt.site, center, prompt.n or 0, size)
    growth.metastases(prompt.m or 0, size)


class _Growth:
    def __init__(self, organs: Organs, rough: np.ndarray, *draws: np.ndarray):
        self.organs, self.canvas, self.torso = organs, organs.canvas, organs.torso
        self.rough = rough
        self.normal, self.uniform, self.spots = draws
        self.axes, self.stretch = None, np.exp(0.1 * self.normal[0].clip(-2, 2))
        self.allowed: tuple[int, ...] = ()
        self.within: np.ndarray | None = None

    def _points(self, mask: np.ndarray) -> np.ndarray:
        return (np.argwhere(mask) * self.canvas.spacing + self.canvas.origin).astype(np.float32)

    def lung(self, site: str, diameter: float) -> np.ndarray:
        """The middle of a tumour deep in its lobe; large ones deeper."""
        canvas = self.canvas
        side = 1 if site.startswith("right") else -1
        beside = (canvas.axes[0][:, None] - self.torso.spine_x[None]) * side > 0
        points = self._points((canvas.labels == IDS["lung"]) & beside[:, None, :])
        if not len(points):
            return self._outside()
        low, high = lung_extent(points)
        front, up = ((points[:, 1:] - low) / np.maximum(high - low, 1e-6)).T
        depth = lobe_depth(site, up, front)
        share = np.interp(diameter, (20, 70), (0.5, 0.15))
        inside = points[depth >= max(np.quantile(depth[depth > 0], 1 - share), 0)] if (depth > 0).any() else points
        self.allowed = (0, IDS["lung"])
        self.within = (self.torso.cavity < 0.975) & (canvas.z > self.torso.diaphragm) & (self.torso.spine > 3)
        places = inside[(self.spots * len(inside)).astype(int)]
        return places[int(self._held(places, 0.42 * diameter, (IDS["lung"],)).argmax())]

    def _held(self, places: np.ndarray, reach: float, labels: tuple[int, ...]) -> np.ndarray:
        """How many of 27 points in and on a cube of half edge `reach` around each place lie in these labels."""
        cube = reach * (np.array(list(np.ndindex(3, 3, 3))) - 1)
        index = np.rint((places[:, None] + cube - self.canvas.origin) / self.canvas.spacing).astype(int)
        index = np.clip(index, 0, np.array(self.canvas.shape) - 1)
        return np.isin(self.canvas.labels[tuple(np.moveaxis(index, -1, 0))], labels).sum(1)

    def kidney(self, site: str, diameter: float) -> np.ndarray:
        """A middle on the kidney's surface; a large tumour hangs on the lower pole, where there is room."""
        side = 1 if site.startswith("right") else -1
        radii = np.array((27, 27, 52)) * self.organs.patient.build
        large = np.interp(diameter, (35, 70), (0, 1))
        way = self.normal[1].clip(-2, 2) * (1 - large) + large * np.array((0.35 * side, 0.25, -1.2))
        way[0] = abs(way[0]) * side
        way = way / np.linalg.norm(way)
        surface = 1 / np.sqrt(np.square(way / radii).sum())
        center = self.organs.kidneys[site.split("_")[0]] + way * (surface - (0.3 - 0.2 * large) * diameter / 2)
        self.allowed = (0, IDS["kidney"], *SOFT_NEIGHBORS)
        self.within = (self.torso.cavity < 0.95) & (self.canvas.z < self.torso.diaphragm - 13) & (self.torso.spine > 3)
        return self.canvas.moved(center[None].astype(np.float32))[0]

    def colon(self, site: str, diameter: float) -> np.ndarray:
        """A polyp on the wall while small; then it rings the bowel and grows along it."""
        points, place = self.organs.colon
        first, last = COLON_SEGMENTS[site]
        index = np.rint((points[:, :3] - self.canvas.origin) / self.canvas.spacing).astype(int)
        index = tuple(np.clip(index, 0, np.array(self.canvas.shape) - 1).T)
        here = (place >= first) & (place <= last)
        seen = here & (self.canvas.labels[index] == IDS["colon"])  # not where another organ lies on it
        here = np.flatnonzero(seen if seen.any() else here)
        i = here[int(self.uniform[1] * len(here))]
        middle, radius = points[i, :3], float(points[i, 3])
        along = points[min(i + 1, len(points) - 1), :3] - points[max(i - 1, 0), :3]
        up = (0, 0, 1) if abs(along[2]) < 0.9 * np.linalg.norm(along) else (0, 1, 0)
        self.axes = frame(along, up)
        wide = max(0.65, min(1.0, 1.05 * radius / (diameter / 2)))
        self.stretch = np.array((1.0, wide, wide)) * np.exp(0.06 * self.normal[0].clip(-2, 2))
        around = self.axes[:, 1] * np.cos(6.28 * self.uniform[2]) + self.axes[:, 2] * np.sin(6.28 * self.uniform[2])
        ringed = np.interp(diameter, (20, 40), (0, 1))
        self.allowed = (0, IDS["colon"], IDS["small_bowel"], IDS["stomach"], IDS["urinary_bladder"])
        self.within = (self.torso.cavity < 0.985) & (self.torso.spine > 3)
        offset = (1 - ringed) * max(radius - 0.35 * diameter, 0) * around
        places = np.stack([middle + offset, middle - offset, middle]).astype(np.float32)
        held = self._held(places, 0.42 * diameter, (IDS["colon"],))
        return places[int((held >= min(6, held[2])).argmax())]

    def _outside(self) -> np.ndarray:
        """The organ lies outside a small field of view: a place where nothing is painted."""
        return np.full(3, 1e4, np.float32)

    def primary(self, center: np.ndarray, diameter: float, tissue: int) -> float:
        """Paint it, one voxel at least; returns the diameter of a ball of the volume that was painted."""
        canvas = self.canvas
        count = self._lesion(center, diameter / 2 * self.stretch, tissue, self.axes, 0.11, self.allowed, self.within)
        if not count:  # smaller than a voxel, or between them
            index = np.rint((center - canvas.origin) / canvas.spacing).astype(int)
            if ((index >= 0) & (index < canvas.shape)).all():
                canvas.labels[tuple(index)], canvas.tissue[tuple(index)] = TUMOR, tissue
        return float(np.cbrt(6 / np.pi * max(count, 1)) * canvas.spacing)

    def _lesion(self, center, radii, tissue: int, axes, uneven: float, only, within=None) -> int:
        canvas = self.canvas
        radii = np.broadcast_to(np.asarray(radii, np.float32), 3)
        if radii.max() < 0.5 * canvas.spacing:
            return 0
        box = canvas.box(center - 1.4 * radii.max(), center + 1.4 * radii.max())
        # tumours are placed in the world, not in the warped body
        offsets = (axis[s] - c for axis, s, c in zip(canvas.axes, box, center, strict=True))
        grids = np.meshgrid(*offsets, indexing="ij", sparse=True)
        if axes is not None:
            grids = [sum(np.float32(axes[k, i]) * grids[k] for k in range(3)) for i in range(3)]
        d = (
            np.sqrt(sum(np.square(g / r) for g, r in zip(grids, radii, strict=True)))
            + np.float32(uneven) * self.rough[box]
        )
        mask = d < 1 if within is None else (d < 1) & within[box]
        mask = canvas.paint(box, mask, TUMOR, tissue, only=(*only, TUMOR))
        if radii.min() > 20:  # what outgrows its blood supply dies in the middle
            canvas.paint(box, mask & (d + 0.25 * self.rough[box] < 0.5), tissue=Tissue.NECROSIS)
        return int(mask.sum())

    def nodes(self, site: str, center: np.ndarray, count: int, diameter: float) -> None:
        """N1 to N3: one to three enlarged nodes where the organ drains."""
        side = 1 if (site.startswith("right") or site == "ascending_colon") else -1
        scale = self.canvas.scale
        if site.endswith("_lung"):  # hilum, trachea, the other side
            places = [(side * 34, -16, 150), (side * 15, 4, 196), (-side * 34, -16, 150)]
        elif site.endswith("_kidney"):  # along the great vessels
            places = [(side * 27, -26, -48), (side * 26, -22, -82), (side * 27, -30, -16)]
        else:
            places = [None, None, None]
        for i in range(count):
            shift = 4 * self.normal[3 + i].clip(-2, 2)
            if places[i] is None:  # in the mesentery, between the tumour and the midline
                inward = np.array((6.0, 12.0, -110.0)) * scale - center
                inward = inward / max(float(np.linalg.norm(inward)), 1.0)
                place = center + inward * (diameter / 2 + 12 + 16 * i) + shift
            else:
                place = self.canvas.moved((np.array(places[i]) * scale + shift)[None].astype(np.float32))[0]
            radius = min(5 + 4 * self.uniform[4 + i], 0.36 * diameter)
            only = (0, IDS["lung"], IDS["small_bowel"])
            self._lesion(place, radius, Tissue.NODE, None, 0.05, only, self.torso.cavity < 0.96)

    def metastases(self, m: int, diameter: float) -> None:
        """M1: one or two metastases in the liver."""
        if not m:
            return
        points = self._points((self.canvas.labels == IDS["liver"]) & (self.torso.cavity < 0.85))
        for i in range(1 + int(self.uniform[10] > 0.5)):
            if len(points):
                place = points[int(self.uniform[11 + i] * len(points))]
                radius = min(7 + 8 * self.uniform[13 + i], 0.36 * diameter)
                self._lesion(place, radius, Tissue.METASTASIS, None, 0.08, (IDS["liver"],))
