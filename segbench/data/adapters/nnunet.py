"""nnU-Net v2 raw: `imagesTr/{case}_{XXXX}{ending}`, `labelsTr/{case}{ending}`, and what `dataset` lists.

Source: MIC-DKFZ/nnUNet documentation/dataset_format.md, region_based_training.md, ignore_label.md.
"""

from __future__ import annotations

import re
from pathlib import Path

from segbench.cards.dataset_card import DatasetCard
from segbench.cards.layout import NnunetLayout
from segbench.core.errors import SegbenchError
from segbench.data.adapters.base import (
    CaseFiles,
    Discovery,
    LayoutFinding,
    entries,
    inside,
    is_safe_case,
    missing_references,
    wrapped,
)
from segbench.data.adapters.dataset_json import DatasetJson, read_dataset_json
from segbench.volumes import stem_and_ending


def discover(card: DatasetCard, layout: NnunetLayout, root: Path) -> Discovery:
    """The cases of `imagesTr` with `labelsTr`, of `imagesTs` with `labelsTs` where that exists, or as listed.

    Raises:
        SegbenchError: SB302 without a dataset.json of this format, SB331 when it breaks the format.
    """
    folder = next((f for f in wrapped(root, 1) if (f / "dataset.json").is_file()), None)
    if folder is None:
        raise SegbenchError("SB302", "no dataset.json", path=root, expected="a raw dataset of nnU-Net v2")
    file = folder / "dataset.json"
    description = read_dataset_json(file)
    if description.kind != "nnunet":
        raise SegbenchError(
            "SB302",
            "this dataset.json has the keys of MSD and nnU-Net v1 (modality, labels by index)",
            path=file,
            expected="nnU-Net v2: channel_names, labels by name, file_ending",
        )
    if len(description.channels) != len(card.channels.order):
        raise SegbenchError(
            "SB331",
            f"the channels of dataset.json are not those of the card {card.slug}",
            path=file,
            expected=", ".join(card.channels.order),
            found=", ".join(description.channels),
        )
    discovery = Discovery(announced=description.announced)
    place = inside(file, root)
    discovery.findings += [LayoutFinding("SB331", "error", fault, file=place) for fault in description.faults]
    if description.training is not None:
        _listed(card, layout, folder, description, discovery, root)
    else:
        _folder(card, layout, folder, "Tr", description.ending, discovery, root)
    _folder(card, layout, folder, "Ts", description.ending, discovery, root)
    return discovery


def _folder(
    card: DatasetCard,
    layout: NnunetLayout,
    folder: Path,
    part: str,
    ending: str,
    discovery: Discovery,
    root: Path,
) -> None:
    images: dict[str, dict[int, Path]] = {}
    for path in entries(folder / f"images{part}"):
        match = re.fullmatch(rf"(.+)_(\d{{4}}){re.escape(ending)}", path.name)
        if match:
            images.setdefault(match[1], {})[int(match[2])] = path
        elif stem_and_ending(path.name):
            message = f"not named case_XXXX{ending}"
            discovery.findings.append(LayoutFinding("SB304", "error", message, file=inside(path, root)))
    labels: dict[str, Path] = {}
    for path in entries(folder / f"labels{part}"):
        if path.name.endswith(ending):
            labels[path.name[: -len(ending)]] = path
        elif stem_and_ending(path.name):
            message = f"not named case{ending}"
            discovery.findings.append(LayoutFinding("SB304", "error", message, file=inside(path, root)))
    cases: list[CaseFiles] = []
    for case, channels in images.items():
        files = _case(card, layout, case, channels, labels.pop(case, None), discovery, root)
        if files is not None:
            discovery.add(files, root)
            cases.append(files)
            if part == "Tr":
                discovery.in_training.add(case)
    missing_references(discovery, [(f"images{part}", cases)])
    for case, path in sorted(labels.items()):
        message = "a label without its image"
        discovery.findings.append(
            LayoutFinding("SB304", "error", message, case=case, file=inside(path, root))
        )


def _listed(
    card: DatasetCard,
    layout: NnunetLayout,
    folder: Path,
    description: DatasetJson,
    discovery: Discovery,
    root: Path,
) -> None:
    for entry in description.training or ():
        assert entry.case is not None and entry.label is not None
        channels = {index: folder / name for index, name in enumerate(entry.images)}
        absent = [p for p in (*channels.values(), folder / entry.label) if not p.exists()]
        for path in absent:
            message = "listed in dataset.json, but absent"
            discovery.findings.append(
                LayoutFinding("SB303", "error", message, case=entry.case, file=inside(path, root))
            )
        present = {index: path for index, path in channels.items() if path not in absent}
        label = folder / entry.label
        files = _case(
            card, layout, entry.case, present, None if label in absent else label, discovery, root, told=True
        )
        if files is not None and files.files:
            discovery.add(files, root)
            discovery.in_training.add(entry.case)


def _case(
    card: DatasetCard,
    layout: NnunetLayout,
    case: str,
    channels: dict[int, Path],
    label: Path | None,
    discovery: Discovery,
    root: Path,
    *,
    told: bool = False,
) -> CaseFiles | None:
    match = re.fullmatch(layout.case_pattern, case)
    if match is None or not is_safe_case(case):
        message = f"unsafe case id {case!r}"
        file = inside(next(iter(channels.values())), root) if channels else None
        discovery.findings.append(LayoutFinding("SB339", "error", message, file=file))
        return None
    order = card.channels.order
    missing = [f"{case}_{index:04d}" for index in range(len(order)) if index not in channels]
    for name in missing if not told else ():
        message = f"channel {order[int(name[-4:])]} is absent"
        discovery.findings.append(LayoutFinding("SB303", "error", message, case=case, file=name))
    for index in sorted(set(channels) - set(range(len(order)))):
        message = f"dataset.json declares {len(order)} channel{'s' * (len(order) > 1)}"
        file = inside(channels[index], root)
        discovery.findings.append(LayoutFinding("SB304", "error", message, case=case, file=file))
    group = card.patient.group
    fields = {name: value for name, value in match.groupdict().items() if value is not None}
    return CaseFiles(
        case=case,
        patient=fields.get(group, case) if isinstance(group, str) else case,
        timepoint=fields.get("timepoint"),
        images={order[index]: channels[index] for index in range(len(order)) if index in channels},
        references=label,
        form="nnunet",
        missing=tuple(missing),
    )
