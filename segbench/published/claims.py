"""Claims of a table judged from the table alone: how likely each order is wrong, as a band of chances.

What a table does not say (spread over cases, correlation of two models over cases, spread of retraining) is
taken from measured ranges, and each claim says which. Nothing here can see tuning on the test cases, leaks,
or that two sources scored other cases.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, product
from typing import TYPE_CHECKING, Any, NamedTuple

from segbench.core.errors import SegbenchError
from segbench.metrics.registry import METRICS

if TYPE_CHECKING:
    from segbench.published.tables import Number, PublishedTable

LEVEL = 0.05
SUPPORTED, UNSUPPORTED, OPEN = "supported", "not supported", "open"
VERDICTS: Mapping[str, str] = {
    SUPPORTED: f"the order is wrong with less than {LEVEL:g} over the whole band",
    UNSUPPORTED: f"the order is wrong with {LEVEL:g} or more over the whole band",
    OPEN: "it hangs on what the table does not say",
}
"""What is said of a claim, in words."""
CANNOT_KNOW = (
    "tuning on the test cases, leaks into training, and whether other numbers rest on the same cases"
)


class Band(NamedTuple):
    """A quantity that a table does not give: low, middle and high of what was measured, and where.

    Stored units (Dice as a fraction).
    """

    low: float
    middle: float
    high: float
    source: str


CONGRUENCE = Band(
    0.784,
    0.88,
    0.948,
    "from nine models of Touchstone on 529 public cases (median 0.826, lower quartile 0.784) to six small "
    "networks on MSD hippocampus (results/leaderboard: median 0.933, upper quartile 0.948)",
)
"""Correlation over cases of two models' mean Dice; the middle lies between the two medians."""
SEED_SD: Mapping[str, Band] = {
    "dice": Band(
        0.0014, 0.0019, 0.0034,
        "six small networks with three seeds each on MSD hippocampus (results/leaderboard)",
    ),
}  # fmt: skip
"""Spread of the mean over trainings, by metric."""
CASE_SD: Mapping[tuple[str, str], Band] = {
    ("msd-hippocampus", "dice"): Band(
        0.033, 0.035, 0.036, "six small networks on its 40 test cases (results/leaderboard)"
    ),
}
"""Spread over cases where a board has the dataset, by dataset and metric."""
CASE_SD_ELSEWHERE: Mapping[str, Band] = {
    "dice": Band(
        0.033, 0.063, 0.119,
        "from MSD hippocampus (results/leaderboard) to MSD brain tumour (nnU-Net on 334 cases: El Jurdi et "
        "al., arXiv 2307.10926, its repository); their geometric mean between",
    ),
}  # fmt: skip
"""Spread over cases of other datasets, by metric."""


@dataclass(frozen=True, slots=True)
class Side:
    """One mean of a table, stored units; None where the table does not say.

    Attributes:
        name: of the model.
        value: its mean.
        sd: standard deviation over the cases.
        n: test cases.
        seeds: trainings behind the mean.
        seed_sd: standard deviation of the mean over trainings.
    """

    name: str
    value: float
    sd: float | None = None
    n: int | None = None
    seeds: int | None = None
    seed_sd: float | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """That one mean is better than another, and how likely chance alone made it so.

    Attributes:
        source: id of the source, empty for numbers given by hand.
        dataset, region, metric: which column of the table.
        a, b: the better model and the other.
        low, middle, high: chance that the order is wrong, over what the table does not say.
        assumed: what was taken from elsewhere, a line each.
    """

    source: str
    dataset: str
    region: str
    metric: str
    a: Side
    b: Side
    low: float
    middle: float
    high: float
    assumed: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """`supported`, `not supported`, or `open` where it hangs on what the table does not say."""
        if self.high < LEVEL:
            return SUPPORTED
        return UNSUPPORTED if self.low >= LEVEL else OPEN

    def as_json(self) -> dict[str, Any]:
        """The object of `segbench claim --json`."""
        content = asdict(self) | {"assumed": list(self.assumed)}
        return content | {"difference": self.a.value - self.b.value, "verdict": self.verdict}


def judge(
    a: Side,
    b: Side,
    metric: str,
    *,
    dataset: str = "",
    region: str = "",
    source: str = "",
    same_cases: bool = True,
    congruence: float | None = None,
) -> Claim:
    """The claim that the better of two means is better.

    Args:
        a: one side.
        b: the other.
        metric: a metric of the registry.
        dataset: slug, where its spread over cases was measured.
        region: for the record.
        source: for the record.
        same_cases: whether both were scored on the same cases; else their errors are independent.
        congruence: correlation over the cases, None takes the measured range.

    Raises:
        SegbenchError: SB104 when n is unknown, or a spread that nobody has measured.
    """
    from segbench.stats.claims import Reported, false_order

    if (METRICS[metric].direction == "higher") != (a.value >= b.value):
        a, b = b, a
    if a.n is None or b.n is None:
        raise SegbenchError("SB104", "the number of test cases is not known", mend="give it with --n")
    cases, retraining = _spread_of_cases(a, b, metric, dataset), _spread_of_seeds(a, b, metric)
    given = congruence if same_cases else 0.0
    correlation = CONGRUENCE if given is None else Band(given, given, given, "")
    assumed = [
        f"{what} {_words(band, metric)}"
        for what, band in (("spread over cases", cases), ("spread of retraining", retraining))
        if band.source
    ]
    if correlation.source:
        assumed.append(
            f"correlation over cases {correlation.low:g} to {correlation.high:g}: {correlation.source}"
        )
    if None in (a.seeds, b.seeds):
        assumed.append("one training of each model: the table does not say how many")

    def chance(sd: float, seed_sd: float, r: float) -> float:
        first, second = (
            Reported(
                side.value,
                sd if side.sd is None else side.sd,
                1 if side.n is None else side.n,
                seed_sd if side.seed_sd is None else side.seed_sd,
                1 if side.seeds is None else side.seeds,
            )
            for side in (a, b)
        )
        return false_order(first, second, congruence=r)

    bands = (cases, retraining, correlation)
    found = [chance(*values) for values in product(*(band[:3] for band in bands))]
    middle = chance(*(band.middle for band in bands))
    return Claim(source, dataset, region, metric, a, b, min(found), middle, max(found), tuple(assumed))


def _spread_of_cases(a: Side, b: Side, metric: str, dataset: str) -> Band:
    """The spread over cases of the sides that do not say it; a side alone is taken to vary as the other."""
    known = [side.sd for side in (a, b) if side.sd is not None]
    if known:
        return Band(known[0], known[0], known[0], "" if len(known) == 2 else "that of the other model")
    measured = CASE_SD.get((dataset, metric)) or CASE_SD_ELSEWHERE.get(metric)
    if measured is None:
        raise SegbenchError(
            "SB104",
            f"no spread of {metric} over cases is given, and none is measured",
            mend="give it with --sd-a and --sd-b",
        )
    return measured


def _spread_of_seeds(a: Side, b: Side, metric: str) -> Band:
    """The spread of the mean over trainings of the sides that do not say it."""
    if a.seed_sd is not None and b.seed_sd is not None:
        return Band(0.0, 0.0, 0.0, "")
    if metric not in SEED_SD:
        raise SegbenchError(
            "SB104",
            f"no spread of {metric} over trainings is given, and none is measured",
            mend="give it with --seed-sd; 0 leaves it out",
        )
    return SEED_SD[metric]


def _words(band: Band, metric: str) -> str:
    scale, unit = printed(metric)
    low, high = (f"{value * scale:.2g}" for value in (band.low, band.high))
    return f"{low if low == high else f'{low} to {high}'} {unit}: {band.source}"


def printed(metric: str) -> tuple[float, str]:
    """Factor from stored to printed numbers, and the unit of a difference."""
    unit = METRICS[metric].unit
    return (100.0, "points") if unit == "1" else (1.0, unit)


def chance_words(value: float) -> str:
    """A probability in per cent with two digits, `<0.1` below that."""
    return "<0.1" if value < 0.001 else f"{100 * value:.2g}"


def side_of(table: PublishedTable, number: Number) -> Side:
    """A published number as a side."""
    scale = 100 if number.unit == "%" else 1
    sd = None if number.sd is None else number.sd / scale
    return Side(number.model, number.stored, sd, number.n, table.protocol.seeds)


def claims_of(table: PublishedTable) -> tuple[list[Claim], list[str]]:
    """The best number of each column of a table against each other one, and why others are not judged."""
    columns: dict[tuple[str, str, str], list[Number]] = {}
    for number in table.number:
        if number.metric in METRICS:  # the others are costs
            columns.setdefault((number.dataset, number.region, number.metric), []).append(number)
    claims: list[Claim] = []
    refused: dict[str, int] = {}
    for (dataset, region, metric), numbers in columns.items():
        if METRICS[metric].descriptive or len(numbers) < 2:
            continue
        higher = METRICS[metric].direction == "higher"
        best, *others = sorted(numbers, key=lambda number: -number.stored if higher else number.stored)
        for other in others:
            sides = side_of(table, best), side_of(table, other)
            try:
                claims.append(judge(*sides, metric, dataset=dataset, region=region, source=table.source.id))
            except SegbenchError as error:
                refused[error.message] = refused.get(error.message, 0) + 1
    return claims, [f"{count} not judged: {why}" for why, count in refused.items()]


def contradictions(tables: Sequence[PublishedTable]) -> list[str]:
    """Numbers that two sources give one model in one column, further apart than chance allows.

    Apart means more than two standard errors at the widest spreads, the cases being different ones.
    """
    from segbench.stats.claims import Reported, standard_error

    found: list[str] = []
    for (first, a), (second, b) in _pairs(tables):
        cases, seeds = CASE_SD_ELSEWHERE.get(a.metric), SEED_SD.get(a.metric)
        sides = side_of(first, a), side_of(second, b)
        if cases is None or seeds is None or None in (a.n, b.n):
            continue
        reported = [
            Reported(side.value, side.sd or cases.high, side.n or 1, seeds.high, side.seeds or 1)
            for side in sides
        ]
        error, difference = standard_error(*reported, congruence=0.0), abs(sides[0].value - sides[1].value)
        if difference > 2 * error:
            scale, unit = printed(a.metric)
            found.append(
                f"{a.model} on {a.dataset}, {a.region}, {a.metric}: {first.source.id} says {a.value:g} "
                f"(n {a.n}), {second.source.id} {b.value:g} (n {b.n}): {difference * scale:.1f} {unit}, "
                f"{difference / error:.1f} standard errors, apart at the widest spread"
            )
    return found


def _pairs(
    tables: Iterable[PublishedTable],
) -> Iterator[tuple[tuple[PublishedTable, Number], tuple[PublishedTable, Number]]]:
    """Pairs of numbers of two sources for the same model, dataset, region and metric."""
    columns: dict[tuple[str, ...], list[tuple[PublishedTable, Number]]] = {}
    for table in tables:
        for number in table.number:
            if number.metric in METRICS:
                model = number.our_model or number.model.casefold()
                key = (model, number.dataset, number.region, number.metric)
                columns.setdefault(key, []).append((table, number))
    for members in columns.values():
        yield from (pair for pair in combinations(members, 2) if pair[0][0] is not pair[1][0])
