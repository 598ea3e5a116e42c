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


_ITK = 'SimpleITK.WriteImage(SimpleITK.ReadImage("{name}"), "{stem}.nii.gz")'
_NIBABEL = 'nibabel.save(nibabel.load("{name}"), "{stem}.nii.gz")'
UNREAD: dict[str, str] = {
    ".mhd": _ITK,
    ".nhdr": _ITK,
    ".hdr": _NIBABEL,
    ".img": _NIBABEL,
    ".mgz": _NIBABEL,
    ".mgh": _NIBABEL,
    ".mnc": _NIBABEL,
    ".dcm": "dcmqi's segimage2itkimage for DICOM-SEG, dcm2niix for series",
    ".npz": "nibabel.Nifti1Image(array, affine of the image), saved as {stem}.nii.gz",
    ".npy": "nibabel.Nifti1Image(array, affine of the image), saved as {stem}.nii.gz",
}
"""Formats in which predictions come and that are not read, with what converts them."""


def unread_ending(name: str) -> str | None:
    """The ending of a file in a format that is known and not read, as it is spelt; None for other names."""
    ending = next((each for each in UNREAD if name.lower().endswith(each)), None)
    return None if ending is None or len(name) == len(ending) else name[-len(ending) :]


def conversion(name: str) -> str | None:
    """How a file in a format that is not read becomes one that is; None for other names."""
    ending = unread_ending(name)
    if ending is None:
        return None
    how = UNREAD[ending.lower()].format(name=name, stem=name[: -len(ending)])
    return f"convert it, for example: {how}"
