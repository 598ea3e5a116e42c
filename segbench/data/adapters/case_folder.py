"""One folder per case: BraTS, AbdomenAtlas, KiTS, TotalSegmentator; ACDC with several cases per folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segbench.cards.dataset_card import DatasetCard
from segbench.cards.layout import CaseFolderForm, CaseFolderLayout
from segbench.data.adapters.base import (
    CaseFiles,
    Discovery,
    LayoutFinding,
    Listing,
    entries,
    inside,
    is_safe_case,
    missing_references,
)
from segbench.volumes import stem_and_ending

LEVELS_DOWN = 2


def discover(card: DatasetCard, layout: CaseFolderLayout, root: Path) -> Discovery:
    """The cases of a tree of case folders, found at most two levels below the root.

    The first form of the card that fits a case whole is used; a case whose images are whole but whose
    reference is absent has none; any other case is taken with its missing files named (SB303).
    """
    discovery = Discovery()
    groups: dict[str, list[CaseFiles]] = {}
    refused = re.compile(layout.pseudo_labels, re.IGNORECASE) if layout.pseudo_labels else None
    for folder, groups_of_name in _case_folders(layout, root, discovery, LEVELS_DOWN):
        for fields in _cases_in(layout, folder, groups_of_name):
            if not is_safe_case(fields["case"]):
                message = f"unsafe case id {fields['case']!r}"
                discovery.findings.append(LayoutFinding("SB339", "error", message, file=inside(folder, root)))
                continue
            files = _fit(card, layout, folder, fields, discovery, root)
            wrappers = folder.relative_to(root).parts[:-1]
            if refused and any(refused.search(part) for part in wrappers) and files.references is not None:
                message = "the folder's name says that its labels are predictions"
                discovery.findings.append(
                    LayoutFinding("SB330", "error", message, case=files.case, file=inside(folder, root))
                )
                continue
            discovery.add(files, root)
            groups.setdefault(inside(folder.parent, root), []).append(files)
    whole = {name: [f for f in files if not f.missing] for name, files in groups.items()}
    missing_references(discovery, whole.items())
    return discovery


def _case_folders(
    layout: CaseFolderLayout, root: Path, discovery: Discovery, levels: int, top: Path | None = None
) -> Iterator[tuple[Path, dict[str, str]]]:
    """Folders that match, with the named groups of the match; loose volumes on the way are orphans."""
    top = top or root
    pattern = re.compile(layout.folder_pattern or layout.case_pattern)
    for path in entries(root):
        match = pattern.fullmatch(path.name)
        if path.is_dir():
            if match:
                yield path, _named(match)
            elif levels:
                yield from _case_folders(layout, path, discovery, levels - 1, top)
        elif stem_and_ending(path.name):
            message = "a volume outside of any case's folder"
            discovery.findings.append(LayoutFinding("SB304", "error", message, file=inside(path, top)))


def _cases_in(layout: CaseFolderLayout, folder: Path, fields: dict[str, str]) -> Iterator[dict[str, str]]:
    if layout.folder_pattern is None:
        yield fields
        return
    pattern = re.compile(layout.case_pattern)
    for path in entries(folder):
        parts = stem_and_ending(path.name)
        match = pattern.fullmatch(parts[0]) if parts else None
        if match:
            yield {**fields, **_named(match)}


def _named(match: re.Match[str]) -> dict[str, str]:
    return {name: value for name, value in match.groupdict().items() if value is not None}


@dataclass(frozen=True, slots=True)
class _Attempt:
    form: CaseFolderForm
    images: dict[str, Path]
    references: Path | dict[str, Path] | None
    combined: Path | None
    missing_images: tuple[str, ...]
    missing_labels: tuple[str, ...]
    ambiguous: tuple[str, ...]

    @property
    def present(self) -> int:
        masks = self.references if isinstance(self.references, dict) else {}
        return len(self.images) + len(masks) + isinstance(self.references, Path)


def _fit(
    card: DatasetCard,
    layout: CaseFolderLayout,
    folder: Path,
    fields: dict[str, str],
    discovery: Discovery,
    root: Path,
) -> CaseFiles:
    listing = Listing()
    attempts = [_attempt(card, form, folder, fields, listing) for form in layout.form]
    best = next((a for a in attempts if not a.missing_images and not a.missing_labels), None)
    if best is None and all(a.references is None for a in attempts):
        best = next((a for a in attempts if not a.missing_images), None)
    best = best or max(attempts, key=lambda a: a.present)
    case = fields["case"]
    place = inside(folder, root)
    for name in best.ambiguous:
        message = f"{name} exists with more than one ending; which one is meant?"
        discovery.findings.append(LayoutFinding("SB306", "error", message, case=case, file=f"{place}/{name}"))
    partial_masks = best.references is not None and best.missing_labels
    missing = best.missing_images + (best.missing_labels if partial_masks or best.missing_images else ())
    for name in missing:
        kind = "image" if name in best.missing_images else "label"
        discovery.findings.append(
            LayoutFinding("SB303", "error", f"{kind} {name} is absent", case=case, file=f"{place}/{name}")
        )
    return CaseFiles(
        case=case,
        patient=_patient(card, fields),
        timepoint=fields.get("timepoint"),
        images=best.images,
        references=None if partial_masks else best.references,
        form=best.form.name,
        combined=best.combined,
        missing=missing,
    )


def _attempt(
    card: DatasetCard, form: CaseFolderForm, folder: Path, fields: dict[str, str], listing: Listing
) -> _Attempt:
    ambiguous: list[str] = []

    def find(template: str) -> Path | None:
        name = template.format(**fields)
        found = listing.with_any_ending(folder, name)
        if len(found) > 1:
            ambiguous.append(name)
        return found[0] if found else None

    images = {channel: find(template) for channel, template in form.images.items()}
    missing_labels: tuple[str, ...] = ()
    references: Path | dict[str, Path] | None = None
    if form.labels is not None:
        references = find(form.labels)
        missing_labels = () if references else (form.labels.format(**fields),)
    elif form.structures:
        masks = {card.labels[value]: find(template) for value, template in form.structures.items()}
        references = {name: path for name, path in masks.items() if path is not None} or None
        missing_labels = tuple(
            template.format(**fields)
            for value, template in form.structures.items()
            if masks[card.labels[value]] is None
        )
    return _Attempt(
        form=form,
        images={channel: path for channel, path in images.items() if path is not None},
        references=references,
        combined=None if form.combined is None else find(form.combined),
        missing_images=tuple(form.images[c].format(**fields) for c, path in images.items() if path is None),
        missing_labels=missing_labels,
        ambiguous=tuple(ambiguous),
    )


def _patient(card: DatasetCard, fields: dict[str, str]) -> str:
    group = card.patient.group
    return fields.get(group, fields["case"]) if isinstance(group, str) else fields["case"]
