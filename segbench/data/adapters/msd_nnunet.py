"""Folders with a `dataset.json`: MSD's lists the files (channels in one 4D file), nnU-Net's says their names.

Source: MIC-DKFZ/nnUNet documentation/dataset_format.md, region_based_training.md, ignore_label.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from segbench.cards.dataset_card import DatasetCard
from segbench.cards.layout import MsdLayout, NnunetLayout
from segbench.core.errors import SegbenchError
from segbench.core.names import is_safe_case
from segbench.data.adapters.base import (
    CaseFiles,
    Discovery,
    Listing,
    entries,
    inside,
    missing_references,
    named,
    whose,
    wrapped,
)
from segbench.data.adapters.dataset_json import DatasetJson, Entry, read_dataset_json
from segbench.volumes import stem_and_ending

FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")


def discover(card: DatasetCard, layout: MsdLayout | NnunetLayout, root: Path) -> Discovery:
    """The cases of the folder that holds `dataset.json`; listed but absent is SB303, surplus SB304.

    Raises:
        SegbenchError: SB302 without a dataset.json of the layout's format, SB331 when it breaks the format,
            or when its channels or labels are not the card's.
    """
    msd = isinstance(layout, MsdLayout)
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
        _Msd(card, layout, folder, discovery).read(description, _stacked(card, description, file))
    else:
        if len(description.channels) != len(card.channels.order):
            raise _other_channels(card, description, file)
        _Nnunet(card, layout, folder, discovery).read(description)
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


class _Msd:
    """Reads the cases that MSD's `dataset.json` lists."""

    def __init__(self, card: DatasetCard, layout: MsdLayout, folder: Path, discovery: Discovery) -> None:
        self.card, self.layout, self.folder, self.discovery = card, layout, folder, discovery
        self.listing = Listing()
        self.listed: set[Path] = set()

    def read(self, description: DatasetJson, stacked: tuple[str, ...]) -> None:
        training = description.training or ()
        for index, entry in enumerate((*training, *description.unlabelled)):
            files = self._case(entry, stacked if len(stacked) > 1 else ())
            if files is not None:
                self.discovery.add(files)
                if index < len(training):
                    self.discovery.in_training.add(files.case)
        for name in FOLDERS:
            self.discovery.tell_masks(self.folder / name, self.discovery.cases.__contains__)
            for path in entries(self.folder / name):
                parts = stem_and_ending(path.name)
                if parts is not None and path not in self.listed:
                    self.discovery.tell("SB304", "not listed in dataset.json", path, case=parts[0])

    def _case(self, entry: Entry, stacked: tuple[str, ...]) -> CaseFiles | None:
        name = Path(entry.images[0]).name
        parts = stem_and_ending(name)
        match = re.fullmatch(self.layout.case_pattern, parts[0]) if parts else None
        if match is None or not is_safe_case(match["case"]):
            self.discovery.tell_unsafe(name, self.folder / entry.images[0])
            return None
        case, missing = match["case"], list[str]()
        order = stacked or self.card.channels.order
        images, form = self._channel_files(entry.images[0], order), "nnunet-v1"
        if images:
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
            return None  # nothing of the case is here; the findings name both files
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
        if path is not None and path.is_dir():  # masks, told of once for all
            missing.append(inside(path, self.discovery.root))
            return None
        if path is None:
            missing.append(inside(self.folder / name, self.discovery.root))
            folder, file = (self.folder / name).parent, Path(name).name
            wanted = (stem_and_ending(file) or (file,))[0]
            if wanted in {stem for stem, _, _ in self.discovery.other_formats(folder).values()}:
                self.discovery.tell_other_formats(folder, read=(), wanted=wanted.__eq__)
            else:
                message = f"listed in dataset.json, but the {what} is absent"
                self.discovery.tell("SB303", message, missing[-1], case=case)
        else:
            self.listed.add(path)
        return path


class _Nnunet:
    """Reads `imagesTr/{case}_{XXXX}{ending}`, `labelsTr/{case}{ending}`, the same of Ts, or the listed."""

    def __init__(self, card: DatasetCard, layout: NnunetLayout, folder: Path, discovery: Discovery) -> None:
        self.card, self.layout, self.folder, self.discovery = card, layout, folder, discovery

    def read(self, description: DatasetJson) -> None:
        if description.training is None:
            self._part("Tr", description.ending)
        else:
            for entry in description.training:
                self._listed(entry)
        self._part("Ts", description.ending)

    def _part(self, part: str, ending: str) -> None:
        images: dict[str, dict[int, Path]] = {}
        image_folder, label_folder = self.folder / f"images{part}", self.folder / f"labels{part}"
        for stem, path in self._volumes(image_folder, ending, "case_XXXX"):
            match = re.fullmatch(r"(.+)_(\d{4})", stem)
            if match:
                images.setdefault(match[1], {})[int(match[2])] = path
            else:
                self.discovery.tell("SB304", f"not named case_XXXX{ending}", path)
        labels = dict(self._volumes(label_folder, ending, "case"))
        read = {f"{case}_{index:04d}" for case, channels in images.items() for index in channels}
        self.discovery.tell_other_formats(
            image_folder, read=read, wanted=lambda stem: re.fullmatch(r".+_\d{4}", stem) is not None
        )
        self.discovery.tell_other_formats(label_folder, read=labels, wanted=images.__contains__)
        cases: list[CaseFiles] = []
        for case, channels in images.items():
            files = self._case(case, channels, labels.pop(case, None))
            if files is not None:
                self.discovery.add(files)
                cases.append(files)
                if part == "Tr":
                    self.discovery.in_training.add(case)
        masks = self.discovery.tell_masks(label_folder, images.__contains__)
        unlabelled = [files for files in cases if files.case not in masks]
        missing_references(self.discovery, [(f"images{part}", unlabelled)])
        for case, path in sorted(labels.items()):
            self.discovery.tell("SB304", "a label without its image", path, case=case)

    def _volumes(self, folder: Path, ending: str, pattern: str) -> Iterator[tuple[str, Path]]:
        """(stem, file) of the files with dataset.json's ending, in small or capital letters."""
        for path in entries(folder):
            parts = stem_and_ending(path.name)
            if parts is not None and parts[1].lower() == ending:
                yield parts[0], path
            elif parts is not None:
                self.discovery.tell("SB304", f"not named {pattern}{ending}", path)

    def _listed(self, entry: Entry) -> None:
        assert entry.case is not None and entry.label is not None
        channels = {index: self.folder / name for index, name in enumerate(entry.images)}
        label = self.folder / entry.label
        absent = [path for path in (*channels.values(), label) if not path.exists()]
        for path in absent:
            self.discovery.tell("SB303", "listed in dataset.json, but absent", path, case=entry.case)
        present = {index: path for index, path in channels.items() if path not in absent}
        files = self._case(entry.case, present, None if label in absent else label, told=True)
        if files is not None and files.files:
            self.discovery.add(files)
            self.discovery.in_training.add(entry.case)

    def _case(
        self, case: str, channels: dict[int, Path], label: Path | None, *, told: bool = False
    ) -> CaseFiles | None:
        match = re.fullmatch(self.layout.case_pattern, case)
        if match is None or not is_safe_case(case):
            self.discovery.tell_unsafe(case, next(iter(channels.values()), None))
            return None
        order = self.card.channels.order
        missing = [f"{case}_{index:04d}" for index in range(len(order)) if index not in channels]
        for name in missing if not told else ():
            self.discovery.tell("SB303", f"channel {order[int(name[-4:])]} is absent", name, case=case)
        for index in sorted(set(channels) - set(range(len(order)))):
            message = f"dataset.json declares {len(order)} channel{'s' * (len(order) > 1)}"
            self.discovery.tell("SB304", message, channels[index], case=case)
        images = {name: channels[index] for index, name in enumerate(order) if index in channels}
        whom = whose(self.card, case, named(match))
        return CaseFiles(case, *whom, images, label, "nnunet", missing=tuple(missing))
