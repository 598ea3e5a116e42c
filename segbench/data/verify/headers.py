"""Checks of the headers of one case: one grid for all files, sane geometry, nothing personal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from segbench.data.finding import Finding, Severity, finding
from segbench.data.verify.facts import FileFacts, Grid, HeaderFacts
from segbench.data.verify.view import CaseView
from segbench.volumes.geometry import AGREE_VOXELS, MISPLACED_VOXELS, compare_geometry, spacings_agree
from segbench.volumes.volume import UNIT_NAMES, UNITS_MM

WIDEST_MM = 20.0
"""A spacing above this is unusual enough to be told."""
FEWEST_VOXELS = 8
"""An axis shorter than this is unusual enough to be told."""

_DICOM, _COMMENT = 2, 6  # header extensions that hold free text about the patient or the study


def check_headers(view: CaseView) -> Iterator[Finding]:
    """What the headers of a case say, alone and against each other."""
    yield from _grids(view)
    yield from _headers(view)


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
    told: set[str] = set()
    for _, path, entry in view.entries():
        header = entry.header
        if header is None:
            continue
        case, file = view.files.case, view.place(path)
        yield from _orientation_codes(header, case, file)
        if header.unit not in told:  # once a case: whole datasets are written that way
            told.add(header.unit)
            yield from _unit(header, case, file)
        yield from _personal(header, case, file)
    yield from _extremes(view)


def _unit(header: HeaderFacts, case: str, file: str) -> Iterator[Finding]:
    if not header.unit:
        message = "the header does not say in which unit lengths are; millimetres are assumed"
        yield finding("SB336", "info", message, case=case, file=file)
    elif UNITS_MM[header.unit] != 1.0:
        name = UNIT_NAMES[header.unit]
        message = f"the header says that lengths are in {name}; they are read as that"
        found = f"{name}: voxels of {_mm(header.spacing_mm)}"
        yield finding("SB336", "warning", message, case=case, file=file, expected="millimetres", found=found)


def _orientation_codes(header: HeaderFacts, case: str, file: str) -> Iterator[Finding]:
    if header.sform_code == 0 and header.qform_code == 0:
        message = "the header does not say where the scan lies; left and right are a guess"
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
    for name, length in header.suspicious_texts.items():
        message = f"the header field {name} holds text that may identify a person"
        yield finding("SB328", "warning", message, case=case, file=file, found=f"{length} characters")
    for code in sorted({_DICOM, _COMMENT} & set(header.extension_codes)):
        what = "a copy of DICOM fields" if code == _DICOM else "a free comment"
        message = f"a header extension holds {what}, which may identify a person"
        yield finding("SB328", "warning", message, case=case, file=file, found=f"extension code {code}")


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


def _times(lengths: tuple[int, ...]) -> str:
    return " x ".join(str(length) for length in lengths)


def _mm(spacing: tuple[float, ...]) -> str:
    return " x ".join(f"{value:.6g}" for value in spacing) + " mm"
