"""What `segbench show dataset:NAME` prints: the card in words, with an example tree and the splits' leaks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from segbench.cards import DatasetCard, find_card_folder
from segbench.core.foreign import parse_json
from segbench.data.opening import how_to_get, phantom_kind


def describe_dataset(card: DatasetCard) -> dict[str, Any]:
    """The facts of a dataset card for people: availability, layout, labels, regions, splits, citation."""
    availability, kind = card.availability, phantom_kind(card)
    return {
        "slug": card.slug,
        "title": card.title,
        "modality": card.modality,
        "summary": card.summary,
        "availability": {
            "kind": availability.kind,
            "how to get it": how_to_get(card) or "generated on first use",
            "access": availability.how,
            "homepage": availability.homepage,
            "licence": availability.licence,
            "licence verified": "yes" if availability.licence_verified else "no",
        },
        "layout": {
            "looked for as": list(card.location.folders),
            "adapter": card.layout.adapter,
            "example": example_tree(card),
            "try it on phantoms": None if kind is None else f"segbench data phantom {kind} DIR",
        },
        "expected cases": card.expected.cases,
        "note on the count": card.expected.note,
        "channels": list(card.channels.order),
        "normalisation": list(card.channels.normalisation),
        "labels": {str(value): name for value, name in card.labels.items()},
        "regions": {name: str(list(labels)) for name, labels in card.regions.items()},
        "tolerance of NSD (mm)": {name: value for name, value in card.evaluation.nsd_tolerance_mm.items()},
        "metric profile": card.evaluation.profile,
        "training grid (mm, z y x)": None
        if card.geometry.spacing_mm is None
        else list(card.geometry.spacing_mm),
        "splits": split_notes(card),
        "citation": availability.citation,
        "more": str(find_card_folder("datasets", card.slug) / "README.md"),
    }


def example_tree(card: DatasetCard) -> list[str]:
    """A few paths as they lie under the dataset's folder, the card's first form."""
    layout, root = card.layout, card.location.folders[0]
    if layout.adapter == "tree":
        form = layout.form[0]
        files = [*form.images.values(), *((form.labels,) if form.labels else ()), *form.structures.values()]
        return [re.sub(r"{([a-z]+)}", r"<\1>", f"{root}/{name}") for name in files]
    if layout.adapter == "msd":
        return [f"{root}/dataset.json", f"{root}/imagesTr/<case>.nii.gz", f"{root}/labelsTr/<case>.nii.gz"]
    return [f"{root}/dataset.json", f"{root}/imagesTr/<case>_0000.nii.gz", f"{root}/labelsTr/<case>.nii.gz"]


def split_notes(card: DatasetCard) -> dict[str, str]:
    """The default split and the shipped lists, leaks named."""
    notes = {card.splits.default: "default"}
    folder = find_card_folder("datasets", card.slug) / "splits"
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        content = parse_json(Path(path).read_text(encoding="utf-8"))
        words = [str(content.get("source", ""))]
        if content.get("known_leaks"):
            leaking = len({case for case, _ in content["known_leaks"]})
            tested = len(content["folds"][0]["test"])
            words.append(f"at least {leaking} of {tested} test cases share a patient with training")
        if content.get("acknowledged_leaks"):
            words.append("leaks patients into the test set (counted on your tree at every load)")
        prefix = "default; " if path.stem == card.splits.default else ""
        notes[path.stem] = prefix + "; ".join(word for word in words if word)
    return notes
