"""A case as the checks see it: its files in order, with their facts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segbench.data.adapters import CaseFiles
from segbench.data.adapters.base import inside
from segbench.data.dataset import Dataset
from segbench.data.verify.facts import FileFacts, LabelFacts
from segbench.data.verify.gather import DatasetFacts, masks_of, roles_of


@dataclass(frozen=True, slots=True)
class CaseView:
    """A case with the facts of its files."""

    dataset: Dataset
    files: CaseFiles
    facts: DatasetFacts

    def place(self, path: Path) -> str:
        """A file relative to the dataset's root."""
        return inside(path, self.dataset.root)

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

    def label(self) -> LabelFacts | None:
        """What the reference holds: of its file, or of the masks painted together."""
        if isinstance(self.files.references, Path):
            entry = self.facts.files.get(self.files.references)
            return None if entry is None else entry.label
        composite = self.facts.composites.get(self.files.case)
        return None if composite is None else composite.label
