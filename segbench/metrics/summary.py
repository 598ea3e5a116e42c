"""From rows to numbers of a table: one `Summary` per (region, metric), failed cases included.

A mean always comes with how many cases were expected, scored and failed. Failed cases carry their penalty
inside the mean, so a missing prediction can never improve it. Only values that are not defined (policy `nan`,
descriptive metrics) are left out, and then `n_undefined` says so. Sums are exact (`math.fsum`), so the order
of cases and of files changes no bit.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from segbench.metrics.policies import FAILED, INF, NAN
from segbench.metrics.registry import METRICS, suggestions

MEAN_REGION = "mean"
"""Name of the row over regions: the mean of the region means, never pooled over rows."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The distribution of one metric over the cases of one region.

    Attributes:
        region: region name, or `mean` for the mean of the region means.
        metric: metric name.
        n_expected: cases of the reference set or of the split; n_scored + n_failed.
        n_scored: cases with a usable prediction (`ok` or one of the empties).
        n_failed: cases without one (missing, unreadable, geometry mismatch).
        n_both_empty: scored cases whose region is in neither map.
        n_reference_empty: scored cases with a false positive region.
        n_prediction_empty: scored cases that missed the region.
        n_undefined: values that are not defined and stand in no statistic.
        mean: over all expected cases with a defined value.
        std: standard deviation, ddof 1; nan below two values.
        std_population: standard deviation, ddof 0: what the SegMamba-V2 paper prints.
        median: linear interpolation, as q1 (25 %) and q3 (75 %).
        q1: see median.
        q3: see median.
        minimum: smallest value.
        maximum: largest value.
        worst_case: case id with the worst value; None for descriptive metrics and the row over regions.
    """

    region: str
    metric: str
    n_expected: int
    n_scored: int
    n_failed: int
    n_both_empty: int
    n_reference_empty: int
    n_prediction_empty: int
    n_undefined: int
    mean: float
    std: float
    std_population: float
    median: float
    q1: float
    q3: float
    minimum: float
    maximum: float
    worst_case: str | None

    def as_json(self) -> dict[str, Any]:
        """Return a dict for JSON: nan becomes null and inf the text "inf", so no reader can turn either into
        0.
        """
        return {key: json_number(value) for key, value in asdict(self).items()}


def json_number(value: Any) -> Any:
    """Return a value that JSON can hold: nan -> None, inf -> "inf", -inf -> "-inf", the rest unchanged."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value


def regions_in_mean(regions: Mapping[str, Collection[int]]) -> tuple[str, ...]:
    """The regions that a mean over regions averages: all but unions of other regions, which count once.

    Args:
        regions: name -> labels; a region without labels is never taken for a union.
    """
    return tuple(
        name
        for name, labels in regions.items()
        if not labels
        or set(labels) != {label for other in regions.values() if set(other) < set(labels) for label in other}
    )


def summarise(
    rows: Iterable[Mapping[str, Any]],
    metrics: Sequence[str],
    expected: int | Collection[str] | None = None,
    mean_regions: Collection[str] | None = None,
) -> list[Summary]:
    """Return one `Summary` per (region, metric), then one per metric over the regions when there are several.

    Args:
        rows: one mapping per (case, region) with `case`, `region`, `status` and one entry per metric; values
            are numbers, None or empty text (not defined), or the texts `nan` and `inf`. Several seeds or
            folds of one case may stand in one call: each row counts.
        metrics: names to summarise, in the order wanted.
        expected: the case ids, or their number, that must be there. A case without a row counts as failed and
            takes the worst value of the metric (distances: inf, since no grid is known); None trusts the
            rows.
        mean_regions: regions that the mean over regions averages (`regions_in_mean`); None takes all.

    Raises:
        ValueError: an unknown metric name; more rows than expected cases; a row whose case is not expected.
    """
    for name in metrics:
        if name not in METRICS:
            raise ValueError(f"unknown metric {name!r}{suggestions(name, METRICS)}")
    by_region: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_region.setdefault(str(row["region"]), []).append(row)
    summaries: list[Summary] = []
    for region, members in by_region.items():
        absent = _absent_cases(members, expected)
        summaries.extend(_summarise_one(region, name, members, absent) for name in metrics)
    averaged = [name for name in by_region if mean_regions is None or name in mean_regions]
    if len(averaged) > 1 and MEAN_REGION not in by_region:
        parts = [part for part in summaries if part.region in averaged]
        summaries.extend(_over_regions(name, parts) for name in metrics)
    return summaries


def _absent_cases(rows: list[Mapping[str, Any]], expected: int | Collection[str] | None) -> list[str | None]:
    """Return the expected cases that have no row; None stands for a case whose id is not known."""
    if expected is None:
        return []
    seen = {str(row["case"]) for row in rows}
    if isinstance(expected, int):
        if len(seen) > expected:
            raise ValueError(f"{len(seen)} cases have rows where {expected} are expected")
        return [None] * (expected - len(seen))
    unexpected = sorted(seen.difference(expected))
    if unexpected:
        raise ValueError(f"rows of cases that are not expected: {', '.join(unexpected[:5])}")
    return list(sorted(set(expected).difference(seen)))


def _summarise_one(
    region: str, metric: str, rows: list[Mapping[str, Any]], absent: list[str | None]
) -> Summary:
    info = METRICS[metric]
    statuses = [str(row["status"]) for row in rows]
    pairs: list[tuple[float, str | None]] = [(number(row.get(metric)), str(row["case"])) for row in rows]
    pairs += [(_worst_of(metric), case) for case in absent]
    defined = [(value, case) for value, case in pairs if not math.isnan(value)]
    values = [value for value, _ in defined]
    failed = sum(status in FAILED for status in statuses) + len(absent)
    return Summary(
        region=region,
        metric=metric,
        n_expected=len(pairs),
        n_scored=len(pairs) - failed,
        n_failed=failed,
        n_both_empty=statuses.count("both_empty"),
        n_reference_empty=statuses.count("reference_empty"),
        n_prediction_empty=statuses.count("prediction_empty"),
        n_undefined=len(pairs) - len(defined),
        mean=mean(values),
        std=deviation(values, ddof=1),
        std_population=deviation(values, ddof=0),
        median=quantile(values, 0.5),
        q1=quantile(values, 0.25),
        q3=quantile(values, 0.75),
        minimum=min(values, default=NAN),
        maximum=max(values, default=NAN),
        worst_case=None if info.descriptive else _worst_case(defined, higher=info.direction == "higher"),
    )


def _over_regions(metric: str, summaries: list[Summary]) -> Summary:
    """Return the mean of the region means; the other statistics have no meaning over regions and are nan."""
    parts = [part for part in summaries if part.metric == metric]
    return Summary(
        region=MEAN_REGION,
        metric=metric,
        n_expected=max(part.n_expected for part in parts),
        n_scored=min(part.n_scored for part in parts),
        n_failed=max(part.n_failed for part in parts),
        n_both_empty=sum(part.n_both_empty for part in parts),
        n_reference_empty=sum(part.n_reference_empty for part in parts),
        n_prediction_empty=sum(part.n_prediction_empty for part in parts),
        n_undefined=sum(part.n_undefined for part in parts),
        mean=mean([part.mean for part in parts if not math.isnan(part.mean)]),
        std=NAN,
        std_population=NAN,
        median=NAN,
        q1=NAN,
        q3=NAN,
        minimum=NAN,
        maximum=NAN,
        worst_case=None,
    )


def number(value: Any) -> float:
    """Return a stored value as a float: None and empty text are nan, the texts `inf` and `nan` mean
    themselves.
    """
    if value is None or value == "":
        return NAN
    return float(value)


def mean(values: Sequence[float]) -> float:
    """Return the mean from an exact sum, within its values; nan of nothing, inf when a value is inf."""
    if not values:
        return NAN
    if any(math.isinf(value) for value in values):
        return (
            NAN if INF in values and -INF in values else next(value for value in values if math.isinf(value))
        )
    # The division can round a mean of equal values to beside them.
    return min(max(math.fsum(values) / len(values), min(values)), max(values))


def deviation(values: Sequence[float], *, ddof: int) -> float:
    """Return the standard deviation from exact sums; nan when it is not defined (too few values, or an
    inf).
    """
    if len(values) <= ddof or any(math.isinf(value) for value in values):
        return NAN
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - ddof))


def quantile(values: Sequence[float], fraction: float) -> float:
    """Return a quantile with linear interpolation (`numpy.percentile`'s default) that stays finite where it
    can.
    """
    if not values:
        return NAN
    ordered = sorted(values)
    position = fraction * (len(ordered) - 1)
    below = math.floor(position)
    share = position - below
    low = ordered[below]
    if share == 0.0:
        return low
    high = ordered[below + 1]
    if low == high:
        return low
    if math.isinf(high) or math.isinf(low):
        return high if math.isinf(high) else low
    step = high - low
    # numpy interpolates from the nearer end, which changes the last bit; so does this.
    return high - step * (1.0 - share) if share >= 0.5 else low + step * share


def _worst_of(metric: str) -> float:
    worst = METRICS[metric].worst
    if worst is None:
        return NAN
    return INF if worst == "diagonal" else float(worst)


def _worst_case(pairs: list[tuple[float, str | None]], *, higher: bool) -> str | None:
    """Return the case with the worst value; among equals the first by name, so that order changes nothing."""
    if not pairs:
        return None
    worst = min(value for value, _ in pairs) if higher else max(value for value, _ in pairs)
    return min((case for value, case in pairs if value == worst and case is not None), default=None)
