"""Cards by slug: found lazily, a slug defined twice is an error, an unknown one gets suggestions."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

from segbench.cards.dataset_card import DatasetCard, read_dataset_card
from segbench.cards.locate import card_roots
from segbench.cards.model_card import ModelCard, read_model_card
from segbench.core.errors import SegbenchError, unknown_name

Kind = Literal["models", "datasets"]
Card = TypeVar("Card", ModelCard, DatasetCard)


def list_model_cards() -> tuple[str, ...]:
    """Slugs of all models and baselines, sorted."""
    return tuple(sorted(_card_files("models", card_roots())))


def list_dataset_cards() -> tuple[str, ...]:
    """Slugs of all datasets, sorted."""
    return tuple(sorted(_card_files("datasets", card_roots())))


def load_model_card(slug: str) -> ModelCard:
    """The card of a model.

    Raises:
        SegbenchError: SB101 unknown slug, SB102 slug defined twice, SB110 invalid card.
    """
    return _model(card_file("models", slug))


def load_dataset_card(slug: str) -> DatasetCard:
    """The card of a dataset.

    Raises:
        SegbenchError: SB101 unknown slug, SB102 slug defined twice, SB110 invalid card.
    """
    return _dataset(card_file("datasets", slug))


def card_file(kind: Kind, slug: str) -> Path:
    """The `card.toml` of a slug (SB101 when there is none)."""
    files = _card_files(kind, card_roots())
    if slug not in files:
        raise unknown_name(kind[:-1], slug, sorted(files), listing=f"segbench list {kind}")
    return files[slug]


def find_card_folder(kind: Kind, slug: str) -> Path:
    """The folder of a card, where its README and splits are."""
    return card_file(kind, slug).parent


def _card_files(kind: Kind, roots: Iterable[Path]) -> dict[str, Path]:
    return _scan(kind, tuple(roots))


@cache
def _scan(kind: Kind, roots: tuple[Path, ...]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for root in roots:
        for path in sorted((root / kind).glob("*/card.toml")):
            slug = path.parent.name
            if slug in files:
                raise SegbenchError(
                    "SB102",
                    f"the {kind[:-1]} slug '{slug}' is defined twice",
                    path=path,
                    details=(f"the other one: {files[slug]}",),
                )
            files[slug] = path
    return files


@cache
def _model(path: Path) -> ModelCard:
    return _named_as_its_folder(read_model_card(path), path)


@cache
def _dataset(path: Path) -> DatasetCard:
    return _named_as_its_folder(read_dataset_card(path, load_like=load_dataset_card), path)


def _named_as_its_folder(card: Card, path: Path) -> Card:
    """The card; SB110 for a copy that kept the slug of the first, whose runs it would take for its own."""
    if card.slug != path.parent.name:
        raise SegbenchError(
            "SB110",
            f"the card in the folder {path.parent.name} calls itself {card.slug}",
            path=path,
            mend=f'slug = "{path.parent.name}", or call the folder {card.slug}',
        )
    return card
