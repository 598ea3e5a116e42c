"""Names of volume files: one spelling of what counts as one, for every reader of a folder."""

from __future__ import annotations

from segbench.core.names import other_format

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


def unread_ending(name: str) -> str | None:
    """The ending of a file in a format that is known and not read, as it is spelt; None for other names."""
    found = other_format(name)
    return None if found is None else name[len(found[0]) :]


def conversion(name: str) -> str | None:
    """How a file in a format that is not read becomes one that is; None for other names."""
    found = other_format(name)
    return None if found is None else f"convert it, for example: {found[2]}"
