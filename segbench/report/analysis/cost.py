"""What a model costs: parameters, operations, memory, time, from its records and its card; nothing is
estimated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from segbench.core.foreign import parse_json
from segbench.records import facts
from segbench.report.analysis.entries import Entry
from segbench.report.read.runs import Run

Cost = Mapping[str, Any]
"""By field of `FIELDS`, what the records of one entry say; None or an empty text where they do not."""
FIELDS = (
    ("parameters_m", "Parameters (M)", 1),  # from the profile, else the card
    ("gmacs", "GMAC", 1),  # convolutions and matrix products, the scan apart, for `input_shape`
    ("peak_memory_gib", "Peak memory (GiB)", 2),  # the largest of training's and inference's peaks
    ("seconds_per_case", "Inference (s per case)", 2),  # prediction time over its cases
    ("training_hours", "Training (device hours)", 2),  # all folds and seeds together, times the devices
    ("latency_s", "Latency (s)", 3),  # median of one forward pass
    ("input_shape", "GMAC counted for", None),
    ("device", "Device", None),  # what memory and time were measured on
)
"""Field, head of its column, and decimals; None for a text."""
CARD_INPUT = "1x4x128x128x128"
"""The input that the numbers of a model card are counted for."""


def cost_of(entry: Entry) -> Cost:
    """The cost of an entry, from the first of its runs that says each thing; times are averaged."""
    row = next((found for found in map(_profile_row, entry.runs) if found), {})
    card = facts.table(entry.runs[0].record.model, "card", "fidelity")
    parameters = facts.number(facts.table(row, "params").get("total")) or facts.number(card.get("parameters"))
    counted = facts.number(facts.table(row, "cost").get("gmacs"))
    memory = facts.table(row, "memory")
    peaks = [memory.get("reserved_peak_bytes"), memory.get("process_peak_bytes")]
    peaks += [run.record.peak_memory_bytes for run in entry.runs]
    peak = max((value for value in map(facts.number, peaks) if value is not None), default=None)
    hours = [value for value in map(_hours, entry.runs) if value is not None]
    seconds = [value for value in map(_per_case, entry.runs) if value is not None]
    shape = "x".join(str(part) for part in row.get("input_shape") or ())
    return {
        "parameters_m": None if parameters is None else parameters * 1e-6,
        "gmacs": counted if counted is not None else facts.number(card.get("gmacs")),
        "input_shape": shape if counted is not None else CARD_INPUT if card.get("gmacs") else "",
        "peak_memory_gib": None if peak is None else peak * 2**-30,
        "seconds_per_case": sum(seconds) / len(seconds) if seconds else None,
        "training_hours": sum(hours) if hours else None,
        "latency_s": facts.number(facts.table(row, "latency").get("median_s")),
        "device": _device(entry.runs, row),
    }


def _profile_row(run: Run) -> Mapping[str, Any]:
    """The first usable row of the run's profile.json (`segbench.profile/1`), or an empty table."""
    if run.folder is None:
        return {}
    try:
        content: object = parse_json((run.folder / "profile.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    rows = content.get("rows", [content]) if isinstance(content, Mapping) else []
    usable = [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
    ended_well = [row for row in usable if row.get("status", "ok") == "ok"]
    return next(iter(ended_well or usable), {})


def _device(runs: Iterable[Run], row: Mapping[str, Any]) -> str:
    """The device of the runs with its processor, else that of the profile unless it only counts."""
    for run in runs:
        device = str(facts.table(run.record.execution).get("device") or "")
        machine = facts.table(run.record.machine)
        gpu = facts.table(machine, "gpu").get("name") or machine.get("gpu")
        if device in {"", "auto"}:
            device = "cuda" if isinstance(gpu, str) and gpu else "cpu" if machine.get("cpu") else ""
        name = gpu if device.startswith(("cuda", "gpu")) else machine.get("cpu")
        if device:
            return f"{device}, {name}" if isinstance(name, str) and name else device
    measured = str(row.get("device") or "")
    return "" if measured == "meta" else measured


def _per_case(run: Run) -> float | None:
    seconds = facts.number((run.record.durations or {}).get("predict"))
    cases = len(set(run.rows.case)) if run.rows is not None else 0
    return seconds / cases if seconds is not None and cases else None


def _hours(run: Run) -> float | None:
    """Hours of training times devices."""
    seconds = facts.number((run.record.durations or {}).get("train"))
    devices = facts.number(facts.table(run.record.execution).get("world_size")) or 1.0
    return None if seconds is None else seconds * devices / 3600
