"""Regenerate the tables and pages of results/leaderboard from the committed records.

`make leaderboard` runs it; a test runs it with `--check`. A leaderboard is a folder with `leaderboard.toml`
(what it says beyond its records) and `runs/`, the records of its cells without weights and predictions:

    python scripts/leaderboard.py                       regenerate all
    python scripts/leaderboard.py --check               name what would change; exit 1 if anything
    python scripts/leaderboard.py --collect RUNS NAME   take the finished runs of a results folder in

Collecting takes what is finished and may be repeated as more runs finish; a run that was taken in stays as
it is.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import answers_page
import comparison_board
import null_board
import reproduce
from board import Board, Files

from segbench.core.atomic import atomic_write, atomic_write_json
from segbench.report.analysis.analysis import Analysis

ROOT = Path(__file__).resolve().parents[1]
BOARDS = ROOT / "results" / "leaderboard"
PAGES = ROOT / "docs" / "leaderboard"
RECORDS = ("run.json", "cases.csv", "profile.json")


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
    stale = regenerate(write=not chosen.check)
    for path in stale:
        sys.stdout.write(f"{'differs' if chosen.check else 'written'}: {path.relative_to(ROOT).as_posix()}\n")
    return 1 if chosen.check and stale else 0


def collect(runs: Path, board: Path) -> int:
    """Copy the records of the complete runs, without paths of the machine they ran on.

    A run that is there already stays as it is; one whose scores differ from it is refused.
    """
    new = same = unfinished = 0
    refused: list[str] = []
    for folder in sorted(path.parent for path in runs.glob("*/run.json")):
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        target = board / "runs" / folder.name
        if record["status"] != "complete":
            sys.stdout.write(f"left out, {record['status']}: {folder.name}\n")
            unfinished += 1
        elif not (target / "run.json").is_file():
            _take(folder, target, record)
            new += 1
        elif (target / "cases.csv").read_bytes() == (folder / "cases.csv").read_bytes():
            same += 1
        else:
            refused.append(folder.name)
    sys.stdout.write(f"{new} new, {same} taken before, {unfinished} unfinished -> {board}\n")
    for name in refused:
        sys.stdout.write(f"refused, its cases.csv differs from the one taken before: {name}\n")
    return 0 if new + same and not refused else 1


def _take(folder: Path, target: Path, record: Any) -> None:
    """Copy the files of a run, run.json last: with it the run counts as taken."""
    for name in RECORDS[1:]:
        if (folder / name).is_file():
            atomic_write(target / name, (folder / name).read_bytes())
    atomic_write_json(target / "run.json", without_paths(record))


def without_paths(value: Any) -> Any:
    """A record with the last name of each absolute path in its place."""
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value


def regenerate(*, write: bool) -> list[Path]:
    """Make the tables and pages of all boards anew.

    Returns:
        The files that differ from what is there, surplus ones included.
    """
    boards = [Board.read(path.parent) for path in sorted(BOARDS.glob("*/leaderboard.toml"))]
    wanted: Files = {}
    analyses: dict[str, Analysis] = {}
    said: dict[str, list[str]] = {}
    for board in boards:
        wanted[board.folder / "REPRODUCE.md"] = reproduce.page(board)
        if board.kind == "null":
            made, said[board.name] = null_board.files(board, PAGES)
            wanted |= made
        else:
            made, analysis = comparison_board.files(board, PAGES)
            wanted |= made
            if analysis is not None:
                analyses[board.name] = analysis
    wanted |= answers_page.files(boards, analyses, said, PAGES)
    return _written(wanted, boards, write=write)


def _alike(path: Path, content: bytes) -> bool:
    """Whether a file has these bytes; in CSV but for last digits (1e-8), which versions of libraries move."""
    there = path.read_bytes()
    if there == content or path.suffix != ".csv":
        return there == content
    number = re.compile(rb"-?\d+(?:\.\d+)?(?:e-?\d+)?")
    old, new = ([float(text) for text in number.findall(each)] for each in (there, content))
    rest = number.sub(b"", there) == number.sub(b"", content) and len(old) == len(new)
    return rest and all(math.isclose(a, b, rel_tol=1e-8) for a, b in zip(old, new, strict=True))


def _written(wanted: Files, boards: Sequence[Board], *, write: bool) -> list[Path]:
    """Write what differs, remove what nobody makes any more; gives both."""
    data = {
        path: content.encode() if isinstance(content, str) else content for path, content in wanted.items()
    }
    kept = [PAGES, *(board.folder / "tables" for board in boards)]
    there = [path for folder in kept if folder.is_dir() for path in folder.iterdir() if path.is_file()]
    surplus = [path for path in there if path not in data]
    changed = [path for path, content in data.items() if not path.is_file() or not _alike(path, content)]
    if write:
        for path in surplus:
            path.unlink()
        for path in changed:
            atomic_write(path, data[path])
    return sorted([*changed, *surplus])


if __name__ == "__main__":
    sys.exit(main())
