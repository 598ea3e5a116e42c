"""Which texts in a header are written by tools, and which may identify a person."""

from __future__ import annotations

import re
from collections.abc import Mapping

TEXT_FIELDS = ("descrip", "aux_file", "db_name")
"""Header fields in which scanners and converters leave names."""

_TOOL_WORDS = (
    r"3d", r"slicer", r"afni\w*", r"analyze\w*", r"ants\w*", r"c3d", r"convert3d", r"dcm2nii\w*", r"elastix",
    r"freesurfer\w*", r"fsl\w*", r"insight", r"itk(snap)?", r"snap", r"matlab\w*", r"mipav", r"monai\w*",
    r"mricro(n|gl)?", r"mrtrix\w*", r"niftk", r"nnu(net\w*)?", r"net", r"segbench\w*", r"simpleitk",
    r"spm\w*", r"tool(kit|box)", r"torchio", r"totalsegmentator", r"niftyreg", r"niftyseg", r"niftisave",
    r"nifti", r"nibabel", r"numpy", r"python", r"vtk", r"xnat", r"caret", r"freeview", r"mri_\w+",
    r"siemens", r"philips", r"ge", r"medical", r"systems", r"healthcare",
)  # fmt: skip
_PLAIN_WORDS = (
    r"none", r"imported", r"untitled", r"unknown", r"null", r"n/?a", r"image", r"mask", r"label(s|map)?",
    r"seg(mentation)?", r"realigned", r"resliced", r"warped", r"smoothed", r"normali[sz]ed", r"masked",
    r"converted", r"created", r"written", r"with", r"by", r"from", r"in", r"of", r"the", r"and", r"version",
    r"ver", r"rev", r"build", r"v", r"gray(scale)?", r"grey(scale)?", r"red", r"yellow", r"blue", r"green",
    r"light", r"cool", r"hot", r"copper", r"random", r"float\w*", r"u?int\w*", r"te", r"tr", r"ti", r"time",
    r"anonymi[sz]ed", r"phase", r"fa", r"mb", r"dim", r"mm", r"ms", r"mr", r"ct", r"t1w?", r"t2w?", r"flair",
)  # fmt: skip
_VERSION = r"v?\d{1,3}(?:\.\d{1,4}[a-z0-9]{0,4})*"
_HARMLESS = re.compile("|".join((*_TOOL_WORDS, *_PLAIN_WORDS, _VERSION)), re.IGNORECASE)
"""One word of text that tools write by themselves: names of tools, versions, colour tables."""

_WHOLE = re.compile(
    r"(?:(?:TE|TR|TI|FA|Time|phase|mb|dim)=\d{0,6}(?:\.\d*)?;?)+"  # dcm2niix; a time of day, never a date
    r"|3D Slicer [\d.]+(?: r\d+)?"
    r"|(?:FSL)?\d+\.\d+(?:\.\d+)?(?::[0-9a-f]{7,12})?"  # FSL: version and commit
    r"|FreeSurfer\s+[A-Z][a-z]{2}\s+\d{1,2}\s+\d{4}",  # the date of its build
    re.IGNORECASE,
)
"""Texts that only make sense as a whole."""


def is_harmless(text: str) -> bool:
    """Whether a header's text is nothing but names and versions of tools."""
    if _WHOLE.fullmatch(text):
        return True
    words = re.findall(r"[^\s\-_,;:=()/|*]+", text)
    return all(_HARMLESS.fullmatch(word) for word in words)


def suspicious(texts: Mapping[str, str]) -> dict[str, int]:
    """Length of each text that may identify a person, by field; the text itself is kept nowhere."""
    return {name: len(texts[name]) for name in TEXT_FIELDS if name in texts and not is_harmless(texts[name])}
