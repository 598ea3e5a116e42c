"""Splits: made by rule, read from files, checked for leaks, exchanged with nnU-Net."""

from segbench.data.splits.files import SplitFile, load_split, read_split, save_split
from segbench.data.splits.nnunet_folds import from_nnunet, to_nnunet
from segbench.data.splits.walk import (
    LeakCount,
    Split,
    count_leaks,
    find_leaks,
    folds_digest,
    hash_key,
    limit_split,
    make_folds,
    patient_safe,
    random_split,
)

__all__ = [
    "LeakCount",
    "Split",
    "SplitFile",
    "count_leaks",
    "find_leaks",
    "folds_digest",
    "from_nnunet",
    "hash_key",
    "limit_split",
    "load_split",
    "make_folds",
    "patient_safe",
    "random_split",
    "read_split",
    "save_split",
    "to_nnunet",
]
