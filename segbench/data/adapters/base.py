"""What every adapter gives: the files of each case, and what is wrong with how they lie."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from segbench.cards.dataset_card import DatasetCard
from segbench.core.errors import SegbenchError
from segbench.core.names import CASE_RULE, folded_case, other_format
from segbench.data.finding import Finding, Severity, finding
from segbench.volumes import VOLUME_ENDINGS, stem_and_ending

ENDINGS = VOLUME_ENDINGS
"""File endings of volumes; in file names small or capital letters."""


@dataclass(frozen=True, slots=True)
class CaseFiles:
    """Where the files of a case are.

    Attributes:
        case: Its id.
        patient: The patient it belongs to, as far as the names tell (`Dataset.patient_of` knows tables too).
        timepoint: Which visit, where the names tell.
        images: The file of each channel. The same file for several channels: they are stacked in it.
        references: The label map, or one mask per structure name, or None for a case without a reference.
        form: The form of the layout that fits.
        stacked: Channel names in the order of the file's last axis, when one file holds them all.
        combined: A label map that is only compared with the masks.
        missing: Files that the form names and that are absent, as names inside the root.
    """

    case: str
    patient: str
    timepoint: str | None
    images: Mapping[str, Path]
    references: Path | Mapping[str, Path] | None
    form: str
    stacked: tuple[str, ...] = ()
    combined: Path | None = None
    missing: tuple[str, ...] = ()

    @property
    def reference_files(self) -> tuple[Path, ...]:
        """All files that the reference is made of."""
        if self.references is None:
            return ()
        return (self.references,) if isinstance(self.references, Path) else tuple(self.references.values())

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file of the case once, images first."""
        extra = () if self.combined is None else (self.combined,)
        return tuple(dict.fromkeys([*self.images.values(), *self.reference_files, *extra]))


def whose(card: DatasetCard, case: str, fields: Mapping[str, str]) -> tuple[str, str | None]:
    """(patient, timepoint) of a case, told by the named groups of its pattern."""
    group = card.patient.group
    return fields.get(group, case) if isinstance(group, str) else case, fields.get("timepoint")


@dataclass(slots=True)
class Discovery:
    """The cases an adapter found, by id. `findings` hold everything that was left out, and why."""

    root: Path = Path()
    """The dataset's root; the files of findings are named within it."""
    cases: dict[str, CaseFiles] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    announced: int | None = None
    """How many training cases the folder's own dataset.json announces."""
    in_training: set[str] = field(default_factory=set[str])
    """The cases that this number counts; labelled test cases are none of them."""
    _folded: dict[str, str] = field(default_factory=dict, repr=False)
    _others: dict[Path, dict[str, tuple[str, str, str]]] = field(default_factory=dict, repr=False)

    def tell(
        self,
        code: str,
        message: str,
        file: Path | str | None,
        *,
        severity: Severity = "error",
        case: str | None = None,
        expected: object = None,
        found: object = None,
        mend: str | None = None,
    ) -> None:
        """Note what is wrong with how a file lies; a path is named within the root."""
        place = inside(file, self.root) if isinstance(file, Path) else file
        self.findings.append(
            finding(code, severity, message, case=case, file=place, expected=expected, found=found, mend=mend)
        )

    def tell_unsafe(self, name: str, file: Path | str | None) -> None:
        """SB339 for a name that may not be a case id, with the rule."""
        self.tell("SB339", f"unsafe case id {name!r}", file, mend=f"rename it; a case id is {CASE_RULE}")

    def other_formats(self, folder: Path) -> dict[str, tuple[str, str, str]]:
        """Files of a folder in formats that are not read, as `other_format` tells them; listed once."""
        if folder not in self._others:
            told = ((path.name, other_format(path.name)) for path in entries(folder))
            self._others[folder] = {name: other for name, other in told if other is not None}
        return self._others[folder]

    def tell_other_formats(
        self, folder: Path, *, read: Container[str], wanted: Callable[[str], bool]
    ) -> None:
        """SB202 for files of the right names in a format that is not read, once for each format.

        Args:
            folder: Where they lie.
            read: Stems of the files there that are read: what else has their names is no loss.
            wanted: Whether a file of this stem was looked for.
        """
        found: dict[str, list[tuple[str, str]]] = {}
        for name, (stem, what, how) in self.other_formats(folder).items():
            if stem not in read and wanted(stem):
                found.setdefault(what, []).append((name, how))
        for what, files in found.items():
            (first, how), more = files[0], len({name.rpartition(".")[0] for name, _ in files})
            several = f"{more} files such as {first} are" if more > 1 else f"{first} is"
            self.tell("SB202", f"{several} {what}, which is not read", folder / first, mend=f"convert: {how}")

    def tell_masks(self, folder: Path, wanted: Callable[[str], bool]) -> set[str]:
        """SB202, once, where cases have folders of masks in the place of label maps; gives these cases."""
        found = {each.name: list(volumes_in(each)) for each in entries(folder) if wanted(each.name)}
        found = {case: names for case, names in found.items() if names}
        for case, names in list(found.items())[:1]:
            several = f"{len(found)} folders such as {case} hold" if len(found) > 1 else f"{case} holds"
            self.tell(
                "SB202",
                f"{several} one mask per structure ({', '.join(names[:4])}), where a label map is expected",
                folder / case,
                expected=f"{case}.nii.gz with the label values of dataset.json",
                mend="write the masks of a case into one label map, or name them in a card of your own, as "
                "abdomenatlas-1.0-mini does; segbench evaluate takes such folders as they are",
            )
        return set(found)

    def tell_ambiguous(self, case: str, files: list[Path]) -> None:
        """SB306 where more than one file could be meant."""
        if len(files) > 1:
            message = f"{' and '.join(path.name for path in files)}: which one is meant?"
            self.tell("SB306", message, files[0], case=case)

    def add(self, files: CaseFiles) -> None:
        """Take a case; a second one of the same id, or of an id that differs in case only, is SB306."""
        twin = self._folded.setdefault(folded_case(files.case), files.case)
        if files.case not in self.cases and twin == files.case:
            self.cases[files.case] = files
            return
        message = f"the ids {twin} and {files.case} differ in case or in the spelling of accents only"
        if twin == files.case:
            message = f"the id {twin} stands twice"
        place = files.files[0].parent if files.files else self.root
        self.tell("SB306", message, place, case=files.case)


def named(match: re.Match[str]) -> dict[str, str]:
    """The named groups of a case pattern that took part in the match."""
    return {name: value for name, value in match.groupdict().items() if value is not None}


def inside(path: Path, root: Path) -> str:
    """A path relative to the dataset's root, with forward slashes."""
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return path.as_posix()


def is_hidden(name: str) -> bool:
    """Whether a name is left out everywhere: hidden files, macOS resource forks, `__MACOSX`, `lost+found`."""
    return name.startswith((".", "_")) or name == "lost+found"


def entries(folder: Path) -> list[Path]:
    """The visible entries of a folder in plain string order of their names; empty where there is none.

    Raises:
        SegbenchError: SB201 for a folder that may not be read: its cases must not vanish without a word.
    """
    try:
        return sorted((p for p in folder.iterdir() if not is_hidden(p.name)), key=lambda p: p.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        message = f"the folder cannot be read ({(error.strerror or str(error)).lower()})"
        raise SegbenchError("SB201", message, path=folder) from error


def volumes_in(folder: Path) -> dict[str, list[Path]]:
    """The volume files of a folder by stem, sorted; more than one file of a stem means it is ambiguous."""
    found: dict[str, list[Path]] = {}
    for path in entries(folder):
        parts = stem_and_ending(path.name)
        if parts is not None:
            found.setdefault(parts[0], []).append(path)
    return found


class Listing:
    """Names of the entries of folders, each folder listed once: trees hold tens of thousands of files."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, list[str]]] = {}

    def with_any_ending(self, folder: Path, template: str) -> list[Path]:
        """The files that a filled template stands for: itself, or the same stem with another ending."""
        inner, _, name = template.rpartition("/")
        place = f"{folder}/{inner}" if inner else str(folder)
        parts = stem_and_ending(name)
        found = self._by_stem(place).get(name if parts is None else parts[0], [])
        return [Path(place, candidate) for candidate in sorted(found, key=lambda c: (c != name, _rank(c)))]

    def _by_stem(self, folder: str) -> dict[str, list[str]]:
        """Names in a folder: volumes by stem, anything else by its whole name."""
        if folder not in self._names:
            stems: dict[str, list[str]] = {}
            try:
                with os.scandir(folder) as found:
                    for entry in found:
                        parts = stem_and_ending(entry.name)
                        stems.setdefault(entry.name if parts is None else parts[0], []).append(entry.name)
            except OSError:
                stems = {}
            self._names[folder] = stems
        return self._names[folder]


def _rank(name: str) -> tuple[int, str]:
    parts = stem_and_ending(name)
    return (0 if parts is None else ENDINGS.index(parts[1].lower())), name


def wrapped(root: Path, depth: int = 2) -> Iterator[Path]:
    """The root and every folder at most `depth` levels below: archives unpack one or two levels too deep."""
    yield root
    if depth > 0:
        for folder in entries(root):
            if folder.is_dir():
                yield from wrapped(folder, depth - 1)


def missing_references(discovery: Discovery, groups: Iterable[tuple[str, list[CaseFiles]]]) -> None:
    """Say which cases have no reference: an error beside labelled cases, a mere note where none has one.

    Args:
        discovery: Receives the findings.
        groups: (folder, its cases): the unit in which either all or none are expected to be labelled.
    """
    for folder, cases in groups:
        without = [files for files in cases if files.references is None]
        if not without:
            continue
        if len(without) == len(cases):
            plural = "s" * (len(without) > 1)
            message = f"{len(without)} case{plural} without a reference, as in a validation set"
            discovery.tell("SB303", message, folder, severity="info")
            continue
        for files in without:
            message = "no reference, though the cases beside it have one"
            discovery.tell("SB303", message, folder, case=files.case)
