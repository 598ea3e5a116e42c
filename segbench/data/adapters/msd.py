"""Medical Segmentation Decathlon: `dataset.json` lists the files, several channels are one 4D file."""

from __future__ import annotations

import re
from pathlib import Path

from segbench.cards.dataset_card import DatasetCard
from segbench.cards.layout import MsdLayout
from segbench.core.errors import SegbenchError
from segbench.data.adapters.base import (
    CaseFiles,
    Discovery,
    LayoutFinding,
    Listing,
    entries,
    inside,
    is_safe_case,
    wrapped,
)
from segbench.data.adapters.dataset_json import DatasetJson, Entry, read_dataset_json
from segbench.volumes import stem_and_ending

FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")


def discover(card: DatasetCard, layout: MsdLayout, root: Path) -> Discovery:
    """The cases that the folder's `dataset.json` lists; listed but absent is SB303, unlisted SB304.

    Raises:
        SegbenchError: SB302 without a dataset.json of this format, SB331 when it breaks the format, or when
            its channels or labels are not the card's.
    """
    folder = next((f for f in wrapped(root, 1) if (f / "dataset.json").is_file()), None)
    if folder is None:
        raise SegbenchError("SB302", "no dataset.json", path=root, expected="a dataset in the layout of MSD")
    file = folder / "dataset.json"
    description = read_dataset_json(file)
    if description.kind != "msd":
        raise SegbenchError("SB302", "this is nnU-Net's dataset.json, not MSD's", path=file)
    discovery = Discovery(announced=description.announced)
    place = inside(file, root)
    discovery.findings += [LayoutFinding("SB331", "error", fault, file=place) for fault in description.faults]
    _compare_labels(card, description, file, discovery, place)
    stacked = _stacked(card, description, file)
    listed: set[Path] = set()
    listing = Listing()
    training = description.training or ()
    for index, entry in enumerate((*training, *description.unlabelled)):
        files = _case(card, layout, folder, entry, stacked, discovery, root, listing, listed)
        if files is not None:
            discovery.add(files, root)
            if index < len(training):
                discovery.in_training.add(files.case)
    if not discovery.in_training:
        _say_if_nnunet_v1(folder, description)
    _unlisted(folder, listed, discovery, root)
    return discovery


def _compare_labels(
    card: DatasetCard, description: DatasetJson, file: Path, discovery: Discovery, place: str
) -> None:
    if set(description.labels) != set(card.labels):
        raise SegbenchError(
            "SB331",
            f"the labels of dataset.json are not those of the card {card.slug}",
            path=file,
            expected=", ".join(map(str, sorted(card.labels))),
            found=", ".join(map(str, sorted(description.labels))),
            mend="use a copy of the card with these labels (--cards), or the folder itself as the dataset",
        )
    for value, name in description.labels.items():
        if name.strip().casefold() != card.labels[value].strip().casefold():
            message = f"label {value} is called {name!r} here and {card.labels[value]!r} in the card"
            discovery.findings.append(
                LayoutFinding(
                    "SB331", "warning", message, file=place, expected=card.labels[value], found=name
                )
            )


def _stacked(card: DatasetCard, description: DatasetJson, file: Path) -> tuple[str, ...]:
    """The card's channel names in the order of the files' last axis."""
    ours = {name.casefold(): name for name in card.channels.order}
    if len(description.channels) == len(ours) == 1:
        return card.channels.order
    names = [ours.get(channel_name(name).casefold()) for name in description.channels]
    known = [name for name in names if name is not None]
    if len(known) != len(names) or sorted(known) != sorted(card.channels.order):
        raise SegbenchError(
            "SB331",
            f"the channels of dataset.json are not those of the card {card.slug}",
            path=file,
            expected=", ".join(card.channels.order),
            found=", ".join(description.channels),
        )
    return tuple(known)


def channel_name(text: str) -> str:
    """A channel's name as a card may spell it: other characters than letters, digits and _.+- become _."""
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "_", text.strip()).strip("_")
    return name if name and name[0].isalnum() else f"c{name}"


def _case(
    card: DatasetCard,
    layout: MsdLayout,
    folder: Path,
    entry: Entry,
    stacked: tuple[str, ...],
    discovery: Discovery,
    root: Path,
    listing: Listing,
    listed: set[Path],
) -> CaseFiles | None:
    image_name = entry.images[0]
    parts = stem_and_ending(Path(image_name).name)
    match = re.fullmatch(layout.case_pattern, parts[0]) if parts else None
    place = inside(folder / image_name, root)
    if parts is None or match is None or not is_safe_case(match["case"]):
        message = f"unsafe case id {Path(image_name).name!r}"
        discovery.findings.append(LayoutFinding("SB339", "error", message, file=place))
        return None
    case = match["case"]
    image = next(iter(listing.with_any_ending(folder, image_name)), None)
    label = None
    if entry.label is not None:
        label = next(iter(listing.with_any_ending(folder, entry.label)), None)
    missing: list[str] = []
    for path, name, what in ((image, image_name, "image"), (label, entry.label, "label")):
        if name is None:
            continue
        if path is None:
            file = inside(folder / name, root)
            missing.append(file)
            message = f"listed in dataset.json, but the {what} is absent"
            discovery.findings.append(LayoutFinding("SB303", "error", message, case=case, file=file))
        else:
            listed.add(path)
    if image is None and label is None:
        return None  # nothing of the case is here; the findings name both files
    fields = {name: value for name, value in match.groupdict().items() if value is not None}
    group = card.patient.group
    return CaseFiles(
        case=case,
        patient=fields.get(group, case) if isinstance(group, str) else case,
        timepoint=fields.get("timepoint"),
        images={} if image is None else dict.fromkeys(card.channels.order, image),
        references=label,
        form="msd",
        stacked=stacked if len(stacked) > 1 else (),
        missing=tuple(missing),
    )


def _unlisted(folder: Path, listed: set[Path], discovery: Discovery, root: Path) -> None:
    for name in FOLDERS:
        for path in entries(folder / name):
            parts = stem_and_ending(path.name)
            if parts is not None and path not in listed:
                message = "not listed in dataset.json"
                discovery.findings.append(
                    LayoutFinding("SB304", "error", message, case=parts[0], file=inside(path, root))
                )


def _say_if_nnunet_v1(folder: Path, description: DatasetJson) -> None:
    """nnU-Net v1 took MSD's dataset.json but one file per channel: say so instead of missing every file."""
    first = next(iter(description.training or ()), None)
    parts = stem_and_ending(first.images[0]) if first else None
    if parts is not None and (folder / f"{parts[0]}_0000{parts[1]}").exists():
        raise SegbenchError(
            "SB302",
            "this is the raw format of nnU-Net v1 (modality, labels by index, one file per channel)",
            path=folder / "dataset.json",
            mend="convert it with nnUNetv2_convert_old_nnUNet_dataset, then open the result",
        )
