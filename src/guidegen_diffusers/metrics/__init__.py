"""What generated cases are measured by, one family a file: figures of a case, for the caller to pool, and of sets."""

from .alignment import FOUND, site_matrix, site_shares, tumor_count_shares
from .anatomy import PIECES, organ_volumes, stray_fraction
from .distances import frechet_distance, mmd
from .features import PAINT_HU, SegmenterFeatures, SliceFeatures, VideoFeatures, paint_labels
from .intensity import mean_hu, tumor_contrast
from .lpips import SegmenterLPIPS, SliceLPIPS
from .memorization import CopyVerdict, find_copies, hu_distance, label_distance, nearest_distances
from .overlap import MISSED_MM, dice, hd95
from .radiology import EMPHYSEMA_HU, cardiothoracic_ratio, emphysema_share


__all__ = [
    "EMPHYSEMA_HU",
    "FOUND",
    "MISSED_MM",
    "PAINT_HU",
    "PIECES",
    "CopyVerdict",
    "SegmenterFeatures",
    "SegmenterLPIPS",
    "SliceFeatures",
    "SliceLPIPS",
    "VideoFeatures",
    "cardiothoracic_ratio",
    "dice",
    "emphysema_share",
    "find_copies",
    "frechet_distance",
    "hd95",
    "hu_distance",
    "label_distance",
    "mean_hu",
    "mmd",
    "nearest_distances",
    "organ_volumes",
    "paint_labels",
    "site_matrix",
    "site_shares",
    "stray_fraction",
    "tumor_contrast",
    "tumor_count_shares",
]
