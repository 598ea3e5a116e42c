"""Images in one folder, labels in another: CRC-2000, AIIB23, AMOS, LiTS, BTCV."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from segbench.cards.dataset_card import DatasetCard
from segbench.cards.layout import PairedFoldersForm, PairedFoldersLayout
from segbench.data.adapters.base import (
    CaseFiles,
    Discovery,
    LayoutFinding,
    entries,
    inside,
    is_safe_case,
    missing_references,
    volumes_in,
    wrapped,
)


def discover(card: DatasetCard, layout: PairedFoldersLayout, root: Path) -> Discovery:
    """The cases of every pair of folders that a form of the card finds, at most two levels below the root.

    A folder of images is read by one form: the first whose label folder exists beside it, else the first.
    """
    discovery = Discovery()
    for place, form in _places(card, layout, root):
        _read_pair(card, layout, place, form, root, discovery)
    return discovery


def _channel_folders(card: DatasetCard, form: PairedFoldersForm) -> dict[str, str]:
    return {card.channels.order[0]: form.images} if isinstance(form.images, str) else dict(form.images)


def _places(
    card: DatasetCard, layout: PairedFoldersLayout, root: Path
) -> Iterator[tuple[Path, PairedFoldersForm]]:
    seen: set[Path] = set()
    for place in wrapped(root):
        fitting = [
            form
            for form in layout.form
            if all((place / folder).is_dir() for folder in _channel_folders(card, form).values())
        ]
        fitting.sort(key=lambda form: form.labels is None or not (place / form.labels).is_dir())
        for form in fitting:
            used = {(place / folder).resolve() for folder in _channel_folders(card, form).values()}
            if used & seen:
                continue
            seen |= used | (set() if form.labels is None else {(place / form.labels).resolve()})
            yield place, form


def _is_shared(form: PairedFoldersForm) -> bool:
    """Whether images and labels lie in one folder and are told apart by their names."""
    return form.labels is not None and form.labels == form.images


def _read_pair(
    card: DatasetCard,
    layout: PairedFoldersLayout,
    place: Path,
    form: PairedFoldersForm,
    root: Path,
    discovery: Discovery,
) -> None:
    folders = {channel: place / name for channel, name in _channel_folders(card, form).items()}
    labels_folder = None if form.labels is None else place / form.labels
    names = [*place.relative_to(root).parts, *([] if form.labels is None else [form.labels])]
    if layout.pseudo_labels and any(re.search(layout.pseudo_labels, n, re.IGNORECASE) for n in names):
        message = "the folder's name says that its labels are predictions; they are no reference"
        discovery.findings.append(LayoutFinding("SB330", "error", message, file=inside(place, root)))
        return
    first, *others = folders
    by_stem = {channel: volumes_in(folder) for channel, folder in folders.items()}
    labels = {} if labels_folder is None else volumes_in(labels_folder)
    used: set[str] = set()
    strangers: dict[str, Path] = {}
    cases: list[CaseFiles] = []
    for stem, found in by_stem[first].items():
        match = re.fullmatch(layout.case_pattern, stem)
        if match is None or not is_safe_case(match["case"]):
            strangers[stem] = found[0]
            continue
        fields = {name: value for name, value in match.groupdict().items() if value is not None}
        label_stem = form.label_name.format(**fields)
        rest = {channel: by_stem[channel].get(stem) for channel in others}
        _ambiguous(discovery, fields["case"], [found, *filter(None, rest.values())], root)
        missing = tuple(inside(folders[c] / found[0].name, root) for c, files in rest.items() if not files)
        for name in missing:
            message = "a channel is absent"
            discovery.findings.append(
                LayoutFinding("SB303", "error", message, case=fields["case"], file=name)
            )
        reference = labels.get(label_stem)
        if reference:
            used.add(label_stem)
            _ambiguous(discovery, fields["case"], [reference], root)
        group = card.patient.group
        files = CaseFiles(
            case=fields["case"],
            patient=fields.get(group, fields["case"]) if isinstance(group, str) else fields["case"],
            timepoint=fields.get("timepoint"),
            images={first: found[0], **{c: files[0] for c, files in rest.items() if files}},
            references=reference[0] if reference else None,
            form=form.name,
            missing=missing,
        )
        discovery.add(files, root)
        cases.append(files)
    missing_references(discovery, [(inside(folders[first], root), cases)])
    if labels_folder is not None and not labels:
        _mislaid_labels(discovery, cases, labels_folder, list(folders.values()), root)
    if _is_shared(form):
        strangers = {stem: path for stem, path in strangers.items() if stem not in used}
    else:
        for stem in sorted(set(labels) - used):
            message = "a label without its image"
            file = inside(labels[stem][0], root)
            discovery.findings.append(LayoutFinding("SB304", "error", message, case=stem, file=file))
    for stem, path in strangers.items():
        _stray(discovery, path, root, stem)


def _mislaid_labels(
    discovery: Discovery, cases: list[CaseFiles], labels: Path, images: list[Path], root: Path
) -> None:
    """Point at a folder beside the images that holds files of the same names: labels under another name?"""
    ids = {files.case for files in cases}
    for folder in entries(labels.parent):
        if folder.is_dir() and folder not in {labels, *images} and ids & set(volumes_in(folder)):
            message = f"no reference is read, but {folder.name} holds files of the same names"
            expected = f"labels in {labels.name}"
            discovery.findings.append(
                LayoutFinding("SB303", "warning", message, file=inside(folder, root), expected=expected)
            )


def _stray(discovery: Discovery, path: Path, root: Path, stem: str) -> None:
    safe = is_safe_case(stem)
    message = "a file that the case pattern does not know" if safe else f"unsafe case id {stem!r}"
    file = inside(path, root)
    discovery.findings.append(LayoutFinding("SB304" if safe else "SB339", "error", message, file=file))


def _ambiguous(discovery: Discovery, case: str, groups: list[list[Path]], root: Path) -> None:
    for files in groups:
        if len(files) > 1:
            names = " and ".join(path.name for path in files)
            message = f"{names}: which one is meant?"
            file = inside(files[0], root)
            discovery.findings.append(LayoutFinding("SB306", "error", message, case=case, file=file))
