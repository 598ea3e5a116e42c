"""Models side by side: every pair with tests and verdict, who lacks which case, and gates for a pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segbench.core.environment import results_dir
from segbench.core.errors import ExitCode, SegbenchError, unknown_name
from segbench.report.analysis import choose_metrics
from segbench.report.blocks import Block, build_blocks, failures
from segbench.report.compared import ComparedPair, all_pairs
from segbench.report.display import MetricDisplay
from segbench.report.gates import Gate, check_gates, floor_gates, gate_margins, loss_gates
from segbench.report.guards import Guard, find_guards
from segbench.report.intervals import IntervalSource
from segbench.report.options import Options, make_options
from segbench.report.published import PublishedRow, beside, load_published, our_numbers
from segbench.report.sides import Side, align_protocols, read_sides


@dataclass(frozen=True, slots=True)
class Lacking:
    """A case for which a model has no usable prediction."""

    dataset: str
    model: str
    case: str
    status: str


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`.

    Attributes:
        options: what was asked for.
        sides: names in the order given; the first one is what the gates judge.
        blocks: comparable runs, two models or more in each.
        metrics: compared metrics, in order.
        pairs: every pair of every dataset, region and metric.
        lacking: cases without a usable prediction.
        guards: findings, errors first.
        published: published numbers beside ours, when asked for.
        gates: conditions and whether they held.
    """

    options: Options
    sides: tuple[str, ...]
    blocks: tuple[Block, ...]
    metrics: tuple[MetricDisplay, ...]
    pairs: tuple[ComparedPair, ...]
    lacking: tuple[Lacking, ...]
    guards: tuple[Guard, ...]
    published: tuple[PublishedRow, ...]
    gates: tuple[Gate, ...]

    @property
    def exit_code(self) -> int:
        """6 when a gate failed, 3 with a finding of severity error, else 0."""
        if not all(gate.passed for gate in self.gates):
            return int(ExitCode.GATE)
        return int(
            ExitCode.PARTIAL if any(item.severity == "error" for item in self.guards) else ExitCode.DONE
        )

    def as_json(self) -> dict[str, Any]:
        """The document of `segbench compare --json`: `pairwise` holds the objects of report.json."""
        return {
            "schema_version": 1,
            "sides": list(self.sides),
            "settings": {
                "alpha": self.options.alpha,
                "missing": self.options.missing,
                "margin": {item.name: item.margin for item in self.metrics},
                "resamples": self.options.resamples,
                "seed": self.options.seed,
            },
            "pairwise": [item.pair.as_json() for item in self.pairs],
            "cases": [item.as_json() for item in self.pairs],
            "lacking": [
                {"dataset": item.dataset, "model": item.model, "case": item.case, "status": item.status}
                for item in self.lacking
            ],
            "guards": [item.as_json() for item in self.guards],
            "published": [row.as_json() for row in self.published],
            "gates": [
                {"name": gate.name, "passed": gate.passed, "message": gate.message} for gate in self.gates
            ],
        }


def compare(
    a: Path | str,
    b: Path | str,
    *others: Path | str,
    runs: Path | str | None = None,
    metrics: Sequence[str] = (),
    regions: Sequence[str] = (),
    alpha: float = 0.05,
    margin: Mapping[str, float] | None = None,
    missing: str = "worst",
    published: bool = False,
    published_root: Path | str | None = None,
    fail_under: Mapping[str, float] | None = None,
    no_worse_than: Mapping[str, float] | float | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare models on the same cases: differences with intervals, tests, verdicts and gates.

    Args:
        a: run folder, folder with the runs of one model, `cases.csv`, or label of a model in `runs`; the
            side that the gates judge.
        b: what `a` is compared with.
        *others: further sides; every pair is compared, adjusted by Holm within (dataset, region, metric).
        runs: folder in which labels are looked up; None is the results folder.
        metrics: metric columns; empty takes the headline of the metric profile.
        regions: regions; empty takes all, and their mean where there are several.
        alpha: level of tests and verdicts.
        margin: equivalence margins by metric, in stored units.
        missing: `worst`, `drop-case` or `error`.
        published: also grade published numbers beside ours.
        published_root: folder of published tables; None is that of the cards.
        fail_under: bounds on the mean of `a` by metric, over regions, on every dataset.
        no_worse_than: by metric, how much worse than each other side `a` may be; a bare number is for the
            first metric. It holds when the (1 - 2 alpha) interval excludes a larger loss: not knowing is not
            passing.
        resamples: bootstrap draws.
        seed: of the draws.

    Raises:
        SegbenchError: SB101 unknown label, metric or region, SB104 an option that cannot be, SB701 a side
            without a usable run, SB702 duplicate rows, SB703 published file invalid, SB705 no common dataset
            or case, SB215 under `missing="error"`.
    """
    options = make_options(
        metrics=metrics,
        regions=regions,
        alpha=alpha,
        margin=dict(margin or {}),
        missing=missing,
        resamples=resamples,
        seed=seed,
    )
    sides = read_sides([a, b, *others], results_dir(runs))
    members = align_protocols(sides)
    everything = build_blocks(members, missing=options.missing)
    blocks = tuple(block for block in everything if len(block.models) > 1)
    found = choose_metrics(everything, options)
    _check(everything, options)
    gated = gate_margins(no_worse_than, found)
    check_gates({**(fail_under or {}), **gated}, found)
    if not blocks:
        _refuse_nothing_common(sides, everything)
    source = IntervalSource(options.confidence, options.resamples, options.seed)
    pairs, means = all_pairs(blocks, found, source, options, [side.name for side in sides])
    guards = find_guards(
        members,
        everything,
        [],
        metrics=[metric.name for metric in found],
        beats_floor=lambda block, model, floor: None,
    )
    return Comparison(
        options=options,
        sides=tuple(side.name for side in sides),
        blocks=blocks,
        metrics=found,
        pairs=tuple(pairs),
        lacking=tuple(Lacking(block.name, *item) for block in blocks for item in failures(block)),
        guards=tuple(guards),
        published=beside(load_published(published_root), our_numbers(means)) if published else (),
        gates=(
            *floor_gates(fail_under or {}, sides[0].name, means),
            *loss_gates(gated, sides[0].name, pairs, found),
        ),
    )


def _check(blocks: Iterable[Block], options: Options) -> None:
    """SB101 for a region or a margin that names nothing there is."""
    everything = list(blocks)
    regions = sorted({region for block in everything for region in block.table_regions})
    for region in options.regions:
        if region not in regions:
            raise unknown_name("region", region, regions, listing="segbench show dataset:NAME")
    present = sorted({metric for block in everything for metric in block.metrics})
    for name in options.margin:
        if name not in present:
            raise unknown_name("metric", name, present, listing="segbench list metrics")


def _refuse_nothing_common(sides: Sequence[Side], blocks: Sequence[Block]) -> None:
    """SB705 when no two sides share a dataset; contradicting splits or profiles are findings, not this."""
    datasets = [{run.dataset for run in side.runs if run.complete} for side in sides]
    shared = {
        name for place, one in enumerate(datasets) for other in datasets[place + 1 :] for name in one & other
    }
    if shared and any(block.dataset in shared for block in blocks):
        return
    raise SegbenchError(
        "SB705",
        "the sides share no dataset",
        details=[
            f"{side.name}: {', '.join(sorted(names)) or 'none'}"
            for side, names in zip(sides, datasets, strict=True)
        ],
        mend="compare runs of the same test set",
    )
