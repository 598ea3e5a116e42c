"""A dataset that is here: its cases, their files, their voxels. Reads only, never writes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segbench.cards.dataset_card import DatasetCard
from segbench.core.errors import SegbenchError, about_case
from segbench.core.foreign import parse_table
from segbench.core.text import count
from segbench.data.adapters import CaseFiles, Discovery
from segbench.data.finding import Finding, finding
from segbench.data.grids import on_grid_of
from segbench.volumes import Volume, read_header, read_label_map, read_volume
from segbench.volumes.header import VolumeHeader
from segbench.volumes.volume import DEFAULT_MAX_BYTES

MASK_VALUES = (0, 1, 255)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A card together with the folder that holds its data; opened by `segbench.data.open_dataset`.

    Attributes:
        card: What is known about the dataset.
        root: The folder that holds it.
        discovery: What the adapter found there.
        splits_folder: Where the card's split files lie, if anywhere.
        max_bytes: Largest volume that is read.
    """

    card: DatasetCard
    root: Path
    discovery: Discovery = field(repr=False)
    splits_folder: Path | None = None
    max_bytes: int = DEFAULT_MAX_BYTES

    @property
    def adapter(self) -> str:
        """The adapter that reads the tree."""
        return self.card.layout.adapter

    @cached_property
    def form(self) -> str:
        """The form of the layout that the cases have; "mixed" when there are several."""
        forms = {files.form for files in self.discovery.cases.values()}
        return forms.pop() if len(forms) == 1 else "mixed" if forms else ""

    @cached_property
    def case_ids(self) -> tuple[str, ...]:
        """Cases with all channels and a reference, in plain string order."""
        return tuple(c for c, f in self.discovery.cases.items() if f.references is not None and not f.missing)

    @cached_property
    def cases_without_reference(self) -> tuple[str, ...]:
        """Cases with all channels and no reference: validation and test sets as they are given out."""
        return tuple(c for c, f in self.discovery.cases.items() if f.references is None and not f.missing)

    @cached_property
    def layout_findings(self) -> tuple[Finding, ...]:
        """What is wrong with how the files lie: the adapter's findings and the count against the card."""
        return (*self.discovery.findings, *self._count_findings())

    @cached_property
    def stands_in(self) -> bool:
        """Whether a real card reads generated data here: shipped lists then name nobody."""
        return not self.card.is_phantom and self.is_generated

    @cached_property
    def is_generated(self) -> bool:
        """Whether the tree was written by `segbench data phantom` (MSD's phantoms lie one folder down)."""
        return any(self.root.glob("phantom.json")) or any(self.root.glob("Task99_*/phantom.json"))

    def case(self, case: str) -> CaseFiles:
        """The files of a case, also of one without a reference.

        Raises:
            SegbenchError: SB324 if the dataset has no such case.
        """
        files = self.discovery.cases.get(case)
        if files is None:
            raise SegbenchError(
                "SB324",
                f"{self.card.slug} has no case {case!r} here",
                path=self.root,
                expected=f"one of {count(len(self.discovery.cases), 'id')}"
                + "".join(f", such as {case}" for case in list(self.discovery.cases)[:1]),
            )
        return files

    def patient_of(self, case: str) -> str:
        """The patient a case belongs to: by the card's group, by its table, else the case itself.

        A case that is not here (a split file may name it) is told by its name alone. The rows of a table are
        of cases or, as in participants.tsv of BIDS, of the subjects that the pattern of the ids names.
        """
        files = self.discovery.cases.get(case)
        match = re.fullmatch(self.card.layout.case_pattern, case)
        told = match.groupdict() if match else {}
        group = self.card.patient.group
        if isinstance(group, str):
            return files.patient if files is not None else told.get(group) or case
        subject = told.get("subject") or told.get("patient")
        names = (case, *((subject, f"sub-{subject}") if subject else ()))
        return next((self._patients[name] for name in names if name in self._patients), case)

    def read_image(self, case: str) -> Volume:
        """The image of a case on its stored grid: (C, z, y, x) float32, channels in the card's order.

        Raises:
            SegbenchError: SB303 a channel is absent, SB307 shapes differ, SB308 spacings, SB309 origin or
                direction, and what `read_volume` refuses (SB201 to SB211).
        """
        files = self.case(case)
        self._need_whole(files)
        if files.stacked:
            return self._read_stacked(files)
        order = self.card.channels.order
        first_path = files.images[order[0]]
        first = self._read(first_path, case)
        array = np.empty((len(order), *first.shape_zyx), dtype=np.float32)
        array[0] = first.array
        for index, channel in enumerate(order[1:], start=1):
            volume = self._read(files.images[channel], case)
            array[index] = on_grid_of(first, volume, case=case, path=files.images[channel]).array
        return self._on_reference_grid(first.with_array(array), files)

    def read_reference(self, case: str) -> Volume:
        """The label map of a case on its stored grid: (z, y, x), uint8, or uint16 when a value exceeds 255.

        Masks per structure are painted in the order of the card, the later one wins.

        Raises:
            SegbenchError: SB303 without a reference, SB315 for a mask that is none, and what
                `read_label_map` refuses, such as SB213 for a value that the card does not declare.
        """
        files = self.case(case)
        if files.references is None:
            message = f"case {case} has no reference"
            raise SegbenchError("SB303", message, case=case, path=self.root, details=list(files.missing))
        if isinstance(files.references, Path):
            with about_case(case):
                return read_label_map(files.references, labels=self.card.labels, max_bytes=self.max_bytes)
        return self._paint(files, files.references)

    def read_grid(self, case: str) -> VolumeHeader:
        """The stored grid of a case from headers alone: the reference's, else the first image's.

        The image's also where the reference does not say where it lies and the image does.
        """
        files = self.case(case)
        if not files.files:
            raise SegbenchError("SB303", f"case {case} has no file", case=case, path=self.root)
        with about_case(case):
            headers = [read_header(path, max_bytes=self.max_bytes) for path in files.reference_files[:1]]
            if not headers or not headers[0].positioned:
                images = [path for path in files.files if path in files.images.values()]
                headers += [read_header(path, max_bytes=self.max_bytes) for path in images[:1]]
        return next((header for header in headers if header.positioned), headers[0])

    def split_files(self) -> dict[str, Path]:
        """The split files beside the card, by name."""
        if self.splits_folder is None or not self.splits_folder.is_dir():
            return {}
        return {path.stem: path for path in sorted(self.splits_folder.glob("*.json"))}

    def table(self, name: str, *columns: str) -> list[dict[str, str]]:
        """The rows of a table in the root, such as `meta.csv`; comma, semicolon or tab between the columns.

        Args:
            name: File name inside the root.
            columns: Columns that must be there; what a short row lacks of them is "".

        Raises:
            SegbenchError: SB303 if it is absent, no text or without one of the columns.
        """
        path = self.root / name
        try:
            known, *lines = parse_table(path.read_text(encoding="utf-8-sig")) or [[]]
        except (OSError, ValueError) as error:  # ValueError: no UTF-8, no table, or no name for a file
            message = f"the table {name!r} is needed to tell patients or splits apart and cannot be read"
            raise SegbenchError("SB303", message, path=self.root) from error
        absent = [column for column in columns if column not in known]
        if absent:
            message = f"the table {name!r} has no column {', '.join(map(repr, absent))}"
            raise SegbenchError("SB303", message, path=path, expected=columns, found=known)
        return [dict(zip_longest(known, line[: len(known)], fillvalue="")) for line in lines if line]

    @cached_property
    def _patients(self) -> dict[str, str]:
        group = self.card.patient.group
        if isinstance(group, str):
            return {}
        rows = self.table(group.table, group.case, group.patient)
        # An empty cell is an unknown patient, not one patient of many scans.
        return {row[group.case]: row[group.patient] or row[group.case] for row in rows}

    def _count_findings(self) -> list[Finding]:
        """The count against dataset.json, which knows this copy, else against the card."""
        expected, what = self.card.expected.cases, f"the card of {self.card.slug}"
        counted = self.case_ids
        if self.discovery.announced is not None:
            expected, what = self.discovery.announced, "dataset.json"
            counted = [case for case in counted if case in self.discovery.in_training]
        elif self.is_generated:
            return []
        count = len(counted)
        if expected is None or count == expected:
            return []
        if count < expected:
            message = f"found {count} of {expected} expected cases ({expected - count} absent)"
        else:
            message = f"found {count} cases, {count - expected} more than the {expected} of {what}"
        absent = self.absent_ids
        mend = None
        if absent:
            message += f": {', '.join(absent[:5])}{' ...' if len(absent) > 5 else ''} among them"
            mend = f"complete the download; absent, as far as split files name them: {', '.join(absent)}"
        return [finding("SB305", "warning", message, expected=expected, found=count, mend=mend)]

    @cached_property
    def absent_ids(self) -> tuple[str, ...]:
        """Cases that are not here though a split file of the card names them, sorted."""
        from segbench.data.splits.document import named_ids

        if self.is_generated:
            return ()
        return tuple(sorted(named_ids(self.split_files().values()) - set(self.discovery.cases)))

    def _read(self, path: Path, case: str) -> Volume:
        with about_case(case):
            return read_volume(path, max_bytes=self.max_bytes)

    def _need_whole(self, files: CaseFiles) -> None:
        absent = [channel for channel in self.card.channels.order if channel not in files.images]
        if absent:
            raise SegbenchError(
                "SB303",
                f"case {files.case}: channel {', '.join(absent)} is absent",
                case=files.case,
                path=self.root,
                details=list(files.missing),
            )

    def _read_stacked(self, files: CaseFiles) -> Volume:
        path = files.images[files.stacked[0]]
        with about_case(files.case):
            volume = read_volume(path, max_bytes=self.max_bytes, allow_channels=True)
        channels = volume.array.shape[0] if volume.array.ndim == 4 else 1
        if channels != len(files.stacked):
            raise SegbenchError(
                "SB307",
                f"case {files.case}: the number of channels differs",
                path=path,
                case=files.case,
                expected=f"{len(files.stacked)} ({', '.join(files.stacked)})",
                found=channels,
            )
        order = [files.stacked.index(channel) for channel in self.card.channels.order]
        array = volume.array if order == sorted(order) else np.ascontiguousarray(volume.array[order])
        return self._on_reference_grid(volume.with_array(array), files)

    def _on_reference_grid(self, image: Volume, files: CaseFiles) -> Volume:
        """The image with the affine of the reference's file: scores live on the reference's grid."""
        if files.references is None:
            return image
        path = files.reference_files[0]
        with about_case(files.case):
            header = read_header(path, max_bytes=self.max_bytes)
        image = on_grid_of(header, image, case=files.case, path=path)
        if image.positioned and not header.positioned:
            return image  # a reference that does not say where it lies leaves that to the image
        codes = {"sform_code": header.sform_code, "qform_code": header.qform_code}
        place = replace(image, spacing_mm=header.spacing_mm, affine=header.affine, unit=header.unit)
        return replace(place, **codes)

    def _paint(self, files: CaseFiles, masks: Mapping[str, Path]) -> Volume:
        value_of = {name: value for value, name in self.card.labels.items()}
        first: Volume | None = None
        painted: NDArray[np.uint8] | None = None
        for name, path in masks.items():
            with about_case(files.case):
                mask = read_label_map(path, max_bytes=self.max_bytes)
            if first is None or painted is None:
                first, painted = mask, np.zeros(mask.shape_zyx, dtype=np.uint8)
            else:
                mask = on_grid_of(first, mask, case=files.case, path=path)
            values = np.unique(mask.array)
            strange = sorted(set(values.tolist()) - set(MASK_VALUES))
            if strange or {1, 255} <= set(values.tolist()):
                raise SegbenchError(
                    "SB315",
                    f"case {files.case}: {path.name} is not a mask",
                    path=path,
                    case=files.case,
                    expected="0 and 1 (or 0 and 255)",
                    found=", ".join(str(value) for value in values.tolist()[:10]),
                )
            painted[mask.array != 0] = value_of[name]
        assert first is not None and painted is not None
        return first.with_array(painted)
