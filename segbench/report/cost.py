"""What a model costs: parameters, operations, memory, time, from its records; nothing is estimated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from segbench.core.foreign import parse_json
from segbench.report import facts
from segbench.report.block import Block, ModelScores
from segbench.report.runs import Run

COUNT_RULE = "conv + matrix products, scan apart"


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one model on one dataset; None where the records do not say.

    Attributes:
        parameters_m: millions.
        gmacs: by the count rule of the profile, for `input_shape`.
        peak_memory_gib: largest of training's and inference's peaks.
        seconds_per_case: prediction time over its cases.
        gpu_hours: training, all folds and seeds together.
        latency_s: median of one forward pass.
        device: what memory and time were measured on.
        dtype: of the profile.
        input_shape: of the profile: the input that operations are counted for.
    """

    dataset: str
    protocol: str
    model: str
    parameters_m: float | None
    gmacs: float | None
    peak_memory_gib: float | None
    seconds_per_case: float | None
    gpu_hours: float | None
    latency_s: float | None
    device: str
    dtype: str
    input_shape: str

    def as_json(self) -> dict[str, Any]:
        """The object of report.json."""
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def known(self) -> bool:
        """Whether there is any number at all."""
        numbers = (self.parameters_m, self.gmacs, self.peak_memory_gib, self.seconds_per_case, self.gpu_hours)
        return any(number is not None for number in numbers)


def model_cost(block: Block, scores: ModelScores) -> Cost:
    """The cost of a model in a block, from the first of its runs that says each thing; times are averaged."""
    rows = [profile_row(run) for run in scores.runs]
    row = next((found for found in rows if found), {})
    params = facts.table_of(row, "params").get("total")
    latency = facts.table_of(row, "latency").get("median_s")
    memory = facts.table_of(row, "memory")
    peaks = [_number(memory.get(key)) for key in ("reserved_peak_bytes", "process_peak_bytes")]
    peaks += [_number(run.record.get("peak_memory_bytes")) for run in scores.runs]
    hours = [_hours(run) for run in scores.runs]
    return Cost(
        dataset=block.dataset,
        protocol=block.protocol,
        model=scores.model,
        parameters_m=_scaled(params, 1e-6),
        gmacs=_number(facts.table_of(row, "cost").get("gmacs")),
        peak_memory_gib=_scaled(max((peak for peak in peaks if peak is not None), default=None), 2**-30),
        seconds_per_case=_average(_per_case(run, scores) for run in scores.runs),
        gpu_hours=sum(known) if (known := [hour for hour in hours if hour is not None]) else None,
        latency_s=_number(latency),
        device=_device(scores.runs, row),
        dtype=str(row.get("dtype") or ""),
        input_shape="x".join(str(part) for part in row.get("input_shape") or ()),
    )


def profile_row(run: Run) -> Mapping[str, Any]:
    """The first usable row of the run's profile.json (`segbench.profile/1`), or an empty table."""
    if run.folder is None:
        return {}
    try:
        content: object = parse_json((run.folder / "profile.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(content, Mapping):
        return {}
    rows = content.get("rows", [content])
    usable = [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
    ended_well = [row for row in usable if row.get("status", "ok") == "ok"]
    return next(iter(ended_well or usable), {})


def _device(runs: Iterable[Run], row: Mapping[str, Any]) -> str:
    """The device of the runs with its processor, else that of the profile unless it only counts."""
    for run in runs:
        device = str(facts.table_of(run.record, "execution").get("device") or "")
        machine = facts.table_of(run.record, "machine")
        gpu = facts.table_of(machine, "gpu").get("name") or machine.get("gpu")
        if device in {"", "auto"}:
            device = "cuda" if isinstance(gpu, str) and gpu else "cpu" if machine.get("cpu") else ""
        name = gpu if device.startswith(("cuda", "gpu")) else machine.get("cpu")
        if device:
            return f"{device}, {name}" if isinstance(name, str) and name else device
    measured = str(row.get("device") or "")
    return "" if measured == "meta" else measured


def _per_case(run: Run, scores: ModelScores) -> float | None:
    seconds = _number(facts.table_of(run.record, "durations").get("predict"))
    cases = len(set(run.rows.case)) if run.rows is not None else 0
    return seconds / cases if seconds is not None and cases else None


def _hours(run: Run) -> float | None:
    """GPU-hours of training: seconds times devices; None on a CPU, where the word would mislead."""
    execution = facts.table_of(run.record, "execution")
    seconds = _number(facts.table_of(run.record, "durations").get("train"))
    if seconds is None or not str(execution.get("device", "")).startswith(("cuda", "gpu")):
        return None
    return seconds * (_number(execution.get("world_size")) or 1.0) / 3600


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _scaled(value: object, factor: float) -> float | None:
    number = _number(value)
    return None if number is None else number * factor


def _average(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
