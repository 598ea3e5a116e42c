"""What a published cost is, seen beside our count: the same number, twice it, or something else."""

from __future__ import annotations

from dataclasses import dataclass

from segbench.profiling.schema import ProfileRow

__all__ = ["Comparison", "compare_with_published", "ours_for"]

SAME_PARAMETERS = 0.01
EXACT_PARAMETERS = 0.005  # published counts are printed with three or four digits


@dataclass(frozen=True, slots=True)
class Comparison:
    """One published number beside ours; `ratio` is theirs over ours."""

    model: str
    source: str
    metric: str
    theirs: float
    ours: float | None
    ratio: float | None
    verdict: str
    verified: bool
    input: str


def ours_for(row: ProfileRow, metric: str) -> float | None:
    """Our number for a published metric, in its unit, or None where it was not measured."""
    if metric == "parameters_m":
        return row.params.total / 1e6 if row.params else None
    if metric == "compute_g":
        return row.cost.gmacs if row.cost else None
    if metric == "latency_s":
        return row.latency.median_s if row.latency else None
    if metric == "memory_mb" and row.memory:
        peak = row.memory.reserved_peak_bytes or row.memory.process_peak_bytes
        return peak / 1e6 if peak else None
    return None


def compare_with_published(
    row: ProfileRow,
    *,
    source: str,
    metric: str,
    value: float,
    verified: bool,
    shape: str,
    their_parameters_m: float | None,
) -> Comparison:
    """A published number beside ours, with what the ratio says of its convention.

    Args:
        row: Our row.
        source: Id of the source.
        metric: parameters_m, compute_g, memory_mb or latency_s.
        value: As printed.
        verified: Whether somebody read it in the primary source.
        shape: Input the number is for, as the source gives it.
        their_parameters_m: Parameter count of the same source for the same model: a differing network
            explains a differing cost.
    """
    ours = ours_for(row, metric)
    ratio = None if not ours else value / ours
    verdict = "not measured here"
    if ratio is not None:
        verdict = _verdict(row, metric, ratio, shape, their_parameters_m)
    return Comparison(row.model, source, metric, value, ours, ratio, verdict, verified, shape)


def _verdict(row: ProfileRow, metric: str, ratio: float, shape: str, their_parameters_m: float | None) -> str:
    if metric == "parameters_m":
        if abs(ratio - 1) <= EXACT_PARAMETERS:
            return "parameters equal"
        return "parameters close" if abs(ratio - 1) <= SAME_PARAMETERS else "different configuration"
    if shape != "x".join(map(str, row.input_shape)):
        return f"another input ({shape or 'unknown'})"
    if metric != "compute_g":
        return "another machine"
    ours_m = ours_for(row, "parameters_m")
    if their_parameters_m and ours_m and abs(their_parameters_m / ours_m - 1) > SAME_PARAMETERS:
        return "different configuration"
    if 0.98 <= ratio <= 1.02:
        return "MAC under the name FLOP"
    if 1.96 <= ratio <= 2.04:
        return "2 x MAC"
    if 1.02 < ratio <= 1.5:
        return "other set of operations"
    return "different configuration"
