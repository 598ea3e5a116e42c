"""Everything a report says, computed once: summaries, comparisons, ranks, spread, subgroups, cost, guards.

Tables, figures, the page and report.json are views of one `Analysis`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segbench.core.errors import SegbenchError, unknown_name
from segbench.metrics.registry import METRICS
from segbench.report import facts, guards
from segbench.report.across import Across, across_datasets
from segbench.report.blocks import Block, ModelScores, build_blocks
from segbench.report.cost import Cost, model_cost
from segbench.report.display import MetricDisplay, display
from segbench.report.guards import Guard
from segbench.report.intervals import IntervalSource
from segbench.report.load import usable_runs
from segbench.report.names import model_labels, pseudonymise
from segbench.report.options import HEADLINE, Options
from segbench.report.pairwise import Pair, compare_all
from segbench.report.ranking import ColumnRanks, rank_columns
from segbench.report.runs import MEAN_REGION, Run
from segbench.report.spread import (
    Discrimination,
    SeedSpread,
    coverage_differs,
    discriminate,
    seed_spread,
)
from segbench.report.subgroups import Subgroups, subgroup_tables
from segbench.report.summary import Summary, summarise
from segbench.report.table import Mark, column_marks

Key = tuple[int, str, str]  # number of the block, region, metric


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a model stands in a column; empty where marks are withheld."""

    rank: int | None = None
    mark: Mark = ""
    not_different_from_best: bool = False


@dataclass(frozen=True)
class Analysis:
    """The content of a report.

    Attributes:
        options: what was asked for.
        runs: all runs found, unusable ones included.
        blocks: comparable runs.
        metrics: asked metrics, in order.
        labels: display name of each model.
        summaries: by column, every model of the block, floors included.
        pairs: by column.
        standings: by column and model.
        withheld: by column, why there are no marks.
        ranks: by column.
        discriminations: by column.
        seeds: by column, one per ranked model.
        subgroups: by column of a real region.
        costs: per block and model.
        across: comparison over datasets.
        guards: findings, errors first.
        case_names: real case id by pseudonym, empty without pseudonyms.
    """

    options: Options
    runs: tuple[Run, ...]
    blocks: tuple[Block, ...]
    metrics: tuple[MetricDisplay, ...]
    labels: Mapping[str, str]
    summaries: Mapping[Key, tuple[Summary, ...]]
    pairs: Mapping[Key, tuple[Pair, ...]]
    standings: Mapping[Key, Mapping[str, Standing]]
    withheld: Mapping[Key, str]
    ranks: Mapping[Key, ColumnRanks]
    discriminations: Mapping[Key, Discrimination]
    seeds: Mapping[Key, tuple[SeedSpread, ...]]
    subgroups: Mapping[Key, Subgroups]
    costs: tuple[Cost, ...]
    across: Across
    guards: tuple[Guard, ...]
    case_names: Mapping[str, str]

    def regions(self, number: int) -> tuple[str, ...]:
        """Regions shown of a block, in order."""
        return shown_regions(self.blocks[number], self.options)

    def columns(self, metric: MetricDisplay) -> list[Key]:
        """Columns of a metric over all blocks that have it."""
        return [
            (number, region, metric.name)
            for number, block in enumerate(self.blocks)
            if metric.name in block.metrics
            for region in self.regions(number)
        ]

    def block_title(self, block: Block) -> str:
        """Head of a block: the dataset, with its protocol where there are several."""
        several = len({item.protocol for item in self.blocks if item.dataset == block.dataset}) > 1
        return f"{block.name}, {block.protocol}" if several else block.name

    def ordered(self, models: Sequence[str]) -> list[str]:
        """Models in row order: by mean rank in the first metric or by name, floors last."""
        return sorted(models, key=lambda model: self.row_order[model])

    @property
    def row_order(self) -> dict[str, tuple[bool, float, str]]:
        """Sort key of each model's row."""
        floors = {scores.model for block in self.blocks for scores in block.floors}
        ranks: dict[str, list[int]] = {}
        if self.options.order == "rank" and self.metrics:
            for key in self.columns(self.metrics[0]):
                for model, standing in self.standings.get(key, {}).items():
                    if standing.rank is not None:
                        ranks.setdefault(model, []).append(standing.rank)
        names = {scores.model for block in self.blocks for scores in block.models} | set(self.labels)
        last = len(names) + 1.0
        mean = {model: float(np.mean(ranks[model])) if model in ranks else last for model in names}
        if self.options.order == "name":
            mean = dict.fromkeys(names, 0.0)
        return {model: (model in floors, mean[model], model) for model in names}


def analyse(paths: Sequence[Path | str], options: Options) -> Analysis:
    """Read the runs and compute everything.

    Raises:
        SegbenchError: SB701, SB702, SB705 of the records; SB101 for a metric, region or reference nobody has;
            SB215 under `--missing error`.
    """
    runs = usable_runs(paths, include_unfinished=options.include_unfinished)
    case_names: dict[str, str] = {}
    if options.pseudonyms:
        runs, case_names = pseudonymise(runs)
    blocks = build_blocks(runs, missing=options.missing, include_unfinished=options.include_unfinished)
    metrics = choose_metrics(blocks, options)
    _check_names(blocks, options)
    return _computed(runs, blocks, metrics, options, case_names)


def choose_metrics(blocks: Sequence[Block], options: Options) -> tuple[MetricDisplay, ...]:
    """Asked metrics, or the headline of the profiles, ranked metrics of their sets, and unknown columns."""
    present = list(dict.fromkeys(name for block in blocks for name in block.metrics))
    if options.metrics:
        for name in options.metrics:
            if name not in present:
                raise unknown_name("metric", name, present, listing="segbench list metrics")
        chosen = list(options.metrics)
    else:
        headline = [name for block in blocks for run in block.runs for name in _headline(run)]
        wanted = dict.fromkeys([*HEADLINE, *headline])
        chosen = [name for name in wanted if name in present]
        chosen += [name for name in present if _ranked_extra(name) and name not in chosen]
        if not chosen:
            chosen = [name for name in present if name in METRICS]
        chosen += [name for name in present if name not in METRICS and name not in chosen]
    tolerances = {facts.nsd_tolerance(run) for block in blocks for run in block.runs}
    tolerance = next(iter(tolerances)) if len(tolerances) == 1 else None
    return tuple(display(name, margins=options.margin, tolerance_mm=tolerance) for name in chosen)


def _headline(run: Run) -> list[str]:
    listed = facts.metric_profile(run).get("headline")
    return [str(name) for name in listed] if isinstance(listed, list | tuple) else []


def _ranked_extra(name: str) -> bool:
    """Lesion-wise and airway scores belong to the headline wherever they were computed."""
    info = METRICS.get(name)
    return (
        info is not None and info.group != "region" and not info.descriptive and not name.startswith("legacy")
    )


def _check_names(blocks: Sequence[Block], options: Options) -> None:
    regions = sorted({region for block in blocks for region in block.table_regions})
    for region in options.regions:
        if region not in regions:
            raise unknown_name("region", region, regions, listing="segbench show dataset:NAME")
    models = sorted({scores.model for block in blocks for scores in block.models})
    if options.reference is not None and options.reference not in models:
        raise unknown_name("model", options.reference, models, listing="segbench list runs")
    for name in options.margin:
        known = sorted({*METRICS, *(metric for block in blocks for metric in block.metrics)})
        if name not in known:
            raise unknown_name("metric", name, known, listing="segbench list metrics")


def shown_regions(block: Block, options: Options) -> tuple[str, ...]:
    """Regions of a block that the options ask for; all when none is named."""
    if not options.regions:
        return block.table_regions
    return tuple(region for region in options.regions if region in block.table_regions)


def _computed(
    runs: tuple[Run, ...],
    blocks: tuple[Block, ...],
    metrics: tuple[MetricDisplay, ...],
    options: Options,
    case_names: Mapping[str, str],
) -> Analysis:
    """The analysis of blocks; each part from the one set of bootstrap draws of its dataset."""
    source = IntervalSource(options.confidence, options.resamples, options.seed)
    columns = [
        (number, block, region, metric)
        for number, block in enumerate(blocks)
        for metric in metrics
        if metric.name in block.metrics
        for region in shown_regions(block, options)
    ]
    summaries: dict[Key, tuple[Summary, ...]] = {}
    pairs: dict[Key, tuple[Pair, ...]] = {}
    discriminations: dict[Key, Discrimination] = {}
    seeds: dict[Key, tuple[SeedSpread, ...]] = {}
    for number, block, region, metric in columns:
        key = (number, region, metric.name)
        summaries[key] = tuple(summarise(block, region, metric, scores, source) for scores in block.models)
        compared = [scores for scores in block.ranked if _has_mean(summaries[key], scores.model)]
        pairs[key] = tuple(
            compare_all(
                block,
                region,
                metric,
                source,
                alpha=options.alpha,
                reference=options.reference,
                models=compared,
            )
        )
        discriminations[key] = discriminate(block, region, metric)
        seeds[key] = tuple(seed_spread(block, region, metric.name, scores) for scores in block.ranked)
    withheld = {
        key: _withheld(blocks[key[0]], metric, discriminations[key])
        for (_, _, _, metric), key in zip(columns, summaries, strict=True)
    }
    standings = {
        key: _standings(summaries[key], pairs[key], metric, withheld[key], options.alpha)
        for (_, _, _, metric), key in zip(columns, summaries, strict=True)
    }
    found = guards.find_guards(
        runs,
        blocks,
        list(discriminations.values()),
        metrics=[metric.name for metric in metrics],
        beats_floor=lambda block, model, floor: _beats_floor(block, model, floor, metrics, source, options),
    )
    return Analysis(
        options=options,
        runs=runs,
        blocks=blocks,
        metrics=metrics,
        labels=model_labels(runs),
        summaries=summaries,
        pairs=pairs,
        standings=standings,
        withheld=withheld,
        ranks=_all_ranks(blocks, metrics, options),
        discriminations=discriminations,
        seeds=seeds,
        subgroups=_all_subgroups(blocks, metrics, standings, source, options),
        costs=tuple(model_cost(block, scores) for block in blocks for scores in block.models),
        across=across_datasets(
            blocks,
            metrics[0] if metrics else None,
            pairs,
            confidence=options.confidence,
            resamples=options.resamples,
            seed=options.seed,
        ),
        guards=tuple(found),
        case_names=case_names,
    )


def _has_mean(summaries: Sequence[Summary], model: str) -> bool:
    return any(item.model == model and item.mean is not None for item in summaries)


def _withheld(block: Block, metric: MetricDisplay, discrimination: Discrimination) -> str:
    """Why a column has no marks, or an empty text."""
    if metric.higher_is_better is None:
        return "direction unknown" if metric.name not in METRICS else "descriptive"
    if guards.recipe_differs(block):
        return "recipes differ"
    if coverage_differs(block):
        return "test cases differ"
    return "cannot rank methods" if discrimination.cannot_rank else ""


def _standings(
    summaries: Sequence[Summary], pairs: Sequence[Pair], metric: MetricDisplay, withheld: str, alpha: float
) -> dict[str, Standing]:
    """Ranks, marks and daggers of one column; models whose runs leak take no part, floors never do."""
    eligible = {
        item.model: round(item.mean, 12)
        for item in summaries
        if item.mean is not None and not item.scores.floor and not guards.leaks(item.scores)
    }
    rankable = metric.higher_is_better is not None and withheld not in {"recipes differ", "test cases differ"}
    if not rankable or len(eligible) < 2:
        return {item.model: Standing() for item in summaries}
    names = list(eligible)
    sign = 1 if metric.higher_is_better else -1
    ranks = {
        name: 1 + sum(sign * other > sign * eligible[name] for other in eligible.values()) for name in names
    }
    marks: list[Mark] = ["" for _ in names]
    if not withheld:
        marks = column_marks(list(eligible.values()), higher_is_better=metric.higher_is_better)
    best = [name for name, mark in zip(names, marks, strict=True) if mark == "best"]
    beaten = {
        name: all(_decided(pairs, name, rival) < alpha for rival in best)
        for name in names
        if name not in best
    }
    found: dict[str, Standing] = {item.model: Standing() for item in summaries}
    for name, mark in zip(names, marks, strict=True):
        dagger = bool(best) and name in beaten and not beaten[name] and _tested(pairs, name, best)
        found[name] = Standing(ranks[name], mark, dagger)
    return found


def _decided(pairs: Sequence[Pair], a: str, b: str) -> float:
    """The deciding adjusted p of two models; 0 where they were not tested."""
    for pair in pairs:
        if {pair.a, pair.b} == {a, b}:
            return 0.0 if pair.p_decision is None else pair.p_decision
    return 0.0


def _tested(pairs: Sequence[Pair], name: str, best: Sequence[str]) -> bool:
    return any(
        pair.p_decision is not None and {pair.a, pair.b} in [{name, b} for b in best] for pair in pairs
    )


def _beats_floor(
    block: Block,
    model: ModelScores,
    floor: ModelScores,
    metrics: Sequence[MetricDisplay],
    source: IntervalSource,
    options: Options,
) -> bool | None:
    """Whether a model is significantly better than a floor in the first metric, over all regions."""
    metric = next(
        (item for item in metrics if item.name in block.metrics and item.higher_is_better is not None), None
    )
    if metric is None:
        return None
    region = block.table_regions[-1]
    found = compare_all(block, region, metric, source, alpha=options.alpha, models=[model, floor])
    if not found or found[0].difference is None or found[0].p_wilcoxon is None:
        return None
    pair = found[0]
    ahead = pair.difference if pair.two_level is None else pair.two_level["difference"]
    return pair.significant and ahead is not None and (ahead > 0) == metric.higher_is_better


def _all_ranks(
    blocks: Sequence[Block], metrics: Sequence[MetricDisplay], options: Options
) -> dict[Key, ColumnRanks]:
    found: dict[Key, ColumnRanks] = {}
    for number, block in enumerate(blocks):
        if guards.recipe_differs(block) or coverage_differs(block):
            continue
        for metric in metrics:
            if metric.name not in block.metrics:
                continue
            columns = rank_columns(
                block,
                metric,
                shown_regions(block, options),
                alpha=options.alpha,
                confidence=options.confidence,
                resamples=options.resamples,
                seed=options.seed,
            )
            found |= {(number, item.region, metric.name): item for item in columns}
    return found


def _all_subgroups(
    blocks: Sequence[Block],
    metrics: Sequence[MetricDisplay],
    standings: Mapping[Key, Mapping[str, Standing]],
    source: IntervalSource,
    options: Options,
) -> dict[Key, Subgroups]:
    """Subgroups of the first metric, per real region, against the reference or the model ranked first."""
    found: dict[Key, Subgroups] = {}
    for number, block in enumerate(blocks):
        metric = next((item for item in metrics if item.name in block.metrics), None)
        if metric is None or len(block.ranked) < 2:
            continue
        for region in shown_regions(block, options):
            if region == MEAN_REGION:
                continue
            key = (number, region, metric.name)
            against = options.reference or _first(standings[key], block)
            tables = subgroup_tables(
                block, region, metric, source, against=against, bounds=_size_bounds(block, region)
            )
            if tables is not None:
                found[key] = tables
    return found


def _first(standings: Mapping[str, Standing], block: Block) -> str:
    ranked = [(standing.rank, name) for name, standing in standings.items() if standing.rank is not None]
    return min(ranked)[1] if ranked else block.ranked[0].model


def _size_bounds(block: Block, region: str) -> tuple[float, ...]:
    """Bounds in ml that the dataset card fixes for a region, from the record or the card itself."""
    for run in block.runs:
        card = facts.table_of(facts.table_of(run.record, "dataset"), "card")
        listed = facts.table_of(facts.table_of(card, "evaluation"), "size_bins_ml").get(region)
        if isinstance(listed, list | tuple) and listed:
            return tuple(float(value) for value in listed)
    from segbench.cards import load_dataset_card

    try:
        return tuple(load_dataset_card(block.dataset).evaluation.size_bins_ml.get(region, ()))
    except SegbenchError:
        return ()
