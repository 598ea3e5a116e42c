"""Checks of one case: its files, how they fit together, what their voxels say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segbench.data.adapters import CaseFiles
from segbench.data.adapters.base import inside
from segbench.data.dataset import Dataset
from segbench.data.verify_facts import FileFacts, Grid, HeaderFacts, LabelFacts
from segbench.data.verify_gather import DatasetFacts, masks_of, roles_of
from segbench.data.verify_report import Finding, Severity, finding
from segbench.data.verify_scan import is_mask
from segbench.volumes.geometry import AGREE_VOXELS, MISPLACED_VOXELS, compare_geometry, spacings_agree

WIDEST_MM = 20.0
"""A spacing above this is unusual enough to be told."""
FEWEST_VOXELS = 8
"""An axis shorter than this is unusual enough to be told."""

_DICOM, _COMMENT = 2, 6  # header extensions that hold free text about the patient or the study

_TOOL_WORDS = (
    r"3d ?slicer", r"afni\w*", r"analyze\w*", r"ants\w*", r"c3d", r"convert3d", r"dcm2nii\w*", r"elastix",
    r"freesurfer\w*", r"fsl\w*", r"imported from", r"insight", r"itk(-?snap)?", r"matlab\w*", r"mipav",
    r"monai\w*", r"mricron?", r"mrtrix\w*", r"niftk", r"nnu-?net\w*", r"segbench\w*", r"simpleitk",
    r"spm\w*", r"tool(kit|box)", r"torchio", r"totalsegmentator", r"niftyreg", r"niftyseg", r"niftisave",
    r"nifti(-\d)?", r"nibabel", r"numpy", r"python", r"vtk", r"xnat", r"caret", r"freeview", r"mri_\w+",
    r"siemens", r"philips", r"ge", r"medical", r"systems",
)  # fmt: skip
_PLAIN_WORDS = (
    r"none", r"untitled", r"unknown", r"null", r"n/?a", r"image", r"mask", r"label(s|map)?",
    r"seg(mentation)?", r"realigned", r"resliced", r"warped", r"smoothed", r"normali[sz]ed", r"masked",
    r"converted", r"created", r"written", r"with", r"by", r"from", r"in", r"of", r"the", r"and", r"version",
    r"ver", r"rev", r"build", r"v", r"gray(scale)?", r"grey(scale)?", r"red", r"yellow", r"blue", r"green",
    r"light", r"cool", r"hot", r"copper", r"random", r"float\w*", r"u?int\w*", r"te", r"tr", r"ti", r"time",
    r"phase", r"fa", r"mb", r"dim", r"mm", r"ms", r"mr", r"ct", r"t1w?", r"t2w?", r"flair",
)  # fmt: skip
_HARMLESS = re.compile(
    rf"(?:{'|'.join((*_TOOL_WORDS, *_PLAIN_WORDS))}|v?\d{{1,3}}(?:\.\w+)*|[a-f0-9]{{7,12}}|[-+.,;:=()/|_*])",
    re.IGNORECASE,
)
"""One word of text that tools write by themselves: names of tools, versions, colour tables."""

_PROTOCOL = re.compile(r"(?:(?:TE|TR|TI|FA|Time|phase|mb|dim)=[\d.]*;?)+", re.IGNORECASE)
"""dcm2niix writes echo and acquisition times; a time of day without a date names nobody."""


@dataclass(frozen=True, slots=True)
class CaseView:
    """A case with the facts of its files."""

    dataset: Dataset
    files: CaseFiles
    facts: DatasetFacts

    def place(self, path: Path) -> str:
        """A file relative to the dataset's root."""
        return inside(path, self.dataset.root)

    def entries(self) -> Iterator[tuple[str, Path, FileFacts]]:
        """(what it is, file, facts) of each file once: channels in the card's order, then the reference."""
        names: dict[Path, str] = {}
        for channel in self.dataset.card.channels.order:
            if channel in self.files.images:
                names.setdefault(self.files.images[channel], f"channel {channel}")
        for value, path in masks_of(self.dataset, self.files):
            names[path] = f"mask {self.dataset.card.labels[value]}"
        if self.files.combined is not None:
            names[self.files.combined] = "combined labels"
        for path, _ in roles_of(self.files):
            names.setdefault(path, "label")
        for path, name in names.items():
            entry = self.facts.files.get(path)
            if entry is not None:
                yield name, path, entry

    def label(self) -> LabelFacts | None:
        """What the reference holds: of its file, or of the masks painted together."""
        if isinstance(self.files.references, Path):
            entry = self.facts.files.get(self.files.references)
            return None if entry is None else entry.label
        composite = self.facts.composites.get(self.files.case)
        return None if composite is None else composite.label


def check_case(view: CaseView) -> Iterator[Finding]:
    """Everything that one case alone has to say."""
    yield from _file_faults(view)
    yield from _grids(view)
    yield from _headers(view)
    yield from _images(view)
    yield from _labels(view)
    yield from _masks(view)


def _file_faults(view: CaseView) -> Iterator[Finding]:
    for _, path, entry in view.entries():
        if entry.fault is not None:
            fault = entry.fault
            yield finding(
                fault.code,
                "error",
                fault.message,
                case=view.files.case,
                file=view.place(path),
                expected=fault.expected,
                found=fault.found,
                mend=fault.mend,
            )


def _grids(view: CaseView) -> Iterator[Finding]:
    """All files of a case against its first: shape, then spacing, then where the corners lie."""
    first: tuple[str, HeaderFacts] | None = None
    for name, path, entry in view.entries():
        header = entry.header
        if header is None:
            continue
        yield from _channel_count(view, path, entry)
        if first is None:
            first = name, header
            continue
        yield from _grid_pair(view, first, (name, header), path)


def _channel_count(view: CaseView, path: Path, entry: FileFacts) -> Iterator[Finding]:
    header, stacked = entry.header, view.files.stacked
    if header is None or entry.role != "image":
        return
    wanted = len(stacked) or 1
    if header.channels != wanted:
        yield finding(
            "SB307" if stacked else "SB207",
            "error",
            "the number of channels in the file is not that of the card",
            case=view.files.case,
            file=view.place(path),
            expected=f"{wanted} ({', '.join(stacked or view.dataset.card.channels.order)})"
            if stacked
            else wanted,
            found=header.channels,
        )


def _grid_pair(
    view: CaseView, first: tuple[str, HeaderFacts], other: tuple[str, HeaderFacts], path: Path
) -> Iterator[Finding]:
    (first_name, a), (name, b) = first, other
    compared = compare_geometry(Grid.of(a), Grid.of(b))
    mend = None
    turned = ""
    if compared.equal_after_reorientation:
        turned = "; equal after reorientation of the axes"
        mend = f"write the {name} again in the order of axes of the {first_name}"

    def say(code: str, severity: Severity, what: str, expected: object, found: object) -> Finding:
        return finding(
            code,
            severity,
            f"{what} of the {name} differs from the {first_name}{turned}",
            case=view.files.case,
            file=view.place(path),
            expected=expected,
            found=found,
            mend=mend,
        )

    if not compared.shape_equal:
        yield say("SB307", "error", "the shape (z, y, x)", _times(a.shape_zyx), _times(b.shape_zyx))
        return
    if not spacings_agree(a.spacing_mm, b.spacing_mm):
        yield say("SB308", "error", "the spacing (z, y, x)", _mm(a.spacing_mm), _mm(b.spacing_mm))
        return
    moved = compared.displacement_voxels or 0.0
    if moved > AGREE_VOXELS:
        severity: Severity = "error" if moved > MISPLACED_VOXELS else "warning"
        found = f"corners up to {moved:.3g} voxels apart"
        yield say("SB309", severity, "the origin or direction", f"at most {AGREE_VOXELS:g} voxels", found)


def _headers(view: CaseView) -> Iterator[Finding]:
    told = False
    for _, path, entry in view.entries():
        header = entry.header
        if header is None:
            continue
        case, file = view.files.case, view.place(path)
        yield from _orientation_codes(header, case, file)
        if header.unit_code in {1, 3}:
            unit = "metre" if header.unit_code == 1 else "micrometre"
            message = f"the header says that lengths are in {unit}s"
            yield finding(
                "SB336", "warning", message, case=case, file=file, expected="millimetre", found=unit
            )
        elif header.unit_code == 0 and not told:  # once a case: whole datasets are written that way
            told = True
            message = "the header does not say in which unit lengths are; millimetres are assumed"
            yield finding("SB336", "info", message, case=case, file=file)
        yield from _personal(header, case, file)
    yield from _extremes(view)


def _orientation_codes(header: HeaderFacts, case: str, file: str) -> Iterator[Finding]:
    if header.sform_code == 0 and header.qform_code == 0:
        message = "neither sform nor qform says where the scan lies; left and right are a guess"
        yield finding("SB310", "warning", message, case=case, file=file, found="both codes 0")
    elif header.forms_apart is not None and header.forms_apart > MISPLACED_VOXELS:
        yield finding(
            "SB310",
            "warning",
            "sform and qform place the scan differently; the sform is used",
            case=case,
            file=file,
            expected=f"at most {MISPLACED_VOXELS} voxels apart",
            found=f"{header.forms_apart:.3g} voxels apart",
        )


def _personal(header: HeaderFacts, case: str, file: str) -> Iterator[Finding]:
    for name in ("descrip", "aux_file", "db_name"):
        text = header.texts.get(name, "")
        if text and not is_harmless(text):
            # The text itself is not repeated: reports travel further than scans.
            message = f"the header field {name} holds text that may identify a person"
            found = f"{len(text)} characters"
            yield finding("SB328", "warning", message, case=case, file=file, found=found)
    for code in sorted({_DICOM, _COMMENT} & set(header.extension_codes)):
        what = "a copy of DICOM fields" if code == _DICOM else "a free comment"
        message = f"a header extension holds {what}, which may identify a person"
        yield finding("SB328", "warning", message, case=case, file=file, found=f"extension code {code}")


def is_harmless(text: str) -> bool:
    """Whether a header's text is nothing but names and versions of tools."""
    if _PROTOCOL.fullmatch(text):
        return True
    words = re.findall(r"[^\s\-_,;:=()/|*]+", text)
    return all(_HARMLESS.fullmatch(word) for word in words)


def _extremes(view: CaseView) -> Iterator[Finding]:
    first = next(((path, entry) for _, path, entry in view.entries() if entry.role == "image"), None)
    if first is None or first[1].header is None:
        return
    path, header = first[0], first[1].header
    case, file = view.files.case, view.place(path)
    if max(header.spacing_mm) > WIDEST_MM:
        message = "the voxels are unusually far apart"
        yield finding(
            "SB329",
            "warning",
            message,
            case=case,
            file=file,
            expected=f"at most {WIDEST_MM:g} mm",
            found=_mm(header.spacing_mm),
        )
    if min(header.shape_zyx) < FEWEST_VOXELS:
        message = "an axis has unusually few voxels"
        yield finding(
            "SB329",
            "warning",
            message,
            case=case,
            file=file,
            expected=f"at least {FEWEST_VOXELS}",
            found=_times(header.shape_zyx),
        )
    expected = view.dataset.card.geometry.expected_shape_zyx
    if expected is not None and not view.dataset.is_generated and header.shape_zyx != tuple(expected):
        message = "the shape (z, y, x) is not that of the dataset"
        yield finding(
            "SB329",
            "warning",
            message,
            case=case,
            file=file,
            expected=_times(expected),
            found=_times(header.shape_zyx),
        )


def _images(view: CaseView) -> Iterator[Finding]:
    card = view.dataset.card
    rules = dict(zip(card.channels.order, card.channel_normalisation, strict=True))
    for channel, path in view.files.images.items():
        entry = view.facts.files.get(path)
        index = view.files.stacked.index(channel) if view.files.stacked else 0
        if entry is None or index >= len(entry.channels):
            continue
        voxels = entry.channels[index]
        case, file = view.files.case, view.place(path)
        if voxels.low == voxels.high:
            message = f"channel {channel} has the same value everywhere"
            yield finding("SB313", "error", message, case=case, file=file, found=f"{voxels.low:g}")
        elif rules[channel] == "ct" and voxels.low >= 0 and voxels.high > 500:
            yield finding(
                "SB314",
                "warning",
                "the values do not look like Hounsfield units: shifted by 1024, or a windowed picture",
                case=case,
                file=file,
                expected="air near -1000",
                found=f"{voxels.low:g} to {voxels.high:g}",
            )


def _labels(view: CaseView) -> Iterator[Finding]:
    case = view.files.case
    for _, path, entry in view.entries():
        if entry.role == "image" or entry.header is None:
            continue
        header, file = entry.header, view.place(path)
        if entry.fault is None and (header.dtype.startswith("float") or header.scaled):
            stored = f"{header.dtype}{', scaled' if header.scaled else ''}"
            message = "the labels are stored as scaled or floating numbers; all are whole"
            yield finding("SB317", "info", message, case=case, file=file, found=stored)
        if entry.label is None:
            continue
        if entry.role == "mask":
            if not is_mask(dict(entry.label.voxels)):
                found = _values(entry.label)
                message = "the file is no mask"
                yield finding(
                    "SB315",
                    "error",
                    message,
                    case=case,
                    file=file,
                    expected="0 and 1, or 0 and 255",
                    found=found,
                )
        else:
            yield from _undeclared(view, entry.label, case, file)
    label = view.label()
    card = view.dataset.card
    if label is not None and not any(
        value not in {0, card.evaluation.ignore_label} for value in label.voxels
    ):
        references = view.files.reference_files
        file = view.place(references[0]) if len(references) == 1 else None
        yield finding("SB318", "warning", "the reference is empty: no foreground voxel", case=case, file=file)


def _undeclared(view: CaseView, label: LabelFacts, case: str, file: str) -> Iterator[Finding]:
    card = view.dataset.card
    declared = {0, *card.labels}
    strangers = {value: count for value, count in label.voxels.items() if value not in declared}
    old = {value: count for value, count in strangers.items() if value in card.labels_note.legacy}
    for value, count in old.items():
        yield finding(
            "SB327",
            "error",
            f"value {value} belongs to another edition of this dataset ({card.labels_note.legacy[value]})",
            case=case,
            file=file,
            expected=", ".join(map(str, sorted(declared))),
            found=f"{value} ({count:,} voxels)",
        )
    rest = {value: count for value, count in strangers.items() if value not in old}
    if rest:
        listed = [f"{value} ({count:,} voxels)" for value, count in list(rest.items())[:8]]
        yield finding(
            "SB315",
            "error",
            "the label map holds values that the card does not declare",
            case=case,
            file=file,
            expected=", ".join(map(str, sorted(declared))),
            found=", ".join(listed) + (", ..." if len(rest) > 8 else ""),
        )


def _masks(view: CaseView) -> Iterator[Finding]:
    composite = view.facts.composites.get(view.files.case)
    if composite is None:
        return
    case, names = view.files.case, view.dataset.card.labels
    if composite.combined_differs and view.files.combined is not None:
        yield finding(
            "SB325",
            "warning",
            "the combined label map differs from the masks painted in the order of the card",
            case=case,
            file=view.place(view.files.combined),
            found=f"{composite.combined_differs:,} voxels",
        )
    for below, above, count in composite.overlaps:
        path = dict(masks_of(view.dataset, view.files))[above]
        message = f"the masks {names[below]} and {names[above]} overlap; {names[above]} wins"
        yield finding(
            "SB326", "warning", message, case=case, file=view.place(path), found=f"{count:,} voxels"
        )


def _times(lengths: tuple[int, ...]) -> str:
    return " x ".join(str(length) for length in lengths)


def _mm(spacing: tuple[float, ...]) -> str:
    return " x ".join(f"{value:.6g}" for value in spacing) + " mm"


def _values(label: LabelFacts) -> str:
    listed = [str(value) for value in list(label.voxels)[:10]]
    return ", ".join(listed) + (", ..." if len(label.voxels) > 10 else "")
