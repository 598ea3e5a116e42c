"""Checks of one case: its files, its headers, what its voxels say."""

from __future__ import annotations

from collections.abc import Iterator

from segbench.cards.layout import CaseFolderLayout
from segbench.data.finding import Finding, Severity, finding
from segbench.data.verify.facts import LabelFacts
from segbench.data.verify.gather import masks_of
from segbench.data.verify.headers import check_headers
from segbench.data.verify.reading import is_mask
from segbench.data.verify.view import CaseView


def check_case(view: CaseView) -> Iterator[Finding]:
    """Everything that one case alone has to say."""
    yield from _file_faults(view)
    yield from check_headers(view)
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
    severity: Severity = "info" if _overlap_is_expected(view) else "warning"
    for below, above, count in composite.overlaps:
        path = dict(masks_of(view.dataset, view.files))[above]
        message = f"the masks {names[below]} and {names[above]} overlap; {names[above]} wins"
        yield finding("SB326", severity, message, case=case, file=view.place(path), found=f"{count:,} voxels")


def _overlap_is_expected(view: CaseView) -> bool:
    layout = view.dataset.card.layout
    forms = layout.form if isinstance(layout, CaseFolderLayout) else ()
    return any(form.name == view.files.form and form.masks_overlap for form in forms)


def _values(label: LabelFacts) -> str:
    listed = [str(value) for value in list(label.voxels)[:10]]
    return ", ".join(listed) + (", ..." if len(label.voxels) > 10 else "")
