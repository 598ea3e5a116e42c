"""What a report is asked for: every option with its default, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from segbench.core.errors import SegbenchError
from segbench.report.blocks import MISSING_POLICIES
from segbench.report.latex import FONT_SIZES

FORMATS = ("latex", "html", "markdown", "csv", "json", "figures")
CELLS = ("mean-sd", "mean-ci", "median-iqr")
HEADLINE = ("dice", "hd95", "nsd")


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a report; names and meanings are those of `segbench report`.

    Attributes:
        formats: which files are written.
        long: also write one (case, region, metric, value) file.
        metrics: metrics in order; empty: the headline of the metric profile and columns no registry knows.
        regions: regions in order; empty: all of each dataset.
        reference: compare every model with this one only.
        order: rows by rank or by name.
        missing: worst, drop-case or error.
        cell: mean-sd, mean-ci or median-iqr.
        digits: decimals of printed numbers.
        margin: equivalence margins by metric, in stored units.
        alpha: level of every test.
        resamples: bootstrap and permutation draws.
        seed: of every random draw.
        published: show published numbers beside ours.
        viewer: none, worst:K or all.
        max_size: largest report.html in bytes.
        pseudonyms: print case-001 in place of case ids.
        column: LaTeX width, single or double.
        font: LaTeX size command.
        include_unfinished: take unfinished runs, their absent cases missing.
        raw_csv: leave text cells of CSV files as they are.
        published_root: folder of published tables, None for the one of the cards.
        data_dir: folder of datasets, for the pictures of worst cases.
    """

    formats: tuple[str, ...] = FORMATS
    long: bool = False
    metrics: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    reference: str | None = None
    order: str = "rank"
    missing: str = "worst"
    cell: str = "mean-sd"
    digits: int = 2
    margin: Mapping[str, float] = field(default_factory=dict[str, float])
    alpha: float = 0.05
    resamples: int = 10_000
    seed: int = 0
    published: bool = True
    viewer: str = "worst:6"
    max_size: int = 25_000_000
    pseudonyms: bool = False
    column: str = "single"
    font: str = "footnotesize"
    include_unfinished: bool = False
    raw_csv: bool = False
    published_root: str | None = None
    data_dir: str | None = None

    @property
    def confidence(self) -> float:
        """Confidence of every interval, 1 - alpha."""
        return 1.0 - self.alpha

    @property
    def viewer_cases(self) -> int | None:
        """How many worst cases are shown: 0 for none, None for all."""
        if self.viewer == "none":
            return 0
        return None if self.viewer == "all" else int(self.viewer.partition(":")[2])

    def public(self) -> dict[str, Any]:
        """The options as report.json has them: no path, nothing about the machine."""
        private = {"published_root", "data_dir"}
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in private}
        values["margin"] = dict(sorted(self.margin.items()))
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def make_options(**given: Any) -> Options:
    """Options from keywords, every value checked.

    `format` is understood as `formats`; lists may be any sequence of names.

    Raises:
        SegbenchError: SB104, all faults at once.
    """
    if "format" in given:
        given["formats"] = given.pop("format")
    known = {item.name for item in fields(Options)}
    unknown = sorted(set(given) - known)
    if unknown:
        raise TypeError(f"unknown report options: {', '.join(unknown)}")
    for name in ("formats", "metrics", "regions"):
        if name in given:
            value = given[name]
            parts = value.split(",") if isinstance(value, str) else value or ()
            given[name] = tuple(dict.fromkeys(str(part).strip() for part in parts if str(part).strip()))
    if not given.get("formats", FORMATS):
        given.pop("formats")
    options = Options(**given)
    faults = _faults(options)
    if faults:
        raise SegbenchError(
            "SB104", "report: a value cannot be", details=faults, mend="segbench report --help"
        )
    return options


def _faults(options: Options) -> list[str]:
    choices = {
        "order": ("rank", "name"),
        "missing": MISSING_POLICIES,
        "cell": CELLS,
        "column": ("single", "double"),
        "font": FONT_SIZES,
    }
    faults = [
        f"--{name}: {getattr(options, name)!r}, allowed {', '.join(allowed)}"
        for name, allowed in choices.items()
        if getattr(options, name) not in allowed
    ]
    faults += [
        f"--format: {name!r}, allowed {', '.join(FORMATS)}" for name in options.formats if name not in FORMATS
    ]
    if not 0.0 < options.alpha < 0.5:
        faults.append(f"--alpha: {options.alpha}, allowed between 0 and 0.5")
    if not 0 <= options.digits <= 10:
        faults.append(f"--digits: {options.digits}, allowed 0 to 10")
    if not 100 <= options.resamples <= 1_000_000:
        faults.append(f"--resamples: {options.resamples}, allowed 100 to 1000000")
    if options.seed < 0:
        faults.append(f"--seed: {options.seed}, allowed 0 and more")
    kind, _, count = options.viewer.partition(":")
    if options.viewer not in {"none", "all"} and not (kind == "worst" and count.isdigit()):
        faults.append(f"--viewer: {options.viewer!r}, allowed none, worst:K or all")
    faults += [
        f"--margin {name}={value}: must be above 0" for name, value in options.margin.items() if not value > 0
    ]
    return faults
