"""The only place that prints: results to stdout, everything else to stderr, user text never as markup."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

from segbench.core.errors import SegbenchError
from segbench.core.text import one_line, printable


@dataclass(slots=True)
class Output:
    """How this process prints; set once by the command line.

    Attributes:
        quiet: No hints and no progress, errors only.
        verbose: Say more.
        progress: Show progress on stderr.
        color: Colours allowed (they never carry meaning alone); None leaves it to the terminal and NO_COLOR.
        json: The result is one JSON document.
    """

    quiet: bool = False
    verbose: bool = False
    progress: bool = True
    color: bool | None = None
    json: bool = False
    warnings: list[str] = field(default_factory=list[str])


output = Output()

_OBEYED = re.compile("[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
"""DEL, C1 controls, marks of direction and width: JSON may hold them as they are, a terminal obeys them."""


def emit(text: str = "") -> None:
    """Print result text to stdout."""
    _write(sys.stdout, printable(text) + "\n")


def emit_json(value: object) -> None:
    """Print the result as one JSON document to stdout; what a terminal would obey stands escaped in it."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    _write(sys.stdout, _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def emit_raw(text: str) -> None:
    """Print a document (LaTeX, CSV, a completion script) to stdout unchanged."""
    _write(sys.stdout, text)


def line_width() -> int:
    """Columns that a line may take: those of the terminal, 80 where the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else 80


def table_lines(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[int] = (),
    width: int | None = None,
) -> list[str]:
    """The lines of an aligned plain-text table, none wider than `line_width`; without columns that are empty.

    Where it is too wide, a column that says the same in every row is said once above it; then the widest
    cells go on in further lines, sentences before words such as the id of a run.

    Args:
        header: Column names.
        rows: Cells as text; in a row whose first cell is empty, empty cells repeat those above.
        right: Indices of columns aligned to the right.
        width: Of a line, in place of `line_width`.
    """
    cells = [[one_line(str(cell)) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    shown = [i for i in range(len(header)) if i == 0 or not rows or any(row[i].strip() for row in cells[1:])]
    said: list[str] = []
    limit = max(40, line_width() if width is None else width)

    def too_wide() -> int:
        return 2 * len(shown) + sum(widths[i] for i in shown) - limit

    for i in list(shown):
        values = {row[i] for row in cells[1:] if row[i] or row[0]}
        if too_wide() > 0 and i not in right and len(shown) > 1 and len(values) == 1 and "" not in values:
            shown.remove(i)
            said.append(f"{header[i]}: {values.pop()}")
    words = [max(map(len, " ".join(row[i] for row in cells).split()), default=0) for i in range(len(header))]
    while too_wide() > 0:
        widest = max(
            shown, key=lambda i: (widths[i] > words[i], widths[i] > 12 and i not in right, widths[i])
        )
        if widths[widest] <= 4:
            break
        widths[widest] -= 1
    lines = [f"  {line}" for line in textwrap.wrap(", ".join(said), limit - 2)]
    for row in cells:
        folded = [textwrap.wrap(row[i], max(1, widths[i])) or [""] for i in shown]
        for parts in itertools.zip_longest(*folded, fillvalue=""):
            aligned = [
                part.rjust(widths[i]) if i in right else part.ljust(widths[i])
                for i, part in zip(shown, parts, strict=True)
            ]
            lines.append("  " + "  ".join(aligned).rstrip())
    return lines


def note(text: str) -> None:
    """Print a hint to stderr, unless quiet."""
    if not output.quiet:
        _write(sys.stderr, printable(text) + "\n")


def step(text: str) -> None:
    """Say on stderr what is being done, unless quiet or without progress."""
    if output.progress:
        note(text)


def detail(text: str) -> None:
    """Print a detail to stderr when verbose."""
    if output.verbose and not output.quiet:
        _write(sys.stderr, printable(text) + "\n")


def warn(text: str) -> None:
    """Print a warning to stderr (also when quiet) and remember it for the record of the run."""
    output.warnings.append(text)
    _write(sys.stderr, printable(text if text.startswith("warning") else f"warning: {text}") + "\n")


def fail(error: SegbenchError) -> None:
    """Print an expected error to stderr in its full form."""
    _write(sys.stderr, printable(render_error(error)) + "\n")


def render_error(error: SegbenchError) -> str:
    """What, where, why, how to mend, as text.

    The form follows rustc's diagnostics: a coded first line, an arrow to the place, facts, a mend line.
    """
    lines = [f"error[{error.code}]: {error.message}"]
    case = f"case {one_line(error.case)}" if error.case else ""
    if error.path is not None:
        lines.append(f"  --> {one_line(str(error.path))}" + (f"   ({case})" if case else ""))
    elif case:
        lines.append(f"  --> {case}")
    for word, fact in (("expected", error.expected), ("found", error.found)):
        if fact not in (None, "", [], ()) and error.code != "SB101":
            lines.append(f"  {word}: {one_line(str(fact))}")
    lines.extend(f"  {one_line(line)}" for line in error.details)
    if error.mend:
        lines.append(f"  {error.mend}" if error.code in {"SB101", "SB301"} else f"  fix: {error.mend}")
    return "\n".join(lines)


@dataclass(slots=True)
class Tracker:
    """What a loop tells about itself; `tell` shows it after each advance.

    Attributes:
        tell: Called with the tracker and a short state such as a loss.
        total: Steps in all.
        before: Steps that an earlier process did; they say nothing about the rate of this one.
        done: Steps that this process did.
    """

    tell: Callable[[Tracker, str], None]
    total: float = 0.0
    before: float = 0.0
    done: float = 0.0
    started: float = field(default_factory=lambda: time.monotonic())

    def advance(self, steps: float = 1, *, at: float | None = None, note: str = "") -> None:
        """Count steps done, which end `at` that step of all where it is known; `note` is such as a loss."""
        self.done += steps
        self.before = self.before if at is None else at - self.done
        self.tell(self, one_line(note))

    @property
    def rate(self) -> float:
        """Steps a second."""
        return self.done / max(time.monotonic() - self.started, 1e-9)


def _lines(title: str, unit: str) -> Callable[[Tracker, str], None]:
    """A plain line every 30 s or 5 %, the first within two seconds, for logs and pipes."""
    told: tuple[float, float] | None = None

    def tell(tracker: Tracker, note: str) -> None:
        nonlocal told
        now, at = time.monotonic(), tracker.before + tracker.done
        share = at / tracker.total if tracker.total else 1.0
        if told is not None:
            waited, come = now - told[0], abs(share - told[1])
            if waited < 30 and (waited < 1.0 or come < 0.05):
                return
        told = (now, share)
        text = f"{title}: {at:g}{f'/{tracker.total:g}' if tracker.total else ''} {unit}"
        if tracker.done and now - tracker.started >= 1:  # the first step alone says nothing about the rate
            left = duration((tracker.total - at) / tracker.rate) + " left" if tracker.total else ""
            text += f", {tracker.rate:.3g}/s{left and ', ' + left}"
        _write(sys.stderr, one_line(f"{text}{', ' + note if note else ''}") + "\n")

    return tell


@contextmanager
def progress(title: str, total: float, *, unit: str = "cases", before: float = 0.0) -> Generator[Tracker]:
    """Show progress with rate and time left on stderr: a bar on a terminal, sparse lines elsewhere.

    Args:
        title: what is going on.
        total: steps in all; 0 where that is not known.
        unit: what a step is.
        before: steps of the total that an earlier process did.
    """
    if output.quiet or not output.progress or sys.stderr is None:
        yield Tracker(lambda _tracker, _note: None)
        return
    if not sys.stderr.isatty():
        yield Tracker(_lines(title, unit), total, before)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    console = Console(stderr=True, no_color=True if output.color is False else None, markup=False)
    # Titles hold run ids, which on a narrow terminal would push out the numbers; the bar gives way first.
    named = Column(max_width=max(12, console.width - 70), overflow="ellipsis", no_wrap=True)
    noted = Column(max_width=max(8, console.width - 26), overflow="ellipsis", no_wrap=True)
    pace = (
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
    )
    columns = (
        TextColumn("{task.description}", markup=False, table_column=named),
        BarColumn(min(40, console.width // 8)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        *(pace if console.width >= 60 else ()),
        TextColumn("{task.fields[note]}", markup=False, table_column=noted),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(one_line(title), total=total or None, completed=round(before), note="", rate="")

        def tell(tracker: Tracker, note: str) -> None:
            rate = f"{tracker.rate:.3g}/s" if tracker.done else ""
            bar.update(task, completed=tracker.before + tracker.done, rate=rate, note=note)

        yield Tracker(tell, total, before)


def duration(seconds: float) -> str:
    """A duration for people: `12 s`, `3 min`, `2 h 05`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d}"


def _write(stream: IO[str] | None, text: str) -> None:
    """Write and flush.

    Raises:
        SegbenchError: SB505 when standard output goes to a disk that is full.
    """
    if stream is None:  # the shell closed it (`>&-`): nobody listens
        return
    try:
        try:
            stream.write(text)
            stream.flush()
        except UnicodeEncodeError:  # a terminal without UTF-8 gets ASCII, never a crash
            stream.write(text.encode("ascii", "backslashreplace").decode())
            stream.flush()
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}:
            raise
        if stream is sys.stderr:  # there is no place left to complain at
            return
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())  # what is still buffered must not fail again at the end
        os.close(null)
        reason = (error.strerror or str(error)).lower()
        raise SegbenchError("SB505", f"the result cannot be written to standard output: {reason}") from error
