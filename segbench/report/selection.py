"""What a report shows: the metrics and regions asked for, or the headline of the metric profiles."""

from __future__ import annotations

from collections.abc import Sequence

from segbench.core.errors import unknown_name
from segbench.metrics.registry import METRICS
from segbench.report import facts
from segbench.report.block import Block
from segbench.report.display import MetricDisplay, display
from segbench.report.options import HEADLINE, Options
from segbench.report.runs import Run


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


def check_names(blocks: Sequence[Block], options: Options) -> None:
    """SB101 for a region, reference or margin that names nothing there is."""
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
