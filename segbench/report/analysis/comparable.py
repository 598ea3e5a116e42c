"""Which entries may be compared with each other.

Entries stand in one block when data, split and scoring rules are not known to differ; recipes may differ.
What contradicts stands in a block of its own, with the differing field named, and nothing is ranked or tested
across blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from segbench.report.analysis.entries import Entry
from segbench.report.analysis.identity import UNKNOWN, data_facts, rules


def comparable(entries: Sequence[Entry]) -> list[tuple[list[Entry], tuple[str, ...]]]:
    """Entries of one dataset in groups that may be compared, with what keeps each from those before it.

    Data and split are compared on what both records know, rules on the fields that both name. Recipes may
    differ, and so may the regions that were asked for; one region with other labels is a difference.
    """
    groups: list[tuple[dict[tuple[str, ...], object], list[Entry]]] = []
    differs: list[tuple[str, ...]] = []
    for entry in entries:
        known = _facts(entry)
        reasons: dict[str, None] = {}
        for facts_of_group, members in groups:
            found = _differences(facts_of_group, known, members[0].label, entry.label)
            if not found:
                facts_of_group.update(known)
                members.append(entry)
                break
            reasons.update(dict.fromkeys(found))
        else:
            groups.append((known, [entry]))
            differs.append(tuple(reasons))
    return [(members, lines) for (_, members), lines in zip(groups, differs, strict=True)]


def _facts(entry: Entry) -> dict[tuple[str, ...], object]:
    """Data, split and rules of an entry under one set of keys; unknown ones are absent."""
    found: dict[tuple[str, ...], object] = {}
    for run in entry.runs:
        found |= data_facts(run)
    found |= {("rule", name): str(value) for name, value in rules(entry.runs[0].record).items()}
    if entry.identity.kind == "trained":  # with pretraining and without: two questions, two tables
        found["rule", "start"] = "from scratch" if entry.runs[0].record.init is None else "pretrained"
    content = entry.identity.content
    if content not in ("", UNKNOWN) and not any(run.record.references for run in entry.runs):
        found["dataset files", entry.dataset] = content
    return found


def _differences(
    a: Mapping[tuple[str, ...], object], b: Mapping[tuple[str, ...], object], first: str, second: str
) -> list[str]:
    """In what two sets of facts are known to differ, a line for each kind of data and for each rule."""
    found: dict[str, None] = {}
    for key in sorted(a.keys() & b.keys()):
        if a[key] == b[key]:
            continue
        if key[0] == "rule":
            found[f"{key[1]} is {a[key]} for {first}, {b[key]} for {second}"] = None
        elif not any(line.startswith(f"{key[0]} ") for line in found):
            found[f"{key[0]} differs ({key[1]}; {first} / {second})"] = None
    return list(found)
