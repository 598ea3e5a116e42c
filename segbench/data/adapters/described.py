"""Folders with a `dataset.json`: MSD's lists the files (channels in one 4D file), nnU-Net's says their names.

Where nnU-Net's file lists no files, its names are templates like any other, and the tree reads them.

Source: MIC-DKFZ/nnUNet documentation/dataset_format.md, region_based_training.md, ignore_label.md.
"""

from __future__ import annotations

import re
from pathlib import Path

from segbench.cards.dataset_card import DatasetCard
from segbench.cards.layout import Form, Layout
from segbench.core.errors import SegbenchError
from segbench.core.names import is_safe_case
from segbench.data.adapters.base import (
    CaseFiles,
    Discovery,
    entries,
    inside,
    named,
    stem_of,
    whose,
    wrapped,
)
from segbench.data.adapters.dataset_json import DatasetJson, Entry, read_dataset_json
from segbench.data.adapters.tree import Tree
from segbench.volumes import stem_and_ending

FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")


def discover(card: DatasetCard, layout: Layout, root: Path) -> Discovery:
    """The cases of the folder that holds `dataset.json`; listed but absent is SB303, surplus SB304.

    Raises:
        SegbenchError: SB302 without a dataset.json of the layout's format, SB331 when it breaks the format,
            or when its channels or labels are not the card's.
    """
    msd = layout.adapter == "msd"
    folder = next((f for f in wrapped(root, 1) if (f / "dataset.json").is_file()), None)
    if folder is None:
        expected = "a dataset in the layout of MSD" if msd else "a raw dataset of nnU-Net v2"
        raise SegbenchError("SB302", "no dataset.json", path=root, expected=expected)
    file = folder / "dataset.json"
    description = read_dataset_json(file)
    if description.kind != layout.adapter:
        raise _other_format(file, msd=msd)
    discovery = Discovery(root, announced=description.announced)
    for fault in description.faults:
        discovery.tell("SB331", fault, file)
    if msd:
        _compare_labels(card, description, file, discovery)
        lists = _Lists(card, layout, folder, discovery)
        lists.read(description, _stacked(card, description, file))
        lists.tell_unlisted()
    else:
        if len(description.channels) != len(card.channels.order):
            raise _other_channels(card, description, file)
        _nnunet(card, layout, folder, discovery, description)
    return discovery


def channel_name(text: str) -> str:
    """A channel's name as a card may spell it: other characters than letters, digits and _.+- become _."""
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "_", text.strip()).strip("_")
    return name if name and name[0].isalnum() else f"c{name}"


def _other_format(file: Path, *, msd: bool) -> SegbenchError:
    if msd:
        return SegbenchError("SB302", "this is nnU-Net's dataset.json, not MSD's", path=file)
    return SegbenchError(
        "SB302",
        "this dataset.json has the keys of MSD and nnU-Net v1 (modality, labels by index)",
        path=file,
        expected="nnU-Net v2: channel_names, labels by name, file_ending",
    )


def _other_channels(card: DatasetCard, description: DatasetJson, file: Path) -> SegbenchError:
    return SegbenchError(
        "SB331",
        f"the channels of dataset.json are not those of the card {card.slug}",
        path=file,
        expected=", ".join(card.channels.order),
        found=", ".join(description.channels),
    )


def _compare_labels(card: DatasetCard, description: DatasetJson, file: Path, discovery: Discovery) -> None:
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
        ours = card.labels[value]
        if name.strip().casefold() != ours.strip().casefold():
            message = f"label {value} is called {name!r} here and {ours!r} in the card"
            discovery.tell("SB331", message, file, severity="warning", expected=ours, found=name)


def _stacked(card: DatasetCard, description: DatasetJson, file: Path) -> tuple[str, ...]:
    """The card's channel names in the order of the files' last axis."""
    ours = {name.casefold(): name for name in card.channels.order}
    if len(description.channels) == len(ours) == 1:
        return card.channels.order
    names = [ours.get(channel_name(name).casefold()) for name in description.channels]
    known = [name for name in names if name is not None]
    if len(known) != len(names) or sorted(known) != sorted(card.channels.order):
        raise _other_channels(card, description, file)
    return tuple(known)


class _Lists:
    """Reads the cases that a `dataset.json` lists file by file."""

    def __init__(self, card: DatasetCard, layout: Layout, folder: Path, discovery: Discovery) -> None:
        self.card, self.layout, self.folder, self.discovery = card, layout, folder, discovery
        self.listing = discovery.listing
        self.listed: set[Path] = set()

    def read(self, description: DatasetJson, stacked: tuple[str, ...] = ()) -> None:
        training = description.training or ()
        for index, entry in enumerate((*training, *description.unlabelled)):
            files = self._case(entry, stacked if len(stacked) > 1 else ())
            if files is not None:
                self.discovery.add(files)
                if index < len(training):
                    self.discovery.in_training.add(files.case)

    def tell_unlisted(self) -> None:
        for name in FOLDERS:
            self.discovery.tell_masks(self.folder / name, self.discovery.cases)
            for path in entries(self.folder / name):
                parts = stem_and_ending(path.name)
                if parts is not None and path not in self.listed:
                    self.discovery.tell("SB304", "not listed in dataset.json", path, case=parts[0])

    def _case(self, entry: Entry, stacked: tuple[str, ...]) -> CaseFiles | None:
        name = Path(entry.images[0]).name
        match = re.fullmatch(self.layout.case_pattern, entry.case or stem_of(name))
        if match is None or not is_safe_case(match["case"]) or not (entry.case or stem_and_ending(name)):
            self.discovery.tell_unsafe(entry.case or name, self.folder / entry.images[0])
            return None
        case, missing = match["case"], list[str]()
        order = stacked or self.card.channels.order
        form, images = "nnunet-v1", self._channel_files(entry.images[0], order)
        if entry.case is not None:
            form, files = "nnunet", [self._present(image, "image", case, missing) for image in entry.images]
            images = {channel: path for channel, path in zip(order, files, strict=False) if path is not None}
            for path in filter(None, files[len(order) :]):
                message = f"dataset.json declares {len(order)} channel{'s' * (len(order) > 1)}"
                self.discovery.tell("SB304", message, path, case=case)
        elif images:
            for index, channel in enumerate(order):
                if channel not in images:
                    missing.append(f"{case}_{index:04d}")
                    self.discovery.tell("SB303", f"channel {channel} is absent", missing[-1], case=case)
        else:
            image = self._present(entry.images[0], "image", case, missing)
            images = {} if image is None else dict.fromkeys(self.card.channels.order, image)
            form = "msd"
        label = None if entry.label is None else self._present(entry.label, "label", case, missing)
        if not images and label is None:
            return None  # nothing of the case is here; the findings name the files
        stacked, whom = stacked if form == "msd" else (), whose(self.card, case, named(match))
        return CaseFiles(case, *whom, images, label, form, stacked=stacked, missing=tuple(missing))

    def _channel_files(self, image: str, order: tuple[str, ...]) -> dict[str, Path]:
        """One file per channel, `<case>_0000.nii.gz`: nnU-Net v1 took MSD's dataset.json, not its 4D."""
        if self.listing.with_any_ending(self.folder, image):
            return {}
        stem, ending = stem_and_ending(image) or (image, "")
        found: dict[str, Path] = {}
        for index, channel in enumerate(order):
            path = next(iter(self.listing.with_any_ending(self.folder, f"{stem}_{index:04d}{ending}")), None)
            if path is not None:
                found[channel] = path
        self.listed.update(found.values())
        return found

    def _present(self, name: str, what: str, case: str, missing: list[str]) -> Path | None:
        path = next(iter(self.listing.with_any_ending(self.folder, name)), None)
        if path is None:
            missing.append(inside(self.folder / name, self.discovery.root))
            folder, stem = self.folder / Path(name).parent, stem_of(Path(name).name)
            masks = stem in self.listing.folders(folder)  # told of once for all
            if not masks and not self.discovery.tell_other_formats({folder: {stem}}):
                message = f"listed in dataset.json, but the {what} is absent"
                self.discovery.tell("SB303", message, missing[-1], case=case)
        else:
            self.listed.add(path)
        return path


def _nnunet(
    card: DatasetCard, layout: Layout, folder: Path, discovery: Discovery, description: DatasetJson
) -> None:
    """`imagesTr/{case}_{XXXX}{ending}`, `labelsTr/{case}{ending}`, the same of Ts, or the files listed."""
    parts = ("Tr", "Ts") if description.training is None else ("Ts",)
    order = list(enumerate(card.channels.order))
    forms = tuple(
        Form(
            name="nnunet",
            images={name: f"images{part}/{{case}}_{i:04d}{description.ending}" for i, name in order},
            labels=f"labels{part}/{{case}}{description.ending}",
        )
        for part in parts
    )
    _Lists(card, layout, folder, discovery).read(description)
    Tree(card, layout.model_copy(update={"form": forms}), discovery, description.ending).read(folder)
    if description.training is None:
        training = folder / "imagesTr"
        cases = discovery.cases.values()
        discovery.in_training |= {
            f.case for f in cases if any(p.parent == training for p in f.images.values())
        }
