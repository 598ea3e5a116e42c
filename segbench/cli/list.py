"""`segbench list`: what there is, by kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from segbench.cli.common import settings
from segbench.core import console
from segbench.core.errors import SegbenchError

Table = tuple[list[str], list[list[str]], list[dict[str, Any]]]


def list_things(
    what: Annotated[str, typer.Argument(help="models, datasets, protocols, metrics or runs.")],
    results: Annotated[Path | None, typer.Option(help="Folder of runs.", envvar="SEGBENCH_RESULTS")] = None,
) -> None:
    """List models, datasets, protocols, metrics or runs."""
    kinds: dict[str, Callable[[], Table]] = {
        "models": _models,
        "datasets": _datasets,
        "protocols": _protocols,
        "metrics": _metrics,
        "runs": lambda: _runs(results),
    }
    if what not in kinds:
        raise SegbenchError(
            "SB104",
            f"segbench list {what}: no such list",
            expected=", ".join(kinds),
            mend="segbench list models",
        )
    header, rows, documents = kinds[what]()
    if settings().json:
        console.emit_json({"schema_version": 1, what: documents})
    else:
        console.emit_table(header, rows)


def _models() -> Table:
    from segbench.cards import list_model_cards, load_model_card

    rows, documents = [], []
    for slug in list_model_cards():
        try:
            card = load_model_card(slug)
        except SegbenchError as error:  # one broken card hides no other
            console.fail(error)
            continue
        count = card.fidelity.parameters if card.fidelity is not None else None
        size = "" if count is None else f"{count / 1e6:.2f} M"
        rows.append([card.slug, card.family, card.provenance, size, card.title])
        documents.append(
            {"slug": card.slug, "kind": card.kind, "family": card.family, "provenance": card.provenance,
             "parameters": count, "title": card.title}
        )  # fmt: skip
    return ["model", "family", "provenance", "parameters", "title"], rows, documents


def _datasets() -> Table:
    from segbench.cards import list_dataset_cards, load_dataset_card

    rows, documents = [], []
    for card in map(load_dataset_card, list_dataset_cards()):
        count = card.expected.cases
        rows.append(
            [
                card.slug,
                card.modality,
                "" if count is None else str(count),
                card.availability.kind,
                card.title,
            ]
        )
        documents.append(
            {"slug": card.slug, "modality": card.modality, "cases": count,
             "availability": card.availability.kind, "title": card.title}
        )  # fmt: skip
    return ["dataset", "modality", "cases", "availability", "title"], rows, documents


def _protocols() -> Table:
    from segbench.cards import list_protocols, load_protocol

    rows, documents = [], []
    for protocol in map(load_protocol, list_protocols()):
        patch = "x".join(map(str, protocol.patch.size))
        rows.append([protocol.name, patch, f"{protocol.budget.samples:,}", protocol.notes.purpose])
        documents.append(
            {"name": protocol.name, "patch": list(protocol.patch.size), "samples": protocol.budget.samples,
             "purpose": protocol.notes.purpose}
        )  # fmt: skip
    return ["protocol", "patch", "samples", "purpose"], rows, documents


def _metrics() -> Table:
    from segbench.metrics.registry import METRICS

    rows, documents = [], []
    for info in METRICS.values():
        rows.append([info.name, info.unit, info.direction, info.needs, info.source])
        documents.append(
            {"name": info.name, "unit": info.unit, "direction": info.direction, "needs": info.needs,
             "version": info.version, "descriptive": info.descriptive, "source": info.source}
        )  # fmt: skip
    return ["metric", "unit", "better", "needs", "source"], rows, documents


def _runs(results: Path | None) -> Table:
    from segbench.core.environment import results_dir
    from segbench.runs.status import read_status

    report = read_status(results_dir(results))
    rows = [[cell.run_id, cell.state] for cell in report.cells]
    return ["run", "state"], rows, report.as_dict()["cells"]
