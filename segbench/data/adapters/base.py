"""What every adapter gives: the files of each case, and what is wrong with how they lie."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
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
    _unread: set[Path] = field(default_factory=set, repr=False)
    listing: Listing = field(default_factory=lambda: Listing(), repr=False)

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

    def tell_other_formats(self, wanted: Mapping[Path, Collection[str]]) -> set[Path]:
        """SB202 for files of the right names in a format that is not read, once for each folder and format.

        Args:
            wanted: Stems of files that were looked for in vain, by folder.

        Returns:
            Which of them lie there, as paths without endings: they are not missing.
        """
        told: set[Path] = set()
        for folder, stems in wanted.items():
            found: dict[str, list[tuple[str, str, str]]] = {}
            for name, (stem, what, how) in self.listing.other_formats(folder).items():
                if stem in stems and folder / stem not in self._unread:
                    found.setdefault(what, []).append((name, stem, how))
                told |= {folder / stem} & {folder / each for each in stems}
            for what, files in found.items():
                (first, _, how), more = files[0], len({stem for _, stem, _ in files})
                several = f"{more} files such as {first} are" if more > 1 else f"{first} is"
                self.tell(
                    "SB202", f"{several} {what}, which is not read", folder / first, mend=f"convert: {how}"
                )
        self._unread |= told
        return told

    def tell_masks(self, folder: Path, cases: Collection[str]) -> set[str]:
        """SB202, once, where cases have folders of masks in the place of label maps; gives these cases."""
        held = {name: list(self.listing.volumes(folder / name)) for name in self.listing.folders(folder)}
        found = {case: names for case, names in held.items() if names and case in cases}
        for case, names in list(found.items())[:1]:
            several = f"{len(found)} folders such as {case} hold" if len(found) > 1 else f"{case} holds"
            self.tell(
                "SB202",
                f"{several} one mask per structure ({', '.join(names[:4])}), where a label map is expected",
                folder / case,
                expected=f"{case}.nii.gz with the label values of dataset.json",
                mend="write the masks of a case into one label map, or copy the card of totalsegmentator, "
                "which has a file for each structure; segbench evaluate takes such folders as they are",
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
            message = f"the id {twin} appears twice"
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
        SegbenchError: SB201 for a folder that may not be read.
    """
    return [Path(folder, name) for name, _ in _scanned(folder)]


class Listing:
    """What lies in folders, each listed once: trees hold tens of thousands of files.

    Raises:
        SegbenchError: SB201 for a folder that may not be read: its cases must not vanish without a word.
    """

    def __init__(self) -> None:
        self._found: dict[str, tuple[list[str], dict[str, list[str]], dict[str, tuple[str, str, str]]]] = {}

    def folders(self, folder: Path | str) -> list[str]:
        """Names of the folders in a folder, sorted; none where there is no such folder."""
        return self._listed(folder)[0]

    def volumes(self, folder: Path | str) -> dict[str, list[str]]:
        """Names of the volumes in a folder by stem, sorted; two names of a stem mean it is ambiguous."""
        return self._listed(folder)[1]

    def other_formats(self, folder: Path | str) -> dict[str, tuple[str, str, str]]:
        """Files of a folder in formats that are not read, by name, as `other_format` tells them."""
        return self._listed(folder)[2]

    def with_any_ending(self, folder: Path | str, template: str) -> list[Path]:
        """The files that a filled template stands for: itself, or the same stem with another ending."""
        inner, _, name = template.rpartition("/")
        place = f"{folder}/{inner}" if inner else str(folder)
        found = self.volumes(place).get(stem_of(name), [])
        return [Path(place, each) for each in sorted(found, key=lambda each: (each != name, _rank(each)))]

    def _listed(
        self, folder: Path | str
    ) -> tuple[list[str], dict[str, list[str]], dict[str, tuple[str, str, str]]]:
        key = str(folder)
        if key not in self._found:
            folders: list[str] = []
            volumes: dict[str, list[str]] = {}
            others: dict[str, tuple[str, str, str]] = {}
            for name, is_folder in _scanned(folder):
                parts, other = stem_and_ending(name), other_format(name)
                if is_folder:
                    folders.append(name)
                elif parts is not None:
                    volumes.setdefault(parts[0], []).append(name)
                elif other is not None:
                    others[name] = other
            self._found[key] = folders, volumes, others
        return self._found[key]


def _scanned(folder: Path | str) -> list[tuple[str, bool]]:
    """(name, whether it is a folder) of the visible entries, in plain string order of their names."""
    try:
        with os.scandir(folder) as found:
            return sorted((each.name, each.is_dir()) for each in found if not is_hidden(each.name))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        message = f"the folder cannot be read ({(error.strerror or str(error)).lower()})"
        raise SegbenchError("SB201", message, path=Path(folder)) from error


def stem_of(name: str) -> str:
    """A file's name, or a template of one, without the ending of a volume."""
    return (stem_and_ending(name) or (name,))[0]


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


def missing_references(
    discovery: Discovery,
    groups: Iterable[tuple[str, list[CaseFiles]]],
    wanted: Mapping[str, str] | None = None,
) -> None:
    """Say which cases have no reference: an error beside labelled cases, a mere note where none has one.

    Args:
        discovery: Receives the findings.
        groups: (folder, its cases): the unit in which either all or none are expected to be labelled.
        wanted: The file that a case lacks, where the layout names it.
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
            discovery.tell("SB303", message, (wanted or {}).get(files.case, folder), case=files.case)
