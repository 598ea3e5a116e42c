"""Import in place: a card and splits for a folder that describes itself; not one voxel is copied."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from segbench.cards.dataset_card import DatasetCard, parse_dataset_card
from segbench.core.atomic import atomic_write
from segbench.core.errors import SegbenchError
from segbench.data.exchange.fitting import fitting_patch
from segbench.data.opening import open_dataset
from segbench.data.patients import case_pattern_of
from segbench.data.recognise import describe_folder, described_document, described_folder, slug_of
from segbench.data.splits import from_nnunet, save_split

SPLIT_NAME = "imported"


def import_dataset(
    folder: Path | str, *, output: Path | str, slug: str | None = None, patient: str | None = None
) -> tuple[Path, DatasetCard]:
    """Write `OUTPUT/datasets/<slug>/card.toml` and the folds of a splits_final.json, if there is one.

    Args:
        folder: A dataset of MSD, nnU-Net v2 or BIDS. It is not written to.
        output: A folder of cards, to be named with `--cards` afterwards.
        slug: Slug of the card; made of the name in dataset.json, else of the folder's, by default.
        patient: What of an id names the patient, as `case_pattern_of` takes it; None: each case is one.

    Returns:
        The card's file, and the card.

    Raises:
        SegbenchError: SB104 for a `patient` that does not fit the ids; SB301 without such a folder; SB302 or
            SB331 as `open_dataset`; SB337 if the card exists already.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise SegbenchError(
            "SB301", f"there is no folder {root}", path=root, mend="name a folder that exists"
        )
    described = described_folder(root)
    if described is None:
        describe_folder(root)  # says why not; AbdomenAtlas and phantoms have a card already
        mend = "use the shipped card with --path"
        raise SegbenchError("SB302", f"{root} needs no card of its own", path=root, mend=mend)
    card = describe_folder(root, slug=None if slug is None else slug_of(slug))
    document = described_document(described, card.slug)
    # The first name is the whole path, so that the card finds its data wherever the data directory is.
    document["location"] = {"folders": list(dict.fromkeys([str(root.resolve()), root.resolve().name]))}
    if patient is not None:
        pattern = case_pattern_of(patient, open_dataset(root).case_ids)
        layout = {**document["layout"], "case_pattern": pattern}
        document |= {"layout": layout, "patient": {"group": "patient"}}
        card = parse_dataset_card({**document, "location": {"folders": [root.resolve().name]}})
    target = Path(output) / "datasets" / card.slug
    if target.exists():
        raise SegbenchError("SB337", f"{target} exists", path=target, mend="choose another --slug")
    names = _write_splits(described, card, root, target)
    geometry = document.get("geometry", {})
    fitting = None if geometry.get("patch") else fitting_patch(open_dataset(root))
    if fitting is not None:
        document["geometry"] = {**geometry, "patch": list(fitting[0])}
        card = card.model_copy(update={"geometry": card.geometry.model_copy(update={"patch": fitting[0]})})
    document["splits"] = {"default": SPLIT_NAME if names else "random-70-10-20", "files": names}
    return atomic_write(target / "card.toml", toml_text(document)), card


def _write_splits(described: Path, card: DatasetCard, root: Path, target: Path) -> list[str]:
    """The folds of splits_final.json with the labelled cases of imagesTs as the test set."""
    file = next(
        (f for f in (described / "splits_final.json", root / "splits_final.json") if f.is_file()), None
    )
    if file is None:
        return []
    dataset = open_dataset(root)
    test = tuple(
        case
        for case in dataset.case_ids
        if any(path.parent.name == "imagesTs" for path in dataset.case(case).images.values())
    )
    folds = from_nnunet(file, dataset.case_ids, dataset=card.slug)
    folds = [replace(fold, name=SPLIT_NAME, test=test) for fold in folds]
    save_split(folds, target / "splits" / f"{SPLIT_NAME}.json", source=f"{file.name} of the imported folder")
    return [SPLIT_NAME]


def toml_text(document: Mapping[str, Any]) -> str:
    """A card's document as TOML: plain values first, then one table per mapping; empty ones are left out."""
    lines = [f"{key} = {_value(value)}" for key, value in document.items() if not isinstance(value, Mapping)]
    for key, table in document.items():
        if isinstance(table, Mapping) and table:
            lines += ["", f"[{key}]"]
            lines += [f"{_key(name)} = {_value(value)}" for name, value in table.items()]
    return "\n".join(lines) + "\n"


def _key(name: object) -> str:
    text = str(name)
    plain = text.isascii() and text.replace("-", "").replace("_", "").isalnum()
    return text if plain else _value(text)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + " }"
    # JSON's escapes are TOML's, but for DEL, which JSON leaves as it is.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
