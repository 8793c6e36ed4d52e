"""Cases on disk: real CT brought onto the grid, DICOM series, and data sets that training and the Hub read."""

from .dataset import CaseDataset, DatasetWriter, push_to_hub, write_case


__all__ = ["CaseDataset", "DatasetWriter", "push_to_hub", "write_case"]
