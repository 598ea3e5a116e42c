"""The plan: the matrix of cells that a command asks for, each with its identity and state.

No torch here: a plan of thousands of cells takes seconds, opens one small file per run folder, and writes
nothing.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from segbench.cards import (
    ModelCard,
    Protocol,
    list_dataset_cards,
    list_model_cards,
    load_dataset_card,
    load_model_card,
    load_protocol,
)
from segbench.core.catalogue import ExitCode
from segbench.core.errors import SegbenchError, unknown_name
from segbench.core.text import count
from segbench.data import open_dataset
from segbench.data.digest import content_digest
from segbench.data.opening import MISSION
from segbench.data.splits import Split
from segbench.metrics.profiles import load_profile
from segbench.networks.implementation import obstacle
from segbench.records import RunRecord, read_run, run_id, run_in
from segbench.records.progress import last_step
from segbench.records.store import RUN_FILE
from segbench.runs.cell import Cell, CellState, Execution, Plan, PlannedCell, identify
from segbench.runs.code import code_of
from segbench.runs.fit import check_fit, check_selection, classes_of, protocol_for, usable_splits
from segbench.runs.forecast import with_finished
from segbench.runs.start import check_start, overlap, start_of
from segbench.runs.status import state_of

if TYPE_CHECKING:
    from segbench.data import Dataset

Card = TypeVar("Card")


@dataclass(frozen=True, slots=True)
class Request:
    """What the command asked for.

    Attributes:
        models, datasets: Slugs; globs, groups and "all" as well until `expanded`.
        protocol: Name or file; None: standard, and demo on generated images.
        overrides: `--set`.
        folds: Fold indices, or "all".
        seeds: None means the protocol's default.
        split: Name or file, None for the protocol's word.
        limit: Cases per part, 0 for all.
        data_dir: Folder of datasets (None: the usual place).
        results: Folder of runs.
        init: Weights that the networks start from.
        acknowledge: Start from them though test cases are, or may be, among what they were trained on.
    """

    models: Sequence[str]
    datasets: Sequence[str]
    results: Path
    protocol: str | None = None
    overrides: Mapping[str, object] | None = None
    folds: Sequence[int] | str = (0,)
    seeds: Sequence[int] | None = None
    split: str | None = None
    limit: int = 0
    data_dir: Path | None = None
    init: Path | None = None
    acknowledge: bool = False


def expanded(request: Request) -> Request:
    """The request with globs, groups and "all" resolved.

    Raises:
        SegbenchError: SB101 for names that no card has.
    """
    models, datasets = list_model_cards(), list_dataset_cards()
    networks = [slug for slug in models if not _is(slug, load_model_card, lambda card: card.kind == "floor")]
    real = [slug for slug in datasets if not _is(slug, load_dataset_card, lambda card: card.is_phantom)]
    groups = {"mission": MISSION}
    return replace(
        request,
        models=expand_names(request.models, models, what="model", everything=networks),
        datasets=expand_names(request.datasets, datasets, what="dataset", everything=real, groups=groups),
    )


def _is(slug: str, load: Callable[[str], Card], what: Callable[[Card], bool]) -> bool:
    """Whether a card is of a kind; a broken one is not known to be, and is told when it is asked for."""
    try:
        return what(load(slug))
    except SegbenchError as error:
        if error.code != "SB110":
            raise
        return False


def expand_names(
    names: Sequence[str],
    known: Sequence[str],
    *,
    what: str,
    everything: Sequence[str],
    groups: Mapping[str, Sequence[str]] | None = None,
) -> list[str]:
    """Names with "all", groups and globs replaced, in order, without repeats.

    Raises:
        SegbenchError: SB101 with suggestions for an unknown name or a glob that fits nothing.
    """
    found: list[str] = []
    for name in names:
        if name == "all":
            matches: Sequence[str] = everything
        elif groups and name in groups:
            matches = groups[name]
        elif any(character in name for character in "*?["):
            matches = [candidate for candidate in known if fnmatchcase(candidate, name)]
        else:
            matches = [name] if name in known else []
        if not matches and what == "dataset" and Path(name).is_dir():
            raise SegbenchError(
                "SB101",
                f"{name} is a folder, not the name of a dataset",
                mend=f"segbench data import dataset {name} --output cards, then its slug with --cards cards",
            )
        if not matches:
            raise unknown_name(what, name, known, listing=f"segbench list {what}s")
        found.extend(matches)
    return list(dict.fromkeys(found))


def make_plan(request: Request) -> Plan:
    """Cards and protocol to cells with ids and states.

    Raises:
        SegbenchError: SB101 unknown names, SB104 impossible fold or values, SB110 invalid files. A dataset
            that is not here, a split it refuses, or a card that is broken is returned in `absent`, so
            that the others go on; a model whose package is missing is blocked. SB505 when the cache folder
            cannot be written: no dataset would fare better.
    """
    absent: list[SegbenchError] = []
    models = _whole_cards(request.models, load_model_card, absent)
    datasets = _whole_cards(request.datasets, load_dataset_card, absent)
    protocols = {generated: _protocol_of(request, generated=generated) for generated in (False, True)}
    cells: list[PlannedCell] = []
    for card in datasets:
        try:
            dataset = open_dataset(card.slug, data_dir=request.data_dir)
            cells.extend(_cells_of(dataset, models, protocols[dataset.is_generated], request))
        except SegbenchError as error:
            if error.code in {"SB101", "SB104", "SB110"} or error.exit_code == ExitCode.ENVIRONMENT:
                raise
            absent.append(error)
    return Plan(in_order(with_finished(cells)), tuple(absent))


def _whole_cards(
    slugs: Sequence[str], load: Callable[[str], Card], absent: list[SegbenchError]
) -> list[Card]:
    """The cards of models or datasets; a broken one is its own fault alone, as long as another is whole."""
    whole, faults = list[Card](), list[SegbenchError]()
    for slug in slugs:
        try:
            whole.append(load(slug))
        except SegbenchError as error:
            if error.code != "SB110":
                raise
            faults.append(error)
    if faults and not whole:
        raise faults[0]
    absent += faults
    return whole


def in_order(cells: Sequence[PlannedCell]) -> tuple[PlannedCell, ...]:
    """Fold 0 and seed 0 of everything first, the cheapest first; then the other seeds, then the folds.

    A full table then stands after a fifteenth of a plan of five folds and three seeds.
    """
    return tuple(sorted(cells, key=lambda one: (one.cell.fold, one.cell.seed, one.forecast_s or 0.0)))


def _protocol_of(request: Request, *, generated: bool) -> Protocol:
    """The protocol asked for; when none is named, `demo` for generated images and `standard` for real ones.

    Generated images are for trying things out: a full training on them would take weeks and say nothing.
    """
    name = request.protocol or ("demo" if generated else "standard")
    protocol = load_protocol(name, dict(request.overrides or {}))
    load_profile(protocol.metrics.profile)
    split = protocol.split
    if request.split is not None:
        split = split.model_copy(update={"name": request.split})
    if request.limit:
        split = split.model_copy(update={"limit": request.limit})
    return protocol.model_copy(update={"split": split})


def _cells_of(
    dataset: Dataset, models: Sequence[ModelCard], protocol: Protocol, request: Request
) -> list[PlannedCell]:
    """The cells of one dataset; what only depends on (model, dataset) is computed once."""
    cells: list[PlannedCell] = []
    splits: list[Split] | None = None
    digest = content_digest(dataset)
    start = None if request.init is None else start_of(request.init)
    for model in models:
        init = start if model.kind == "network" else None
        own = protocol_for(protocol, model, dataset.card)
        if splits is None:
            name = None if own.split.name == "card" else own.split.name
            splits = usable_splits(dataset, name, own.split.limit)
        own = own.model_copy(update={"split": own.split.model_copy(update={"name": splits[0].name})})
        problem = check_fit(own, model) or (obstacle(model) if model.kind == "network" else None)
        code = code_of(model)
        if problem is None:
            classes_of(dataset.card, own.loss.output)
        by_fold = {split.fold: split for split in splits}
        for fold in _folds(request.folds, splits):
            split = by_fold[fold]
            wrong = problem or check_selection(own, split)
            if init is not None and request.acknowledge:
                init = init.model_copy(update={"overlap": overlap(init, dataset, split.test)})
            elif init is not None:
                wrong = wrong or check_start(init, dataset, split.test)
            content = identify(
                model,
                dataset.card,
                own,
                dataset_digest=digest,
                split_digest=split.digest,
                code_digest=None if code is None else code.digest,
                init=init,
            )
            seeds = request.seeds if request.seeds is not None else own.seeds.default
            for seed in seeds if model.kind == "network" else seeds[:1]:  # baselines draw no random number
                identity = run_id(
                    model.slug, dataset.card.slug, own.name, fold=fold, seed=seed, content=content
                )
                cell = Cell(
                    model, dataset.card, dataset, digest, own, split, fold, seed, identity,
                    request.results / identity, code, init, None if init is None else request.init,
                )  # fmt: skip
                record = run_in(cell.folder)
                state, note = ("planned", "") if record is None else cell_state(cell.folder, record)
                if wrong is not None and state != "done":
                    cells.append(PlannedCell(cell, "blocked", wrong.message, wrong, record))
                else:
                    cells.append(PlannedCell(cell, state, note, record=record))
    return cells


def cell_state(folder: Path, record: RunRecord) -> tuple[CellState, str]:
    """The state of a run folder, and why or how far."""
    state, holder = state_of(folder, record.status)
    if state == "failed" and record.failure is not None:
        return state, f"{record.failure.failure_class}: {record.failure.message}"
    if holder is not None:
        return state, f"pid {holder.pid} on {holder.host}"
    if state == "resumable" and record.status == "complete":
        return state, "cases.csv is gone"
    step = last_step(folder) if state == "resumable" else 0
    return state, f"step {step}" if step else ""


def check_ranks(plan: Plan, execution: Execution) -> None:
    """Refuse more processes per cell than there are samples in a batch.

    Raises:
        SegbenchError: SB104.
    """
    count = execution.gpus_per_cell
    for planned in plan.cells:
        batch = planned.cell.protocol.sampling.batch_size
        if count > batch:
            raise SegbenchError(
                "SB104",
                f"--gpus-per-cell {count}: the batch of {planned.cell.protocol.name} has {batch} samples",
                expected=f"at most {batch}",
                found=count,
                mend="fewer GPUs per cell, and more cells at a time",
            )


def _folds(asked: Sequence[int] | str, splits: Sequence[Split]) -> list[int]:
    there = [split.fold for split in splits]
    if isinstance(asked, str):
        return there
    for fold in asked:
        if fold not in there:
            raise SegbenchError(
                "SB104",
                f"--fold {fold}: the split '{splits[0].name}' has {count(len(splits), 'fold')}",
                expected=f"{there[0]} to {there[-1]}" if len(there) > 1 else f"{there[0]}",
                found=fold,
                mend="use --split folds-5 for a cross-validation",
            )
    return list(asked)


def code_news(cells: Iterable[Cell]) -> list[str]:
    """One line for each model of new cells whose like was run with other code, naming one such run."""
    found: dict[str, list[tuple[Cell, RunRecord]]] = {}
    for cell in cells:
        if cell.code is None or cell.code.digest is None or (cell.folder / RUN_FILE).is_file():
            continue
        earlier = _same_but_code(cell)
        if earlier is not None:
            found.setdefault(cell.model.slug, []).append((cell, earlier))
    lines: list[str] = []
    for pairs in found.values():
        (cell, earlier), more = pairs[0], len(pairs) - 1
        assert cell.code is not None
        known = earlier.code is not None and earlier.code.digest is not None
        what = "changed since" if known else "was not recorded in"
        many = f" (and {more} more)" if more else ""
        lines.append(f"the code of {cell.code.package} {what} run {earlier.run_id}{many}: new run")
    return lines


def _same_but_code(cell: Cell) -> RunRecord | None:
    """The newest run whose id the cell would have, were its code that run's."""
    beginning = cell.run_id.rpartition("__")[0]
    found: list[RunRecord] = []
    for path in sorted(cell.folder.parent.glob(f"{glob.escape(beginning)}__*/{RUN_FILE}")):
        try:
            record = read_run(path.parent)
        except SegbenchError:
            continue
        if record.run_id == cell.id_with(None if record.code is None else record.code.digest):
            found.append(record)
    return max(found, key=lambda record: record.created or "", default=None)
