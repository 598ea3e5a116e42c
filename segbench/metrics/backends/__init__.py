"""Other implementations of the region metrics, for cross-checks only: never the default, never in the hot
path.

Each module has `scores(reference, prediction, *, names, spacing_mm, tolerance_mm)` for two non-empty masks. A
metric that a backend lacks raises `ValueError` with its name; an absent package raises `BackendUnavailable`.
"""
