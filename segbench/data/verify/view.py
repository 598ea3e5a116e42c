"""A case as the checks see it: its files in order, with their facts, and what they say about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from segbench.data.adapters import CaseFiles
from segbench.data.adapters.base import inside
from segbench.data.dataset import Dataset
from segbench.data.finding import Finding, Severity, finding
from segbench.data.verify.facts import ChannelFacts, FileFacts, LabelFacts
from segbench.data.verify.gather import DatasetFacts, masks_of, roles_of


class CaseView:
    """A case with the facts of its files.

    Attributes:
        dataset: Whose case it is.
        files: Where its files are.
        facts: Facts of all files of the dataset.
    """

    def __init__(self, dataset: Dataset, case: str, facts: DatasetFacts) -> None:
        self.dataset, self.files, self.facts = dataset, dataset.case(case), facts

    def say(
        self,
        code: str,
        severity: Severity,
        message: str,
        path: Path | None = None,
        *,
        expected: object = None,
        found: object = None,
        mend: str | None = None,
    ) -> Finding:
        """A finding about this case, about a file of it where one is named."""
        file = None if path is None else inside(path, self.dataset.root)
        case = self.files.case
        return finding(
            code, severity, message, case=case, file=file, expected=expected, found=found, mend=mend
        )

    def entries(self) -> Iterator[tuple[str, Path, FileFacts]]:
        """(what it is, file, facts) of each file once: channels in the card's order, then the reference."""
        names: dict[Path, str] = {}
        for channel in self.dataset.card.channels.order:
            if channel in self.files.images:
                names.setdefault(self.files.images[channel], f"channel {channel}")
        for value, path in masks_of(self.dataset, self.files):
            names[path] = f"mask {self.dataset.card.labels[value]}"
        if self.files.combined is not None:
            names[self.files.combined] = "combined labels"
        for path, _ in roles_of(self.files):
            names.setdefault(path, "label")
        for path, name in names.items():
            entry = self.facts.files.get(path)
            if entry is not None:
                yield name, path, entry

    def channels(self) -> dict[str, ChannelFacts]:
        """Voxels of each channel, as far as its file could be read."""
        return channels_of(self.files, self.facts)

    def label(self) -> LabelFacts | None:
        """What the reference holds: of its file, or of the masks painted together."""
        if isinstance(self.files.references, Path):
            entry = self.facts.files.get(self.files.references)
            return None if entry is None else entry.label
        composite = self.facts.composites.get(self.files.case)
        return None if composite is None else composite.label


def channels_of(files: CaseFiles, facts: DatasetFacts) -> dict[str, ChannelFacts]:
    """Voxels of each channel of a case, as far as its file could be read."""
    found: dict[str, ChannelFacts] = {}
    for channel, path in files.images.items():
        entry = facts.files.get(path)
        index = files.stacked.index(channel) if files.stacked else 0
        if entry is not None and index < len(entry.channels):
            found[channel] = entry.channels[index]
    return found
