"""What generated cases are measured by, one family a file; figures of a case, for the caller to pool."""

from .anatomy import PIECES, organ_volumes, stray_fraction
from .intensity import mean_hu, tumor_contrast
from .overlap import dice


__all__ = ["PIECES", "dice", "mean_hu", "organ_volumes", "stray_fraction", "tumor_contrast"]
