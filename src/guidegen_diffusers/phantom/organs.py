"""The 19 structures, painted from the lungs down: where they lie, how large they are, and what they are filled with.

Positions are those of a reference adult (see `torso.py`). Each function paints one region; what the tumours need to
know of it is kept on [`Organs`].
"""

from __future__ import annotations

import numpy as np

from .canvas import frame
from .tissues import Tissue
from .torso import IDS, Torso


__all__ = ["Organs"]

BONES = (IDS["vertebrae"], IDS["ribs"])
# the places of each segment along the rows of `Organs._colon`
COLON_SEGMENTS = {
    "sigmoid_or_rectum": (1.0, 6.2),
    "descending_colon": (7.8, 9.8),
    "transverse_colon": (11.7, 14.3),
    "ascending_colon": (16.2, 19.6),
}


class Organs:
    """
    Args:
        torso ([`Torso`]): body and skeleton are painted already.
        rng (`np.random.Generator`): draws sizes and jitter.
    """

    def __init__(self, torso: Torso, rng: np.random.Generator):
        self.torso, self.canvas, self.patient = torso, torso.canvas, torso.patient
        self.jitter = iter(rng.standard_normal(500).clip(-2, 2))
        self.top = torso.dome_left / torso.canvas.scale[2]  # the left dome, in reference mm
        self.rough = torso.canvas.noise(rng, 42)
        self.kidneys: dict[str, np.ndarray] = {}
        self.colon: tuple[np.ndarray, np.ndarray]

    def paint(self) -> None:
        self._lungs()
        self._heart()
        self._airways()
        self._liver()
        self._stomach_and_spleen()
        self._kidneys_and_adrenals()
        self._pelvic_organs()
        self._small_bowel()
        self._colon()
        self._duodenum_and_pancreas()
        self._vessels()
        self._gallbladder()
        self._esophagus()

    def _draw(self, spread: float, middle: float = 0.0) -> float:
        """A clipped normal draw."""
        return middle + spread * float(next(self.jitter))

    def _at(self, *point: float) -> np.ndarray:
        return np.asarray(point, np.float32) * self.canvas.scale

    def _blob(self, center, radii, name: str, tissue: int, axes=None, rough: float = 0.05, spare=BONES, within=None):
        """An organ as one ellipsoid with an uneven surface; returns its box and the distance in it."""
        box, d = self.canvas.ellipsoid(center, radii, axes)
        d = d + rough * self.rough[box]
        mask = (d < 1) if within is None else (d < 1) & within[box]
        self.canvas.paint(box, mask, IDS[name], tissue, spare=spare)
        return box, d

    # ------------------------------------------------------------------------------------------------------ thorax

    def _lungs(self) -> None:
        canvas, torso = self.canvas, self.torso
        _, depth, height = canvas.scale
        z = canvas.axes[2] / height
        hilum = 15 + 8 * np.exp(-(((z - 150) / 40) ** 2)) + 9 * np.clip((z - 200) / 60, 0, 1)
        hila = 7 * np.exp(-np.square((canvas.y + 6) / 34))  # widest at the hila; behind, the lungs reach the spine
        front = np.maximum(canvas.y - 52 * depth, 0) * 0.9  # the lungs nearly meet behind the sternum
        mediastinum = np.maximum(hilum.astype(np.float32) * self.patient.build + hila - front, 4)
        lungs = (torso.cavity < 0.955) & (np.abs(canvas.x) > mediastinum) & (canvas.z > torso.diaphragm)
        lungs &= torso.spine > 5
        canvas.paint((slice(None),) * 3, lungs, IDS["lung"], Tissue.LUNG, spare=BONES)
        # the diaphragm's muscle on the organs below
        under = (canvas.z <= torso.diaphragm) & (canvas.z > torso.diaphragm - 4) & (torso.cavity < 0.97)
        canvas.paint((slice(None),) * 3, under, tissue=Tissue.MUSCLE, only=(0,))

    def _heart(self) -> None:
        canvas, torso, patient = self.canvas, self.torso, self.patient
        width, depth, height = canvas.scale
        size = patient.build * (1 + self._draw(0.04)) * (1 + 0.06 * np.clip((patient.years - 40) / 50, 0, 1))
        above = canvas.z > torso.diaphragm + 3
        heart, base = IDS["heart"], torso.dome_left + 46 * height
        axes = frame((-0.74, 0.50, -0.42))
        left = np.array((-28 * width, 22 * depth, base - 2 * height))
        right = np.array((8 * width, 34 * depth, base))
        atria = np.array((16 * width, 4 * depth, base + 22 * height))
        sac, d = canvas.ellipsoid(left + np.array((6, 6, 4)), np.array((72, 54, 55)) * size, axes)
        canvas.paint(sac, (d < 1) & above[sac], 0, Tissue.MEDIASTINUM, spare=BONES)  # fat around the heart
        parts = [
            (left, (64, 44, 45), axes, Tissue.HEART_MUSCLE),
            (right, (54, 31, 38), axes, Tissue.HEART_RIGHT),
            (atria, (38, 32, 37), None, Tissue.HEART_RIGHT),
        ]
        for center, radii, turned, tissue in parts:
            self._blob(center, np.array(radii) * size, "heart", tissue, turned, 0.04, within=above)
        box, d = canvas.ellipsoid(left + np.array((2, -2, 2)), np.array((50, 28, 30)) * size, axes)
        canvas.paint(box, d + 0.06 * self.rough[box] < 1, tissue=Tissue.HEART_LEFT, only=(heart,))
        box, d = canvas.ellipsoid(atria + np.array((-24, -16, 0)), np.array((28, 24, 26)) * size)
        canvas.paint(box, d < 1, tissue=Tissue.HEART_LEFT, only=(heart,))

    def _airways(self) -> None:
        """Trachea, main bronchi and the pulmonary arteries at the hila: carved out of lung and fat, no class."""
        canvas, lung = self.canvas, IDS["lung"]
        trunk = [(-8, 40, 134, 14), (-12, 24, 156, 13.5), (-6, 4, 168, 12)]
        canvas.tube(trunk, 0, Tissue.PULMONARY_ARTERY, only=(0, lung))
        for side in (-1, 1):
            artery = [(-4, 6, 168, 11), (side * 28, -4, 166, 10.5), (side * 46, -14, 152, 8)]
            canvas.tube(artery, 0, Tissue.PULMONARY_ARTERY, only=(0, lung))
            vein = [(side * 14, -6, 138, 8), (side * 34, -12, 136, 7), (side * 46, -16, 130, 5.5)]
            canvas.tube(vein, 0, Tissue.HEART_LEFT, only=(0, lung))
            bronchus = [
                (0, -18, 182, 7.5),
                (side * 18, -22, 168, 7),
                (side * 40, -24, 152, 5.5),
                (side * 50, -28, 138, 4),
            ]
            canvas.tube([(x, y, z, r + 1.8) for x, y, z, r in bronchus], 0, Tissue.MUSCLE, only=(0, lung))
            canvas.tube(bronchus, None, Tissue.AIRWAY, only=(0, lung))
        trachea = [(0, 10, 300, 8.5), (0, 0, 262, 8.5), (1, -10, 220, 9), (0, -18, 182, 9)]
        canvas.tube([(x, y, z, r + 2) for x, y, z, r in trachea], 0, Tissue.MUSCLE, only=(0, lung))
        canvas.tube(trachea, None, Tissue.AIRWAY, only=(0, lung))

    # ----------------------------------------------------------------------------------------------- upper abdomen

    def _liver(self) -> None:
        canvas, torso, patient = self.canvas, self.torso, self.patient
        width, depth, height = canvas.scale
        size = 1.025 * patient.build * (1 + self._draw(0.05)) * (1 + 0.03 * patient.habitus)
        left = 0.98 + self._draw(0.09)
        center = np.array((64 * width, 4 * depth, torso.dome_right - 79 * height))
        tip = np.array((-6 * width, 38 * depth, torso.dome_left - 46 * height))
        box = canvas.box(np.minimum(center - 95 * size, tip - 80 * size), center + 100 * size)
        x, y, z = canvas.x[box], canvas.y[box], canvas.z[box]
        right = np.square((x - center[0]) / (72 * size)) + np.square((y - center[1]) / (84 * size))
        right = np.sqrt(right + np.square((z - center[2]) / (86 * size * height)))
        lobe = np.square((x - tip[0]) / (76 * size * left)) + np.square((y - tip[1]) / (44 * size))
        lobe = np.sqrt(lobe + np.square((z - tip[2] + 0.22 * x) / (38 * size)))
        d = -np.logaddexp(-9 * right, -9 * lobe) / 9  # the lobes flow into one another
        porta = (
            np.hypot((x - 26 * width) / 15, (z - torso.dome_right + 128 * height) / (38 * height))
            < 1 - np.maximum(y, 0) / 14
        )
        liver = (
            (d + 0.035 * self.rough[box] < 1) & (z < torso.diaphragm[box] - 5) & (torso.cavity[box] < 0.94) & ~porta
        )
        canvas.paint(box, liver & (torso.spine[box] > 9), IDS["liver"], Tissue.LIVER, spare=BONES)

    def _stomach_and_spleen(self) -> None:
        canvas, torso, patient = self.canvas, self.torso, self.patient
        width, depth, height = canvas.scale
        below = (canvas.z < torso.diaphragm - 5) & (torso.cavity < 0.93)
        full, sag, top = 1.0 + self._draw(0.11), self._draw(6), self.top
        body = [(-14, -20, top - 20, 9), (-46, -20, top - 27, 28), (-66, 2, top - 52, 34), (-64, 32, top - 88, 30)]
        body += [(-38, 50, top - 118 + sag, 25), (0, 46, top - 112, 19), (20, 34, top - 100, 12.5)]
        body = [(x, y, z, r * full) for x, y, z, r in body]
        spare = (IDS["heart"], *BONES)
        stomach = IDS["stomach"]
        canvas.tube(body, stomach, Tissue.BOWEL_WALL, spare=spare, within=below, lumen=(4.0, Tissue.STOMACH_CONTENT))
        # swallowed air lies in front
        box = canvas.box(self._at(-105, -60, top - 160), self._at(45, 90, top + 20))
        held = canvas.tissue[box] == Tissue.STOMACH_CONTENT
        level = 34 * depth + self._draw(9)
        canvas.paint(box, held & (canvas.y[box] > level), tissue=Tissue.GAS)

        size = 1.4 * patient.build * (1 + self._draw(0.08)) * (1 - 0.05 * np.clip((patient.years - 50) / 40, 0, 1))
        center = np.array((-96 * width, -40 * depth, torso.dome_left - 80 * height))
        self._blob(
            center, np.array((32, 50, 57)) * size, "spleen", Tissue.SPLEEN, frame((0.88, 0.45, -0.1)), within=below
        )

    def _kidneys_and_adrenals(self) -> None:
        canvas, torso, patient = self.canvas, self.torso, self.patient
        kidney, adrenal = IDS["kidney"], IDS["adrenal_gland"]
        size = 1.06 * patient.build * (1 + self._draw(0.045)) * (1 - 0.05 * np.clip((patient.years - 50) / 40, 0, 1))
        heights = {
            "left": -40 + self._draw(4),
            "right": -55 + self._draw(4),
        }  # the second lumbar vertebra; right lower
        for side, name in ((-1, "left"), (1, "right")):
            center = self._at(side * 62, -47, heights[name])
            center[1] += 0.04 * patient.fat
            axes = frame((-0.22 * side, -0.16, 1.0), (0, 1, 0))
            box, d = canvas.ellipsoid(center, np.array((55, 27, 29)) * size, axes)
            d = d + 0.03 * self.rough[box]
            hilum = center - np.array((side * 26, -5, 0)) * size
            sub, opening = canvas.ellipsoid(hilum, np.array((17, 11, 19)) * size)
            mask = (d < 1) & (torso.spine[box] > 4)
            canvas.paint(box, mask, kidney, Tissue.KIDNEY_CORTEX, spare=BONES)
            pyramids = (d < 0.74) & (self.rough[box] + 1.2 * np.sin(canvas.z[box] / 5.2) > -0.55)
            canvas.paint(box, pyramids & mask, tissue=Tissue.KIDNEY_MEDULLA)
            canvas.paint(sub, opening < 1, 0, Tissue.KIDNEY_SINUS, only=(kidney,))
            self.kidneys[name] = center
        for side, name in ((-1, "left"), (1, "right")):
            top = heights[name] + 55 * size
            only = (0, IDS["liver"], IDS["stomach"], IDS["spleen"], kidney)
            x = side * 37
            canvas.tube(
                [(x, -30, top + 4, 6.4), (x + side * 4, -44, top - 6, 7), (x + side * 11, -56, top - 18, 6.4)],
                adrenal,
                Tissue.ADRENAL,
                only=only,
            )
            canvas.tube([(x, -30, top + 4, 6.2), (x - side * 7, -52, top - 12, 6)], adrenal, Tissue.ADRENAL, only=only)

    def _duodenum_and_pancreas(self) -> None:
        canvas, top = self.canvas, self.top
        z, drop = top - 100, self._draw(4)
        loop = [(20, 34, z, 12), (42, 22, z + 4, 12.5), (54, 6, z - 16, 12.5), (52, -6, z - 46 + drop, 12.5)]
        loop += [
            (32, -10, z - 62 + drop, 12),
            (0, -4, z - 64 + drop, 11.5),
            (-26, 0, z - 54, 11.5),
            (-38, 12, z - 36, 11),
        ]
        canvas.tube(
            loop,
            IDS["duodenum"],
            Tissue.BOWEL_WALL,
            spare=(IDS["stomach"], IDS["colon"], IDS["adrenal_gland"], *BONES),
            lumen=(4.0, Tissue.BOWEL_CONTENT),
        )
        thin = 1.07 * (1 - 0.16 * np.clip((self.patient.years - 40) / 50, 0, 1)) * (1 + self._draw(0.07))
        gland = [(36, 4, z - 36, 14), (32, 6, z - 18, 18), (14, 20, z + 2, 13), (-14, 22, z + 14, 13.5)]
        gland += [(-46, 2, z + 24, 13.5), (-78, -24, z + 36, 12)]
        canvas.tube(
            [(a, b, c, r * thin) for a, b, c, r in gland],
            IDS["pancreas"],
            Tissue.PANCREAS,
            spare=(IDS["adrenal_gland"], IDS["colon"], *BONES),
        )

    def _gallbladder(self) -> None:
        canvas, z = self.canvas, self.top - 100
        size = 1.24 + self._draw(0.11)
        rows = [(46, 36, z + 28, 8), (54, 50, z + 13, 14), (60, 60, z - 6, 16), (63, 62, z - 16, 13.5)]
        spare = tuple(IDS[name] for name in ("colon", "duodenum", "stomach", "portal_and_splenic_vein")) + BONES
        canvas.tube([(a, b, c, r * size) for a, b, c, r in rows], IDS["gallbladder"], Tissue.BILE, spare=spare)

    # ----------------------------------------------------------------------------------------------------- vessels

    def _vessels(self) -> None:
        canvas, patient, top = self.canvas, self.patient, self.top
        aorta, cava, portal = IDS["aorta"], IDS["inferior_vena_cava"], IDS["portal_and_splenic_vein"]
        wide = 1 + 0.13 * np.clip((patient.years - 40) / 50, 0, 1) + self._draw(0.03)
        bow = patient.tortuosity * self._draw(9)
        arch = [(6, 26, 112, 15.5), (15, 28, 142, 16.5), (14, 16, 178, 15.5), (2, -8, 197, 14), (-14, -30, 188, 13)]
        arch += [(-23, -46, 160, 12.5), (-20 - bow / 2, -47, 90, 12), (-14, -38, 40, 11.5), (-9, -29, 0, 11)]
        arch += [(-7 + bow, -20, -55, 10), (-4, -16, -110, 9.5)]
        spare = BONES
        canvas.tube([(a, b, c, r * wide) for a, b, c, r in arch], aorta, Tissue.AORTA, spare=spare)
        for side in (-1, 1):
            rows = [(-3, -16, -108, 7.5), (side * 18, -18, -138, 7), (side * 34, -26, -168, 6.5)]
            canvas.tube([(a, b, c, r * wide) for a, b, c, r in rows], aorta, Tissue.AORTA, spare=spare)
            outer = [
                (side * 34, -26, -168, 5.5),
                (side * 56, 4, -204, 5.5),
                (side * 70, 34, -246, 5),
                (side * 76, 40, -300, 5),
            ]
            canvas.tube(outer, None, Tissue.AORTA, only=(0,))
        rows = [(22, 2, top + 24, 12.5), (24, -8, top - 6, 13), (24, -12, top - 50, 12.5), (21, -16, -70, 12)]
        rows += [(17, -16, -120, 11)]
        canvas.tube(rows, cava, Tissue.VENA_CAVA, spare=(aorta, *BONES))
        for side in (-1, 1):
            rows = [(16, -18, -118, 8.5), (side * 18 + 8, -28, -146, 8), (side * 36, -34, -172, 7.5)]
            canvas.tube(rows, cava, Tissue.VENA_CAVA, only=(0,))
            outer = [
                (side * 36, -34, -172, 6.5),
                (side * 62, -4, -206, 6),
                (side * 64, 32, -250, 6),
                (side * 66, 36, -300, 6),
            ]
            canvas.tube(outer, None, Tissue.VENA_CAVA, only=(0,))
            renal = [(side * 10 + 6, -18, -50, 5), (side * 30, -30, -48, 5), (side * 42, -40, -46, 4)]
            canvas.tube(renal, None, Tissue.VENA_CAVA, only=(0,))
        superior = [(22, 8, 148, 9.5), (22, 6, 180, 9), (20, 2, 214, 8.5), (30, 6, 244, 7)]
        canvas.tube(superior, 0, Tissue.HEART_RIGHT, only=(0, IDS["lung"]))
        for x, y, turn in ((10, 2, 14), (-2, -4, -8), (-12, -14, -26)):  # brachiocephalic, carotid, subclavian
            canvas.tube(
                [(x, y, 202, 5.5), (x + turn, y + 4, 240, 5), (x + 1.5 * turn, y, 290, 5)],
                0,
                Tissue.AORTA,
                only=(0, 6),
            )
        z = top - 100
        splenic = [(-84, -34, z + 36, 6), (-52, -10, z + 20, 6.5), (-18, 8, z + 8, 7), (8, 7, z - 2, 7.8)]
        splenic += [(24, 14, z + 26, 7.5), (42, 10, z + 50, 7)]
        spare = (aorta, cava, IDS["adrenal_gland"], *BONES)
        canvas.tube(splenic, portal, Tissue.PORTAL_VEIN, spare=spare)
        mesenteric = [(8, 10, z - 4, 7), (9, 16, z - 34, 6.5), (8, 20, z - 62, 6)]
        canvas.tube(mesenteric, portal, Tissue.PORTAL_VEIN, spare=spare)
        artery = [(-5, -10, z + 10, 4), (-4, 6, z - 20, 4), (0, 18, z - 60, 4), (6, 22, -190, 3)]
        canvas.tube(artery, None, Tissue.AORTA, only=(0,))

    def _esophagus(self) -> None:
        top = self.top
        rows = [(0, -12, 300, 7.5), (0, -22, 250, 7.5), (3, -34, 196, 7.5), (2, -40, 150, 8), (-4, -34, 100, 8.5)]
        rows += [(-10, -28, top + 14, 8.5), (-15, -22, top - 16, 9)]
        spare = (IDS["aorta"], IDS["portal_and_splenic_vein"], *BONES)
        self.canvas.tube(rows, IDS["esophagus"], Tissue.ESOPHAGUS, spare=spare)

    # ------------------------------------------------------------------------------------------- bowel and pelvis

    def _small_bowel(self) -> None:
        canvas, torso = self.canvas, self.torso
        # places for the loops on a jittered lattice; each loop goes on to the nearest free place
        places = []
        for layer, z in enumerate((-94, -119, -144, -169, -192)):
            half, front = (76, 80, 78, 66, 50)[layer], 52 if layer < 3 else 44
            for y in (front, front - 26, front - 51):
                shift = 13 * (layer % 2)
                places += [(x, y, z) for x in np.arange(-half + shift, half + 1, 27)]
        places = np.array(places) + np.array([[self._draw(5), self._draw(5), self._draw(5)] for _ in places])
        lift = self._draw(4)
        pieces, here, free = [[0]], 0, list(range(1, len(places)))
        while free:
            away = np.linalg.norm((places[free] - places[here]) * (1, 1, 1.25), axis=1)
            here = free.pop(int(away.argmin()))
            if away.min() > 46:
                pieces.append([])
            pieces[-1].append(here)
        within = (torso.cavity < 0.92) & (torso.spine > 8)
        bowel = IDS["small_bowel"]
        for piece in pieces:
            rows = [(*(places[i] + (0, 0, lift)), 13.7 + self._draw(0.8)) for i in piece]
            rows = rows if len(rows) > 1 else rows * 2
            canvas.tube(rows, bowel, Tissue.BOWEL_WALL, only=(0,), within=within, lumen=(3.4, Tissue.BOWEL_CONTENT))

    def _colon(self) -> None:
        canvas, torso, top = self.canvas, self.torso, self.top
        sag = float(np.clip(self._draw(15), -18, 34))
        sx, sy, size = self._draw(11), self._draw(7), 1.04 + self._draw(0.06)
        rows = [(0, -56, -278, 13), (0, -64, -242, 17), (3, -58, -214, 16), (14 + sx, -34, -196, 14)]
        rows += [(-12 + sx, 4 + sy, -186, 14), (-42, -2 + sy, -198, 13), (-74, -4, -180, 14), (-98, -10, -148, 15)]
        rows += [(-107, -12, -100, 15.5), (-107, -8, -58, 16), (-97, 6, -28 + self._draw(4), 16.5)]
        rows += [(-72, 48, -42 - 0.4 * sag, 17), (-30, 66, -72 - sag, 17.5), (12, 70, -80 - sag, 17.5)]
        rows += [(58, 62, -86 - 0.4 * sag, 18), (92, 34, top - 134 + self._draw(4), 18), (102, 2, -114, 19)]
        rows += [(100, 0, -142, 20), (92, 8, -170, 22), (86, 12, -186, 18)]
        wave = 2 * np.pi / 30
        points, place = canvas.curve([(x, y, z, r * size) for x, y, z, r in rows])
        along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points[:, :3], axis=0), axis=1))])
        radii = points[:, 3] * (1 + 0.11 * np.sin(along * wave) * (place > 2.5))  # haustra, not in the rectum
        inside = (torso.cavity < 0.985).reshape(-1)
        spare = (IDS["lung"], IDS["adrenal_gland"], *BONES)
        voxels = canvas.balls(points[:, :3], radii)
        canvas.paint_voxels(voxels[inside[voxels]], IDS["colon"], Tissue.BOWEL_WALL, spare=spare)
        voxels = canvas.balls(points[:, :3], np.maximum(radii - 3.2, 0.4 * radii))
        lumen = canvas.paint_voxels(voxels, tissue=Tissue.STOOL, only=(IDS["colon"],))
        # gas rises to the front of the transverse colon and collects in bubbles elsewhere
        gas = lumen[(self.rough.reshape(-1)[lumen] > 0.35)]
        front = lumen[canvas.y.reshape(-1)[lumen] > (58 + self._draw(5)) * canvas.scale[1]]
        for bubble in (gas, front):
            canvas.paint_voxels(bubble, tissue=Tissue.GAS)
        self.colon = points, place

    def _pelvic_organs(self) -> None:
        canvas, patient = self.canvas, self.patient
        fill = 0.95 + self._draw(0.11)
        bottom = self._at(self._draw(2), 22, -226 - 6 * (1 - fill))
        if patient.male:
            box, d = canvas.ellipsoid(self._at(0, 8, -262), np.array((24, 19, 17)) * patient.build)
            canvas.paint(box, d < 1, tissue=Tissue.MUSCLE, only=(0,))
        else:
            box, d = canvas.ellipsoid(self._at(4, -18, -206), (27, 32, 22), frame((0.1, 0.7, 0.4)))
            canvas.paint(box, d < 1, tissue=Tissue.MUSCLE, only=(0,))
        box, d = canvas.ellipsoid(bottom, np.array((42, 34, 30)) * fill * patient.build)
        d = d + 0.03 * self.rough[box]
        canvas.paint(box, d < 1, IDS["urinary_bladder"], Tissue.MUSCLE, spare=BONES)
        canvas.paint(box, d < 0.9, tissue=Tissue.URINE, only=(IDS["urinary_bladder"],))
