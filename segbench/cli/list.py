"""`segbench list`: what there is, by kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Literal, TypeVar

import typer

from segbench.cli.common import settings, show
from segbench.core import console
from segbench.core.errors import SegbenchError

Table = tuple[list[str], list[list[str]], list[dict[str, Any]]]
Card = TypeVar("Card")


def list_things(
    what: Annotated[
        Literal["models", "datasets", "protocols", "metrics", "runs"],
        typer.Argument(help="What to list; runs are those of segbench status."),
    ],
) -> None:
    """List models, datasets, protocols, metrics or runs.

    Example: segbench list models
    """
    kinds: dict[str, Callable[[], Table]] = {
        "models": _models,
        "datasets": _datasets,
        "protocols": _protocols,
        "metrics": _metrics,
        "runs": _runs,
    }
    header, rows, documents = kinds[what]()
    show({what: documents}, console.table_lines(header, rows))


def _sound(slugs: Iterable[str], load: Callable[[str], Card]) -> Iterator[Card]:
    """The cards that can be read; one that cannot is told and hides no other."""
    for slug in slugs:
        try:
            yield load(slug)
        except SegbenchError as error:
            console.fail(error)


def _models() -> Table:
    from segbench.cards import list_model_cards, load_model_card

    rows, documents = [], []
    for card in _sound(list_model_cards(), load_model_card):
        count = card.fidelity.parameters if card.fidelity is not None else None
        size = "" if count is None else f"{count / 1e6:.2f} M"
        rows.append([card.slug, card.family, card.provenance, size, card.title])
        document = card.model_dump(include={"slug", "kind", "family", "provenance", "title"})
        documents.append({**document, "parameters": count})
    return ["model", "family", "provenance", "parameters", "title"], rows, documents


def _datasets() -> Table:
    from segbench.cards import list_dataset_cards, load_dataset_card

    rows, documents = [], []
    for card in _sound(list_dataset_cards(), load_dataset_card):
        count, kind = card.expected.cases, card.availability.kind
        rows.append([card.slug, card.modality, "" if count is None else str(count), kind, card.title])
        document = card.model_dump(include={"slug", "modality", "title"})
        documents.append({**document, "cases": count, "availability": kind})
    return ["dataset", "modality", "cases", "availability", "title"], rows, documents


def _protocols() -> Table:
    from segbench.cards import list_protocols, load_protocol

    rows, documents = [], []
    for protocol in map(load_protocol, list_protocols()):
        size, samples, purpose = protocol.patch.size, protocol.budget.samples, protocol.notes.purpose
        rows.append([protocol.name, "x".join(map(str, size)), f"{samples:,}", purpose])
        document = {"name": protocol.name, "patch": list(size), "samples": samples, "purpose": purpose}
        documents.append(document)
    return ["protocol", "patch", "samples", "purpose"], rows, documents


def _metrics() -> Table:
    from segbench.metrics.registry import METRICS

    names = ("name", "unit", "direction", "needs", "version", "descriptive", "source")
    documents = [{name: getattr(info, name) for name in names} for info in METRICS.values()]
    rows = [[info.name, info.unit, info.direction, info.needs, info.source] for info in METRICS.values()]
    return ["metric", "unit", "better", "needs", "source"], rows, documents


def _runs() -> Table:
    from segbench.core.environment import results_dir
    from segbench.runs.status import read_status

    report = read_status(results_dir(settings().results))
    rows = [[cell.run_id, cell.state] for cell in report.cells]
    return ["run", "state"], rows, report.as_dict()["cells"]
