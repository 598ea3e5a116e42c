"""Case ids become file names, on any system: what may be one; names of regions and of other formats.

Ids come from foreign folders, tables and JSON files. One could leave the folder of results, hide a file, or
name a device on Windows, where results of a cluster are opened later. Letters of every script are letters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable

CASE_RULE = (
    "a letter or digit of any script, then letters, digits, blanks and any of ._-+,()[]&=@, at most 128 "
    "characters, no '..', no dot or blank at the end, and no name that a system reserves (CON, NUL, ...)"
)
"""What may be a case id, in words; `is_safe_case` is the rule itself."""

_LONGEST, _LONGEST_BYTES = 128, 200
_SIGNS = frozenset(" ._-+,()[]&=@")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
"""Names of devices on Windows, with any ending."""


def is_safe_case(text: str) -> bool:
    """Whether a text may be a case id: it never leaves a folder, and every system can hold it (`CASE_RULE`).

    The one rule for datasets, evaluations and scores that are taken in.
    """
    if not 0 < len(text) <= _LONGEST or len(text.encode("utf-8", "surrogatepass")) > _LONGEST_BYTES:
        return False
    # L letters, M marks (accents that stand by themselves, vowel signs), N numbers.
    kinds = [unicodedata.category(character)[0] for character in text]
    plain = all(kind in "LMN" or sign in _SIGNS for kind, sign in zip(kinds, text, strict=True))
    return (
        plain
        and kinds[0] in "LN"
        and ".." not in text
        and text[-1] not in " ."
        and _RESERVED.fullmatch(text) is None
    )


def folded_case(text: str) -> str:
    """What ids have in common that some systems take for one name: capitals, accents spelt two ways."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def spelling(known: Iterable[str]) -> Callable[[str], str]:
    """The case that a name means: the only one with it but for capitals and the spelling of accents."""
    alike: dict[str, list[str]] = {}
    for case in known:
        alike.setdefault(folded_case(case), []).append(case)

    def meant(name: str) -> str:
        cases = alike.get(folded_case(name), [])
        return cases[0] if len(cases) == 1 else name

    return meant


def region_names(labels: Iterable[str]) -> list[str]:
    """Names of labels as names of regions: letters of any script stay, other signs become _; none twice."""
    return unique_names(map(region_name, labels))


def region_name(text: str) -> str:
    """A label as the name of a region, at most 30 characters that Python takes as a name."""
    plain = (sign if f"a{sign}".isidentifier() else " " for sign in unicodedata.normalize("NFC", text))
    name = re.sub(" +", "_", "".join(plain)).strip("_")[:28]
    return name if name.isidentifier() else f"r_{name}"


def unique_names(names: Iterable[str]) -> list[str]:
    """Names made distinct by a number: nnU-Net allows two channels called "zscore"."""
    distinct: dict[str, None] = {}
    for name in names:
        number, free = 1, name
        while free in distinct:
            number += 1
            free = f"{name}_{number}"
        distinct[free] = None
    return list(distinct)


_ITK = "sitk.WriteImage(sitk.ReadImage({old}), {new})"
_NIBABEL = "nibabel.save(nibabel.load({old}), {new})"
_ARRAY = "nibabel.save(nibabel.Nifti1Image(array, affine), {new})"
_OTHER_FORMATS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    ((".mhd", ".nhdr"), "MetaImage or NRRD with a file of its own for the voxels", _ITK),
    ((".hdr", ".img"), "an ANALYZE or NIfTI pair .hdr/.img", _NIBABEL),
    ((".mgz", ".mgh"), "FreeSurfer", "mri_convert {old} {new}, or " + _NIBABEL),
    ((".mnc",), "MINC", "mnc2nii {old} {new}"),
    ((".dcm",), "DICOM", "dcm2niix for images; a DICOM-SEG with segimage2itkimage of dcmqi"),
    ((".nii.bz2", ".nii.zst"), "NIfTI under another compression", "bunzip2 or unzstd {old}"),
    ((".npy", ".npz", ".h5", ".mat"), "an array, which has no voxel size", _ARRAY),
    (
        (".tif", ".tiff", ".png"),
        "a picture, which has no voxel size",
        _ITK + " of the stack, with its spacing set",
    ),
)
"""Endings of volumes that are not read: what they are, and what writes them again as NIfTI."""


def other_format(name: str) -> tuple[str, str, str] | None:
    """(stem, what it is, how to convert it) of a file whose format is not read; None for any other name."""
    for endings, what, how in _OTHER_FORMATS:
        ending = next((ending for ending in endings if name.lower().endswith(ending)), "")
        if ending and len(name) > len(ending):
            stem = name[: -len(ending)]
            return stem, what, how.format(old=repr(name), new=repr(f"{stem}.nii.gz"))
    return None
