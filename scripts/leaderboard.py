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
from segbench.report.analysis import Analysis
from segbench.report.answers import find_answers
from segbench.report.build import ReportResult, build_report
from segbench.report.numbers import format_number, format_p
from segbench.report.pairwise import Pair

ROOT = Path(__file__).resolve().parents[1]
BOARDS = ROOT / "results" / "leaderboard"
PAGES = ROOT / "docs" / "leaderboard"
RECORDS = ("run.json", "cases.csv", "profile.json")
SHOWN = ("main", "main_hd95", "main_nsd")
"""Tables printed in the page; the others are linked."""


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
        result = build_report([folder / "runs"], place, formats=("markdown", "latex"))
        made = {path.name: path.read_text(encoding="utf-8") for path in Path(place, "tables").iterdir()}
    wanted = {
        folder / "tables" / name: text for name, text in made.items() if not name.endswith("_standalone.tex")
    }
    wanted[PAGES / f"{board.name}.md"] = page(board, result, made)
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


def page(board: Board, result: ReportResult, tables: Mapping[str, str]) -> str:
    """The page of a board in Markdown."""
    analysis = result.analysis
    assert analysis is not None
    records = _records(BOARDS / board.name)
    parts = [
        f"# {board.title}",
        "Generated by `make leaderboard` from the records in "
        f"[results/leaderboard/{board.name}](../../results/leaderboard/{board.name}); "
        "every number below is computed from them.",
        *board.introduction,
        "## What was run",
        *_what_was_run(records),
        "## Scores",
        *(tables[f"{name}.md"].strip() for name in SHOWN if f"{name}.md" in tables),
        "## What the records answer",
        *(_answer(item.title, item.sentences) for item in find_answers(analysis)),
        "## Questions",
        *(_question(question, analysis) for question in board.questions),
        "## Findings of the report about comparability",
        "\n".join(f"- {item.severity}: {item.message}" for item in result.guards) or "None.",
        "## What this does not say",
        "\n".join(f"- {line}" for line in board.limits),
        "## Regenerate, check, extend",
        _usage(board),
    ]
    return "\n\n".join(parts) + "\n"


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


def _answer(title: str, sentences: Sequence[str]) -> str:
    return "\n".join([f"### {title}", "", *(f"- {sentence}" for sentence in sentences)])


def _question(question: Question, analysis: Analysis) -> str:
    lines = [f"### {question.text}", ""]
    for (number, region, name), pairs in analysis.pairs.items():
        if region != analysis.regions(number)[-1]:
            continue
        metric = next(item for item in analysis.metrics if item.name == name)
        asked = [pair for pair in pairs if {pair.a, pair.b} == {question.first, question.second}]
        lines += [f"- {_difference(question, pair, metric.head, metric.scale)}" for pair in asked]
    return "\n".join(lines)


def _difference(question: Question, pair: Pair, head: str, scale: float) -> str:
    """One metric of one pair: first less second, with the interval and the verdict of the report."""
    turned = pair.a != question.first
    value, low, high = pair.estimate
    if value is None or low is None or high is None:
        return f"{head}: {pair.words}"
    if turned:
        value, low, high = -value, -high, -low
    shown = [format_number(x, scale=scale) for x in (value, low, high)]
    verdict = pair.words
    if turned:
        swap = {"better": "worse", "worse": "better"}
        word, comma, rest = verdict.partition(",")
        verdict = swap.get(word, word) + comma + rest
    level = pair.two_level
    tested = ""
    if level is not None:
        tested = f" Two-level p {format_p(level['pvalue'])}, {format_p(pair.p_decision)} after Holm."
    return (
        f"{head}: {question.first} less {question.second} {shown[0]} [{shown[1]}, {shown[2]}].{tested} "
        f"Verdict: {verdict}."
    )


def _usage(board: Board) -> str:
    return "\n".join(
        [
            "```",
            "# the tables and this page, from the records",
            "make leaderboard",
            "# the whole report with its figures",
            f"segbench report --runs results/leaderboard/{board.name}/runs --output report",
            "```",
            "",
            f"Tables as Markdown and LaTeX: [tables](../../results/leaderboard/{board.name}/tables).",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
