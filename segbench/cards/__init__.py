"""Cards: models, datasets and protocols as reviewed data, found by slug."""

from segbench.cards.dataset_card import DatasetCard
from segbench.cards.locate import card_roots, cards_root
from segbench.cards.model_card import ModelCard
from segbench.cards.protocol import Protocol, list_protocols, load_protocol
from segbench.cards.registry import (
    find_card_folder,
    list_dataset_cards,
    list_model_cards,
    load_dataset_card,
    load_model_card,
)

__all__ = [
    "DatasetCard",
    "ModelCard",
    "Protocol",
    "card_roots",
    "cards_root",
    "find_card_folder",
    "list_dataset_cards",
    "list_model_cards",
    "list_protocols",
    "load_dataset_card",
    "load_model_card",
    "load_protocol",
]
