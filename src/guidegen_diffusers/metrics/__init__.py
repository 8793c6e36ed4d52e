"""What generated cases are measured by, one family a file; figures of a case, for the caller to pool."""

from .anatomy import PIECES, organ_volumes, stray_fraction
from .intensity import mean_hu, tumor_contrast


__all__ = ["PIECES", "mean_hu", "organ_volumes", "stray_fraction", "tumor_contrast"]
