"""What a report is asked for: every option with its default, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from segbench.core.errors import SegbenchError
from segbench.metrics.registry import value_range

FORMATS = ("html", "markdown", "latex", "csv", "json")
DEFAULT_FORMATS = ("html", "markdown", "latex", "csv")
CELLS = ("mean-ci", "mean-sd", "mean")
MISSING_POLICIES = ("worst", "drop-case", "error")
MARGIN_UNIT = "in stored units, dice=0.01 is one point"


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a report and of a comparison; names and meanings are those of the commands.

    Attributes:
        formats: which files are written.
        appendix: also write what a statistician may ask for: pairs, ranks, single regions, subgroups.
        metrics: metrics in order; empty: the headline of the metric profile and columns no registry knows.
        primary: the metric whose mean over regions decides; None takes the first.
        regions: regions in order; empty: all of each dataset.
        reference: compare every model with this one; `none` compares all pairs; None takes segmamba-v2 where
            it is among the models.
        select: which run to take where several cover one entry, fold and seed: run ids, or `newest`.
        allow_edited: take records whose digest or identity does not hold; the report then says so.
        missing: worst, drop-case or error.
        cells: mean-ci, mean-sd or mean.
        digits: decimals of printed numbers.
        margin: equivalence margins by metric, in stored units; the dataset card's where none is given.
        alpha: level of every test.
        resamples: bootstrap draws of the ranks.
        seed: of every random draw.
        slices: `FILE:COLUMN,COLUMN`, a table with a row for each case or patient; None for no slices.
        baselines: predictors without learning take part in the comparisons, as where `compare` names one.
        published: show published numbers beside ours.
        viewer: none or worst:K.
        max_size: largest report.html in bytes.
        pseudonyms: print case-001 in place of case ids.
        include_unfinished: take unfinished runs, their absent cases missing.
        published_root: folder of published tables, None for the one of the cards.
        data_dir: folder of datasets, for the pictures of worst cases.
    """

    formats: tuple[str, ...] = DEFAULT_FORMATS
    appendix: bool = False
    metrics: tuple[str, ...] = ()
    primary: str | None = None
    regions: tuple[str, ...] = ()
    reference: str | None = None
    select: tuple[str, ...] = ()
    allow_edited: bool = False
    missing: str = "worst"
    cells: str = "mean-ci"
    digits: int = 2
    margin: Mapping[str, float] = field(default_factory=dict[str, float])
    alpha: float = 0.05
    resamples: int = 10_000
    seed: int = 0
    slices: str | None = None
    baselines: bool = False
    published: bool = True
    viewer: str = "worst:6"
    max_size: int = 25_000_000
    pseudonyms: bool = False
    include_unfinished: bool = False
    published_root: str | None = None
    data_dir: str | None = None

    @property
    def confidence(self) -> float:
        """Confidence of every interval, 1 - alpha."""
        return 1.0 - self.alpha

    def public(self) -> dict[str, Any]:
        """The options as report.json has them: no path, nothing about the machine."""
        private = {"published_root", "data_dir", "slices"}
        return {key: value for key, value in asdict(self).items() if key not in private}


def make_options(**given: Any) -> Options:
    """Options from keywords, every value checked.

    `format` is understood as `formats`; lists may be any sequence of names.

    Raises:
        SegbenchError: SB104, all faults at once.
        TypeError: an option that does not exist.
    """
    if "format" in given:
        given["formats"] = given.pop("format")
    for name in ("formats", "metrics", "regions", "select"):
        if name in given:
            value = given[name]
            parts = value.split(",") if isinstance(value, str) else value or ()
            given[name] = tuple(dict.fromkeys(str(part).strip() for part in parts if str(part).strip()))
    if not given.get("formats", DEFAULT_FORMATS):
        given.pop("formats")
    options = Options(**given)
    kind, _, count = options.viewer.partition(":")
    shows = options.viewer == "none" or (kind == "worst" and count.isdigit())
    checks: list[tuple[str, object, bool, str]] = [
        ("missing", options.missing, options.missing in MISSING_POLICIES, ", ".join(MISSING_POLICIES)),
        ("cells", options.cells, options.cells in CELLS, ", ".join(CELLS)),
        *(("format", name, name in FORMATS, ", ".join(FORMATS)) for name in options.formats),
        ("alpha", options.alpha, 0.0 < options.alpha < 0.5, "between 0 and 0.5"),
        ("digits", options.digits, 0 <= options.digits <= 10, "0 to 10"),
        ("resamples", options.resamples, 100 <= options.resamples <= 1_000_000, "100 to 1000000"),
        ("seed", options.seed, options.seed >= 0, "0 and more"),
        ("viewer", options.viewer, shows, "none or worst:K"),
        *(
            (f"margin {name}", value, 0 < value < -np.subtract(*value_range(name)), MARGIN_UNIT)
            for name, value in options.margin.items()
        ),
    ]
    faults = [
        f"--{name}: {value!r}, allowed {allowed}" for name, value, holds, allowed in checks if not holds
    ]
    if faults:
        raise SegbenchError(
            "SB104", "report: an option is not valid", details=faults, mend="segbench report --help"
        )
    return options
