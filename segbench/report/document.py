"""report.json: the whole analysis as plain values, the same bytes for the same records."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.resources import files
from typing import Any

import numpy as np

from segbench.report import facts
from segbench.report.analysis import Analysis, Key, Standing
from segbench.report.answers import find_answers
from segbench.report.markup import json_number
from segbench.report.ranking import STABILITY_SCHEME
from segbench.report.summary import Summary

SCHEMA_VERSION = 1
PACKAGES = ("segbench", "numpy", "scipy", "pandas", "matplotlib")


def document(
    analysis: Analysis,
    *,
    published: Sequence[Mapping[str, Any]] = (),
    skipped: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """The content of report.json: no time, host, user, path or command line, floats as stored.

    Args:
        analysis: what was computed.
        published: rows of published numbers beside ours.
        skipped: figures and parts left out, each with its reason.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "settings": analysis.options.public(),
        "versions": versions(),
        "runs": [_run(analysis, run) for run in analysis.runs],
        "notes": protocol_notes(analysis),
        "answers": [item.as_json() for item in find_answers(analysis)],
        "summary": [
            summary_json(item, analysis.standings[key].get(item.model, Standing()))
            for key, items in analysis.summaries.items()
            for item in items
        ],
        "pairwise": [pair.as_json() for pairs in analysis.pairs.values() for pair in pairs],
        "stability": [row for key in analysis.ranks for row in _stability(analysis, key)],
        "schemes": [row for key in analysis.ranks for row in _schemes(analysis, key)],
        "discrimination": [_discrimination(analysis, key) for key in analysis.discriminations],
        "seeds": [
            _seeds(analysis, key, place)
            for key, items in analysis.seeds.items()
            for place in range(len(items))
        ],
        "subgroups": [row for key in analysis.subgroups for row in _subgroups(analysis, key)],
        "cost": [_plain(cost.as_json()) for cost in analysis.costs],
        "cross_dataset": _plain(analysis.across.as_json()),
        "published": [_plain(dict(row)) for row in published],
        "guards": [guard.as_json() for guard in analysis.guards],
        "skipped": [dict(item) for item in skipped],
    }


def document_text(content: Mapping[str, Any]) -> str:
    """The text of report.json: sorted keys, two-space indent, floats by repr, newline at the end."""
    return json.dumps(content, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def schema() -> dict[str, Any]:
    """The JSON Schema of report.json, as shipped."""
    resource = files("segbench.report").joinpath("schema", "report.schema.json")
    return json.loads(resource.read_text(encoding="utf-8"))


def versions() -> dict[str, str]:
    """Versions of what computed and drew the report."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def protocol_notes(analysis: Analysis) -> list[str]:
    """Notes of the protocols and metric profiles of the runs used, verbatim, each once."""
    found: dict[str, None] = {}
    for block in analysis.blocks:
        for run in block.runs:
            notes = facts.metric_profile(run).get("notes") or ()
            for note in (*facts.protocol_notes(run), *(str(note) for note in notes)):
                found.setdefault(note, None)
    return list(found)


def _run(analysis: Analysis, run: Any) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "content_sha256": run.rows.digest if run.rows is not None else None,
        "model": run.model,
        "dataset": run.dataset,
        "protocol": run.protocol,
        "fold": run.fold,
        "seed": run.seed,
        "kind": run.kind,
        "status": run.status,
        "problem": run.problem,
    }


def summary_json(item: Summary, standing: Standing) -> dict[str, Any]:
    """One row of `summary`."""
    return {
        "dataset": item.block.dataset,
        "protocol": item.block.protocol,
        "variant": item.block.variant,
        "region": item.region,
        "metric": item.metric,
        "model": item.model,
        "floor": item.scores.floor,
        "n": item.n,
        "n_expected": item.n_expected,
        "n_scored": item.n_scored,
        "n_missing": item.n_missing,
        "n_failed": item.n_failed,
        "n_both_empty": item.n_both_empty,
        "n_undefined": item.n_undefined,
        "n_seeds": item.n_seeds,
        "mean": json_number(item.mean),
        "std": json_number(item.std),
        "sem": json_number(item.sem),
        "median": json_number(item.median),
        "q1": json_number(item.q1),
        "q3": json_number(item.q3),
        "min": json_number(item.minimum),
        "max": json_number(item.maximum),
        "iqm": json_number(item.iqm),
        "mean_low": json_number(item.mean_interval.low),
        "mean_high": json_number(item.mean_interval.high),
        "mean_method": item.mean_interval.method,
        "median_low": json_number(item.median_interval.low),
        "median_high": json_number(item.median_interval.high),
        "rank": standing.rank,
        "best": standing.mark == "best",
        "second": standing.mark == "second",
        "not_different_from_best": standing.not_different_from_best,
        "note": "; ".join(part for part in (item.note, item.mean_interval.note) if part),
    }


def _place(analysis: Analysis, key: Key) -> dict[str, Any]:
    block = analysis.blocks[key[0]]
    return {"dataset": block.dataset, "protocol": block.protocol, "region": key[1], "metric": key[2]}


def _stability(analysis: Analysis, key: Key) -> list[dict[str, Any]]:
    ranks = analysis.ranks[key]
    return [
        {
            **_place(analysis, key),
            "model": model,
            "scheme": STABILITY_SCHEME,
            "n": ranks.n,
            "rank": ranks.schemes[STABILITY_SCHEME][place],
            "probability_best": json_number(float(ranks.probability_best[place])),
            "rank_low": int(ranks.rank_low[place]),
            "rank_high": int(ranks.rank_high[place]),
            "frequencies": [json_number(float(share)) for share in ranks.frequencies[place]],
            "kendall_tau": json_number(ranks.kendall_tau),
            "leave_one_out_winner_changes": ranks.winner_changes,
        }
        for place, model in enumerate(ranks.models)
    ]


def _schemes(analysis: Analysis, key: Key) -> list[dict[str, Any]]:
    ranks = analysis.ranks[key]
    return [
        {
            **_place(analysis, key),
            "scheme": scheme,
            "ranks": dict(zip(ranks.models, values, strict=True)),
            "probability_best": {
                model: json_number(share)
                for model, share in zip(ranks.models, ranks.best_by_scheme.get(scheme, ()), strict=False)
            },
        }
        for scheme, values in ranks.schemes.items()
    ]


def _discrimination(analysis: Analysis, key: Key) -> dict[str, Any]:
    item = analysis.discriminations[key]
    return {
        **_place(analysis, key),
        "sd_between": json_number(item.sd_between),
        "sd_within": json_number(item.sd_within),
        "ratio": json_number(item.ratio),
        "within": item.within,
        "cannot_rank": item.cannot_rank,
    }


def _seeds(analysis: Analysis, key: Key, place: int) -> dict[str, Any]:
    item = analysis.seeds[key][place]
    return {
        **_place(analysis, key),
        "model": item.model,
        "seeds": list(item.seeds),
        "means": [json_number(value) for value in item.means],
        "sd_seeds": json_number(item.sd_seeds),
        "sd_cases": json_number(item.sd_cases),
        "ratio": json_number(item.ratio),
    }


def _subgroups(analysis: Analysis, key: Key) -> list[dict[str, Any]]:
    found = analysis.subgroups[key]
    rows: list[dict[str, Any]] = []
    for place, model in enumerate(found.models):
        differences = found.differences.get(model)
        rows.append(
            {
                **_place(analysis, key),
                "model": model,
                "against": found.against,
                "interaction_p": json_number(found.interaction.get(model)),
                "spearman": json_number(found.spearman.get(model)),
                "bins": [
                    {
                        "label": label,
                        "n": found.counts[number],
                        "mean": json_number(float(found.means[number, place])),
                        "difference": json_number(differences[number]) if differences else None,
                        "low": json_number(found.intervals[model][number].low) if differences else None,
                        "high": json_number(found.intervals[model][number].high) if differences else None,
                    }
                    for number, label in enumerate(found.labels)
                ],
            }
        )
    return rows


def _plain(value: Any) -> Any:
    """Any structure of numbers as JSON values: NaN null, inf a word, numpy numbers as Python ones."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return json_number(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    return value
