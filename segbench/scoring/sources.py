"""What `segbench evaluate` is asked to score: which cases, where their references and predictions are, which
regions.

Nothing is opened here but `dataset.json` and lists of ids. A folder is listed once, in plain string order, so
the same files give the same cases on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_json
from segbench.core.names import CASE_RULE, is_safe_case
from segbench.volumes import DEFAULT_MAX_BYTES, VOLUME_ENDINGS, Volume, read_label_map, stem_and_ending

if TYPE_CHECKING:
    from segbench.data import Dataset

SKIPPED = (".", "_")
"""Beginnings of names that are never cases: hidden files, macOS's `._x` and `__MACOSX`."""


class References(Protocol):
    """Where references come from; picklable, so that workers read them."""

    @property
    def cases(self) -> tuple[str, ...]:
        """Case ids in plain string order."""
        ...

    def read(self, case: str) -> Volume:
        """Return the reference label map of a case."""
        ...

    def files(self, case: str) -> tuple[Path, ...]:
        """Return the files the reference of a case is made of."""
        ...


@dataclass(frozen=True)
class FolderReferences:
    """One label map per case in a folder, named by its id.

    Attributes:
        paths: case id -> file.
        labels: values a reference may hold; None allows any.
        max_bytes: largest volume that is read.
    """

    paths: Mapping[str, Path]
    labels: tuple[int, ...] | None = None
    max_bytes: int = DEFAULT_MAX_BYTES

    @property
    def cases(self) -> tuple[str, ...]:
        """Case ids in plain string order."""
        return tuple(sorted(self.paths))

    def read(self, case: str) -> Volume:
        """Return the reference label map of a case."""
        return read_label_map(self.paths[case], labels=self.labels, max_bytes=self.max_bytes)

    def files(self, case: str) -> tuple[Path, ...]:
        """Return the file of a case."""
        return (self.paths[case],)


@dataclass(frozen=True)
class DatasetReferences:
    """The references of an opened dataset, read by its adapter."""

    dataset: Dataset

    @property
    def cases(self) -> tuple[str, ...]:
        """Labelled cases in plain string order."""
        return self.dataset.case_ids

    def read(self, case: str) -> Volume:
        """Return the reference label map of a case."""
        return self.dataset.read_reference(case)

    def files(self, case: str) -> tuple[Path, ...]:
        """Return the files of a case's reference: one label map, or one mask per structure."""
        return self.dataset.case(case).reference_files


def reference_folder(
    folder: Path, *, labels: tuple[int, ...] | None, max_bytes: int = DEFAULT_MAX_BYTES
) -> FolderReferences:
    """Return the references of a folder.

    Raises:
        SegbenchError: SB201 no such folder, SB216 two files for one case, SB311 no case, SB339 a name that is
            no case id.
    """
    found = volumes_by_case(folder, role="reference")
    twice = {case: paths for case, paths in found.items() if len(paths) > 1}
    if twice:
        raise two_files(twice, "reference", folder)
    wrong = sorted(case for case in found if not is_case_id(case))
    if wrong:
        raise SegbenchError(
            "SB339",
            "names of references that are no case ids",
            path=folder,
            expected=CASE_RULE,
            found=", ".join(wrong[:10]) + (f" and {len(wrong) - 10} more" if len(wrong) > 10 else ""),
        )
    if not found:
        raise SegbenchError(
            "SB311",
            "no reference in this folder",
            path=folder,
            expected=f"files that end in {' or '.join(VOLUME_ENDINGS)}",
        )
    return FolderReferences({case: paths[0] for case, paths in found.items()}, labels, max_bytes)


def is_case_id(name: str) -> bool:
    """Tell whether a name may be a case id: it never leaves a folder and no system gives it a meaning."""
    return is_safe_case(name)


def volumes_by_case(folder: Path, *, role: str) -> dict[str, list[Path]]:
    """Return the files of a folder by case id, several for one id where there are several.

    Raises:
        SegbenchError: SB201 when the folder does not exist.
    """
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise SegbenchError(
            "SB201",
            f"the {role} folder cannot be listed: {(error.strerror or str(error)).lower()}",
            path=folder,
        ) from error
    found: dict[str, list[Path]] = {}
    for name in names:
        if name.startswith(SKIPPED):
            continue
        parts = stem_and_ending(name)
        if parts is not None:
            found.setdefault(parts[0], []).append(folder / name)
    return found


def two_files(twice: Mapping[str, Sequence[Path]], role: str, folder: Path) -> SegbenchError:
    """Return SB216: it is not said which of two files is meant, so neither is scored."""
    lines = [f"{case}: {' and '.join(path.name for path in paths)}" for case, paths in sorted(twice.items())]
    return SegbenchError(
        "SB216",
        f"two {role} files for {'one case' if len(twice) == 1 else f'{len(twice)} cases'}",
        path=folder,
        case=next(iter(sorted(twice))),
        details=lines[:20],
    )


@dataclass(frozen=True)
class Predictions:
    """The prediction of each case.

    Attributes:
        paths: case id -> file, or None where there is none.
        extra: names of volumes without a reference, sorted; never scored.
        absent: case id -> why there is no file, where that is known.
    """

    paths: Mapping[str, Path | None]
    extra: tuple[str, ...] = ()
    absent: Mapping[str, str] = field(default_factory=dict[str, str])


def find_predictions(folder: Path, cases: Sequence[str], known: Sequence[str]) -> Predictions:
    """Return the prediction of each case and the files that belong to none.

    Args:
        folder: the prediction folder.
        cases: case ids to score.
        known: every case id that has a reference, so that a subset makes no file look superfluous.

    Raises:
        SegbenchError: SB201 no such folder, SB216 two files for one case.
    """
    found = volumes_by_case(folder, role="prediction")
    wanted = set(cases)
    twice = {case: paths for case, paths in found.items() if len(paths) > 1 and case in wanted}
    if twice:
        raise two_files(twice, "prediction", folder)
    have_reference = {*cases, *known}
    extra = sorted(path.name for case, paths in found.items() if case not in have_reference for path in paths)
    return Predictions({case: found[case][0] if case in found else None for case in cases}, tuple(extra))


def read_case_list(path: Path, known: Sequence[str]) -> tuple[str, ...]:
    """Return the case ids of a file: one per line (`#` begins a comment), or a JSON list.

    Raises:
        SegbenchError: SB104 unreadable, SB311 no id in it, SB324 ids without a reference.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SegbenchError("SB104", f"the list of cases cannot be read: {error}", path=path) from error
    names = _names(text, path)
    if not names:
        raise SegbenchError("SB311", "the list of cases is empty", path=path)
    absent = sorted(set(names).difference(known))
    if absent:
        raise SegbenchError(
            "SB324",
            f"{len(absent)} of {len(names)} listed cases have no reference",
            path=path,
            found=", ".join(absent[:10]),
        )
    return tuple(sorted(set(names)))


def _names(text: str, path: Path) -> list[str]:
    if not text.lstrip().startswith("["):
        lines = (line.partition("#")[0].strip() for line in text.splitlines())
        return [line for line in lines if line]
    try:
        listed: Any = parse_json(text)
    except ValueError as error:
        raise SegbenchError("SB104", f"the list of cases is no JSON: {error}", path=path) from error
    if not all(isinstance(name, str) for name in listed):
        raise SegbenchError("SB104", "the list of cases holds something that is no text", path=path)
    return list(listed)


@dataclass(frozen=True)
class Labelling:
    """Regions and labels as a user named them.

    Attributes:
        name: of the dataset, for the rows.
        regions: name -> labels.
        labels: values that are declared, 0 included.
        ignore_label: nnU-Net's ignore label.
    """

    name: str
    regions: Mapping[str, tuple[int, ...]]
    labels: tuple[int, ...]
    ignore_label: int | None = None


def labelling_of_json(path: Path) -> Labelling:
    """Return the regions of an nnU-Net or MSD `dataset.json`; `background` and `ignore` are no regions.

    Raises:
        SegbenchError: SB331 for labels that are those of neither.
    """
    from segbench.data.adapters.dataset_json import read_labels

    document = read_labels(path)
    regions = dict(document.regions)
    if not regions:
        regions = {
            name: (value,) for value, name in document.labels.items() if value not in (0, document.ignore)
        }
    ignored = () if document.ignore is None else (document.ignore,)
    declared = {0, *document.labels, *ignored, *(label for members in regions.values() for label in members)}
    return Labelling(document.name, regions, tuple(sorted(declared)), document.ignore)


def parse_regions(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the regions of `NAME=1,2` texts.

    Raises:
        SegbenchError: SB104 for a text of another form, a label 0, or a name given twice.
    """
    regions: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, sign, labels = text.rpartition("=")
        parts = [part.strip() for part in labels.split(",")]
        if not sign or not name.strip() or not all(part.isascii() and part.isdigit() for part in parts):
            raise SegbenchError(
                "SB104", f"--region {text!r} cannot be", mend="for example --region tumour=1,2"
            )
        values = tuple(dict.fromkeys(int(part) for part in parts))
        if 0 in values:
            raise SegbenchError("SB104", f"--region {text!r}: label 0 is the background")
        if name.strip() in regions:
            raise SegbenchError("SB104", f"--region {name.strip()!r} is given twice")
        regions[name.strip()] = values
    return regions
