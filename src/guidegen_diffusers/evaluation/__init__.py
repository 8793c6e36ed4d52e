"""Sets of cases against each other: figures of each case, figures of both sets, one report. See evaluate.py."""

from .case_set import CaseSet
from .evaluate import evaluate


__all__ = ["CaseSet", "evaluate"]
