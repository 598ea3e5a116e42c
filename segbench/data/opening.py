"""Finds a dataset's folder and opens it; says how to come by it when it is not here (SB301)."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from segbench.cards import find_card_folder, list_dataset_cards, load_dataset_card
from segbench.cards.dataset_card import SLUG, DatasetCard
from segbench.core import console
from segbench.core.environment import data_dir as resolve_data_dir
from segbench.core.errors import SegbenchError
from segbench.data.adapters import discover
from segbench.data.dataset import Dataset
from segbench.data.finding import Finding
from segbench.data.recognise import PHANTOM_OF, describe_folder
from segbench.volumes.volume import DEFAULT_MAX_BYTES

MISSION = tuple(PHANTOM_OF)
"""The four datasets of the README, for which `--dataset mission` stands."""


def open_dataset(
    dataset: str | Path | DatasetCard,
    *,
    path: Path | str | None = None,
    data_dir: Path | str | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> Dataset:
    """The dataset, its cases listed; no volume is opened and nothing is written.

    Args:
        dataset: A slug, a card, or a folder that describes itself (MSD, nnU-Net v2, AbdomenAtlas, phantoms).
        path: The dataset's root itself.
        data_dir: The folder that holds the datasets (else `SEGBENCH_DATA`, else ./data).
        max_bytes: Largest volume that will be read (`--max-volume`).

    Raises:
        SegbenchError: SB101 unknown name, SB301 not here, SB302 layout not recognised or ambiguous, SB311 no
            case at all, SB330 pseudo-labels, SB331 invalid dataset.json.

    A phantom card whose folder is absent is generated first, into the data directory.
    """
    card, splits_folder, root = _resolve(dataset)
    if path is not None:
        root = Path(path).expanduser()
        if not _holds_files(root):
            raise absent(card, looked=[root], base=None)
    elif root is None:
        root = find_root(card, data_dir)
        if root is None and card.is_phantom:
            root = _generate(card, resolve_data_dir(data_dir))
        if root is None:
            base = resolve_data_dir(data_dir)
            raise absent(card, looked=[base / name for name in card.location.folders], base=base)
    _refuse_pseudo_labels(card, root)
    discovery = discover(card, root)
    if not discovery.cases:
        raise _no_case(card, root, discovery.findings)
    return Dataset(card, root, discovery, splits_folder, max_bytes)


def find_root(card: DatasetCard, data_dir: Path | str | None = None) -> Path | None:
    """The first folder with a name of the card under the data directory that is not empty, or None.

    A data directory that has such a name itself is the dataset's own folder.
    """
    base = resolve_data_dir(data_dir)
    found = next((base / name for name in card.location.folders if _holds_files(base / name)), None)
    own = base.resolve().name in card.location.folders and _holds_files(base)
    return base if found is None and own else found


def _holds_files(folder: Path) -> bool:
    """Whether a folder is there and not empty; one that may not be listed tells why when it is read."""
    try:
        return any(folder.iterdir())
    except OSError:
        return folder.is_dir()


def _resolve(dataset: str | Path | DatasetCard) -> tuple[DatasetCard, Path | None, Path | None]:
    """Card, folder of its splits, and the root when the name is a folder."""
    if isinstance(dataset, DatasetCard):
        return dataset, _splits_of(dataset.slug), None
    text = str(dataset)
    if isinstance(dataset, str) and re.fullmatch(SLUG, text) and text in list_dataset_cards():
        return load_dataset_card(text), _splits_of(text), None
    folder = Path(text).expanduser()
    if folder.is_dir():
        card = describe_folder(folder)
        return card, _splits_of(card.slug), folder
    if isinstance(dataset, Path) or os.sep in text:
        raise SegbenchError(
            "SB301", f"there is no folder {text}", path=folder, mend="name a folder that exists, or a dataset"
        )
    return load_dataset_card(text), _splits_of(text), None  # raises SB101 with suggestions


def _splits_of(slug: str) -> Path | None:
    return find_card_folder("datasets", slug) / "splits" if slug in list_dataset_cards() else None


def phantom_kind(card: DatasetCard) -> str | None:
    """The kind of phantom that has just the layout of a card; None where there is none."""
    if card.phantom is not None:
        return card.phantom.kind
    return PHANTOM_OF.get(card.slug, "msd" if card.layout.adapter == "msd" else None)


def absent(card: DatasetCard, *, looked: list[Path], base: Path | None) -> SegbenchError:
    """SB301: where was looked, how one comes by the data, what to use meanwhile."""
    first = next((path for path in looked if path.is_dir()), looked[0])
    others = [path for path in looked if path != first]
    why = "the folder is empty" if first.is_dir() else "the folder does not exist"
    source = "" if base is None else f" (from {_as_typed(base)})"
    lines = [f"looked in {first}{source}: {why}"]
    if others:
        lines.append(f"also tried: {', '.join(path.name for path in others)}")
    lines.append(how_to_get(card, base))
    kind, mend = phantom_kind(card), f"see segbench show dataset:{card.slug}"
    if kind is not None:
        mend = f"to try the same layout without it: segbench data phantom {kind} DIR"
    return SegbenchError(
        "SB301", f"dataset {card.slug} is not here", details=[line for line in lines if line], mend=mend
    )


_WAYS = {
    "public": "free, download by hand",
    "registration": "after registration",
    "on-request": "from its authors, on request",
    "private": "not public",
    "phantom": "generated when it is used",
}


def availability(slugs: Sequence[str], data_dir: Path | str | None = None) -> list[list[str]]:
    """One row for each dataset, those of the mission first: name, how to get it, size, whether it is here."""
    rows: list[list[str]] = []
    others = [slug for slug in slugs if slug not in MISSION]
    for slug in [*(slug for slug in MISSION if slug in slugs), *others]:
        try:
            card = load_dataset_card(slug)
        except SegbenchError:  # a card with faults is told by itself
            continue
        sizes = [download.bytes for download in card.availability.download]
        size = _megabytes(sum(s for s in sizes if s)) if sizes and all(sizes) else ""
        how = _WAYS[card.availability.kind]
        if card.availability.download:
            how = f"segbench data fetch {slug}"
        rows.append([slug, how, size, "here" if find_root(card, data_dir) else "not here"])
    return rows


def in_one_table(
    errors: Sequence[SegbenchError], slugs: Sequence[str], data_dir: Path | str | None = None
) -> list[SegbenchError]:
    """The errors of a command, its datasets that are not here (SB301) as one table where they are many."""
    absent = [error for error in errors if error.code == "SB301"]
    if len(absent) <= 2:
        return list(errors)
    header = ["dataset", "how to get it", "size", "state"]
    lines = [line[2:] for line in console.table_lines(header, availability(slugs, data_dir))]
    base = resolve_data_dir(data_dir)
    told = SegbenchError(
        "SB301",
        f"{len(absent)} of {len(slugs)} datasets are not here",
        path=base,
        details=lines,
        mend="more: segbench show dataset:NAME; stand-ins: segbench data phantom all DIR",
    )
    return [*(error for error in errors if error.code != "SB301"), told]


def _as_typed(base: Path) -> str:
    """A folder as a reader takes it for one: `./data`, but `../data` and `/data` as they are."""
    return base.as_posix() if base.is_absolute() or base.parts[:1] == ("..",) else f"./{base.as_posix()}"


def how_to_get(card: DatasetCard, base: Path | None = None) -> str:
    """One line on how one comes by a dataset, by the kind of its availability."""
    kind, folder = card.availability.kind, (base or Path("data")) / card.location.folders[0]
    if kind == "public":
        sizes = [download.bytes for download in card.availability.download]
        facts = [_megabytes(sum(s for s in sizes if s))] if sizes and all(sizes) else []
        facts += [card.availability.licence] if card.availability.licence else []
        suffix = f" ({', '.join(facts)})" if facts else ""
        if card.availability.download:
            return f"free to download: segbench data fetch {card.slug}{suffix}"
        return f"free to download: {card.availability.homepage}{suffix}. Unpack it so that {folder} exists"
    if kind == "registration":
        return (
            f"given out after registration: {card.availability.homepage}. Unpack it so that {folder} exists"
        )
    if kind == "on-request":
        return f"it is given out by its authors on request only: see segbench show dataset:{card.slug}"
    if kind == "private":
        return f"not public; put it at {folder} in the layout of segbench show dataset:{card.slug}"
    return ""


def _megabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _refuse_pseudo_labels(card: DatasetCard, root: Path) -> None:
    pattern = card.layout.pseudo_labels
    whole = root.resolve()
    for name in (whole.name, whole.parent.name) if pattern else ():
        if re.search(pattern, name, re.IGNORECASE):
            raise SegbenchError(
                "SB330",
                f"{name!r} says that the labels in it are predictions of a model: they are not a reference",
                path=root,
                mend='if they are expert labels, use a copy of the card with pseudo_labels = "" (--cards)',
            )


def _no_case(card: DatasetCard, root: Path, findings: Sequence[Finding]) -> SegbenchError:
    """SB311 with what was seen, and the way out that the first special finding names."""
    special = (f.mend for f in findings if f.code in {"SB202", "SB339"})
    return SegbenchError(
        "SB311",
        f"no case of {card.slug} in {root}",
        path=root,
        expected="the layout of its dataset.json"
        if (root / "dataset.json").is_file()
        else f"the layout of segbench show dataset:{card.slug}",
        found=next((finding.file for finding in findings if finding.file), None),
        details=_bounded(list(dict.fromkeys(finding.message for finding in findings))),
        mend=next(special, None),
    )


def _bounded(lines: list[str], most: int = 3) -> list[str]:
    """The first lines and a count of the rest."""
    return lines if len(lines) <= most else [*lines[:most], f"... and {len(lines) - most} more"]


def _generate(card: DatasetCard, base: Path) -> Path:
    """Write a phantom card's data into the data directory; whoever loses a race finds equal bytes."""
    from segbench.data.phantoms import generate

    assert card.phantom is not None
    target = base / card.location.folders[0]
    arguments = card.phantom
    try:
        generate(
            arguments.kind, target, arguments.size, arguments.cases, arguments.seed, traps=arguments.traps
        )
    except SegbenchError as error:
        # A tree appears whole, in one rename; that of MSD has its own folder inside.
        whole = any(target.glob("phantom.json")) or any(target.glob("*/phantom.json"))
        if error.code != "SB337" or not whole:
            raise
    console.note(f"{card.slug} was not in {base}: generated there")
    return target
