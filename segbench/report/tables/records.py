"""Tables about the runs themselves: discrimination, seeds, cost, missing cases, guards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segbench.report.analysis import Analysis, Key
from segbench.report.cost import COUNT_RULE, Cost
from segbench.report.display import MetricDisplay
from segbench.report.missing import BOTH_EMPTY, NOT_RUN, STATUS_CODE, failed
from segbench.report.runs import Run
from segbench.report.table import Cell, Column, Row, Table

WORST_IDS = 3


def discrimination_table(analysis: Analysis, metric: MetricDisplay) -> Table | None:
    """Whether each dataset can rank these models in one metric."""
    rows: list[Row] = []
    for key in analysis.columns(metric):
        item = analysis.discriminations[key]
        if item.sd_between is None:
            continue
        if item.ratio is None:
            word = "method noise unknown"
        else:
            word = "cannot rank methods" if item.cannot_rank else "models differ more"
        cells = (
            Cell(item.sd_between),
            Cell(item.sd_within, text=None if item.sd_within is not None else "n/a"),
            Cell(item.ratio, text=None if item.ratio is not None else "n/a"),
            Cell(None, text=item.within or "unknown"),
            Cell(None, text=word),
        )
        rows.append(Row(f"{analysis.block_title(item.block)}, {item.region}", cells))
    if not rows:
        return None
    scale, digits = metric.scale, analysis.options.digits
    suffix = "" if metric == analysis.metrics[0] else f"_{metric.name}"
    return Table(
        name=f"discrimination{suffix}",
        caption=(
            f"Can the dataset rank these methods? {metric.head}: SD of the models' means against the SD of "
            "one "
            "model's means over seeds (or folds). Below a ratio of 1 retraining moves a model further than "
            "models differ: no marks there. A ratio above 1 does not show that any two models differ; the "
            "pairwise tables do."
        ),
        columns=(
            Column(("SD between models",), None, scale=scale, digits=digits),
            Column(("SD within a model",), None, scale=scale, digits=digits),
            Column(("Ratio",), None, digits=2),
            Column(("Within",), None),
            Column(("Finding",), None),
        ),
        rows=tuple(rows),
        corner="Dataset and region",
    )


def seeds_table(analysis: Analysis, metric: MetricDisplay) -> Table | None:
    """Spread over training runs beside spread over cases, for the region mean of each dataset."""
    keys = [key for key in analysis.columns(metric) if key[1] == analysis.regions(key[0])[-1]]
    keys = [key for key in keys if analysis.seeds[key]]
    if not keys:
        return None
    scale, digits = metric.scale, analysis.options.digits
    rows: list[Row] = []
    for key in keys:
        spreads = {item.model: item for item in analysis.seeds[key]}
        for model in analysis.ordered(list(spreads)):
            item = spreads[model]
            single = len(item.seeds) == 1
            means = [value for value in item.means if value is not None]
            low, high = (min(means), max(means)) if means else (None, None)
            label = analysis.labels.get(model, model)
            label += f", {analysis.block_title(item.block)}" if len(keys) > 1 else ""
            cells = (
                Cell(None, text=f"{len(item.seeds)} ({', '.join(str(seed) for seed in item.seeds)})"),
                Cell(item.sd_seeds, text=None if item.sd_seeds is not None else "n/a", single=single),
                Cell(item.sd_cases),
                Cell(item.ratio, text=None if item.ratio is not None else "n/a"),
                Cell(low),
                Cell(high),
            )
            rows.append(Row(label, cells))
    suffix = "" if metric == analysis.metrics[0] else f"_{metric.name}"
    return Table(
        name=f"seeds{suffix}",
        caption=(
            f"Training runs: {metric.head}, {', '.join(_places(analysis, keys))}; SD of means over seeds, SD "
            "over cases, and the first over the second."
        ),
        columns=(
            Column(("Seeds at hand",), None),
            Column(("SD over seeds",), None, scale=scale, digits=digits),
            Column(("SD over cases",), None, scale=scale, digits=digits),
            Column(("Ratio",), None, digits=3),
            Column(("Lowest seed",), None, scale=scale, digits=digits),
            Column(("Highest seed",), None, scale=scale, digits=digits),
        ),
        rows=tuple(rows),
        notes=("1: one training run: no claim about the method.",) if _any_single(rows) else (),
        corner="Model and dataset" if len(keys) > 1 else "Model",
    )


def _places(analysis: Analysis, keys: Sequence[Key]) -> list[str]:
    """Datasets with the region shown of each."""
    return [f"{analysis.block_title(analysis.blocks[key[0]])} (region {key[1]})" for key in keys]


def _any_single(rows: list[Row]) -> bool:
    return any(cell.single for row in rows for cell in row.cells)


def cost_table(analysis: Analysis) -> Table | None:
    """Parameters, operations, memory and time of each model; None when no record says anything."""
    costs = [cost for cost in analysis.costs if cost.known]
    if not costs:
        return None
    order = analysis.row_order
    costs.sort(key=lambda cost: (order[cost.model], cost.dataset, cost.protocol))
    several = len({(cost.dataset, cost.protocol) for cost in costs}) > 1
    return Table(
        name="cost",
        caption=(
            f"Cost. Multiply-accumulate operations (GMAC) count {COUNT_RULE}, for one input of the size "
            "given; peak memory is the largest of training and inference; seconds per case include reading "
            "and writing, the mean over runs; GPU-hours are those of all training runs at hand. Memory and "
            "time hold for the device named, operations for the input. Not measured is a dash."
        ),
        columns=(
            Column(("Params (M)",), None, digits=2),
            Column(("GMAC",), None, digits=1),
            Column(("Peak memory (GiB)",), None, digits=1),
            Column(("s/case",), None, digits=2),
            Column(("GPU-hours",), None, digits=1),
            Column(("Input",), None),
            Column(("Device",), None),
        ),
        rows=tuple(Row(_cost_label(analysis, cost, several=several), _cost_cells(cost)) for cost in costs),
        corner="Model",
    )


def _cost_label(analysis: Analysis, cost: Cost, *, several: bool) -> str:
    label = analysis.labels.get(cost.model, cost.model)
    return f"{label}, {cost.dataset}" if several else label


def _cost_cells(cost: Cost) -> tuple[Cell, ...]:
    shape = " ".join(part for part in (cost.dtype, cost.input_shape) if part)
    return (
        Cell(cost.parameters_m),
        Cell(cost.gmacs),
        Cell(cost.peak_memory_gib),
        Cell(cost.seconds_per_case),
        Cell(cost.gpu_hours),
        Cell(None, text=shape or None),
        Cell(None, text=cost.device or None),
    )


def missing_table(analysis: Analysis) -> Table:
    """Every run: what was expected, what came, what did not, and the ids of the worst cases."""
    used = {run.run_id for block in analysis.blocks for run in block.runs}
    rows: list[Row] = []
    for block in analysis.blocks:
        for scores in block.models:
            for run in scores.runs:
                seed = scores.seeds.index(run.seed)
                mine = np.array([fold == run.fold for fold in block.folds])
                status = scores.status[seed][mine]
                label = _run_label(analysis, run, block.name)
                cases = [case for case, own in zip(block.cases, mine.tolist(), strict=True) if own]
                rows.append(Row(label, _status_cells(status, cases)))
    rows += [_unused(analysis, run) for run in analysis.runs if run.run_id not in used or run.rows is None]
    heads = ("Expected", "Scored", "Missing", "Unreadable", "Mismatch", "Both empty", "Cases")
    return Table(
        name="missing",
        caption=(
            "Runs and cases: expected and scored cases, cases without a usable prediction by cause, cases "
            "where "
            "reference and prediction are both empty in some region. Runs that were not used are listed last."
        ),
        columns=tuple(Column((head,), None, digits=0) for head in heads),
        rows=tuple(rows),
        corner="Run",
    )


def _status_cells(status: np.ndarray, cases: list[str]) -> tuple[Cell, ...]:
    covered = np.any(status != NOT_RUN, axis=1)
    broken = np.any(failed(status), axis=1)
    counts = [int(covered.sum()), int((covered & ~broken).sum())]
    counts += [
        int(np.any(status == STATUS_CODE[name], axis=1).sum())
        for name in ("missing", "unreadable", "geometry_mismatch")
    ]
    counts.append(int(np.any(status == BOTH_EMPTY, axis=1).sum()))
    lost = [case for case, gone in zip(cases, broken.tolist(), strict=True) if gone]
    shown = ", ".join(lost[:WORST_IDS]) + (
        f" and {len(lost) - WORST_IDS} more" if len(lost) > WORST_IDS else ""
    )
    return (*(Cell(float(count)) for count in counts), Cell(None, text=shown or ""))


def _run_label(analysis: Analysis, run: Run, dataset: str) -> str:
    parts = [analysis.labels.get(run.model, run.model)]
    parts += [dataset] if len({block.dataset for block in analysis.blocks}) > 1 else []
    parts += [f"fold {run.fold}"] if len({item.fold for item in analysis.runs}) > 1 else []
    return ", ".join([*parts, f"seed {run.seed}"])


def _unused(analysis: Analysis, run: Run) -> Row:
    reason = run.problem or run.status
    return Row(
        _run_label(analysis, run, run.dataset),
        (*(Cell(None) for _ in range(6)), Cell(None, text=f"not used: {reason}")),
    )


def guards_table(analysis: Analysis, *, in_notes: bool = False) -> Table:
    """Findings with code and severity; in LaTeX the messages stand below, where lines can break."""
    rows: list[Row] = []
    notes: list[str] = []
    for number, item in enumerate(analysis.guards, start=1):
        cells = [Cell(None, text=item.severity), Cell(None, text=str(len(item.runs)))]
        if in_notes:
            notes.append(f"{number}: {item.message}")
        else:
            cells.append(Cell(None, text=item.message))
        rows.append(Row(f"{number} {item.code}", tuple(cells)))
    heads = ["Severity", "Runs"] + ([] if in_notes else ["What"])
    return Table(
        name="guards",
        caption="Findings about comparability, most severe first."
        if rows
        else "No findings about comparability.",
        columns=tuple(Column((head,), None) for head in heads),
        rows=tuple(rows),
        notes=tuple(notes),
        corner="Code",
    )
