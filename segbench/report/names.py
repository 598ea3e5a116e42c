"""Names as the report prints them: display names of models, pseudonyms of cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from segbench.core.errors import SegbenchError
from segbench.report import facts
from segbench.report.markup import one_line
from segbench.report.runs import Run

LONGEST = 60  # characters of a display name; longer ones are cut and told apart


def model_labels(runs: Sequence[Run]) -> dict[str, str]:
    """Display name of each model: title of its record or card, else the slug; equal titles get the slug
    appended.
    """
    titles: dict[str, str] = {}
    for run in runs:
        titles[run.model] = titles.get(run.model) or facts.title_of(run)
    for slug, title in titles.items():
        titles[slug] = one_line(title or _card_title(slug) or slug).strip() or "?"
    counts: dict[str, int] = {}
    for title in titles.values():
        counts[title] = counts.get(title, 0) + 1
    named = {slug: f"{title} ({slug})" if counts[title] > 1 else title for slug, title in titles.items()}
    return _shortened(named)


def _card_title(slug: str) -> str:
    from segbench.cards import load_model_card

    try:
        return load_model_card(slug).title
    except SegbenchError:
        return ""


def _shortened(names: Mapping[str, str]) -> dict[str, str]:
    """Names cut to a readable length; those that would then be equal get a number."""
    short: dict[str, str] = {}
    taken: set[str] = set()
    for slug, name in sorted(names.items()):
        text = name if len(name) <= LONGEST else name[: LONGEST - 3] + "..."
        number = 2
        while text in taken:
            text = f"{name[: LONGEST - 8]}... ({number})"
            number += 1
        taken.add(text)
        short[slug] = text
    return short


def pseudonymise(runs: Sequence[Run]) -> tuple[tuple[Run, ...], dict[str, str]]:
    """Runs with case ids replaced by `case-001` and so on, and the real id of each pseudonym.

    Numbers follow the sorted ids of a dataset, so that order, draws and results stay the same; with several
    datasets the pseudonym starts with the dataset's name.
    """
    ids: dict[str, set[str]] = {}
    for run in runs:
        cases = set(run.rows.case) if run.rows is not None else set()
        cases |= set(facts.test_cases(run) or ())
        ids.setdefault(run.dataset, set()).update(cases)
    several = len(ids) > 1
    names: dict[tuple[str, str], str] = {}
    for dataset, cases in ids.items():
        width = max(3, len(str(len(cases))))
        prefix = f"{dataset}-case-" if several else "case-"
        for number, case in enumerate(sorted(cases), start=1):
            names[dataset, case] = f"{prefix}{number:0{width}d}"
    back = {name: case for (_, case), name in names.items()}
    return tuple(_renamed(run, names) for run in runs), back


def _renamed(run: Run, names: Mapping[tuple[str, str], str]) -> Run:
    def known(case: str) -> str:
        return names.get((run.dataset, case), "case-unknown")

    rows = run.rows
    if rows is not None:
        rows = replace(rows, case=tuple(known(case) for case in rows.case))
    record: dict[str, Any] = dict(run.record)
    split = facts.table_of(record, "split")
    if split:
        record["split"] = {
            key: [_split_name(run.dataset, str(case), names) for case in value]
            if key in {"train", "validation", "test"} and isinstance(value, list | tuple)
            else value
            for key, value in split.items()
        }
    return replace(run, rows=rows, record=record)


def _split_name(dataset: str, case: str, names: Mapping[tuple[str, str], str]) -> str:
    """A pseudonym for listed cases; cases never scored keep a private mark, so that overlaps can still be
    counted.
    """
    return names.get((dataset, case), f"unscored-{case}")
