"""Names of volume files: one spelling of what counts as one, for every reader of a folder."""

from __future__ import annotations

VOLUME_ENDINGS: tuple[str, ...] = (".nii.gz", ".nii", ".nrrd", ".mha")
"""Endings of the files that can be read, in the order in which they are looked for."""


def stem_and_ending(name: str) -> tuple[str, str] | None:
    """`("case", ".nii.gz")` of a volume's file name, the ending as it is spelt; None for any other file.

    Small and capital letters are the same: some systems and tools write `.NII.GZ`.
    """
    folded = name.lower()
    for ending in VOLUME_ENDINGS:
        if folded.endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)], name[-len(ending) :]
    return None
