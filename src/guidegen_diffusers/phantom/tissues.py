"""The tissues of the torso and their density: what the scanner sees where the anatomy has painted.

Means in Hounsfield units by contrast phase (portal venous, arterial, native) and the standard deviation of the
tissue's own texture. The means sit inside the usual ranges of radiology texts (fat -110..-90, muscle 45..60, native
liver 50..65, portal venous liver 100..120, unopacified blood 35..45, water 0..15, trabecular bone falling with age).
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from .patient import PHASES


__all__ = ["Tissue", "density", "texture"]


class Tissue(IntEnum):
    AIR = 0
    FAT = 1
    SKIN = 2
    MUSCLE = 3
    VISCERAL_FAT = 4
    LUNG = 5
    AIRWAY = 6
    GAS = 7
    CORTICAL = 8
    TRABECULAR = 9
    DISC = 10
    CANAL = 11
    CARTILAGE = 12
    LIVER = 13
    SPLEEN = 14
    PANCREAS = 15
    KIDNEY_CORTEX = 16
    KIDNEY_MEDULLA = 17
    KIDNEY_SINUS = 18
    ADRENAL = 19
    HEART_MUSCLE = 20
    HEART_LEFT = 21
    HEART_RIGHT = 22
    AORTA = 23
    VENA_CAVA = 24
    PORTAL_VEIN = 25
    PULMONARY_ARTERY = 26
    BOWEL_WALL = 27
    BOWEL_CONTENT = 28
    STOOL = 29
    STOMACH_CONTENT = 30
    ESOPHAGUS = 31
    BILE = 32
    URINE = 33
    CALCIUM = 34
    LUNG_TUMOR = 35
    KIDNEY_TUMOR = 36
    COLON_TUMOR = 37
    NECROSIS = 38
    NODE = 39
    METASTASIS = 40
    BREAST = 41
    TABLE = 42
    MEDIASTINUM = 43


#                               portal arterial native  texture
_TABLE = {
    Tissue.AIR: (-1000, -1000, -1000, 0),
    Tissue.FAT: (-106, -106, -106, 7),
    Tissue.SKIN: (10, 8, 2, 5),
    Tissue.MUSCLE: (60, 56, 50, 9),
    Tissue.VISCERAL_FAT: (-102, -102, -104, 9),
    Tissue.LUNG: (-845, -845, -845, 20),
    Tissue.AIRWAY: (-990, -990, -990, 4),
    Tissue.GAS: (-960, -960, -960, 10),
    Tissue.CORTICAL: (620, 620, 610, 60),
    Tissue.TRABECULAR: (190, 185, 175, 42),
    Tissue.DISC: (85, 85, 80, 10),
    Tissue.CANAL: (28, 28, 25, 5),
    Tissue.CARTILAGE: (110, 108, 105, 22),
    Tissue.LIVER: (108, 72, 56, 6),
    Tissue.SPLEEN: (120, 128, 48, 6),
    Tissue.PANCREAS: (92, 104, 40, 13),
    Tissue.KIDNEY_CORTEX: (178, 190, 34, 9),
    Tissue.KIDNEY_MEDULLA: (152, 92, 31, 9),
    Tissue.KIDNEY_SINUS: (-40, -45, -55, 24),
    Tissue.ADRENAL: (68, 72, 28, 8),
    Tissue.HEART_MUSCLE: (108, 115, 46, 7),
    Tissue.HEART_LEFT: (148, 290, 41, 7),
    Tissue.HEART_RIGHT: (145, 215, 40, 10),
    Tissue.AORTA: (152, 310, 41, 6),
    Tissue.VENA_CAVA: (138, 95, 39, 9),
    Tissue.PORTAL_VEIN: (165, 88, 40, 7),
    Tissue.PULMONARY_ARTERY: (148, 250, 40, 8),
    Tissue.BOWEL_WALL: (92, 84, 40, 10),
    Tissue.BOWEL_CONTENT: (22, 22, 20, 14),
    Tissue.STOOL: (25, 25, 25, 75),
    Tissue.STOMACH_CONTENT: (24, 24, 22, 14),
    Tissue.ESOPHAGUS: (52, 50, 35, 14),
    Tissue.BILE: (8, 8, 9, 4),
    Tissue.URINE: (6, 5, 5, 4),
    Tissue.CALCIUM: (780, 780, 740, 60),
    Tissue.LUNG_TUMOR: (68, 62, 38, 14),
    Tissue.KIDNEY_TUMOR: (96, 128, 36, 18),
    Tissue.COLON_TUMOR: (104, 96, 44, 13),
    Tissue.NECROSIS: (28, 26, 22, 9),
    Tissue.NODE: (86, 80, 40, 10),
    Tissue.METASTASIS: (62, 56, 38, 11),
    Tissue.BREAST: (-60, -62, -65, 45),
    Tissue.TABLE: (-320, -320, -320, 20),
    Tissue.MEDIASTINUM: (-55, -58, -65, 22),
}


def density(phase: str, bone: float) -> np.ndarray:
    """Mean HU by tissue id, float32; `bone` scales what bone has above water."""
    hu = np.array([_TABLE[tissue][PHASES.index(phase)] for tissue in Tissue], np.float32)
    hu[Tissue.TRABECULAR] = 40 + (hu[Tissue.TRABECULAR] - 40) * bone
    hu[Tissue.CORTICAL] = hu[Tissue.CORTICAL] * (0.6 + 0.4 * bone)
    return hu


def texture() -> np.ndarray:
    """Standard deviation of the texture by tissue id, float32."""
    return np.array([_TABLE[tissue][3] for tissue in Tissue], np.float32)
