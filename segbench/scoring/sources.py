"""Where the references and predictions are that `segbench evaluate` is to score.

A folder is listed once, in plain string order, so the same files give the same cases on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from segbench.core.errors import SegbenchError
from segbench.core.names import CASE_RULE, is_safe_case, spelling
from segbench.core.text import some
from segbench.scoring.masks import (
    Masks,
    Member,
    mask_folders,
    named_masks,
    read_masks,
    structure,
    unread_masks,
    without_mask,
)
from segbench.volumes import DEFAULT_MAX_BYTES, VOLUME_ENDINGS, Volume, read_label_map, stem_and_ending
from segbench.volumes.endings import conversion, unread_ending

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

    def read(self, case: str) -> Volume | Masks:
        """Return the reference of a case: a label map, or masks where they overlap."""
        ...

    def files(self, case: str) -> tuple[Path, ...]:
        """Return the files the reference of a case is made of."""
        ...


@dataclass(frozen=True)
class FolderReferences:
    """One label map per case in a folder, named by its id, or a folder of masks per case.

    Attributes:
        paths: case id -> file, or structure -> file.
        labels: values a reference may hold; None allows any.
        max_bytes: largest volume that is read.
    """

    paths: Mapping[str, Path | Mapping[Member, Path]]
    labels: tuple[int, ...] | None = None
    max_bytes: int = DEFAULT_MAX_BYTES

    @property
    def cases(self) -> tuple[str, ...]:
        """Case ids in plain string order."""
        return tuple(sorted(self.paths))

    def read(self, case: str) -> Volume | Masks:
        """Return the reference of a case."""
        source = self.paths[case]
        if isinstance(source, Path):
            return read_label_map(source, labels=self.labels, max_bytes=self.max_bytes)
        return read_masks(case, source, max_bytes=self.max_bytes).as_labels()

    def files(self, case: str) -> tuple[Path, ...]:
        """Return the files of a case."""
        return files_of(self.paths[case])


@dataclass(frozen=True)
class DatasetReferences:
    """The references of an opened dataset, read by its adapter."""

    dataset: Dataset

    @property
    def cases(self) -> tuple[str, ...]:
        """Labelled cases in plain string order."""
        return self.dataset.case_ids

    def read(self, case: str) -> Volume | Masks:
        """Return the reference of a case: its masks where it has some, since painting would cut them."""
        found = self.dataset.case(case).references
        if found is None or isinstance(found, Path):
            return self.dataset.read_reference(case)
        value_of = {name: value for value, name in self.dataset.card.labels.items()}
        masks: dict[Member, Path] = {value_of[name]: path for name, path in found.items()}
        return read_masks(case, masks, max_bytes=self.dataset.max_bytes).as_labels()

    def files(self, case: str) -> tuple[Path, ...]:
        """Return the files of a case's reference: one label map, or one mask per structure."""
        return self.dataset.case(case).reference_files


def files_of(source: Path | Mapping[Member, Path] | None) -> tuple[Path, ...]:
    """Return the files that a label map, or the masks of a case, are read from."""
    if source is None:
        return ()
    return (source,) if isinstance(source, Path) else tuple(source.values())


def reference_folder(
    folder: Path,
    *,
    labels: tuple[int, ...] | None,
    regions: Mapping[str, tuple[int, ...]],
    structures: Mapping[str, Member],
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> FolderReferences:
    """Return the references of a folder.

    Args:
        folder: label maps named by case, or a folder of masks for each case.
        labels: values that a label map may hold; None allows any.
        regions: name -> labels; in a folder of masks each case has them all.
        structures: name of a mask, in small letters -> what it shows.
        max_bytes: largest volume that is read.

    Raises:
        SegbenchError: SB201 no such folder, SB216 two files for one case, SB303 a case without the mask of a
            region, SB311 no case, SB339 a name that is not a case id.
    """
    found = volumes_by_case(folder, role="reference")
    twice = {case: paths for case, paths in found.items() if len(paths) > 1}
    if twice:
        raise two_files(twice, "reference", folder)
    paths: dict[str, Path | Mapping[Member, Path]] = {case: each[0] for case, each in found.items()}
    masks = {} if paths else mask_folders(folder)
    for case, files in masks.items():
        chosen, _ = named_masks(case, files, structures)
        paths[case] = chosen
        absent = without_mask(regions, chosen)
        if absent:
            raise SegbenchError(
                "SB303",
                f"the reference of case {case} has no mask of {', '.join(absent[:5])}",
                path=folder / case,
                expected=f"a mask of each region: {', '.join(list(regions)[:10])}",
                found=", ".join(path.name for path in files[:10]),
                mend="name the regions that are there with --region, or the cases with --cases",
            )
    wrong = sorted(case for case in paths if not is_safe_case(case))
    if wrong:
        raise SegbenchError(
            "SB339",
            "names of references that are not case ids",
            path=folder,
            expected=CASE_RULE,
            found=some(wrong, 10),
        )
    if not paths:
        raise no_volume(folder)
    return FolderReferences(paths, labels, max_bytes)


def no_volume(folder: Path) -> SegbenchError:
    """SB311: what lies in a folder of references instead of label maps."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith(SKIPPED))
    converted = {hint for name in names if (hint := conversion(name)) is not None}
    return SegbenchError(
        "SB311",
        "no reference in this folder",
        path=folder,
        expected=f"files that end in {' or '.join(VOLUME_ENDINGS)}, or a folder of masks for each case",
        found=some(names) if names else "an empty folder",
        mend=converted.pop() if converted else "name the folder that holds the references",
    )


def volumes_by_case(folder: Path, *, role: str, known: Iterable[str] = ()) -> dict[str, list[Path]]:
    """Return the files of a folder by case id, several for one id where there are several.

    Args:
        folder: the folder.
        role: what its files are, for the error.
        known: ids there are: a name that one of them alone spells another way is of that case.

    Raises:
        SegbenchError: SB201 when the folder does not exist.
    """
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise SegbenchError(
            "SB201",
            f"the {role} folder is not readable: {(error.strerror or str(error)).lower()}",
            path=folder,
            mend=f"name a folder of {role}s",
        ) from error
    found, meant = dict[str, list[Path]](), spelling(known)
    for name in names:
        if name.startswith(SKIPPED):
            continue
        parts = stem_and_ending(name)
        if parts is not None:
            found.setdefault(meant(parts[0]), []).append(folder / name)
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
        paths: case id -> file, or what a mask shows -> file, or None where there is none.
        extra: names of volumes without a reference, sorted; never scored.
        absent: case id -> why there is no file, where that is known.
    """

    paths: Mapping[str, Path | Mapping[Member, Path] | None]
    extra: tuple[str, ...] = ()
    absent: Mapping[str, str] = field(default_factory=dict[str, str])


def find_predictions(
    folder: Path, cases: Sequence[str], known: Sequence[str], structures: Mapping[str, Member] | None = None
) -> Predictions:
    """Return the prediction of each case and the files that belong to none.

    Args:
        folder: the prediction folder: label maps named by case, or a folder of masks for each case.
        cases: case ids to score.
        known: every case id that has a reference, so that a subset makes no file look superfluous.
        structures: name of a mask, in small letters -> what it shows.

    Raises:
        SegbenchError: SB201 no such folder, SB215 no case has a prediction, SB216 two files for one case.
    """
    have_reference = {*cases, *known}
    meant = spelling(have_reference)
    found = volumes_by_case(folder, role="prediction", known=have_reference)
    wanted = set(cases)
    twice = {case: paths for case, paths in found.items() if len(paths) > 1 and case in wanted}
    if twice:
        raise two_files(twice, "prediction", folder)
    paths: dict[str, Path | Mapping[Member, Path] | None] = {
        case: found[case][0] if case in found else None for case in cases
    }
    absent: dict[str, str] = {}
    without = [case for case in cases if paths[case] is None]
    unread, masks = (unread_by_case(folder), mask_folders(folder)) if without else ({}, {})
    unread = {meant(name): path for name, path in unread.items()}
    masks = {meant(name): each for name, each in masks.items()}
    for case in without:
        if case in unread:
            paths[case] = unread[case]
        else:
            chosen, others = named_masks(case, masks.get(case, ()), structures or {})
            chosen = {**unread_masks(folder / case, structures or {}), **chosen}
            if chosen:
                paths[case] = chosen
            elif not others and (alone := _first_unread(folder / case)) is not None:
                paths[case] = alone
            elif others:
                seen = ", ".join(others[:3])
                absent[case] = f"the folder {case} has no mask that is named like a region, but {seen}"
    extra = [path.name for case, each in found.items() if case not in have_reference for path in each]
    if any(isinstance(source, Mapping) for source in paths.values()):
        extra += [f"{case}/" for case in masks if case not in have_reference]
    files = [path for source in paths.values() for path in files_of(source)]
    if all(unread_ending(path.name) for path in files):
        raise none_found(folder, cases, absent, files)
    return Predictions(paths, tuple(sorted(extra)), absent)


def unread_by_case(folder: Path) -> dict[str, Path]:
    """Return the files whose format is known and not read, by the case they are named after."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        ending = unread_ending(path.name)
        if ending is not None:
            found.setdefault(path.name[: -len(ending)], path)
    return found


def _first_unread(folder: Path) -> Path | None:
    """The first file below a case's folder whose format is known and not read, such as a DICOM-SEG."""
    files = sorted(folder.rglob("*")) if folder.is_dir() else []
    return next((path for path in files if unread_ending(path.name) is not None), None)


def none_found(
    folder: Path, cases: Sequence[str], absent: Mapping[str, str] | None = None, unread: Sequence[Path] = ()
) -> SegbenchError:
    """Why no case finds its prediction: another format (SB202), or other names (SB215), both sides shown.

    Args:
        folder: of the predictions.
        cases: that were looked for.
        absent: case id -> why there is no file, where that is known.
        unread: files of the cases in a format that is not read.
    """
    names = [str(path.relative_to(folder)) for path in unread]
    names = names or sorted(path.name for path in folder.iterdir() if not path.name.startswith(SKIPPED))
    reasons = list((absent or {}).values())[:3]
    mend = "--region NAME=LABEL with names of the masks" if reasons else None
    mend = conversion(unread[0].name) if unread else mend
    what = "no prediction is in a format that is read" if unread else "no prediction for any"
    error = SegbenchError(
        "SB202" if unread else "SB215",
        f"{what} of the {len(cases)} cases: nothing was scored"
        if not unread
        else f"{what}: nothing was scored",
        path=folder,
        expected=some([f"{case}.nii.gz" for case in cases]),
        found=some(names) if names else "an empty folder",
        mend=mend
        or misplaced(folder, cases)
        or "give files the names of the references, or name the folder that holds them",
        details=reasons,
    )
    error.exit_code = 4
    return error


def misplaced(folder: Path, cases: Sequence[str]) -> str | None:
    """How to move or rename the files of a folder so that each case finds its own; None where nobody knows.

    Args:
        folder: of predictions: folders that hold files named as the cases, or names that begin with a case.
        cases: ids with a reference.
    """
    known, meant = set(cases), spelling(cases)
    below = {name: [structure(path) for path in files] for name, files in mask_folders(folder).items()}
    inside = [name for name, stems in below.items() if not known.isdisjoint(map(meant, stems))]
    if len(inside) == 1:
        return f"files named as the cases lie in {folder / inside[0]}: name that folder"
    if inside:
        where = f"{cases[0]}/{inside[0]}.nii.gz"
        return f"{some(inside)} hold files named as the cases: name one, or make a folder per case, {where}"
    stems = [structure(path) for path in sorted(folder.iterdir()) if stem_and_ending(path.name)][:50]
    owners = [max((case for case in known if stem.startswith(case)), key=len, default="") for stem in stems]
    ends = [stem.removeprefix(case) for stem, case in zip(stems, owners, strict=True) if case]
    if len(set(ends)) == 1:
        return f"take {ends[0]} out of the names: the rest is the case"
    if ends and all(owners):
        to = f"{owners[0]}/{ends[0].strip('_-. ')}.nii.gz"
        return f"one mask per structure lies in a folder per case: {to}, not {stems[0]}.nii.gz"
    return None
