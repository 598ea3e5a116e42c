"""`segbench data import dataset|predictions`: take in what other tools wrote, in place where possible."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segbench.cli.common import settings, show
from segbench.core import console
from segbench.core.text import count


def dataset(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A dataset of MSD, nnU-Net v2 or BIDS.")],
    output: Annotated[
        Path, typer.Option(metavar="CARDS_DIR", help="Receives datasets/<slug>/card.toml and splits.")
    ],
    slug: Annotated[str | None, typer.Option(help="Slug of the card; made of its name by default.")] = None,
    patient: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="What of an id names the patient, such as 'patient[0-9]+'."),
    ] = None,
) -> int:
    """Write a card and splits for a dataset that describes itself; nothing is copied or changed.

    Example: segbench data import dataset nnUNet_raw/Dataset500_Mine --output cards
    """
    from segbench.cards import list_dataset_cards
    from segbench.data.exchange import import_dataset

    known = set(list_dataset_cards())
    file, card = import_dataset(folder, output=output, slug=slug, patient=patient)
    if card.patient.group == "case":
        _hint_at_patients(folder)
    if card.slug in known:
        console.warn(
            f"there is a card {card.slug} already: both cannot be used at once; choose another --slug"
        )
    document = {
        "card": str(file),
        "slug": card.slug,
        "regions": {name: list(values) for name, values in card.regions.items()},
        "channels": list(card.channels.order),
        "patch": None if card.geometry.patch is None else list(card.geometry.patch),
    }
    show(
        document, [f"{file}: {count(len(card.channels.order), 'channel')}, regions {', '.join(card.regions)}"]
    )
    if settings().json:
        return 0
    for note in card.notes:
        console.warn(note)
    console.note(f"use it: segbench data verify {card.slug} --cards {output}")
    if card.geometry.patch is not None:
        size = "x".join(map(str, card.geometry.patch))
        console.note(
            f"every protocol takes the card's patch, which fits its scans: {size} (demo: at most 64)"
        )
    return 0


def _hint_at_patients(folder: Path) -> None:
    """Say it when ids look like several scans of a patient and nobody said so: the test set would leak."""
    from segbench.data import open_dataset
    from segbench.data.patients import looks_grouped

    ids = open_dataset(folder).case_ids
    pattern = looks_grouped(ids)
    if pattern is not None:
        console.warn(
            f"the ids look like several scans of a patient (such as {ids[0]}); each case counts as a patient "
            f"of its own, unless you say --patient '{pattern}'"
        )


def predictions(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Label maps of another tool.")],
    map_file: Annotated[
        Path, typer.Option("--map", metavar="FILE", help="The export's segbench_label_map.json.")
    ],
    output: Annotated[Path, typer.Option(metavar="DIR", help="A folder for the result.")],
) -> int:
    """Write predictions of an exported dataset in the dataset's own label values.

    Example: segbench data import predictions THEIRS --map segbench_label_map.json --output ours
    """
    from segbench.data.exchange import import_predictions

    written, failed = import_predictions(
        folder, label_map=map_file, output=output, max_bytes=settings().max_volume
    )
    document = {
        "output": str(output),
        "written": [path.name for path in written],
        "failed": [error.as_dict() for error in failed],
    }
    show(document, [f"{output}: {len(written)} predictions, {len(failed)} failed"])
    for error in failed:
        console.fail(error)
    if not failed:
        return 0
    return 3 if written else 4
