"""Sets of generated cases: planned, drawn, judged and written, in the form that a trainer reads. See synthesize.py."""

from .gate import HU, VOLUMES_ML, Gate, Verdict
from .nifti import NiftiForm
from .nnunet import NnunetForm
from .parquet import ParquetForm
from .plan import Plan, PlannedCase
from .synthesize import SynthesisSummary, synthesize


__all__ = [
    "HU",
    "VOLUMES_ML",
    "Gate",
    "NiftiForm",
    "NnunetForm",
    "ParquetForm",
    "Plan",
    "PlannedCase",
    "SynthesisSummary",
    "Verdict",
    "synthesize",
]
