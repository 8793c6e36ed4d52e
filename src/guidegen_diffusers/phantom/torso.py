"""The torso around the organs: body outline, fat and muscle, rib cage, spine, pelvis, and the diaphragm between.

Millimetres of a reference adult, x to the right, y to the front, z to the head, z = 0 at about the first lumbar
vertebra; `Canvas.scale` makes them the patient's. What depends on height alone is a table over z, read once a slice.
"""

from __future__ import annotations

import numpy as np

from ..labels import CLASSES
from .canvas import Canvas
from .patient import Patient
from .tissues import Tissue


__all__ = ["IDS", "Torso"]

IDS = {c.name: c.id for c in CLASSES}
# pitch of a vertebra with its disc in mm, from L5 up to C7; the disc of L5 and S1 lies at z = -166
PITCHES = (35, 35.5, 35.5, 35, 34, 31.5, 29, 27.5, 26, 25, 24, 23, 22, 21, 20, 19.5, 18.5, 18)
PROMONTORY = -166.0
# z, half width, half depth, centre of the rib cage's inner wall (below it: of the abdominal cavity)
CAGE = np.array(
    [
        (-300, 58, 58, -8),
        (-262, 74, 68, -5),
        (-225, 98, 76, -2),
        (-190, 114, 80, 0),
        (-150, 119, 82, 2),
        (-80, 122, 86, 4),
        (0, 130, 94, 4),
        (60, 137, 99, 4),
        (120, 136, 97, 1),
        (180, 122, 86, -5),
        (225, 96, 68, -13),
        (250, 70, 50, -20),
        (266, 40, 30, -24),
        (275, 4, 4, -25),
    ],
    float,
).T
# z, y of the bodies' centres, half width, half depth
SPINE = np.array(
    [
        (-300, -78, 8, 6),
        (-266, -84, 12, 6),
        (-235, -88, 24, 9),
        (-200, -80, 34, 14),
        (-172, -64, 28, 17),
        (-146, -52, 26, 18),
        (-110, -46, 25.5, 18),
        (-50, -50, 24, 17.5),
        (20, -62, 22, 17),
        (90, -74, 18, 16),
        (150, -78, 16, 15),
        (210, -70, 15, 12),
        (255, -54, 14.5, 10),
        (300, -36, 14, 9),
    ],
    float,
).T


class Torso:
    """Fields in mm that organs are placed by, and the paint of everything that is no organ.

    `cavity` is the rib cage and the abdominal wall as one shell, 1 on its inner face; `spine` is the distance from the
    vertebral bodies' surface; `diaphragm` is the height of the diaphragm.
    """

    def __init__(self, canvas: Canvas, patient: Patient, rng: np.random.Generator):
        self.canvas, self.patient = canvas, patient
        jitter = [float(j) for j in rng.standard_normal(8)]  # NumPy's own float64 would widen every field
        width, depth, height = canvas.scale
        x, y = canvas.x, canvas.y
        belly = 0.06 * max(patient.habitus, 0)
        pelvis = 0 if patient.male else 6

        half_width = (
            self.along(CAGE[0], CAGE[1] + pelvis * np.interp(CAGE[0], (-300, -230, -120), (0.3, 1, 0))) * width
        )
        half_depth = (
            self.along(CAGE[0], CAGE[2] * (1 + belly * np.interp(CAGE[0], (-280, -80, 60), (0, 1.3, 0)))) * depth
        )
        center = self.along(CAGE[0], CAGE[3]) * depth
        furrow = 11 * depth * np.exp(-((canvas.axes[0] / (38 * width)) ** 2)).astype(np.float32)[:, None, None]
        self.cage = half_width, half_depth, center
        rough = 0.014 * canvas.noise(rng, 60)
        self.cavity = _squircle(x / half_width, (y - center - furrow) / half_depth) + rough

        curve = 3.5 * jitter[0]
        kyphosis = -9 * np.interp(patient.years, (45, 90), (0, 1)) + 2 * jitter[1]
        bent = SPINE[1] + kyphosis * np.exp(-(((SPINE[0] - 130) / 90) ** 2))
        self.spine_x = (curve * np.sin((canvas.axes[2] + 100) / 110)).astype(np.float32)
        self.spine_y = self.along(SPINE[0], bent) * depth
        self.spine_half = [self.along(SPINE[0], SPINE[k]) * patient.build for k in (2, 3)]
        ratio = np.hypot((x - self.spine_x) / self.spine_half[0], (y - self.spine_y) / self.spine_half[1])
        self.spine = (ratio - 1) * self.spine_half[1]

        self.dome_right = (50 - 9 * patient.inspiration - 5 * max(patient.habitus, 0)) * height
        self.dome_left = self.dome_right - (12 + 3 * jitter[2]) * height
        self.diaphragm = self._diaphragm(jitter[3])

    def along(self, knots, values) -> np.ndarray:
        """A table over the reference height as (Z,) values on the grid."""
        return np.interp(self.canvas.axes[2] / self.canvas.scale[2], knots, values).astype(np.float32)

    def _diaphragm(self, jitter: float) -> np.ndarray:
        width, depth, height = self.canvas.scale
        x, y = self.canvas.x, self.canvas.y
        behind = np.clip(-(y + 18 * depth) / (72 * depth), 0, 1.5) * (34 * height)
        front = np.square((y - 24 * depth) / (98 * depth))
        domes = []
        for middle, top in ((60 * width, self.dome_right), (-60 * width, self.dome_left)):
            radius = np.square((x - middle) / (90 * width)) + front
            domes.append(top - 64 * height * np.minimum(radius * np.sqrt(np.sqrt(radius)), 5) - behind)
        saddle = self.dome_left - (24 + 3 * jitter) * height - 40 * height * np.square((y - 30 * depth) / (90 * depth))
        saddle = np.where(np.abs(x) > 48 * width, np.float32(-1e3), saddle)
        return np.maximum(np.maximum(*domes), saddle).astype(np.float32)

    # -------------------------------------------------------------------------------------------- body, fat, muscle

    def paint_body(self, rng: np.random.Generator) -> None:
        canvas, patient = self.canvas, self.patient
        x, y, tissue = canvas.x, canvas.y, canvas.tissue
        z = canvas.axes[2] / canvas.scale[2]
        half_width, half_depth, center = self.cage
        planes = canvas.noise(rng, 34)

        shoulders = np.interp(z, (130, 195, 235, 265, 290), (0, 14, 64, 104, 100))
        hips = np.interp(z, (-290, -240, -180, -110), (54, 44, 18, 0))
        back = np.interp(z, (-290, -240, -180, -110, -20, 90, 180, 240, 285), (30, 24, 18, 14, 12, 17, 19, 24, 36))
        fat = patient.fat * np.interp(z, (-290, -170, -90, 0, 120, 220, 285), (1.35, 1.3, 1.1, 0.8, 0.6, 0.55, 0.5))
        wide = (np.maximum(half_width, 62) + patient.muscle + 5 + shoulders).astype(np.float32)
        wide = (wide + 0.6 * hips).astype(np.float32)
        deep = (np.maximum(half_depth, 48) + 0.9 * patient.muscle + 4 + 0.5 * back).astype(np.float32)
        middle = (center - 3 - 0.5 * back).astype(np.float32)
        muscles = _squircle(x / wide, (y - middle) / deep)
        outer = wide + (fat + 0.4 * hips).astype(np.float32), deep + (0.85 * fat).astype(np.float32)
        skin = _squircle(x / outer[0], (y - middle + 0.1 * fat.astype(np.float32)) / outer[1]) + 0.006 * planes
        thickness = np.minimum(*outer)

        inside = skin < 1
        tissue[inside] = Tissue.FAT
        tissue[inside & ((1 - skin) * thickness < 2.8)] = Tissue.SKIN
        wall = (muscles + 0.012 * planes < 1) & inside
        tissue[wall] = Tissue.MUSCLE
        # fat planes between the muscles: where a smooth field crosses zero
        seam = np.abs(planes) < 0.035 + 0.03 * np.interp(patient.years, (30, 90), (0, 1))
        tissue[wall & seam & (self.cavity > 1.1)] = Tissue.FAT
        between = wall & (self.cavity > 1.3) & (planes > 0.75)  # the shoulder's and the hip's muscles
        tissue[between] = Tissue.FAT
        chest = canvas.z > self.diaphragm
        within = self.cavity < 0.97
        tissue[within] = Tissue.VISCERAL_FAT
        tissue[within & chest] = Tissue.MEDIASTINUM
        self._paint_soft_parts(inside, skin)
        self._paint_table(inside, back=float((middle - outer[1]).min()))

    def _paint_soft_parts(self, inside: np.ndarray, skin: np.ndarray) -> None:
        canvas, patient = self.canvas, self.patient
        width, depth, height = canvas.scale
        build = patient.build
        size = 0.55 + 0.2 * np.clip(patient.habitus, -1.5, 2) if patient.male else 1.0 + 0.14 * patient.habitus
        deep = inside & (skin < 0.96)
        for side in (-1, 1):
            if not patient.male:
                center = (side * 72 * width, 104 * depth + 0.5 * patient.fat, 96 * height)
                self._mound(center, np.array((66, 36, 56)) * size, Tissue.BREAST, skin)
            buttock = (side * 58 * width, -92 * depth - 0.3 * patient.fat, -246 * height)
            self._mound(buttock, np.array((62, 44, 52)) * (0.9 + 0.12 * size), Tissue.FAT, skin)
            box, d = canvas.ellipsoid((side * 62 * width, -94 * depth, -232 * height), np.array((58, 36, 54)) * build)
            canvas.paint(box, (d < 1) & inside[box], tissue=Tissue.MUSCLE)
            # psoas, from the first lumbar vertebra to the inguinal ligament
            rows = [(36, -52, 0, 7), (42, -48, -60, 15), (50, -42, -120, 19), (62, -22, -180, 20), (78, 4, -232, 18)]
            scale = patient.muscle / 14.5
            canvas.tube([(side * a, b, c, r * scale) for a, b, c, r in rows], tissue=Tissue.MUSCLE)
            # erector spinae
            rows = [
                (26, -98, -190, 14),
                (33, -92, -120, 20),
                (35, -96, -40, 20),
                (30, -108, 60, 17),
                (24, -108, 180, 14),
            ]
            canvas.tube([(side * a, b, c, r * scale) for a, b, c, r in rows], tissue=Tissue.MUSCLE, within=deep)

    def _mound(self, center, radii, tissue: int, skin: np.ndarray) -> None:
        """A breast or a buttock: skin, fat below it, and `tissue` in its core."""
        box, d = self.canvas.ellipsoid(center, radii)
        outside = skin[box] >= 1 - 3 / 150
        self.canvas.paint(box, (d < 1) & outside, tissue=Tissue.SKIN)
        self.canvas.paint(box, (d < 1 - 3.2 / float(np.min(radii))) & outside, tissue=Tissue.FAT)
        self.canvas.paint(box, (d < 0.66) & (skin[box] > 0.9), tissue=tissue)

    def _paint_table(self, inside: np.ndarray, back: float) -> None:
        """The couch: a shallow trough under the back."""
        x, y, _ = self.canvas.axes
        trough = back - 2.0 + x**2 / 2200.0
        shell = (y[None] < trough[:, None]) & (y[None] > trough[:, None] - max(6.0, self.canvas.spacing))
        shell &= np.abs(x)[:, None] < 205
        self.canvas.tissue[(shell[:, :, None] & ~inside) & (self.canvas.tissue == Tissue.AIR)] = Tissue.TABLE

    # ---------------------------------------------------------------------------------------------------- skeleton

    def paint_skeleton(self, rng: np.random.Generator) -> None:
        """Ribs and vertebrae with their labels; the other bones as tissue."""
        self._paint_pelvis(rng)
        self._paint_shoulders()
        self._paint_ribs(rng)
        self._paint_spine()

    def _paint_spine(self) -> None:
        canvas, build = self.canvas, self.patient.build
        height = canvas.scale[2]
        box = canvas.box((-52 * build, -150, -400), (52 * build, 0, 400))
        x = canvas.x[box] - self.spine_x[box[2]]
        y = canvas.y[box] - self.spine_y[box[2]]
        z = canvas.axes[2][box[2]] / height
        slope = np.gradient(self.spine_y, canvas.spacing)[box[2]]
        half_width, half_depth = (half[box[2]] for half in self.spine_half)
        # a vertebra's own axes: height along the curve, in units of its pitch
        levels = PROMONTORY + np.concatenate([[-28], np.cumsum((0, *PITCHES))])
        along = (z + slope * y / height).astype(np.float32)
        level = np.interp(along, levels, np.arange(len(levels)) - 1.0).astype(np.float32)  # 0 = under L5
        phase = level - np.floor(level)
        disc = np.interp(level, (0, 5, 8, 18), (0.25, 0.23, 0.18, 0.2))
        waist = 1.04 - 0.30 * (phase - disc) * (1 - phase)  # bodies are narrower in the middle
        body = np.hypot(x / half_width, y / half_depth) / waist
        gap = (phase < disc) & (level > 0)
        top, bottom = level < 18, level > -1
        back = y + half_depth
        canal = np.hypot(x / 11.5, (back + 8 * build) / 8.5) < build
        arch = (np.hypot(x / 18, (back + 7 * build) / 16) < build) & (phase > 0.3) & (phase < 0.97)
        facet = (np.hypot((np.abs(x) - 16 * build) / 8, (back + 12 * build) / 9) < build) & (level < 17.6)
        lumbar = np.interp(level, (0, 5, 7, 17), (1.0, 1.0, 0.8, 0.7))
        drop = np.interp(level, (0, 5, 7, 13, 17), (0.06, 0.06, 0.35, 0.7, 0.4))  # spinous processes point down
        tip = phase + drop * np.clip(-(back + 14 * build) / (30 * build), 0, 1.2)
        spinous = (np.abs(x) < 3.8 * build) & (back < -13 * build) & (back > -36 * build * lumbar)
        spinous &= (tip - np.floor(tip) > 0.38) & (tip - np.floor(tip) < 0.86)
        transverse = (np.abs(x) < 38 * build * lumbar) & (np.abs(back + 8 * build) < 4.5 * build)
        transverse &= (phase > 0.5) & (phase < 0.76)
        real = (level > 0.02) & top
        inside = canvas.tissue[box] != Tissue.AIR
        bone = inside & ((body < 1) & ~gap | ((arch | facet | spinous | transverse) & real)) & ~canal & top & bottom
        core = (body < 1 - 2.2 / 18) & (phase > disc + 0.07) & (phase < 0.94)
        canvas.paint(box, gap & (body < 0.97) & top, tissue=Tissue.DISC)
        canvas.paint(box, canal & (level > -2) & bottom, tissue=Tissue.CANAL)
        canvas.paint(box, bone, IDS["vertebrae"], Tissue.CORTICAL)
        canvas.paint(box, bone & (core | (~(body < 1) & arch)), tissue=Tissue.TRABECULAR)

    def _paint_ribs(self, rng: np.random.Generator) -> None:
        canvas, build = self.canvas, self.patient.build
        height = canvas.scale[2]
        half_width, half_depth, center = self.cage
        jitter = rng.standard_normal(2).tolist()
        band = np.flatnonzero((canvas.axes[2] > -95 * height) & (canvas.axes[2] < 290 * height))
        if not len(band):
            return
        box = (slice(None), slice(None), slice(band[0], band[-1] + 1))
        u = canvas.x[box] / half_width[box[2]]
        v = (canvas.y[box] - center[box[2]]) / half_depth[box[2]]
        girth = np.minimum(half_width, half_depth)[box[2]]
        off = (self.cavity[box] - 1.035) * girth
        angle = np.arctan2(np.abs(u), -v)  # 0 behind, pi in front
        drop = (64 * np.sin(np.minimum(angle, 2.1) * 0.75) ** 1.25 - 26 * np.clip(angle - 2.1, 0, 1)) * height
        pitch = 23.8 * height
        order = (canvas.z[box] + drop - (10 + 2 * jitter[0]) * height) / pitch  # 0 = the eleventh rib, 10 the first
        rib = np.rint(order)
        across = np.abs(order - rib) * pitch
        first = np.interp(angle, (1.0, 1.25, 1.9, 2.4), (-1, 0, 1, 3))  # floating ribs end early
        # an ellipse across the rib, flat against the chest
        section = np.square(off / (3.7 * build)) + np.square(across / (6.1 * build))
        ribs = (section < 1) & (rib >= first) & (rib <= 10) & (angle > 0.24) & (angle < 2.62)
        cartilage = (section < 1) & (rib >= 2.5) & (rib <= 10) & (angle >= 2.62) & (angle < 2.98)
        canvas.paint(box, cartilage, tissue=Tissue.CARTILAGE)
        canvas.paint(box, ribs, IDS["ribs"], Tissue.CORTICAL)
        canvas.paint(box, ribs & (section < 0.3), tissue=Tissue.TRABECULAR)
        between = (np.abs(off) < 5 * build) & ~ribs & ~cartilage & (rib >= first) & (rib <= 10)
        canvas.paint(box, between & (canvas.tissue[box] != Tissue.AIR), tissue=Tissue.MUSCLE)
        sternum = (np.abs(canvas.x[box]) < 17 * build) & (np.abs(off - 2) < 6 * build) & (v > 0)
        sternum &= (canvas.z[box] > 66 * height) & (canvas.z[box] < 226 * height)
        canvas.paint(box, sternum, tissue=Tissue.CORTICAL)
        canvas.paint(box, sternum & (np.abs(off - 2) < 3.6 * build), tissue=Tissue.TRABECULAR)

    def _paint_shoulders(self) -> None:
        canvas, build = self.canvas, self.patient.build
        half_depth = float(self.cage[1].max())
        for side in (-1, 1):
            clavicle = [(8, 34, 230, 7), (50, 40, 244, 6), (96, 22, 258, 6), (138, -2, 272, 7)]
            canvas.tube([(side * a, b, c, r) for a, b, c, r in clavicle], tissue=Tissue.CORTICAL)
            head = (side * 150 * build, -14, 272 * canvas.scale[2])
            box, d = canvas.ellipsoid(head, np.full(3, 24 * build))
            canvas.paint(box, d < 1, tissue=Tissue.CORTICAL)
            canvas.paint(box, d < 0.86, tissue=Tissue.TRABECULAR)
            # the scapula: a thin triangle that lies on the back of the rib cage
            low = np.array((side * 60, -130, 150)) * canvas.scale
            high = np.array((side * 150, -20, 268)) * canvas.scale
            box = canvas.box(np.minimum(low, high), np.maximum(low, high))
            off = (self.cavity[box] - 1.24) * half_depth
            z = canvas.z[box] / canvas.scale[2]
            reach = np.abs(canvas.x[box]) / canvas.scale[0]
            blade = (np.abs(off) < max(2.6, 0.45 * canvas.spacing)) & (canvas.y[box] < -30) & (z > 150) & (z < 262)
            blade &= (reach > 62) & (reach < 78 + 0.6 * (z - 150)) & (canvas.x[box] * side > 0)
            canvas.paint(box, blade, tissue=Tissue.CORTICAL)
            ridge = [(64, -104, 222, 4), (100, -100, 236, 5), (132, -60, 254, 6), (146, -30, 268, 8)]
            canvas.tube([(side * a, b, c, r) for a, b, c, r in ridge], tissue=Tissue.CORTICAL)

    def _paint_pelvis(self, rng: np.random.Generator) -> None:
        canvas, build = self.canvas, self.patient.build
        width, depth, height = canvas.scale
        hip = 1.0 if self.patient.male else 1.045
        box = canvas.box((-190, -140, -320 * height), (190, 110, -100 * height))
        x, y, z = canvas.x[box], canvas.y[box], canvas.z[box] / height
        spread = 1.0 + 0.0021 * (z + 165)  # wings flare upward
        ring = np.hypot(x / (104 * width * hip), (y + 16 * depth) / (84 * depth)) - spread
        thick = 0.045 + 0.05 * np.clip((-175 - z) / 40, 0, 1)
        crest = -112 - 0.006 * np.square(y / depth + 20)
        wing = (np.abs(ring) < thick) & (z < crest) & (z > -232) & (y < 44 * depth) & (np.abs(x) > 40 * width)
        canvas.paint(box, wing, tissue=Tissue.CORTICAL)
        canvas.paint(box, wing & (np.abs(ring) < thick - 0.028), tissue=Tissue.TRABECULAR)
        glutei = (ring > thick) & (ring < 0.34) & (z < crest) & (canvas.tissue[box] != Tissue.AIR)
        canvas.paint(box, glutei & (canvas.tissue[box] == Tissue.VISCERAL_FAT), tissue=Tissue.MUSCLE)
        iliacus = (ring < -thick) & (ring > -thick - 0.12) & (z < crest) & (y > -60 * depth) & (z > -225)
        canvas.paint(box, iliacus & (np.abs(x) > 62 * width), tissue=Tissue.MUSCLE)
        # the sacrum below its first segment
        sx, sy = x - self.spine_x[box[2]], y - self.spine_y[box[2]]
        sacrum = np.hypot(sx / (1.75 * self.spine_half[0][box[2]]), sy / (1.1 * self.spine_half[1][box[2]]))
        sacrum = (sacrum < 1) & (z < PROMONTORY - 4) & (z > -264)
        canvas.paint(box, sacrum, tissue=Tissue.TRABECULAR)
        for side in (-1, 1):
            ball = np.array((side * 92 * hip, 2, -240)) * canvas.scale
            sub, d = canvas.ellipsoid(ball, np.full(3, 36 * build))
            canvas.paint(sub, (d < 1) & (canvas.x[sub] * side < 104 * width), tissue=Tissue.CORTICAL)
            canvas.paint(sub, (d < 0.78), tissue=Tissue.MUSCLE)
            canvas.paint(sub, (d < 0.68), tissue=Tissue.CORTICAL)
            canvas.paint(sub, (d < 0.6), tissue=Tissue.TRABECULAR)
            neck = [(96, 0, -244, 14), (120, -6, -262, 14), (134, -10, -284, 17), (136, -8, -310, 17)]
            canvas.tube([(side * a * hip, b, c, r) for a, b, c, r in neck], tissue=Tissue.CORTICAL)
            canvas.tube([(side * a * hip, b, c, 0.78 * r) for a, b, c, r in neck], tissue=Tissue.TRABECULAR)
            pubis = [(6, 50, -262, 11), (34, 44, -250, 9), (66, 24, -240, 11)]
            canvas.tube([(side * a, b, c, r) for a, b, c, r in pubis], tissue=Tissue.CORTICAL)
            ischium = [(72, -18, -252, 14), (62, -40, -276, 15), (44, 0, -290, 9), (14, 40, -276, 8)]
            canvas.tube([(side * a, b, c, r) for a, b, c, r in ischium], tissue=Tissue.CORTICAL)


def _squircle(u: np.ndarray, v: np.ndarray, square: float = 0.35) -> np.ndarray:
    """Distance in units of an ellipse that is drawn towards its bounding box: 1 on the outline."""
    u, v = np.minimum(np.square(u), 2.5), np.minimum(np.square(v), 2.5)  # far out the formula would turn back
    return np.sqrt(np.maximum(u + v - np.float32(square) * u * v, 0))
