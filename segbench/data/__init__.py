"""Datasets on disk: opened, split, generated, exported. Nothing here writes into a dataset's own folder."""

from segbench.data.adapters import CaseFiles, LayoutFinding
from segbench.data.dataset import Dataset
from segbench.data.opening import open_dataset

__all__ = ["CaseFiles", "Dataset", "LayoutFinding", "open_dataset"]
