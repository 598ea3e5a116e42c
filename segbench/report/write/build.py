"""`build_report`: records in, a folder with one page, one paper and CSV tables out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from segbench.core.atomic import atomic_write
from segbench.core.outputs import OutputFolder
from segbench.records.store import CASE_LINES, CASES_FILE, RUN_FILE
from segbench.report.analysis.analysis import Analysis, Progress, analyse, as_paths
from segbench.report.analysis.findings import Finding
from segbench.report.analysis.options import make_options

Files = Mapping[str, bytes | str]
"""What a view writes: content by path relative to the folder of the report."""

VIEWS: Mapping[str, str] = {
    "html": "page",
    "markdown": "markdown",
    "latex": "paper",
    "csv": "csv_files",
    "json": "document",
}
"""Module of each format; its `files(analysis)` gives the files."""


@dataclass(frozen=True)
class ReportResult:
    """What a report consists of.

    Attributes:
        files: paths written, in order.
        findings: errors first.
        exit_code: 0, or 3 with a finding of severity error.
        analysis: what everything was made from.
    """

    files: tuple[Path, ...]
    findings: tuple[Finding, ...]
    exit_code: int
    analysis: Analysis = field(repr=False)


def build_report(
    runs: Path | str | Iterable[Path | str],
    out: Path | str,
    *,
    progress: Progress = lambda text: None,
    **options: Any,
) -> ReportResult:
    """Write a report of the runs into a folder; the same records give the same bytes.

    Args:
        runs: a run folder (or its `cases.csv`), a folder of runs, or several of them.
        out: folder of the report; files of an earlier report are replaced, others left alone.
        progress: told what is being done.
        **options: see `segbench.report.analysis.options.Options`; `format` is understood as `formats`.

    Raises:
        SegbenchError: SB104 an option that is not valid, SB701 no usable run, SB702 two runs of one entry,
            fold and seed, SB705 no common case, SB703 an invalid published file, SB215 under
            `missing="error"`, SB505 the folder cannot be written, SB337 a file of the report would be written
            over a record or a foreign file.
    """
    chosen = make_options(**options)
    places = as_paths(runs if isinstance(runs, str | Path) else list(runs))
    analysis = analyse(places, chosen, progress=progress)
    contents: dict[str, bytes] = {}
    for format_, module in VIEWS.items():
        if format_ in chosen.formats:
            progress(f"writing {format_}")
            view: Callable[[Analysis], Files] = import_module(f"segbench.report.write.{module}").files
            contents |= {
                name: data.encode() if isinstance(data, str) else data
                for name, data in view(analysis).items()
            }
    written = _written(Path(out), contents, [*places, *_records(analysis)])
    return ReportResult(tuple(written), analysis.findings, analysis.exit_code, analysis)


def _records(analysis: Analysis) -> list[Path]:
    """The files that were read of every run."""
    names = (RUN_FILE, CASES_FILE, CASE_LINES, "profile.json")
    return [run.folder / name for run in analysis.runs if run.folder is not None for name in names]


def _written(folder: Path, contents: Mapping[str, bytes], inputs: Sequence[Path]) -> list[Path]:
    """Write all files, or none where one of them is not ours to replace."""

    def same(path: Path) -> bool:
        return path.is_file() and path.read_bytes() == contents.get(path.relative_to(folder).as_posix())

    with OutputFolder(folder, contents, inputs=inputs, same=same) as results:
        files = [atomic_write(folder / name, data) for name, data in contents.items()]
        results.wrote(*files)
    return files
