"""Everything a report says, computed once: summaries, comparisons, ranks, spread, subgroups, cost, guards.

Tables, figures, the page and report.json are views of one `Analysis`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segbench.core.errors import SegbenchError
from segbench.report import facts, guards
from segbench.report.across import Across, across_datasets
from segbench.report.block import Block, ModelScores
from segbench.report.blocks import build_blocks
from segbench.report.cost import Cost, model_cost
from segbench.report.display import MetricDisplay
from segbench.report.guards import Guard
from segbench.report.intervals import IntervalSource
from segbench.report.load import usable_runs
from segbench.report.missing import FloatArray
from segbench.report.names import model_labels, pseudonymise
from segbench.report.options import Options
from segbench.report.pairwise import Pair, compare_all
from segbench.report.patients import patient_groups
from segbench.report.ranking import ColumnRanks, rank_columns
from segbench.report.recipes import recipe_differs
from segbench.report.rows import MEAN_REGION
from segbench.report.runs import Run
from segbench.report.selection import check_names, choose_metrics, shown_regions
from segbench.report.spread import (
    Discrimination,
    SeedSpread,
    coverage_differs,
    discriminate,
    seed_spread,
)
from segbench.report.standings import Standing, column_standings, withheld_reason
from segbench.report.subgroups import Subgroups, subgroup_tables
from segbench.report.summary import Summary, summarise

Key = tuple[int, str, str]  # number of the block, region, metric


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
    check_names(blocks, options)
    return _computed(runs, blocks, metrics, options, case_names)


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
    prepared = None
    for number, block, region, metric in columns:
        key = (number, region, metric.name)
        if prepared != (number, metric.name):
            prepared = (number, metric.name)
            source.prepare(_single_columns(block, metric, options), worst=metric.worst)
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
        key: withheld_reason(blocks[key[0]], metric, discriminations[key])
        for (_, _, _, metric), key in zip(columns, summaries, strict=True)
    }
    standings = {
        key: column_standings(summaries[key], pairs[key], metric, withheld[key], options.alpha)
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
        ranks=_all_ranks(blocks, metrics, options, case_names),
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


def _single_columns(block: Block, metric: MetricDisplay, options: Options) -> list[FloatArray]:
    """Per-case values of the models with one training run, every region of a metric, NaN left out."""
    found: list[FloatArray] = []
    for region in shown_regions(block, options):
        for scores in block.models:
            if len(scores.seeds) < 2:
                values = block.per_case(scores, region, metric.name)
                found.append(values[~np.isnan(values)])
    return found


def _has_mean(summaries: Sequence[Summary], model: str) -> bool:
    return any(item.model == model and item.mean is not None for item in summaries)


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
    blocks: Sequence[Block],
    metrics: Sequence[MetricDisplay],
    options: Options,
    case_names: Mapping[str, str],
) -> dict[Key, ColumnRanks]:
    found: dict[Key, ColumnRanks] = {}
    for number, block in enumerate(blocks):
        if recipe_differs(block) or coverage_differs(block):
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
                patients=patient_groups(block, case_names),
                every_scheme=metric == metrics[0],
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
