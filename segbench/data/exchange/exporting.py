"""Export of a split to nnU-Net v2 raw or to MSD, so that other tools train on exactly the same cases.

Voxel values, type and affine of the images stay as they are: a file that is right already is copied or
linked. Label maps are written anew: consecutive values, uint8, a header in which nothing personal travels.

Source: MIC-DKFZ/nnUNet documentation/dataset_format.md, region_based_training.md, ignore_label.md.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from segbench.cards.dataset_card import DatasetCard
from segbench.core.atomic import atomic_folder, atomic_write
from segbench.core.console import progress
from segbench.core.errors import SegbenchError
from segbench.data.adapters import CaseFiles
from segbench.data.dataset import Dataset
from segbench.data.exchange.label_map import LabelMap
from segbench.data.grids import on_grid_of
from segbench.data.scan_file import write_scan
from segbench.data.splits import Split, load_split, to_nnunet
from segbench.volumes import read_header, read_volume, write_label_map
from segbench.volumes.geometry import canonical_orientation

Format = Literal["nnunet", "msd"]
ENDING = ".nii.gz"
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export wrote.

    Attributes:
        root: The dataset's folder (`DatasetNNN_Name` or `TaskNN_Name`).
        training: Number of cases in imagesTr.
        test: Number of cases in imagesTs, with labels in labelsTs.
        folds: Number of folds in splits_final.json, 0 when none was written.
        identity: Whether label values are the dataset's own.
        left_out: Labelled cases that the split leaves out.
    """

    root: Path
    training: int
    test: int
    folds: int
    identity: bool
    left_out: tuple[str, ...]


def export_dataset(
    dataset: Dataset,
    output: Path | str,
    *,
    format: Format = "nnunet",
    number: int | None = None,
    split: str | Path | None = None,
    link: bool = False,
) -> ExportReport:
    """Write the cases of a split as a dataset of another tool, whole or not at all.

    Args:
        dataset: The opened dataset.
        output: The folder that receives `DatasetNNN_Name` (nnU-Net: `nnUNet_raw`) or `TaskNN_Name`.
        format: "nnunet" or "msd".
        number: NNN or NN; 500 (nnU-Net) or 99 (MSD) by default.
        split: Name or file; the card's default otherwise. Test cases go to imagesTs and labelsTs.
        link: Hard-link files that are already right instead of copying them (same file system only).

    Raises:
        SegbenchError: SB337 if the dataset's folder exists and is not empty, SB104 for a number that cannot
            be, and whatever reading a case or the split refuses.
    """
    if format not in ("nnunet", "msd"):
        raise SegbenchError("SB104", f"no format called {format!r}", expected="nnunet, msd", found=format)
    splits = load_split(split, dataset)
    root = Path(output) / _folder_name(dataset.card, format, number)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        mend = "name another folder or --id"
        raise SegbenchError("SB337", f"{root} exists and is not empty", path=root, mend=mend)
    test = splits[0].test
    used = {case for fold in splits for case in (*fold.train, *fold.validation)}
    training = tuple(sorted(used - set(test)))
    mapping = LabelMap.consecutive(dataset.card) if format == "nnunet" else LabelMap.unchanged(dataset.card)
    write = _write_nnunet if format == "nnunet" else _write_msd
    with (
        atomic_folder(root) as folder,
        progress(f"exporting to {root.name}", len(training) + len(test)) as bar,
    ):
        for part, cases in (("Tr", training), ("Ts", test)):
            for case in cases:
                files = dataset.case(case)
                image = read_header(next(iter(files.images.values())), allow_channels=True)
                reference = on_grid_of(image, dataset.read_reference(case), case=case)
                labels = mapping.exported(reference.array)
                write_label_map(folder / f"labels{part}" / f"{case}{ENDING}", labels, reference)
                write(dataset, files, folder / f"images{part}", link)
                bar.advance()
        describe = _nnunet_json if format == "nnunet" else _msd_json
        # Not sorted: nnU-Net reads regions_class_order in the order of the labels.
        text = json.dumps(describe(dataset, mapping, training, test), indent=2, ensure_ascii=False)
        atomic_write(folder / "dataset.json", text + "\n")
        mapping.write(folder, dataset.card)
        folds = _write_folds(splits, folder)
    left_out = tuple(case for case in dataset.case_ids if case not in used and case not in set(test))
    return ExportReport(root, len(training), len(test), folds, mapping.is_identity, left_out)


def _folder_name(card: DatasetCard, format: Format, number: int | None) -> str:
    highest = 999 if format == "nnunet" else 99
    chosen = {"nnunet": 500, "msd": 99}[format] if number is None else number
    if not 1 <= chosen <= highest:
        raise SegbenchError("SB104", f"--id {chosen} is not valid", expected=f"1 to {highest}", found=chosen)
    name = "".join(part[:1].upper() + part[1:] for part in re.split(r"[^A-Za-z0-9]+", card.slug))
    return f"Dataset{chosen:03d}_{name}" if format == "nnunet" else f"Task{chosen:02d}_{name}"


def _write_folds(splits: Sequence[Split], folder: Path) -> int:
    """splits_final.json, unless a fold has no validation cases: nnU-Net cannot train on such a file."""
    if any(not split.validation for split in splits):
        return 0
    to_nnunet(splits, folder / "splits_final.json")
    return len(splits)


def _write_nnunet(dataset: Dataset, files: CaseFiles, folder: Path, link: bool) -> None:
    """One file per channel, `{case}_{XXXX}.nii.gz`."""
    for index, channel in enumerate(dataset.card.channels.order):
        target = folder / f"{files.case}_{index:04d}{ENDING}"
        path = files.images[channel]
        if files.stacked:
            volume = read_volume(path, max_bytes=dataset.max_bytes, allow_channels=True, raw=True)
            position = files.stacked.index(channel)
            write_scan(target, np.ascontiguousarray(volume.array[position]), volume.affine, like=volume)
        else:
            _take(dataset, path, target, link)


def _write_msd(dataset: Dataset, files: CaseFiles, folder: Path, link: bool) -> None:
    """One file per case, its channels along the last axis in the card's order."""
    order = dataset.card.channels.order
    target = folder / f"{files.case}{ENDING}"
    if len(order) == 1 or files.stacked == order:
        _take(dataset, files.images[order[0]], target, link)
        return
    if files.stacked:
        path = files.images[order[0]]
        volume = read_volume(path, max_bytes=dataset.max_bytes, allow_channels=True, raw=True)
        array = volume.array[[files.stacked.index(channel) for channel in order]]
    else:
        dataset.read_image(files.case)  # refuses channels that do not lie on one grid
        volumes = [read_volume(files.images[c], max_bytes=dataset.max_bytes, raw=True) for c in order]
        volume, array = volumes[0], np.stack([v.array for v in volumes])
    write_scan(target, np.ascontiguousarray(array), volume.affine, like=volume)


def _take(dataset: Dataset, path: Path, target: Path, link: bool) -> None:
    """The file as it is: linked, copied, or only compressed; other formats are written as NIfTI."""
    target.parent.mkdir(parents=True, exist_ok=True)
    name = path.name.lower()
    if name.endswith(".nii.gz"):
        if link:
            try:
                os.link(path.resolve(), target)
                return
            except OSError:  # another file system, or one without hard links
                pass
        with path.open("rb") as source:
            atomic_write(target, lambda stream: shutil.copyfileobj(source, stream))
    elif name.endswith(".nii"):
        with path.open("rb") as source:
            atomic_write(target, lambda stream: _compress(source, stream))
    else:
        volume = read_volume(path, max_bytes=dataset.max_bytes, raw=True)
        write_scan(target, volume.array, volume.affine, like=volume)


def _compress(source: BinaryIO, stream: BinaryIO) -> None:
    deflate = zlib.compressobj(6, zlib.DEFLATED, 31)
    while block := source.read(_BLOCK):
        stream.write(deflate.compress(block))
    stream.write(deflate.flush())


def _nnunet_json(
    dataset: Dataset, mapping: LabelMap, training: Sequence[str], test: Sequence[str]
) -> dict[str, Any]:
    card = dataset.card
    labels, order = nnunet_labels(mapping)
    document: dict[str, Any] = {
        **_about(card),
        "channel_names": {str(index): name for index, name in enumerate(card.channels.order)},
        "labels": labels,
        "numTraining": len(training),
        "file_ending": ENDING,
    }
    if order is not None:
        document["regions_class_order"] = order
    if _orientations_differ(dataset, (*training, *test)):
        # Patches of mixed axis order would be mixed data; this reader brings all to one order and back.
        document["overwrite_image_reader_writer"] = "NibabelIOWithReorient"
    return document


def _about(card: DatasetCard) -> dict[str, str]:
    known = card.availability
    texts = card.slug, card.title, known.citation, known.licence
    return dict(zip(("name", "description", "reference", "licence"), texts, strict=True))


def nnunet_labels(mapping: LabelMap) -> tuple[dict[str, int | list[int]], list[int] | None]:
    """nnU-Net's `labels`, and `regions_class_order` when they are regions.

    Where every label has a region of its own the labels are plain numbers (softmax training; unions are kept
    in segbench_label_map.json). Otherwise the regions themselves are trained, larger ones first, each writing
    the value that no smaller region inside it writes.
    """
    single = {next(iter(members)): name for name, members in mapping.regions.items() if len(members) == 1}
    foreground = [v for v in mapping.to_source if v not in (0, mapping.ignore)]
    labels: dict[str, int | list[int]] = {"background": 0}
    order: list[int] | None = None
    if all(value in single for value in foreground):
        labels |= {single[value]: value for value in foreground}
    else:
        regions = sorted(mapping.regions.items(), key=lambda item: -len(item[1]))
        order = []
        for index, (name, members) in enumerate(regions):
            labels[name] = list(members) if len(members) > 1 else next(iter(members))
            later = {value for _, others in regions[index + 1 :] for value in others}
            order.append(next((value for value in members if value not in later), min(members)))
    if mapping.ignore is not None:
        labels["ignore"] = mapping.ignore
    return labels, order


def _orientations_differ(dataset: Dataset, cases: Sequence[str]) -> bool:
    found = {
        canonical_orientation(read_header(next(iter(dataset.case(case).images.values()))).affine)
        for case in cases
    }
    return len(found) > 1


def _msd_json(
    dataset: Dataset, mapping: LabelMap, training: Sequence[str], test: Sequence[str]
) -> dict[str, Any]:
    card = dataset.card

    def entries(cases: Sequence[str], part: str) -> list[dict[str, str]]:
        return [
            {"image": f"./images{part}/{case}{ENDING}", "label": f"./labels{part}/{case}{ENDING}"}
            for case in cases
        ]

    return {
        **_about(card),
        "release": "1.0",
        "tensorImageSize": "4D" if len(card.channels.order) > 1 else "3D",
        "modality": {str(index): name for index, name in enumerate(card.channels.order)},
        "labels": {str(value): name for value, name in mapping.labels.items()},
        "numTraining": len(training),
        "numTest": len(test),
        "training": entries(training, "Tr"),
        "test": entries(test, "Ts"),
    }
