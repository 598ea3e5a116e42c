"""Which value of an exported label map is which of the dataset's, and predictions mapped back through it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbench.cards.dataset_card import DatasetCard
from segbench.core.atomic import atomic_write_json
from segbench.core.console import progress
from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_json
from segbench.core.outputs import OutputFolder
from segbench.data.adapters.base import Listing
from segbench.volumes import read_label_map, write_label_map
from segbench.volumes.volume import DEFAULT_MAX_BYTES

FILE_NAME = "segbench_label_map.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class LabelMap:
    """Values of an export against values of the dataset.

    Attributes:
        dataset: Slug.
        to_source: Exported value -> the dataset's value; 0 stays 0.
        labels: Name of each exported value.
        regions: The card's regions in exported values, in the card's order.
        ignore: The exported ignore label.
    """

    dataset: str
    to_source: Mapping[int, int]
    labels: Mapping[int, str]
    regions: Mapping[str, tuple[int, ...]]
    ignore: int | None = None

    @classmethod
    def consecutive(cls, card: DatasetCard) -> LabelMap:
        """The map that closes gaps: 0, 1, 2, ... in the order of the card's values, the ignore label last."""
        values = [0, *card.foreground]
        if card.evaluation.ignore_label is not None:
            values.append(card.evaluation.ignore_label)
        return cls._of(card, dict(enumerate(values)))

    @classmethod
    def unchanged(cls, card: DatasetCard) -> LabelMap:
        """The map that changes nothing."""
        return cls._of(card, {value: value for value in card.labels})

    @classmethod
    def _of(cls, card: DatasetCard, to_source: Mapping[int, int]) -> LabelMap:
        new = {old: value for value, old in to_source.items()}
        ignored = card.evaluation.ignore_label
        return cls(
            dataset=card.slug,
            to_source=to_source,
            labels={value: card.labels[old] for value, old in to_source.items()},
            regions={name: tuple(new[old] for old in members) for name, members in card.regions.items()},
            ignore=None if ignored is None else new[ignored],
        )

    @property
    def is_identity(self) -> bool:
        """Whether exported values are the dataset's own."""
        return all(value == old for value, old in self.to_source.items())

    def exported(self, labels: NDArray[Any]) -> NDArray[Any]:
        """The dataset's values as exported ones."""
        return _mapped(labels, {old: value for value, old in self.to_source.items()})

    def restored(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Exported values as the dataset's own."""
        return _mapped(labels, dict(self.to_source))

    def write(self, folder: Path, card: DatasetCard) -> Path:
        """Write the map beside an export's dataset.json, with what of the card that file cannot hold."""
        kept = card.model_dump(mode="json", include={"modality", "channels", "geometry", "evaluation"})
        if isinstance(card.patient.group, str):
            kept["patient"] = {"group": card.patient.group}
            kept["case_pattern"] = card.layout.case_pattern
        return atomic_write_json(
            folder / FILE_NAME,
            {
                "card": kept,
                "schema_version": SCHEMA_VERSION,
                "dataset": self.dataset,
                "to_source": {str(value): old for value, old in self.to_source.items()},
                "labels": {str(value): name for value, name in self.labels.items()},
                # A list, because the order of the regions is the order of every table.
                "regions": [[name, list(members)] for name, members in self.regions.items()],
                "ignore": self.ignore,
            },
        )

    @classmethod
    def read(cls, path: Path | str) -> LabelMap:
        """The map in a file (SB110 when it is none)."""
        path = Path(path)
        try:
            content = parse_json(path.read_text(encoding="utf-8"))
            return cls(
                dataset=str(content["dataset"]),
                to_source={int(value): int(old) for value, old in content["to_source"].items()},
                labels={int(value): str(name) for value, name in content["labels"].items()},
                regions={str(name): tuple(map(int, members)) for name, members in content["regions"]},
                ignore=None if content.get("ignore") is None else int(content["ignore"]),
            )
        except OSError as error:
            message = f"label map {path} cannot be read: {error.strerror}"
            raise SegbenchError("SB110", message, path=path) from error
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            message = f"{path.name} is not the label map of an export ({type(error).__name__}: {error})"
            raise SegbenchError("SB110", message, path=path) from error


def _mapped(labels: NDArray[Any], values: Mapping[int, int]) -> NDArray[Any]:
    largest = max(int(labels.max(initial=0)), *values)
    table = np.arange(largest + 1, dtype=np.uint16)
    for value, other in values.items():
        table[value] = other
    mapped = table[labels]
    return mapped.astype(np.uint8) if int(mapped.max(initial=0)) <= 255 else mapped


def import_predictions(
    folder: Path | str, *, label_map: Path | str, output: Path | str, max_bytes: int = DEFAULT_MAX_BYTES
) -> tuple[list[Path], list[SegbenchError]]:
    """Write predictions of an exported dataset in the dataset's own values, one file per case.

    Args:
        folder: Label maps of another tool, `<case>.nii.gz`.
        label_map: The export's segbench_label_map.json.
        output: A folder for the result; files that an earlier import wrote there are replaced.
        max_bytes: Largest volume that is read.

    Returns:
        The written files, and one error per file that could not be taken (SB2xx, with the case).

    Raises:
        SegbenchError: SB110 for the map, SB301 without such a folder, SB311 for a folder without a label map,
            SB104 when output is the input, SB337 when a result would be written over an input or a foreign
            file.
    """
    source, target = Path(folder), Path(output)
    mapping = LabelMap.read(label_map)
    if target.resolve() == source.resolve():
        raise SegbenchError("SB104", "--output must be another folder than the predictions", path=target)
    if not source.is_dir():
        message = f"there is no folder {source}"
        raise SegbenchError("SB301", message, path=source, mend="name a folder that exists")
    files = {case: [source / name for name in names] for case, names in Listing().volumes(source).items()}
    if not files:
        raise SegbenchError("SB311", f"no label map in {source}", path=source)
    written: list[Path] = []
    failed: list[SegbenchError] = []
    names = [f"{case}.nii.gz" for case in files]
    inputs = [Path(label_map), *(path for paths in files.values() for path in paths)]
    with (
        OutputFolder(target, names, inputs=inputs) as results,
        progress("mapping predictions back", len(files)) as tracker,
    ):
        for case, paths in files.items():
            try:
                if len(paths) > 1:
                    names = ", ".join(path.name for path in paths)
                    raise SegbenchError("SB216", "two files for one case", path=source, found=names)
                volume = read_label_map(paths[0], labels=mapping.to_source, max_bytes=max_bytes)
                restored = mapping.restored(volume.array)
                written.append(write_label_map(target / f"{case}.nii.gz", restored, volume))
                results.wrote(written[-1])
            except SegbenchError as error:
                if error.exit_code == 5:
                    raise  # the disk or the machine: the next file would fare no better
                error.case = case
                failed.append(error)
            tracker.advance()
    return written, failed
