"""Networks by name: build them, list them, know their facts, load and export official weights.

Importing this package imports no torch; building a network does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from segbench.networks.registry import (
    allowed_overrides,
    build_network,
    build_on_meta,
    list_networks,
    network_card,
)

if TYPE_CHECKING:
    from segbench.networks.fingerprint import check_fingerprint
    from segbench.networks.released.official import LoadReport, export_official_weights, load_official_weights

__all__ = [
    "LoadReport",
    "allowed_overrides",
    "build_network",
    "build_on_meta",
    "check_fingerprint",
    "export_official_weights",
    "list_networks",
    "load_official_weights",
    "network_card",
]

_LATER = {
    "LoadReport": "segbench.networks.released.official",
    "check_fingerprint": "segbench.networks.fingerprint",
    "export_official_weights": "segbench.networks.released.official",
    "load_official_weights": "segbench.networks.released.official",
}
"""Names that need torch, by the module they are taken from at first use."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LATER[name]), name)
