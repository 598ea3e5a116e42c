"""How the numbers came about: the paragraph "Statistics" of paper and page, and the notes of protocols."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version

from segbench.records import facts
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.columns import Column
from segbench.report.analysis.data import dataset_card
from segbench.report.analysis.sentences import margin_words
from segbench.report.write.tables import STARS

CITATION = re.compile(r" \[@(segbench|satterthwaite1946|smyth2004|holm1979|shaffer1986|schuirmann1987)\]")
"""A key of `statistics.bib` within the paragraph."""


def method_sentences(analysis: Analysis) -> list[str]:
    """What the deciding columns rest on and how they were decided, with citations."""
    options = analysis.options
    columns = [column for column in analysis.main_columns() if column.means]
    unit = " and ".join(dict.fromkeys(column.unit for column in columns)) or "cases"
    several = any(len(s.seeds) > 1 for column in columns for s in analysis.blocks[column.block].models)
    runs = ", and over training runs where there are two or more" if several else ""
    failures = {
        "worst": "A case without a usable prediction has the worst value of each metric.",
        "drop-case": "A case without a usable prediction of any model is left out for all models.",
    }
    sentences = [
        f"Scores were compared with segbench {version('segbench')} [@segbench].",
        *(_data(analysis, column) for column in columns),
        failures.get(options.missing, ""),
        f"Intervals are {options.confidence * 100:g} % intervals of the mean over {unit}{runs}; they are not "
        "adjusted for multiple comparisons.",
        *_tests(analysis, [column for column in columns if column.comparisons], unit),
    ]
    return [sentence for sentence in sentences if sentence]


def _data(analysis: Analysis, column: Column) -> str:
    """Dataset, what it was counted in and how often each model was trained."""
    block = analysis.blocks[column.block]
    seeds = _span([len(scores.seeds) for scores in block.models] or [1])
    runs = f"{seeds} training run{'s' if seeds != '1' else ''}"
    count = f"n = {block.count}"
    if block.grouped:
        count = f"{count.removesuffix(')')}; the cases of a patient are averaged first)"
    return f"Results on {block.name} rest on {count} and {runs} of each model."


def _tests(analysis: Analysis, tested: Sequence[Column], unit: str) -> Iterator[str]:
    """Endpoint, tests, correction, margins and ranks, a sentence each."""
    if not tested:
        return
    claims = {pair.claim for column in tested for pair in column.comparisons}
    yield (
        f"The primary endpoint is {analysis.metrics[0].label}, averaged over regions where there are "
        "several; each other metric is a family of tests of its own, and single regions are not tested."
    )
    if "method" in claims:
        yield (
            "Where both models of a comparison have two or more training runs, training runs and "
            f"{unit} are random in a two-level test with Satterthwaite's degrees of freedom "
            "[@satterthwaite1946]. It is made with each model's own variance between runs and with these "
            "variances moderated towards those of all models [@smyth2004], and the larger p counts."
        )
    if "weights" in claims:
        yield (
            f"Where a model has a single training run, the paired t-test over {unit} is used; its claims "
            f"({STARS['weights']}) are about these trained weights, not about the method."
        )
    family = _span([len(column.comparisons) for column in tested])
    references = sorted({column.reference for column in tested if column.reference})
    names = " or ".join(analysis.names[label].short for label in references)
    ways = [f"Holm's method [@holm1979] with {names} as reference"] if references else []
    if any(column.reference is None for column in tested):
        ways.append("Shaffer's steps [@shaffer1986] for all pairs")
    yield (
        f"The p-values are adjusted for the {family} comparison{'s' if family != '1' else ''} of a dataset "
        f"by {' and '.join(ways)}; a difference is called significant below {analysis.options.alpha:g}."
    )
    margins = _margins(analysis, tested)
    if margins:
        yield (
            "Models are called equivalent where two one-sided tests [@schuirmann1987], adjusted by Holm's "
            f"method, exclude a difference beyond the margin ({margins})."
        )
    if any(column.ranks is not None and column.ranks.rank_low.size for column in tested):
        samples = f"{analysis.options.resamples:,} bootstrap samples"
        yield f"Intervals of ranks draw training runs and {unit} together ({samples})."


def _span(counts: Iterable[int]) -> str:
    """`3`, or `2 to 3` where counts differ."""
    known = sorted(counts)
    return " to ".join(str(count) for count in dict.fromkeys((known[0], known[-1])))


def _margins(analysis: Analysis, columns: Sequence[Column]) -> str:
    """The declared equivalence margins of the tested columns, with their units."""
    digits = analysis.options.digits
    found: dict[str, None] = {}
    for column in columns:
        if column.margin is not None:
            card = dataset_card(analysis.blocks[column.block].dataset)
            own = column.metric.name in analysis.options.margin or card is None
            source = "" if own or card is None else f" ({card.evaluation.margin_source})"
            words = margin_words(column.metric, column.margin, digits=digits)
            found[f"{column.metric.label} {words}{source}"] = None
    return ", ".join(found)


def protocol_notes(analysis: Analysis) -> list[str]:
    """Notes of the protocols and metric profiles of the runs used, verbatim, each once."""
    found: dict[str, None] = {}
    for block in analysis.blocks:
        for run in block.runs:
            stated = facts.table(run.record.protocol, "notes")
            notes = [stated[key] for key in sorted(stated, key=str) if key != "purpose"]
            for note in (*notes, facts.metric_profile(run.record).get("notes")):
                lines = note if isinstance(note, list | tuple) else [note] if isinstance(note, str) else []
                found |= dict.fromkeys(str(line) for line in lines if line)
    return list(found)
