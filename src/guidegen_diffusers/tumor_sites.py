"""Where the tumours of a label map lie, by geometry alone: what scores a generated map against its prompt.

A tumour belongs to the organ it touches most. The side is that of the spine; a lung is cut into lobes by planes that
stand for its fissures, the colon into segments by their place in its frame. A lobe or segment is thus an estimate: a
map of 21 classes draws no fissures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .grid import Grid, check_affine
from .labels import CLASSES, TUMOR, check_labels
from .prompts import SITES


__all__ = ["Tumor", "TumorFindings", "colon_segment", "find_site", "lung_lobe"]

IDS = {c.name: c.id for c in CLASSES}
ELSEWHERE = "elsewhere"


@dataclass(frozen=True)
class Tumor:
    """One connected tumour: its site (one of `SITES`, or `"elsewhere"`), volume, extent and middle in RAS mm."""

    site: str
    volume_ml: float
    diameter_mm: float
    center: tuple[float, float, float]


@dataclass(frozen=True)
class TumorFindings:
    """All tumours of a map, the largest first. `site` is the site of the largest that lies in one of our sites."""

    tumors: tuple[Tumor, ...]

    @property
    def site(self) -> str:
        return next((t.site for t in self.tumors if t.site != ELSEWHERE), ELSEWHERE if self.tumors else "none")

    @property
    def count(self) -> int:
        return len(self.tumors)


# ------------------------------------------------------------------------------------------------------------- lobes


def lobe_depth(site: str, up: np.ndarray, front: np.ndarray) -> np.ndarray:
    """How deep a place lies in a lobe, positive inside, in units of the lung's extent.

    `up` and `front` run from 0 (base, back) to 1 (apex, front) of that lung. The oblique fissure falls from two thirds
    of the height at the back to the base in front; on the right the horizontal fissure cuts off the middle lobe.
    """
    above = up - 0.66 * (1 - front)
    if site == "left_upper_lung":
        return above
    if site in ("left_lower_lung", "right_lower_lung"):
        return -above
    if site == "right_upper_lung":
        return np.minimum(above, up - 0.42)
    if site == "right_middle_lung":
        return np.minimum(above, 0.42 - up)
    raise ValueError(f"site: got {site!r}, expected a lobe, one of {[s for s in SITES if s.endswith('_lung')]}.")


def lung_extent(points: np.ndarray) -> np.ndarray:
    """[[y, z] of base and back, [y, z] of apex and front] of one lung's voxels (P, 3); stray voxels do not count."""
    return np.percentile(points[:, 1:], (1, 99), axis=0)


def lung_lobe(point: np.ndarray, side: str, extent: np.ndarray) -> str:
    """The lobe of a place in the left or right lung."""
    front, up = (np.asarray(point)[1:] - extent[0]) / np.maximum(extent[1] - extent[0], 1e-6)
    lobes = [s for s in SITES if s.startswith(side) and s.endswith("_lung")]
    return max(lobes, key=lambda site: float(lobe_depth(site, up, front)))


# ------------------------------------------------------------------------------------------------------------- colon

# The middle line of a reference colon, in mm of the frame that spans it (`_COLON_BOX`), segment by segment.
_COLON_BOX = np.array([(-122.0, -82.0, -290.0), (121.0, 87.0, 6.0)])
_COLON_LINE = {
    "sigmoid_or_rectum": [(0, -58, -278), (0, -64, -242), (3, -58, -214), (14, -34, -196), (-12, 4, -186),
                          (-42, -2, -198), (-72, -4, -182)],
    "descending_colon": [(-98, -10, -150), (-103, -11, -125), (-107, -12, -100), (-107, -8, -58), (-101, 2, -36)],
    "transverse_colon": [(-80, 36, -36), (-55, 58, -55), (-30, 66, -72), (12, 70, -80), (45, 66, -84), (68, 55, -90)],
    "ascending_colon": [(98, 18, -104), (102, 2, -114), (100, 0, -142), (92, 8, -170), (86, 12, -186)],
}  # fmt: skip


def colon_segment(point: np.ndarray, box: np.ndarray) -> str:
    """The segment of a place, given the corners `box` (2, 3) that the whole colon spans (RAS mm)."""
    distances = _colon_distances(point, box)
    return min(distances, key=distances.get)


def _colon_distances(point: np.ndarray, box: np.ndarray) -> dict[str, float]:
    """How far a place lies from the middle line of each segment, in mm of the reference."""
    size = np.maximum(box[1] - box[0], 1e-6)
    place = _COLON_BOX[0] + (np.asarray(point) - box[0]) / size * (_COLON_BOX[1] - _COLON_BOX[0])
    return {name: float(np.linalg.norm(_dense(line) - place, axis=1).min()) for name, line in _COLON_LINE.items()}


def _dense(line: list[tuple[float, float, float]]) -> np.ndarray:
    knots = np.array(line, float)
    at = np.linspace(0, len(knots) - 1, 4 * len(knots))
    return np.stack([np.interp(at, np.arange(len(knots)), knots[:, i]) for i in range(3)], 1)


# -------------------------------------------------------------------------------------------------------------- maps

ORGANS = ("lung", "kidney", "colon")
REACH_MM = 12.0  # a tumour within this of an organ, touching none, still belongs to it
COLON_RADIUS_MM = 17.0
SHARE = 0.06  # of a tumour's surface that must touch one of the three organs


def find_site(labels: np.ndarray, affine: np.ndarray, min_volume_ml: float = 0.1) -> TumorFindings:
    """The tumours of a 21-class map, each with its site, size and middle.

    Args:
        labels (`np.ndarray` of shape `(X, Y, Z)`): class ids.
        affine (`np.ndarray` of shape `(4, 4)`): voxel to world in mm, RAS.
        min_volume_ml (`float`): connected pieces below this are no tumours; they are speckle.
    """
    labels = check_labels(labels)
    grid = Grid(labels.shape, check_affine(affine))
    voxel_ml = abs(np.linalg.det(grid.affine[:3, :3])) / 1000
    pieces, count = ndimage.label(labels == TUMOR, np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.reshape(-1), minlength=count + 1) * voxel_ml
    keep = [i for i in np.argsort(-sizes[1:], kind="stable") + 1 if sizes[i] >= min_volume_ml]
    if not keep:
        return TumorFindings(())
    boxes = ndimage.find_objects(pieces)
    found = []
    for i in keep:
        points = _world(grid, np.argwhere(pieces[boxes[i - 1]] == i) + [s.start for s in boxes[i - 1]])
        center = points.mean(0)
        organ = _organ(labels, grid, pieces, i, boxes[i - 1], points)
        site = ELSEWHERE if organ is None else _site(labels, grid, organ, center, points)
        spread = np.atleast_2d(np.cov(points.T, bias=True)) if len(points) > 1 else np.zeros((3, 3))
        spread = np.linalg.eigvalsh(spread)[-1] + grid.spacing.mean() ** 2 / 12
        diameter = 2 * np.sqrt(5 * spread)  # the long axis of the ellipsoid with these moments
        found.append(Tumor(site, float(sizes[i]), float(diameter), tuple(float(c) for c in center)))
    return TumorFindings(tuple(found))


def _world(grid: Grid, index: np.ndarray) -> np.ndarray:
    return index @ grid.affine[:3, :3].T + grid.affine[:3, 3]


def _organ(labels, grid, pieces, piece, box, points) -> str | None:
    """Which of the three organs a piece grows in: the one it touches most, or lies next to; None for another's."""
    steps = max(1, round(REACH_MM / float(grid.spacing.mean())))
    box = tuple(slice(max(s.start - steps, 0), s.stop + steps) for s in box)
    inside, around = pieces[box] == piece, labels[box]
    shell = ndimage.binary_dilation(inside, np.ones((3, 3, 3))) & ~inside
    counts = np.bincount(around[shell], minlength=len(CLASSES))
    least = SHARE * max(counts.sum() - counts[TUMOR], 1)
    touched = [organ for organ in ORGANS if counts[IDS[organ]] >= least]
    if "kidney" in touched and "colon" in touched:
        touched.remove(_further(labels, grid, points))
    if touched:
        return max(touched, key=lambda organ: counts[IDS[organ]])
    other = counts[1:TUMOR].sum() - sum(counts[IDS[organ]] for organ in ORGANS)
    if other > 0.5 * counts.sum():
        return None  # in the liver, say
    distance = ndimage.distance_transform_edt(~inside, sampling=grid.spacing)
    near = {organ: distance[around == IDS[organ]].min(initial=np.inf) for organ in ORGANS}
    best = min(near, key=near.get)
    return best if near[best] <= REACH_MM else None


def _further(labels, grid, points) -> str:
    """Of kidney and colon the one whose healthy shape is further from the middle of a tumour that touches both.

    A tumour hides the organ it grew in: the kidney is completed by the mirror image of the other one, the colon by the
    reference.
    """
    center = points.mean(0)
    kidneys = _world(grid, np.argwhere(labels == IDS["kidney"]))
    mirrored = kidneys.copy()
    mirrored[:, 0] = 2 * _midline(labels, grid, kidneys[:, 2]) - kidneys[:, 0]
    kidney = np.linalg.norm(np.concatenate([kidneys, mirrored]) - center, axis=1).min()
    colon = np.concatenate([_world(grid, np.argwhere(labels == IDS["colon"])), points])
    line = min(_colon_distances(center, np.stack([colon.min(0), colon.max(0)])).values())
    return "kidney" if kidney > max(line - COLON_RADIUS_MM, 0) else "colon"


def _site(labels: np.ndarray, grid: Grid, organ: str, center: np.ndarray, points: np.ndarray) -> str:
    side = "right" if center[0] > _midline(labels, grid, center[2]) else "left"
    if organ == "kidney":
        return f"{side}_kidney"
    voxels = _world(grid, np.argwhere(labels == IDS[organ]))
    if organ == "colon":
        voxels = np.concatenate([voxels, points])
        return colon_segment(center, np.stack([voxels.min(0), voxels.max(0)]))
    beside = voxels[:, 0] > _midline(labels, grid, voxels[:, 2])
    voxels = np.concatenate([voxels[beside == (side == "right")], points])
    return lung_lobe(center, side, lung_extent(voxels))


def _midline(labels: np.ndarray, grid: Grid, height) -> np.ndarray:
    """The spine's x at a height in mm; the middle of all organs where the map shows no vertebra."""
    bone = labels == IDS["vertebrae"]
    points = _world(grid, np.argwhere(bone if bone.any() else labels > 0))
    if not bone.any():
        return np.full(np.shape(height), points[:, 0].mean())
    slices = np.rint(points[:, 2] / grid.spacing[2]).astype(int)
    first = slices.min()
    number = np.bincount(slices - first)
    total = np.bincount(slices - first, points[:, 0])
    held = np.flatnonzero(number)
    return np.interp(height, (held + first) * grid.spacing[2], total[held] / number[held])
