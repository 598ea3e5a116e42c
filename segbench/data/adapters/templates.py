"""Layouts by templates of names: a folder for each case, or images in one folder and labels in another.

A folder per case: BraTS, AbdomenAtlas, KiTS, TotalSegmentator; ACDC with several cases per folder.
Paired folders: CRC-2000, AIIB23, AMOS, LiTS, BTCV.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segbench.cards.dataset_card import DatasetCard
from segbench.cards.layout import CaseFolderForm, CaseFolderLayout, PairedFoldersForm, PairedFoldersLayout
from segbench.core.names import is_safe_case
from segbench.data.adapters.base import (
    CaseFiles,
    Discovery,
    Listing,
    entries,
    inside,
    missing_references,
    named,
    volumes_in,
    whose,
    wrapped,
)
from segbench.volumes import stem_and_ending

LEVELS_DOWN = 2


def discover(card: DatasetCard, layout: CaseFolderLayout | PairedFoldersLayout, root: Path) -> Discovery:
    """The cases of a tree that the card's templates describe, found at most two levels below the root.

    The first form of the card that fits a case folder whole is used; a case whose images are whole but whose
    reference is absent has none; any other is taken with its missing files named (SB303). A folder of images
    beside one of labels is read by one form: the first whose label folder is there, else the first.
    """
    discovery = Discovery(root)
    if isinstance(layout, PairedFoldersLayout):
        for place, form in _places(card, layout, root):
            _Pair(card, layout, place, form, discovery).read()
        return discovery
    groups: dict[str, list[CaseFiles]] = {}
    for folder, groups_of_name in _case_folders(layout, root, discovery, LEVELS_DOWN):
        for fields in _cases_in(layout, folder, groups_of_name):
            files = _read_folder(card, layout, folder, fields, discovery)
            if files is not None:
                discovery.add(files)
                groups.setdefault(inside(folder.parent, root), []).append(files)
    whole = {name: [f for f in files if not f.missing] for name, files in groups.items()}
    missing_references(discovery, whole.items())
    return discovery


def _holds_predictions(layout: CaseFolderLayout | PairedFoldersLayout, names: list[str]) -> bool:
    """Whether the name of a folder says that its labels were made by a model."""
    pattern = layout.pseudo_labels
    return bool(pattern) and any(re.search(pattern, name, re.IGNORECASE) for name in names)


# ---- a folder for each case


def _case_folders(
    layout: CaseFolderLayout, root: Path, discovery: Discovery, levels: int
) -> Iterator[tuple[Path, dict[str, str]]]:
    """Folders that match, with the named groups of the match; loose volumes on the way are orphans."""
    pattern = re.compile(layout.folder_pattern or layout.case_pattern)
    for path in entries(root):
        match = pattern.fullmatch(path.name)
        if path.is_dir():
            if match:
                yield path, named(match)
            elif levels:
                yield from _case_folders(layout, path, discovery, levels - 1)
        elif stem_and_ending(path.name):
            discovery.tell("SB304", "a volume outside of any case's folder", path)


def _cases_in(layout: CaseFolderLayout, folder: Path, fields: dict[str, str]) -> Iterator[dict[str, str]]:
    if layout.folder_pattern is None:
        yield fields
        return
    for path in entries(folder):
        parts = stem_and_ending(path.name)
        match = re.fullmatch(layout.case_pattern, parts[0]) if parts else None
        if match:
            yield {**fields, **named(match)}


def _read_folder(
    card: DatasetCard, layout: CaseFolderLayout, folder: Path, fields: dict[str, str], discovery: Discovery
) -> CaseFiles | None:
    case = fields["case"]
    if not is_safe_case(case):
        discovery.tell_unsafe(case, folder)
        return None
    best = _best_form(card, layout, folder, fields)
    place = inside(folder, discovery.root)
    for name in best.ambiguous:
        message = f"{name} exists with more than one ending; which one is meant?"
        discovery.tell("SB306", message, f"{place}/{name}", case=case)
    partial_masks = best.references is not None and best.missing_labels
    missing = best.missing_images + (best.missing_labels if partial_masks or best.missing_images else ())
    unlabelled = best.missing_labels if best.references is None else ()
    absent = {(folder / name).parent / _stem(name) for name in (*missing, *unlabelled)}
    others = _other_formats(absent, discovery)
    for name in missing:
        kind = "image" if name in best.missing_images else "label"
        if (folder / name).parent / _stem(name) not in others:
            discovery.tell("SB303", f"{kind} {name} is absent", f"{place}/{name}", case=case)
    references = None if partial_masks else best.references
    wrappers = [*folder.relative_to(discovery.root).parts[:-1]]
    if references is not None and _holds_predictions(layout, wrappers):
        message = "the folder's name says that its labels are predictions"
        discovery.tell("SB330", message, folder, case=case)
        return None
    whom, form = whose(card, case, fields), best.form.name
    return CaseFiles(case, *whom, best.images, references, form, combined=best.combined, missing=missing)


def _other_formats(absent: set[Path], discovery: Discovery) -> set[Path]:
    """Which of these absent files (without endings) lie there in a format that is not read; it is told."""
    told: set[Path] = set()
    for folder in sorted({path.parent for path in absent}):
        stems = {path.name for path in absent if path.parent == folder}
        here = {stem for stem, _, _ in discovery.other_formats(folder).values()}
        discovery.tell_other_formats(folder, read=(), wanted=stems.__contains__)
        told |= {folder / stem for stem in stems & here}
    return told


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What one form of the card finds in a case's folder."""

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


def _best_form(card: DatasetCard, layout: CaseFolderLayout, folder: Path, fields: dict[str, str]) -> _Attempt:
    listing = Listing()
    attempts = [_attempt(card, form, folder, fields, listing) for form in layout.form]
    best = next((a for a in attempts if not a.missing_images and not a.missing_labels), None)
    if best is None and all(a.references is None for a in attempts):
        best = next((a for a in attempts if not a.missing_images), None)
    return best or max(attempts, key=lambda a: a.present)


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


# ---- images in one folder, labels in another


def _channel_folders(card: DatasetCard, place: Path, form: PairedFoldersForm) -> dict[str, Path]:
    names = {card.channels.order[0]: form.images} if isinstance(form.images, str) else form.images
    return {channel: place / name for channel, name in names.items()}


def _places(
    card: DatasetCard, layout: PairedFoldersLayout, root: Path
) -> Iterator[tuple[Path, PairedFoldersForm]]:
    seen: set[Path] = set()
    for place in wrapped(root):
        fitting = [
            form
            for form in layout.form
            if all(folder.is_dir() for folder in _channel_folders(card, place, form).values())
        ]
        fitting.sort(key=lambda form: form.labels is None or not (place / form.labels).is_dir())
        for form in fitting:
            used = {folder.resolve() for folder in _channel_folders(card, place, form).values()}
            if used & seen:
                continue
            seen |= used | (set() if form.labels is None else {(place / form.labels).resolve()})
            yield place, form


class _Pair:
    """One folder of images (or one for each channel) and its folder of labels; they may be the same."""

    def __init__(
        self,
        card: DatasetCard,
        layout: PairedFoldersLayout,
        place: Path,
        form: PairedFoldersForm,
        discovery: Discovery,
    ) -> None:
        self.card, self.layout, self.place, self.form, self.discovery = card, layout, place, form, discovery
        self.folders = _channel_folders(card, place, form)
        self.labels_folder = None if form.labels is None else place / form.labels
        self.labels = {} if self.labels_folder is None else volumes_in(self.labels_folder)
        self.by_stem = {channel: volumes_in(folder) for channel, folder in self.folders.items()}

    def read(self) -> None:
        names = [*self.place.relative_to(self.discovery.root).parts]
        names += [] if self.form.labels is None else [self.form.labels]
        if _holds_predictions(self.layout, names):
            message = "the folder's name says that its labels are predictions; they are no reference"
            self.discovery.tell("SB330", message, self.place)
            return
        first = next(iter(self.folders))
        used: set[str] = set()
        lacking: set[str] = set()
        strangers: dict[str, Path] = {}
        cases: list[CaseFiles] = []
        for stem, found in self.by_stem[first].items():
            match = re.fullmatch(self.layout.case_pattern, stem)
            if match is None or not is_safe_case(match["case"]):
                strangers[stem] = found[0]
                continue
            fields = named(match)
            label_stem = self.form.label_name.format(**fields)
            cases.append(self._case(stem, fields, self.labels.get(label_stem)))
            (used if label_stem in self.labels else lacking).add(label_stem)
        missing_references(self.discovery, [(inside(self.folders[first], self.discovery.root), cases)])
        self._other_formats(first, cases, lacking, set(self.labels) - used)
        if self.labels_folder is not None and not self.labels:
            self._mislaid_labels(cases, self.labels_folder)
        if self.form.labels is not None and self.form.labels == self.form.images:
            strangers = {stem: path for stem, path in strangers.items() if stem not in used}
        else:
            for stem in sorted(set(self.labels) - used):
                self.discovery.tell("SB304", "a label without its image", self.labels[stem][0], case=stem)
        for stem, path in strangers.items():
            safe = is_safe_case(stem)
            if safe:
                self.discovery.tell("SB304", "a file that the case pattern does not know", path)
            else:
                self.discovery.tell_unsafe(stem, path)

    def _case(self, stem: str, fields: dict[str, str], reference: list[Path] | None) -> CaseFiles:
        case, name = fields["case"], self.by_stem[next(iter(self.folders))][stem][0].name
        files = {channel: found[stem] for channel, found in self.by_stem.items() if stem in found}
        for several in files.values():
            self.discovery.tell_ambiguous(case, several)
        absent = [folder / name for channel, folder in self.folders.items() if channel not in files]
        missing = tuple(inside(path, self.discovery.root) for path in absent)
        for path in missing:
            self.discovery.tell("SB303", "a channel is absent", path, case=case)
        self.discovery.tell_ambiguous(case, reference or [])
        images = {channel: found[0] for channel, found in files.items()}
        label = reference[0] if reference else None
        whom, form = whose(self.card, case, fields), self.form.name
        found = CaseFiles(case, *whom, images, label, form, missing=missing)
        self.discovery.add(found)
        return found

    def _other_formats(self, first: str, cases: list[CaseFiles], lacking: set[str], unused: set[str]) -> None:
        """Images and labels of the right names in a format that is not read.

        Args:
            first: The channel whose folder names the cases.
            cases: Those found.
            lacking: Stems of labels that were looked for in vain.
            unused: Stems of labels without an image.
        """

        def is_case(stem: str) -> bool:
            match = re.fullmatch(self.layout.case_pattern, stem)
            return match is not None and is_safe_case(match["case"])

        wanted = unused.__contains__ if cases else is_case
        self.discovery.tell_other_formats(self.folders[first], read=self.by_stem[first], wanted=wanted)
        if self.labels_folder is not None:
            self.discovery.tell_other_formats(
                self.labels_folder, read=self.labels, wanted=lacking.__contains__
            )

    def _mislaid_labels(self, cases: list[CaseFiles], labels: Path) -> None:
        """Point at a folder beside the images that holds files of these names: labels under another name?"""
        ids = {files.case for files in cases}
        for folder in entries(labels.parent):
            used = folder == labels or folder in self.folders.values()
            if folder.is_dir() and not used and ids & set(volumes_in(folder)):
                message = f"no reference is read, but {folder.name} holds files of the same names"
                expected = f"labels in {labels.name}"
                self.discovery.tell("SB303", message, folder, severity="warning", expected=expected)


def _stem(name: str) -> str:
    """The last part of a filled template without the ending of a volume."""
    last = name.rpartition("/")[2]
    return (stem_and_ending(last) or (last,))[0]
