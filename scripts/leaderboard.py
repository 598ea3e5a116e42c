"""Regenerate the tables and pages of results/leaderboard from the committed records.

`make leaderboard` runs it; a test runs it with `--check`. A leaderboard is a folder with `leaderboard.toml`
(title, introduction, questions) and `runs/`, the records of its cells without weights and predictions:

    python scripts/leaderboard.py                       regenerate all
    python scripts/leaderboard.py --check               name what would change; exit 1 if anything
    python scripts/leaderboard.py --collect RUNS NAME   take the finished runs of a results folder in
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segbench.core.atomic import atomic_write, atomic_write_json
from segbench.report import Analysis, ReportResult, build_report
from segbench.report.analysis.columns import Column, turned
from segbench.report.analysis.findings import SEVERITY_WORDS
from segbench.report.analysis.sentences import answers, pair_answer, rank_sentence
from segbench.report.write.details import seed_tables
from segbench.report.write.markdown import pipes
from segbench.report.write.tables import Table, score_tables

ROOT = Path(__file__).resolve().parents[1]
BOARDS = ROOT / "results" / "leaderboard"
PAGES = ROOT / "docs" / "leaderboard"
RECORDS = ("run.json", "cases.csv", "profile.json")
TABLES = ("paper.tex", "references.bib")
"""Files of the report that are kept beside its CSV tables."""


@dataclass(frozen=True, slots=True)
class Question:
    """A pair of models that the page speaks about.

    Attributes:
        text: The question.
        first: Slug.
        second: Slug of what it is compared with.
    """

    text: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Board:
    """What a leaderboard says beyond its records.

    Attributes:
        name: Folder name.
        title: Heading of the page.
        introduction: Paragraphs.
        questions: In order.
        limits: What the numbers do not say, a line each.
    """

    name: str
    title: str
    introduction: tuple[str, ...]
    questions: tuple[Question, ...]
    limits: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path) -> Board:
        """The board of a folder."""
        content = tomllib.loads((folder / "leaderboard.toml").read_text(encoding="utf-8"))
        return cls(
            name=folder.name,
            title=content["title"],
            introduction=tuple(content["introduction"]),
            questions=tuple(Question(**question) for question in content["questions"]),
            limits=tuple(content["limits"]),
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Regenerate, check or collect; gives the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, name what would change")
    parser.add_argument("--collect", nargs=2, metavar=("RUNS", "NAME"), help="take in the runs of a folder")
    chosen = parser.parse_args(arguments)
    if chosen.collect:
        runs, name = chosen.collect
        return collect(Path(runs), BOARDS / name)
    boards = sorted(path.parent for path in BOARDS.glob("*/leaderboard.toml"))
    stale = [path for folder in boards for path in regenerate(folder, write=not chosen.check)]
    for path in stale:
        sys.stdout.write(f"{'differs' if chosen.check else 'written'}: {path.relative_to(ROOT).as_posix()}\n")
    return 1 if chosen.check and stale else 0


def collect(runs: Path, board: Path) -> int:
    """Copy the records of the complete runs, without paths of the machine they ran on."""
    taken = 0
    for folder in sorted(path.parent for path in runs.glob("*/run.json")):
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        if record["status"] != "complete":
            sys.stdout.write(f"left out, {record['status']}: {folder.name}\n")
            continue
        target = board / "runs" / folder.name
        atomic_write_json(target / "run.json", without_paths(record))
        for name in RECORDS[1:]:
            if (folder / name).is_file():
                atomic_write(target / name, (folder / name).read_bytes())
        taken += 1
    sys.stdout.write(f"{taken} runs -> {board}\n")
    return 0 if taken else 1


def without_paths(value: Any) -> Any:
    """A record with the last name of each absolute path in its place."""
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value


def regenerate(folder: Path, *, write: bool) -> list[Path]:
    """Make the tables and the page of a board anew.

    Returns:
        The files that differ from what is there, surplus ones included.
    """
    board = Board.read(folder)
    with tempfile.TemporaryDirectory() as place:
        result = build_report([folder / "runs"], place, formats=("latex", "csv"), reference="none")
        kept = [path for path in result.files if path.name in TABLES or path.suffix == ".csv"]
        wanted = {folder / "tables" / path.name: path.read_text(encoding="utf-8") for path in kept}
    wanted[PAGES / f"{board.name}.md"] = page(board, result)
    there = {path: path.read_text(encoding="utf-8") for path in _existing(folder, wanted)}
    changed = [path for path in wanted if there.get(path) != wanted[path]]
    surplus = [path for path in there if path not in wanted]
    if write:
        for path in surplus:
            path.unlink()
        for path in changed:
            atomic_write(path, wanted[path])
    return sorted([*changed, *surplus])


def _existing(folder: Path, wanted: Iterable[Path]) -> list[Path]:
    tables = folder / "tables"
    there = [path for path in tables.iterdir() if path.is_file()] if tables.is_dir() else []
    return there + [path for path in wanted if path.parent != tables and path.is_file()]


def page(board: Board, result: ReportResult) -> str:
    """The page of a board in Markdown."""
    analysis = result.analysis
    parts = [
        f"# {board.title}",
        "Generated by `make leaderboard` from the records in "
        f"[results/leaderboard/{board.name}](../../results/leaderboard/{board.name}); "
        "every number below is computed from them.",
        *board.introduction,
        "## What was run",
        *_what_was_run(_records(BOARDS / board.name)),
        "## Scores",
        *map(_table, score_tables(analysis)),
        "## What the records answer",
        *(_answer(analysis, column) for column in analysis.main_columns()),
        "## Questions",
        *(_question(question, analysis) for question in board.questions),
        "## Every training run",
        *map(_table, seed_tables(analysis)),
        "## Findings of the report",
        "\n".join(f"- {SEVERITY_WORDS[item.severity]}: {item.message}" for item in result.findings)
        or "None.",
        "## What this does not say",
        "\n".join(f"- {line}" for line in board.limits),
        "## Regenerate, check, extend",
        _usage(board),
    ]
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    """A table with its caption and notes."""
    parts = [table.caption, pipes(table), "\n".join(f"- {note}" for note in table.notes)]
    return "\n\n".join(part for part in parts if part)


def _records(folder: Path) -> list[dict[str, Any]]:
    paths = sorted((folder / "runs").glob("*/run.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def _what_was_run(records: Sequence[Mapping[str, Any]]) -> list[str]:
    trained = [record for record in records if record["kind"] == "trained"]
    first = trained[0]
    for name in ("protocol_digest", "split"):
        if any(record[name] != first[name] for record in trained):
            raise SystemExit(f"the runs differ in {name}: one page cannot speak of them as one comparison")
    protocol, split = first["protocol"], first["split"]
    seeds: dict[str, list[int]] = {}
    hours: dict[str, float] = {}
    for record in records:
        slug = record["model"]["slug"]
        seeds.setdefault(slug, []).append(record["seed"])
        hours[slug] = hours.get(slug, 0.0) + sum(record["durations"].values()) / 3600
    rows = ["| model | seeds | hours in all |", "| :--- | :--- | ---: |"]
    rows += [
        f"| {slug} | {', '.join(map(str, sorted(seeds[slug])))} | {hours[slug]:.2f} |"
        for slug in sorted(seeds)
    ]
    optimiser, machine = protocol["optimiser"], first["machine"]
    commits = sorted({str(record["segbench"]["git"]["commit"])[:12] for record in records})
    facts = (
        f"Split {split['name']}: {len(split['train'])} cases for training, {len(split['validation'])} for "
        f"validation, {len(split['test'])} for the test; digest `{split['digest'][:12]}`.",
        f"Protocol {protocol['name']} with changes: patch {'x'.join(map(str, protocol['patch']['size']))}, "
        f"{protocol['budget']['samples']} samples in batches of {protocol['sampling']['batch_size']}, "
        f"{optimiser['name']} with learning rate {optimiser['lr']:g}, augmentation "
        f"{_augmentation(protocol)}, mirroring in prediction over "
        f"{', '.join(protocol['inference']['mirror_axes']) or 'no axis'}. "
        "The same for every model.",
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['system']}, no GPU, other work "
        f"beside it: the hours are no measurement of speed. segbench at {', '.join(commits)}.",
    )
    return ["\n".join(rows), "\n".join(f"- {fact}" for fact in facts)]


def _augmentation(protocol: Mapping[str, Any]) -> str:
    section = protocol["augment"]
    changed = [f"{name} {value}" for name, value in sorted(section["overrides"].items())]
    return " with ".join([section["name"], *([", ".join(changed)] if changed else [])])


def _answer(analysis: Analysis, column: Column) -> str:
    lines = [*answers(analysis, column), rank_sentence(analysis, column)]
    return "\n".join(f"- {line}" for line in lines if line)


def _question(question: Question, analysis: Analysis) -> str:
    """Each deciding column's comparison of the two, in the report's own words."""
    lines = [f"### {question.text}", ""]
    for metric in analysis.metrics:
        for column in analysis.main_columns(metric):
            for pair in column.comparisons:
                if {pair.a, pair.b} == {question.first, question.second}:
                    asked = pair if pair.a == question.first else turned(pair)
                    lines.append(f"- {metric.label}: {pair_answer(analysis, column, asked)}")
    return "\n".join(lines)


def _usage(board: Board) -> str:
    return "\n".join(
        [
            "```",
            "# the tables and this page, from the records",
            "make leaderboard",
            "# the whole report",
            f"segbench report --runs results/leaderboard/{board.name}/runs --reference none --output report",
            "```",
            "",
            f"Tables as CSV and LaTeX: [tables](../../results/leaderboard/{board.name}/tables).",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
