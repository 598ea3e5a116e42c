"""Checks of one case: its files, its headers against each other and alone, what its voxels say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from segbench.data.finding import Finding, Severity
from segbench.data.verify.facts import FileFacts, HeaderFacts, LabelFacts
from segbench.data.verify.gather import masks_of
from segbench.data.verify.reading import is_mask
from segbench.data.verify.view import CaseView
from segbench.volumes.geometry import AGREE_VOXELS, MISPLACED_VOXELS, compare_geometry, spacings_agree
from segbench.volumes.volume import UNIT_NAMES, UNITS_MM

WIDEST_MM = 20.0
"""A spacing above this is unusual enough to be told."""
FEWEST_VOXELS = 8
"""An axis shorter than this is unusual enough to be told."""

_DICOM, _COMMENT = 2, 6  # header extensions that hold free text about the patient or the study
_SHOWN = 8


def check_case(view: CaseView) -> Iterator[Finding]:
    """Everything that one case alone has to say."""
    for _, path, entry in view.entries():
        if entry.fault is not None:
            told = view.say(entry.fault.code, "error", entry.fault.message, path)
            yield replace(entry.fault, case=told.case, file=told.file)
    yield from _grids(view)
    yield from _headers(view)
    yield from _extremes(view)
    yield from _images(view)
    yield from _labels(view)
    yield from _masks(view)


# ---- headers


def _grids(view: CaseView) -> Iterator[Finding]:
    """All files of a case against its first: shape, then spacing, then where the corners lie."""
    first: tuple[str, HeaderFacts] | None = None
    for name, path, entry in view.entries():
        if entry.header is None:
            continue
        yield from _channel_count(view, path, entry, entry.header)
        if first is None:
            first = name, entry.header
        else:
            yield from _grid_pair(view, first, (name, entry.header), path)


def _channel_count(view: CaseView, path: Path, entry: FileFacts, header: HeaderFacts) -> Iterator[Finding]:
    stacked = view.files.stacked
    wanted = len(stacked) or 1
    if entry.role == "image" and header.channels != wanted:
        message = "the number of channels in the file is not that of the card"
        expected = f"{wanted} ({', '.join(stacked)})" if stacked else wanted
        code = "SB307" if stacked else "SB207"
        mend = (
            "name as many channels as the files hold, or write a file per channel: CASE_0000, CASE_0001, ..."
        )
        yield view.say(code, "error", message, path, expected=expected, found=header.channels, mend=mend)


def _grid_pair(
    view: CaseView, first: tuple[str, HeaderFacts], other: tuple[str, HeaderFacts], path: Path
) -> Iterator[Finding]:
    (first_name, a), (name, b) = first, other
    compared = compare_geometry(a, b)

    def say(code: str, severity: Severity, what: str, expected: object, found: object) -> Finding:
        message = f"{what} of the {name} differs from the {first_name}"
        return view.say(code, severity, message, path, expected=expected, found=found)

    moved = compared.displacement_voxels or 0.0
    if compared.equal_after_reorientation:
        message = f"the order of axes of the {name} differs from the {first_name}; it is reordered exactly"
        mend = f"none is needed; or write the {name} again in the order of axes of the {first_name}"
        yield view.say("SB309", "warning", message, path, mend=mend)
    elif not compared.shape_equal:
        yield say("SB307", "error", "the shape (z, y, x)", _times(a.shape_zyx), _times(b.shape_zyx))
    elif not spacings_agree(a.spacing_mm, b.spacing_mm):
        yield say("SB308", "error", "the spacing (z, y, x)", _mm(a.spacing_mm), _mm(b.spacing_mm))
    elif moved > AGREE_VOXELS:
        severity: Severity = "error" if moved > MISPLACED_VOXELS else "warning"
        found = f"corners up to {moved:.3g} voxels apart"
        yield say("SB309", severity, "the origin or direction", f"at most {AGREE_VOXELS:g} voxels", found)


def _headers(view: CaseView) -> Iterator[Finding]:
    told: set[str] = set()
    for _, path, entry in view.entries():
        header = entry.header
        if header is None:
            continue
        yield from _position(view, header, path)
        if header.unit not in told:  # once a case: whole datasets are written that way
            told.add(header.unit)
            yield from _unit(view, header, path)
        yield from _personal(view, header, path)


def _position(view: CaseView, header: HeaderFacts, path: Path) -> Iterator[Finding]:
    if not header.positioned:
        message = "the header does not say where the scan lies; left and right are a guess"
        yield view.say("SB310", "warning", message, path, found="both codes 0")
    elif header.forms_apart is not None and header.forms_apart > MISPLACED_VOXELS:
        message = "sform and qform place the scan differently; the sform is used"
        expected = f"at most {MISPLACED_VOXELS} voxels apart"
        found = f"{header.forms_apart:.3g} voxels apart"
        yield view.say("SB310", "warning", message, path, expected=expected, found=found)


def _unit(view: CaseView, header: HeaderFacts, path: Path) -> Iterator[Finding]:
    if not header.unit:
        message = "the header does not say in which unit lengths are; millimetres are assumed"
        yield view.say("SB336", "info", message, path)
    elif UNITS_MM[header.unit] != 1.0:
        name = UNIT_NAMES[header.unit]
        message = f"the header says that lengths are in {name}; they are read as that"
        found = f"{name}: voxels of {_mm(header.spacing_mm)}"
        yield view.say("SB336", "warning", message, path, expected="millimetres", found=found)


def _personal(view: CaseView, header: HeaderFacts, path: Path) -> Iterator[Finding]:
    for name, length in header.suspicious_texts.items():
        message = f"the header field {name} holds text that may identify a person"
        yield view.say("SB328", "warning", message, path, found=f"{length} characters")
    for code in sorted({_DICOM, _COMMENT} & set(header.extension_codes)):
        what = "a copy of DICOM fields" if code == _DICOM else "a free comment"
        message = f"a header extension holds {what}, which may identify a person"
        yield view.say("SB328", "warning", message, path, found=f"extension code {code}")


def _extremes(view: CaseView) -> Iterator[Finding]:
    first = next(((path, entry) for _, path, entry in view.entries() if entry.role == "image"), None)
    if first is None or first[1].header is None:
        return
    path, header = first[0], first[1].header
    shape, spacing = _times(header.shape_zyx), _mm(header.spacing_mm)
    if max(header.spacing_mm) > WIDEST_MM:
        message, expected = "the voxels are unusually far apart", f"at most {WIDEST_MM:g} mm"
        yield view.say("SB329", "warning", message, path, expected=expected, found=spacing)
    if min(header.shape_zyx) < FEWEST_VOXELS:
        message, expected = "an axis has unusually few voxels", f"at least {FEWEST_VOXELS}"
        yield view.say("SB329", "warning", message, path, expected=expected, found=shape)
    wanted = view.dataset.card.geometry.expected_shape_zyx
    if wanted is not None and not view.dataset.is_generated and header.shape_zyx != tuple(wanted):
        message = "the shape (z, y, x) is not that of the dataset"
        yield view.say("SB329", "warning", message, path, expected=_times(wanted), found=shape)


# ---- voxels


def _images(view: CaseView) -> Iterator[Finding]:
    card = view.dataset.card
    rules = dict(zip(card.channels.order, card.channel_normalisation, strict=True))
    for channel, voxels in view.channels().items():
        path = view.files.images[channel]
        if voxels.low == voxels.high:
            message = f"channel {channel} has the same value everywhere"
            yield view.say("SB313", "error", message, path, found=f"{voxels.low:g}")
        elif rules[channel] == "ct" and voxels.low >= 0 and voxels.high > 500:
            message = "the values do not look like Hounsfield units: shifted by 1024, or a windowed picture"
            found = f"{voxels.low:g} to {voxels.high:g}"
            yield view.say("SB314", "warning", message, path, expected="air near -1000", found=found)


def _labels(view: CaseView) -> Iterator[Finding]:
    for _, path, entry in view.entries():
        header = entry.header
        if entry.role == "image" or header is None:
            continue
        if entry.fault is None and (header.dtype.startswith("float") or header.scaled):
            stored = f"{header.dtype}{', scaled' if header.scaled else ''}"
            message = "the labels are stored as scaled or floating numbers; all are whole"
            yield view.say("SB317", "info", message, path, found=stored)
        if entry.label is None:
            continue
        if entry.role != "mask":
            yield from _undeclared(view, entry.label, path)
        elif not is_mask(dict(entry.label.voxels)):
            found = _listed(map(str, entry.label.voxels), len(entry.label.voxels), 10)
            expected = "0 and 1, or 0 and 255"
            yield view.say("SB315", "error", "the file is not a mask", path, expected=expected, found=found)
    label, ignored = view.label(), view.dataset.card.evaluation.ignore_label
    if label is not None and not set(label.voxels) - {0, ignored}:
        references = view.files.reference_files
        path = references[0] if len(references) == 1 else None
        yield view.say("SB318", "warning", "the reference is empty: no foreground voxel", path)


def _undeclared(view: CaseView, label: LabelFacts, path: Path) -> Iterator[Finding]:
    card = view.dataset.card
    declared = {0, *card.labels}
    expected = ", ".join(map(str, sorted(declared)))
    strangers = {value: count for value, count in label.voxels.items() if value not in declared}
    for value in [value for value in strangers if value in card.labels_note.legacy]:
        found = f"{value} ({strangers.pop(value):,} voxels)"
        edition = card.labels_note.legacy[value]
        message = f"value {value} belongs to another edition of this dataset ({edition})"
        yield view.say("SB327", "error", message, path, expected=expected, found=found)
    if strangers:
        listed = (f"{value} ({count:,} voxels)" for value, count in strangers.items())
        message = "the label map holds values that the card does not declare"
        found = _listed(listed, len(strangers), _SHOWN)
        yield view.say("SB315", "error", message, path, expected=expected, found=found)


def _masks(view: CaseView) -> Iterator[Finding]:
    composite = view.facts.composites.get(view.files.case)
    if composite is None:
        return
    names = view.dataset.card.labels
    if composite.combined_differs and view.files.combined is not None:
        message = "the combined label map differs from the masks painted in the order of the card"
        found = f"{composite.combined_differs:,} voxels"
        yield view.say("SB325", "warning", message, view.files.combined, found=found)
    forms = view.dataset.card.layout.form
    expected = any(form.name == view.files.form and form.masks_overlap for form in forms)
    for below, above, count in composite.overlaps:
        path = dict(masks_of(view.dataset, view.files))[above]
        message = f"the masks {names[below]} and {names[above]} overlap; {names[above]} wins"
        yield view.say("SB326", "info" if expected else "warning", message, path, found=f"{count:,} voxels")


def _listed(texts: Iterable[str], count: int, shown: int) -> str:
    first = [text for text, _ in zip(texts, range(shown), strict=False)]
    return ", ".join(first) + (", ..." if count > shown else "")


def _times(lengths: tuple[int, ...]) -> str:
    return " x ".join(str(length) for length in lengths)


def _mm(spacing: tuple[float, ...]) -> str:
    return " x ".join(f"{value:.6g}" for value in spacing) + " mm"
