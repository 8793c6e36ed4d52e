"""From painted tissues to a CT in HU: densities, textures, the vessels too fine for a label, partial volume, noise."""

from __future__ import annotations

import numpy as np

from ..case import HU_RANGE
from .canvas import Canvas
from .patient import Patient
from .tissues import Tissue, density, texture
from .torso import IDS


__all__ = ["scan"]

# tissues that the contrast medium and the patient shift together from case to case
SOFT = [t for t in Tissue if Tissue.LIVER <= t <= Tissue.ESOPHAGUS and t is not Tissue.STOOL]


def scan(canvas: Canvas, healthy: np.ndarray, patient: Patient, rng: np.random.Generator) -> np.ndarray:
    """The CT of what `canvas` holds, int16 (X, Y, Z).

    `healthy` are the tissues before a tumour grew: vessels run as they ran, whatever grows where.
    """
    tissue = canvas.tissue
    hu, grain = density(patient.phase, patient.bone), texture()
    hu[SOFT] += 5 * rng.standard_normal(len(SOFT)).astype(np.float32)
    hu[Tissue.LIVER] -= 9 * max(patient.habitus, 0)  # fatty liver
    hu[Tissue.LUNG] += 16 * np.float32(-patient.inspiration) - 0.4 * np.float32(patient.years - 60)
    ct = grain[tissue]
    ct *= 0.8 * canvas.noise(rng, 13) + 0.6 * canvas.noise(rng, 36)
    ct += hu[tissue]

    lung = tissue == Tissue.LUNG
    ct += lung * (-26 * (canvas.axes[1] / 80)[None, :, None]).astype(np.float32)  # blood sinks to the back
    fine = np.zeros(canvas.shape, np.float32)
    for side in (-1, 1):
        inside = np.flatnonzero((healthy == Tissue.LUNG) & (canvas.axes[0] * side > 0)[:, None, None])
        root = np.array((side * 40, -16, 148)) * canvas.scale
        vessels = _tree(canvas, rng, root, inside, (10, 6, 320), (3.4, 2.2, 1.5, 0.7))
        fine += _drawn(canvas, *vessels)
    ct += lung * np.minimum(fine, 1) * (880 + hu[Tissue.PULMONARY_ARTERY] - 40)

    contrast = hu[Tissue.PORTAL_VEIN] - hu[Tissue.LIVER]
    liver = tissue == Tissue.LIVER
    root = np.array((42, 10, -4)) * canvas.scale
    vessels = _tree(canvas, rng, root, np.flatnonzero(healthy == Tissue.LIVER), (7, 4, 60), (4.5, 3.2, 2.2, 1.2))
    ct += liver * np.minimum(_drawn(canvas, *vessels), 1) * contrast
    fat = tissue == Tissue.VISCERAL_FAT
    mesentery = np.flatnonzero((healthy == Tissue.VISCERAL_FAT) & (np.abs(canvas.x) < 90) & (canvas.y > -20))
    vessels = _tree(canvas, rng, np.array((4, 18, -60)) * canvas.scale, mesentery, (9, 5, 160), (3, 2.2, 1.6, 1.0))
    ct += fat * np.minimum(_drawn(canvas, *vessels), 1) * (100 + hu[Tissue.PORTAL_VEIN])
    _calcify(canvas, patient, rng, ct, hu[Tissue.CALCIUM])

    for axis in range(3):  # partial volume, and the focus of the scanner
        ct = _smooth(ct, axis, 0.16)
    noise = rng.standard_normal(canvas.shape, np.float32)
    for axis in (0, 1):
        noise = _smooth(noise, axis, 0.22)
    z = canvas.axes[2] / canvas.scale[2]
    sigma = 17 / np.sqrt(canvas.spacing / 3) * (1 + 0.5 * np.exp(-(((z + 230) / 50) ** 2)) + 0.5 * (z > 235))
    sigma = (sigma * (1 + 0.12 * max(patient.habitus, 0))).astype(np.float32)
    noise *= sigma
    noise *= np.where(tissue == Tissue.AIR, np.float32(0.4), np.float32(1))
    ct += noise
    return np.rint(np.clip(ct, *HU_RANGE, out=ct), out=ct).astype(np.int16)


def _smooth(volume: np.ndarray, axis: int, weight: float) -> np.ndarray:
    """[w, 1 - 2w, w] along an axis, edges held."""
    if volume.shape[axis] < 3:
        return volume
    moved = np.moveaxis(volume, axis, 0)
    out = np.empty_like(volume)
    target = np.moveaxis(out, axis, 0)
    np.add(moved[:-2], moved[2:], out=target[1:-1])
    target[0] = moved[0] + moved[1]
    target[-1] = moved[-1] + moved[-2]
    out *= np.float32(weight)
    out += np.float32(1 - 2 * weight) * volume
    return out


def _tree(canvas, rng, root, voxels, counts, radii) -> tuple[np.ndarray, np.ndarray, float]:
    """Points (P, 3), radii (P,) and step of a vessel tree from `root` (reference mm, scaled) into flat `voxels`.

    Leaves are drawn among the voxels and share two levels of trunks, so that the tree thins as it spreads.
    """
    trunks, boughs, count = counts
    step = 0.55 * canvas.spacing
    picks = rng.random(count)
    bend = rng.standard_normal((count + trunks * boughs + trunks, 3)).astype(np.float32)
    if len(voxels) < 8:
        return np.zeros((0, 3), np.float32), np.zeros(0, np.float32), step
    index = np.stack(np.unravel_index(voxels[(picks * len(voxels)).astype(int)], canvas.shape), 1)
    leaves = (index * canvas.spacing + canvas.origin).astype(np.float32)
    root = canvas.moved(root[None].astype(np.float32))
    first = _nearest(leaves, leaves[:trunks])
    ends = [root + 0.45 * (_means(leaves, first, trunks) - root)]
    second = first * boughs + np.arange(count) % boughs
    parent = ends[0][np.arange(trunks * boughs) // boughs]
    ends.append(parent + 0.6 * (_means(leaves, second, trunks * boughs) - parent))
    starts = [np.repeat(root, trunks, 0), parent, ends[1][second]]
    ends.append(leaves)
    points, widths = [], []
    for level, (start, end) in enumerate(zip(starts, ends, strict=True)):
        turns, bend = bend[: len(start)], bend[len(start) :]
        length = np.linalg.norm(end - start, axis=1)
        number = np.maximum(2, np.ceil(length / step).astype(int))
        which = np.repeat(np.arange(len(start)), number)
        u = ((np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)) / number[which])[:, None]
        arc = (0.16 * length[:, None] * turns)[which] * (4 * u * (1 - u))
        points.append(start[which] + u * (end - start)[which] + arc)
        widths.append(radii[level] + u[:, 0] * (radii[level + 1] - radii[level]))
    return np.concatenate(points).astype(np.float32), np.concatenate(widths).astype(np.float32), step


def _nearest(points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    return np.square(points[:, None] - centers[None]).sum(-1).argmin(1)


def _means(points: np.ndarray, group: np.ndarray, count: int) -> np.ndarray:
    """Mean of the points of each group; of all points for an empty one."""
    size = np.bincount(group, minlength=count)[:, None]
    total = np.stack([np.bincount(group, points[:, i], count) for i in range(3)], 1)
    return np.where(size > 0, total / np.maximum(size, 1), points.mean(0)).astype(np.float32)


def _drawn(canvas: Canvas, points: np.ndarray, radii: np.ndarray, step: float) -> np.ndarray:
    """How much of each voxel lies in the vessels, (X, Y, Z); a thin vessel is shared between its neighbours."""
    at = (points - canvas.origin) / canvas.spacing
    low = np.floor(at).astype(np.int64)
    part = at - low
    amount = np.pi * radii**2 * step / canvas.spacing**3
    flats, weights = [], []
    for corner in np.ndindex(2, 2, 2):
        index = low + corner
        valid = ((index >= 0) & (index < canvas.shape)).all(1)
        flats.append(np.ravel_multi_index(tuple(index[valid].T), canvas.shape))
        weights.append((amount * np.prod(np.where(corner, part, 1 - part), axis=1))[valid])
    held = np.bincount(np.concatenate(flats), np.concatenate(weights), int(np.prod(canvas.shape)))
    return held.astype(np.float32).reshape(canvas.shape)


def _calcify(canvas: Canvas, patient: Patient, rng: np.random.Generator, ct: np.ndarray, hu: float) -> None:
    """Plaques in the wall of an old aorta."""
    draws = rng.random(60)
    box = canvas.box((-60, -80, -190), (50, 60, 220))
    aorta = np.zeros(canvas.shape, bool)
    aorta[box] = canvas.labels[box] == IDS["aorta"]
    voxels = np.flatnonzero(aorta)
    count = int(max(0.0, (patient.years - 50) / 45) * 60)
    if not len(voxels) or not count:
        return
    chosen = voxels[(draws[:count] * len(voxels)).astype(int)]
    _, ny, nz = canvas.shape
    flat, edge = ct.reshape(-1), aorta.reshape(-1)
    last = len(edge) - 1
    for shift in (ny * nz, -ny * nz, nz, -nz):  # only where a neighbour in the slice is no aorta
        wall = chosen[~edge[np.clip(chosen + shift, 0, last)]]
        flat[wall] = hu
