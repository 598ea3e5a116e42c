"""One mask per structure: TotalSegmentator and AbdomenAtlas write a folder per case and a file per organ.

Masks may overlap, and every region is scored on its own mask. Voxels become codes, one for each set of masks
that meet somewhere, and a region is the codes whose sets hold it: what scores label maps scores masks too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segbench.core.errors import SegbenchError
from segbench.core.text import some
from segbench.scoring.rules import ScoringRules
from segbench.volumes import Volume, compare_geometry, count_labels, read_label_map, stem_and_ending
from segbench.volumes.endings import unread_ending

Member = int | str
"""What a mask shows: a label value, or a region by its name."""

MASK_VALUES = ({0}, {1}, {0, 1}, {255}, {0, 255})
NOWHERE = 65535
"""The code of a region that no mask of a case holds; codes in use stay below it."""
HIDDEN = (".", "_")


@dataclass(frozen=True, eq=False)
class Masks:
    """The masks of one case in one array.

    Attributes:
        codes: the grid of the masks, each voxel the code of the masks that hold it; 0 where none does.
        sets: what each code stands for, by code.
    """

    codes: Volume
    sets: tuple[frozenset[Member], ...]

    def as_labels(self) -> Volume | Masks:
        """A plain label map where every mask shows a label and none overlap; else itself."""
        table = np.zeros(len(self.sets), dtype=np.uint16)
        for code, members in enumerate(self.sets[1:], start=1):
            value = next(iter(members))
            if len(members) > 1 or isinstance(value, str):
                return self
            table[code] = value
        return self.codes.with_array(_narrow(table)[self.codes.array])


def read_masks(
    case: str,
    paths: Mapping[Member, Path],
    *,
    max_bytes: int,
    reference: Volume | None = None,
    broken: dict[Member, SegbenchError] | None = None,
) -> Masks:
    """Return the masks of a case, read and checked.

    Args:
        case: its id, for messages.
        paths: the file of each member.
        max_bytes: largest volume that is read.
        reference: whose shape decides where masks have several; else the first mask's.
        broken: receives the faults of single masks, where the others are read all the same.

    Raises:
        SegbenchError: SB201 to SB213 as `read_label_map`, SB214 for masks on different grids, SB315 for a
            file that is not a mask; with `broken` only where no mask is left.
    """
    sets: dict[frozenset[Member], int] = {frozenset(): 0}
    first: Volume | None = None
    codes = np.zeros((1, 1, 1), dtype=np.uint16)
    read: list[Member] = []
    faults: dict[Member, SegbenchError] = {}
    for member, path in paths.items():
        try:
            mask = _read_mask(case, path, max_bytes)
            if first is not None and not compare_geometry(first, mask).same_grid:
                wanted = None if reference is None else reference.shape_zyx
                if first.shape_zyx == wanted or mask.shape_zyx != wanted:
                    raise _other_grid(case, path, first, mask)
                faults |= {each: _other_grid(case, paths[each], mask, first) for each in read}
                first = None
        except SegbenchError as error:
            faults[member] = error
            if broken is None:
                raise
            continue
        if first is None:
            first, codes, sets, read = mask, np.zeros(mask.shape_zyx, dtype=np.uint16), {frozenset(): 0}, []
        read.append(member)
        inside = mask.array != 0
        known = {code: members for members, code in sets.items()}
        moved = np.arange(len(known), dtype=np.uint16)
        for code in np.unique(codes[inside]):
            moved[code] = sets.setdefault(known[int(code)] | {member}, len(sets))
        codes[inside] = moved[codes[inside]]
    if broken is not None:
        broken.update(faults)
    if first is None:
        raise next(iter(faults.values()))
    return Masks(first.with_array(codes), tuple(sets))


def _read_mask(case: str, path: Path, max_bytes: int) -> Volume:
    mask = read_label_map(path, max_bytes=max_bytes)
    values = set(count_labels(mask.array))
    if values not in MASK_VALUES:
        raise SegbenchError(
            "SB315",
            f"{path.name} is not a mask",
            path=path,
            case=case,
            expected="0 and 1 (or 0 and 255)",
            found=", ".join(str(value) for value in sorted(values)[:10]),
            mend="write it as 0 and 1; a label map is scored from a folder of label maps",
        )
    return mask


def _other_grid(case: str, path: Path, one: Volume, other: Volume) -> SegbenchError:
    return SegbenchError(
        "SB214",
        f"the masks of case {case} do not lie on one grid",
        path=path,
        case=case,
        expected=f"shape {one.shape_zyx}, spacing {one.spacing_mm} mm, the same place",
        found=f"shape {other.shape_zyx}, spacing {other.spacing_mm} mm",
    )


def on_one_code(
    rules: ScoringRules, reference: Volume | Masks, prediction: Volume | Masks | None = None
) -> tuple[ScoringRules, Volume, Volume | None]:
    """Return both sides as maps of the same codes, and rules whose regions name these codes.

    Two label maps come back as they are, under the rules as they are.
    """
    if not isinstance(reference, Masks) and not isinstance(prediction, Masks):
        return rules, reference, prediction
    codes: dict[frozenset[Member], int] = {frozenset(): 0}
    truth = _recoded(reference, codes)
    guess = None if prediction is None else _recoded(prediction, codes)
    regions = {
        name: tuple(code for members, code in codes.items() if name in members or members & set(labels))
        for name, labels in rules.regions.items()
    }
    ignored = frozenset() if rules.ignore_label is None else frozenset({rules.ignore_label})
    return (
        replace(
            rules,
            regions={name: values or (NOWHERE,) for name, values in regions.items()},
            ignore_label=codes.get(ignored) or None,
        ),
        truth,
        guess,
    )


def _recoded(given: Volume | Masks, codes: dict[frozenset[Member], int]) -> Volume:
    """A map of shared codes; sets that are new get the next one."""
    if isinstance(given, Masks):
        volume, sets = given.codes, dict(enumerate(given.sets))
    else:
        volume = given
        sets = {value: frozenset[Member]({value} if value else ()) for value in count_labels(given.array)}
    table = np.zeros(max(sets, default=0) + 1, dtype=np.uint16)
    for value, members in sets.items():
        table[value] = codes.setdefault(members, len(codes))
    return volume.with_array(_narrow(table)[volume.array])


def _narrow(table: np.ndarray) -> np.ndarray:
    return table.astype(np.uint8) if int(table.max(initial=0)) < 256 else table


def mask_folders(folder: Path) -> dict[str, list[Path]]:
    """Return the volumes below each sub-folder, by its name: how tools lay masks per structure.

    Args:
        folder: predictions or references.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith(HIDDEN):
            files = [
                each
                for each in sorted(path.rglob("*"))
                if stem_and_ending(each.name) is not None
                and not any(part.startswith(HIDDEN) for part in each.relative_to(path).parts)
            ]
            if files:
                found[path.name] = files
    return found


def structure(path: Path) -> str:
    """The structure that a mask shows, by its file's name."""
    parts = stem_and_ending(path.name)
    return path.name if parts is None else parts[0]


def structures_of(cases: Mapping[str, Sequence[Path]]) -> list[str]:
    """Return the structures of a folder of masks, sorted, where nobody names them.

    In each case it is the folder with most volumes that holds the masks: images and combined maps lie beside
    or above it.
    """
    names: set[str] = set()
    for files in cases.values():
        by_folder: dict[Path, list[Path]] = {}
        for path in files:
            by_folder.setdefault(path.parent, []).append(path)
        names.update(structure(path) for path in max(by_folder.values(), key=len))
    return sorted(names)


def named_masks(
    case: str, files: Iterable[Path], names: Mapping[str, Member]
) -> tuple[dict[Member, Path], list[str]]:
    """Return the mask of each member, and the names of files that show none.

    Args:
        case: its id, for messages.
        files: the volumes of the case.
        names: name of a structure, in small letters -> member.

    Raises:
        SegbenchError: SB216 for two files of one structure.
    """
    chosen: dict[Member, Path] = {}
    others: list[str] = []
    for path in files:
        member = names.get(structure(path).lower())
        if member is None:
            others.append(path.name)
        elif member in chosen:
            raise SegbenchError(
                "SB216",
                f"two masks of {structure(path)} for case {case}",
                path=path.parent,
                case=case,
                details=[str(chosen[member]), str(path)],
            )
        else:
            chosen[member] = path
    return chosen, others


def unread_masks(folder: Path, names: Mapping[str, Member]) -> dict[Member, Path]:
    """Return masks of a case in a format that is not read: they are there, and are not missing.

    Args:
        folder: of the case.
        names: name of a structure, in small letters -> member.
    """
    found: dict[Member, Path] = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        ending = unread_ending(path.name)
        member = None if ending is None else names.get(path.name[: -len(ending)].lower())
        if member is not None:
            found.setdefault(member, path)
    return found


def without_mask(regions: Mapping[str, Sequence[int]], members: Collection[Member]) -> list[str]:
    """Return the regions that have neither a mask of their own nor one of each of their labels."""
    return [
        name
        for name, labels in regions.items()
        if name not in members and not all(label in members for label in labels)
    ]


def region_faults(
    rules: ScoringRules, case: str, masks: Mapping[Member, Path], broken: Mapping[Member, SegbenchError]
) -> dict[str, SegbenchError]:
    """Return why regions of a case cannot be scored: a mask that is broken, or that nobody wrote (SB215).

    Args:
        rules: which regions there are.
        case: its id.
        masks: the file of each member.
        broken: the faults of single masks.
    """
    lacking = without_mask(rules.regions, masks.keys() - broken.keys())
    if not lacking:
        return {}
    missing = SegbenchError(
        "SB215",
        f"no mask of {some(lacking, 5)} for case {case}",
        case=case,
        path=next(iter(masks.values())).parent,
        expected=f"a mask of each of {len(rules.regions)} regions",
        found=f"masks of {len(rules.regions) - len(lacking)}",
        mend="write the masks, empty ones too, or name the regions to score with --region",
    )
    members = {name: (name, *rules.regions[name]) for name in lacking}
    return {
        name: next((broken[each] for each in members[name] if each in broken), missing) for name in lacking
    }
