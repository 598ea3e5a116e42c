"""The card of a folder that describes itself: MSD, nnU-Net v2, BIDS, AbdomenAtlas, a tree of phantoms."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from segbench.cards import list_dataset_cards, load_dataset_card
from segbench.cards.dataset_card import SLUG, DatasetCard, parse_dataset_card
from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_json
from segbench.core.names import region_names, unique_names
from segbench.data.adapters import tree
from segbench.data.adapters.base import Listing, entries
from segbench.data.adapters.dataset_json import DatasetJson, read_dataset_json
from segbench.data.adapters.described import channel_name
from segbench.data.bids import DESCRIPTION, bids_document

LABEL_MAP = "segbench_label_map.json"
PHANTOM_OF = {
    "crc-2000": "crc",
    "brats2023-gli": "brats",
    "aiib2023": "aiib",
    "abdomenatlas-1.0-mini": "abdomenatlas",
}
"""The kind of phantom that has a dataset's layout; beside these every dataset of MSD."""
_REAL_CARD = {kind: slug for slug, kind in PHANTOM_OF.items()}
_NORMALISATION = {
    "ct": "ct", "nonorm": "none", "rescale_to_0_1": "rescale01", "rescaleto01": "rescale01",
    "rgb_to_0_1": "rescale01", "zscore": "zscore",
}  # fmt: skip


def describe_folder(root: Path, *, slug: str | None = None) -> DatasetCard:
    """The card that a folder's own description makes.

    Args:
        root: The folder; it, or one below it, holds `dataset.json`, `dataset_description.json` (BIDS),
            `BDMAP_*` folders or `phantom.json`.
        slug: Slug of the card; by default the name in dataset.json, else the folder's name.

    Raises:
        SegbenchError: SB302 when nobody recognises the folder, or two formats do; SB331 for an invalid
            dataset.json.
    """
    kind = _phantom_kind(root)
    if kind in _REAL_CARD:
        return load_dataset_card(_REAL_CARD[kind])
    described = described_folder(root)
    atlas = _looks_like_atlas(root)
    if described is not None and atlas:
        raise SegbenchError(
            "SB302", "the folder fits two layouts", path=root, found="dataset.json and BDMAP folders"
        )
    if atlas:
        return load_dataset_card(_REAL_CARD["abdomenatlas"])
    if described is None:
        raise SegbenchError(
            "SB302",
            f"no layout is recognised in {root}",
            path=root,
            expected="dataset.json (MSD, nnU-Net v2), dataset_description.json (BIDS), BDMAP_* folders "
            "(AbdomenAtlas), or phantom.json",
            found=", ".join(p.name for p in entries(root)[:8]) or "an empty folder",
            mend=_likely_card(root) or "name the dataset's slug and give the folder with --path",
        )
    return parse_dataset_card(described_document(described, slug), path=described)


def described_folder(root: Path) -> Path | None:
    """The folder that describes itself: this one or one below it; None where none does."""
    files = ("dataset.json", DESCRIPTION)
    return next((p for p in (root, *entries(root)) if any((p / name).is_file() for name in files)), None)


def described_document(folder: Path, slug: str | None = None) -> dict[str, Any]:
    """The card's document of a folder with a `dataset.json`, or of BIDS.

    Raises:
        SegbenchError: SB302 or SB331 as `read_dataset_json` and `bids_document`.
    """
    if not (folder / "dataset.json").is_file():
        try:
            return bids_document(folder, slug or slug_of(folder.resolve().name))
        except SegbenchError as error:
            error.mend = _likely_card(folder) or error.mend
            raise
    description = read_dataset_json(folder / "dataset.json")
    return card_document(description, folder, slug or slug_of(description.name or _folder_name(folder)))


def _likely_card(root: Path) -> str | None:
    """A hint at the shipped card that finds cases here."""
    listing = Listing()
    for slug in list_dataset_cards():
        card = load_dataset_card(slug)
        any_name = re.fullmatch(card.layout.case_pattern, "anyname")  # such ids tell nothing
        if card.layout.adapter != "tree" or any_name or card.is_phantom:
            continue
        try:
            found = tree.discover(card, card.layout, root, listing).cases
        except SegbenchError:  # a folder below that may not be read: there is no hint, and no other harm
            return None
        if found:
            return f"this looks like {slug}: name it, and give the folder with --path {root}"
    return None


def slug_of(name: str) -> str:
    """A slug made of any name: lower case, other characters to `-`."""
    slug = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")[:64]
    return slug if re.fullmatch(SLUG, slug) else "dataset"


def card_document(description: DatasetJson, folder: Path, slug: str) -> dict[str, Any]:
    """The card's document of a dataset.json, ready to be checked or written as TOML."""
    channels = unique_names(channel_name(name) for name in description.channels)
    labels = {value: name or f"label {value}" for value, name in description.labels.items()}
    regions = _regions(description)
    extra = _exported(folder)
    if extra is not None:
        named, unions = _names_of_export(extra, folder / LABEL_MAP)
        labels.update(named)
        regions = unions or regions
    modality = _modality(description)
    rules = [_NORMALISATION.get(name.strip().casefold(), "zscore") for name in description.channels]
    evaluation: dict[str, Any] = {} if description.ignore is None else {"ignore_label": description.ignore}
    document: dict[str, Any] = {
        "schema_version": 1,
        "slug": slug,
        "title": description.name or _folder_name(folder),
        "summary": str(description.raw.get("description", ""))[:200],
        "modality": modality,
        "availability": {
            "kind": "private",
            "licence": str(description.raw.get("licence", description.raw.get("license", ""))),
            "citation": str(description.raw.get("reference", "")),
        },
        "location": {"folders": list(dict.fromkeys([folder.name or slug, slug]))},
        "layout": {"adapter": description.kind},
        "channels": {"order": channels, "normalisation": rules},
        "labels": labels,
        "regions": regions,
        "geometry": {"mirror_axes": _mirror_axes(labels.values())},
        "expected": {} if not description.announced else {"cases": description.announced},
        "evaluation": evaluation,
    }
    kept = _kept_of_card(extra)
    pattern = kept.pop("case_pattern", None)
    if isinstance(pattern, str):
        document["layout"]["case_pattern"] = pattern
    return document | kept


def _names_of_export(extra: Mapping[str, Any], path: Path) -> tuple[dict[int, str], dict[str, list[Any]]]:
    """Names of the labels and the regions, as the export's label map has them (SB110 when it is none)."""
    try:
        labels = {int(value): str(name) for value, name in extra.get("labels", {}).items()}
        return labels, {str(name): list(values) for name, values in extra.get("regions", [])}
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        message = f"{path.name} is not the label map of an export ({type(error).__name__}: {error})"
        raise SegbenchError("SB110", message, path=path) from error


def _kept_of_card(extra: Mapping[str, Any] | None) -> dict[str, Any]:
    """What `segbench data export` kept of the card: channels' rules, patients, tolerances, training grid."""
    if extra is None or not isinstance(extra.get("card"), dict):
        return {}
    kept = {key: _without_none(value) for key, value in extra["card"].items()}
    evaluation = kept.get("evaluation", {})
    if isinstance(evaluation, dict):
        evaluation["ignore_label"] = extra.get("ignore")
        kept["evaluation"] = _without_none(evaluation)
    return kept


def _without_none(value: Any) -> Any:
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


def _folder_name(folder: Path) -> str:
    return re.sub(r"^(Task\d+|Dataset\d+)_", "", folder.resolve().name)


def _phantom_kind(root: Path) -> str | None:
    path = root / "phantom.json"
    if not path.is_file():
        return None
    try:
        kind = parse_json(path.read_text(encoding="utf-8")).get("kind")
    except (OSError, ValueError, AttributeError):
        return None
    return kind if isinstance(kind, str) else None


def _looks_like_atlas(root: Path) -> bool:
    levels = [root, *(p for p in entries(root)[:50] if p.is_dir())]
    return any(re.fullmatch(r"BDMAP_\d{8}", p.name) for level in levels for p in entries(level)[:50])


def _modality(description: DatasetJson) -> str:
    names = {name.strip().casefold() for name in description.channels}
    if names == {"ct"}:
        return "CT"
    magnetic = ("mr", "flair", "t1", "t2", "adc", "dwi", "pd")
    return "MR" if all(name.startswith(magnetic) for name in names) else "other"


def _mirror_axes(names: Iterable[str]) -> list[str]:
    """All axes, without x where labels come in pairs of left and right: mirrored, one would be the other."""
    folded = [name.casefold() for name in names]
    words = [tuple(re.findall(r"[a-z]+|\d+", name)) for name in folded]
    whole = {name.replace("left", "right") for name in folded if "left" in name} & set(folded)
    short = {tuple("r" if word == "l" else word for word in name) for name in words if "l" in name} & set(
        words
    )
    return ["z", "y"] if whole or short else ["z", "y", "x"]


def _regions(description: DatasetJson) -> dict[str, list[int]]:
    """nnU-Net's labels as they stand; MSD's labels one region each."""
    unions: Mapping[str, Iterable[int]] = description.regions or {
        name: (value,) for value, name in description.labels.items() if value != 0
    }
    return {name: list(values) for name, values in zip(region_names(unions), unions.values(), strict=True)}


def _exported(folder: Path) -> Mapping[str, Any] | None:
    """What `segbench data export` wrote beside dataset.json: names and regions that nnU-Net cannot hold."""
    try:
        content = parse_json((folder / LABEL_MAP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
