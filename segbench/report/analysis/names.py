"""Names as the report prints them: short names and titles of models, pseudonyms of cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from segbench.cards.bibtex import parse_bibtex
from segbench.core.errors import SegbenchError
from segbench.core.text import one_line
from segbench.records import facts
from segbench.report.analysis.entries import Entry
from segbench.report.read.runs import Run

FAMILIES: Mapping[str, str] = {
    "convolution": "Convolution",
    "transformer": "Transformer",
    "mamba": "Mamba",
    "floor": "Baseline",
}
"""Families of model cards as table heads, in table order; predictions of other tools stand under `Other`."""
OTHER_FAMILY = "Other"
LONGEST = 40  # characters of a short name; longer ones are cut and told apart


def named(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The entries with their printed names; entries of one label share theirs."""
    names = {entry.label: _named(entry) for entry in reversed(entries)}
    counts = Counter(entry.short for entry in names.values())
    taken: set[str] = set()
    for label, entry in sorted(names.items()):
        short = entry.short if counts[entry.short] == 1 else label
        text = short if len(short) <= LONGEST else short[: LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
        number = 2
        while text in taken:
            text = f"{short[: LONGEST - 5]}\N{HORIZONTAL ELLIPSIS} ({number})"
            number += 1
        taken.add(text)
        names[label] = replace(entry, short=text)
    fields = ("short", "title", "family", "bibtex")
    known = {label: {name: getattr(entry, name) for name in fields} for label, entry in names.items()}
    return tuple(replace(entry, **known[entry.label]) for entry in entries)


def _named(entry: Entry) -> Entry:
    """The entry with names from the card of the suite, else the record's copy of it, else the slug."""
    from segbench.cards import load_model_card

    record = entry.runs[0].record
    card = facts.table(record.model, "card")
    family = facts.text(card, "family") or facts.text(record.model, "family")
    title = facts.text(record.model, "title").strip() or facts.text(card, "title").strip()
    short = facts.text(card, "short_name")
    bibtex = _checked_bibtex(facts.text(card, "bibtex"))
    if entry.identity.kind != "external" or not family:
        try:
            own = load_model_card(entry.model)
        except SegbenchError:
            pass
        else:
            title, short, family, bibtex = own.title, own.short_name, own.family, own.bibtex
    difference = entry.label.removeprefix(one_line(entry.model))
    title = one_line(title or entry.model).strip() or "?"
    short = one_line(short or entry.model).strip() or "?"
    return replace(
        entry,
        short=short + difference,
        title=title + difference,
        family=FAMILIES.get(family, OTHER_FAMILY),
        bibtex=bibtex,
    )


def _checked_bibtex(text: str) -> str:
    """The entry of a record, which no card has checked; empty where it is not one."""
    try:
        return parse_bibtex(text).text()
    except ValueError:
        return ""


def pseudonyms(runs: Sequence[Run]) -> dict[tuple[str, str], str]:
    """`case-001` and so on for each (dataset, case); with several datasets after the dataset's name.

    Numbers follow the sorted ids of a dataset, so that order, draws and results stay the same.
    """
    ids: dict[str, set[str]] = {}
    for run in runs:
        cases = set(run.rows.case) if run.rows is not None else set()
        ids.setdefault(run.dataset, set()).update(cases | set(facts.split(run.record).test or ()))
    names: dict[tuple[str, str], str] = {}
    for dataset, cases in ids.items():
        width = max(3, len(str(len(cases))))
        prefix = f"{dataset}-case-" if len(ids) > 1 else "case-"
        for number, case in enumerate(sorted(cases), start=1):
            names[dataset, case] = f"{prefix}{number:0{width}d}"
    return names
