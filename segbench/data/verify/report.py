"""The report of a verification, as JSON and as text."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from segbench.core.text import count, one_line
from segbench.data.finding import SEVERITIES, Finding

SCHEMA_VERSION = 1
_LONGEST_MEND = 240  # characters: a list of absent cases may run to thousands


@dataclass(frozen=True, slots=True)
class LabelCount:
    """How often a label value occurs: voxels in all, and cases that hold it."""

    voxels: int
    cases: int


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a verification; the fields are those of `--json`.

    Attributes:
        dataset: slug.
        root: the folder that was verified.
        adapter, form: how it was read.
        cases_found: complete cases with a reference.
        cases_expected: of the card, or None.
        cases_without_reference: complete cases without one.
        labels: by value, over all references; empty after a pass over headers alone.
        findings: sorted by severity, code, case, file.
        digest: of the dataset's content, 64 hex digits; None after a pass over headers alone.
        cached: whether no file had to be opened.
    """

    dataset: str
    root: str
    findings: tuple[Finding, ...]
    adapter: str | None = None
    form: str | None = None
    cases_found: int = 0
    cases_expected: int | None = None
    cases_without_reference: int = 0
    labels: Mapping[int, LabelCount] = field(default_factory=dict[int, LabelCount])
    digest: str | None = None
    cached: bool = False
    schema_version: int = SCHEMA_VERSION
    label_names: Mapping[int, str] = field(default_factory=dict[int, str], repr=False)

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings of each severity."""
        counted = Counter(finding.severity for finding in self.findings)
        return {severity: counted[severity] for severity in SEVERITIES}

    def is_clean(self, *, strict: bool = False) -> bool:
        """Whether there is no error; with `strict` no warning either."""
        return not self.counts["error"] and not (strict and self.counts["warning"])

    def as_json(self) -> dict[str, Any]:
        """The document that `--json` prints."""
        document = asdict(self) | {"counts": self.counts}
        del document["label_names"]
        return document | {
            "labels": {str(value): asdict(self.labels[value]) for value in sorted(self.labels)}
        }


def sorted_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings in the order of a report, each once."""
    return tuple(sorted(set(findings), key=lambda finding: finding.order))


def as_text(report: Report, *, verbose: bool = False, examples: int = 3) -> str:
    """The report for people: counts, label table, findings grouped by code.

    Args:
        report: the report.
        verbose: list every finding, infos too.
        examples: findings shown of each code otherwise.
    """
    expected = f" here, {report.cases_expected} expected" if report.cases_expected else ""
    unlabelled = (
        f", {report.cases_without_reference} without a reference" if report.cases_without_reference else ""
    )
    cases = count(report.cases_found, "case")
    lines = [f"{report.dataset}: {cases}{expected}{unlabelled}   ({report.root})"]
    lines += _label_lines(report)
    groups: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for entry in report.findings:
        groups[entry.severity, entry.code].append(entry)
    for (severity, code), entries in groups.items():
        lines += _group_lines(severity, code, entries, None if verbose else examples)
    counts = report.counts
    words = [count(counts[severity], severity) for severity in ("error", "warning") if counts[severity]]
    verdict = ", ".join(words) if words else "no errors, no warnings"
    notes = f" ({count(counts['info'], 'note')})" if counts["info"] else ""
    lines.append(f"{verdict}{notes}")
    if report.digest is not None:
        lines.append(f"content sha256 {report.digest}")
    return "\n".join(lines)


def _label_lines(report: Report) -> list[str]:
    if not report.labels:
        return []
    rows = [("label", "", "voxels", "cases")]
    for value, held in sorted(report.labels.items()):
        name = report.label_names.get(value, "not declared")
        rows.append((str(value), name, f"{held.voxels:,}", str(held.cases)))
    wide = [max(len(row[i]) for row in rows) for i in range(4)]
    return [
        f"  {a.rjust(wide[0])}  {b.ljust(wide[1])}  {c.rjust(wide[2])}  {d.rjust(wide[3])}"
        for a, b, c, d in rows
    ]


def _group_lines(severity: str, code: str, entries: list[Finding], examples: int | None) -> list[str]:
    """One code's findings: so many examples of them, or, with None, all and in full."""
    word = "note" if severity == "info" else severity
    lines = [f"{word}[{code}] {entries[0].check}: {len(entries)}"]
    shown = len(entries) if examples is None else min(examples, 1) if severity == "info" else examples
    for entry in entries[:shown]:
        place = one_line(" ".join(part for part in (entry.case, entry.file) if part))
        told = entry.found is None or entry.found in entry.message
        facts = (
            f" (expected {entry.expected}; found {entry.found})" if entry.expected else f" ({entry.found})"
        )
        facts = "" if told else facts
        lines.append(f"  {place + ': ' if place else ''}{one_line(entry.message + facts)}")
    if len(entries) > shown:
        lines.append(f"  ... and {len(entries) - shown} more (-v lists all)")
    mends = list(dict.fromkeys(entry.mend for entry in entries[:shown] if entry.mend))
    if severity != "info":
        lines += [f"  fix: {mend if examples is None else _shortened(mend)}" for mend in mends[:2]]
    return lines


def grouped(findings: Iterable[Finding], *, examples: int = 3) -> list[str]:
    """One line for each kind of finding: how often, and where for the first few."""
    kinds: dict[str, list[Finding]] = defaultdict(list)
    for entry in findings:
        kinds[entry.code].append(entry)
    lines: list[str] = []
    for code, entries in kinds.items():
        places = list(dict.fromkeys(entry.case or entry.file or "dataset" for entry in entries))
        more = f" and {len(places) - examples} more" if len(places) > examples else ""
        times = f"{len(entries)} times: " if len(entries) > 1 else ""
        lines.append(f"{code}: {times}{', '.join(places[:examples])}{more}: {entries[0].message}")
    return lines


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_MEND else f"{text[:_LONGEST_MEND]} ... (-v shows all)"
