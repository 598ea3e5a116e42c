"""`segbench profile`: parameters, cost, latency, memory and energy of networks; table, CSV, LaTeX or JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from segbench.cli.common import settings, split_list
from segbench.cli.options import option
from segbench.core import console
from segbench.core.atomic import atomic_write, atomic_write_json
from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_json
from segbench.core.outputs import check_targets
from segbench.core.text import bytes_words

if TYPE_CHECKING:
    from segbench.profiling import ProfileDocument, ProfileRow

CONVENTION = (
    "GMAC = multiply-accumulates of convolutions and matrix products; GFLOP = 2 GMAC + selective scan; "
    "norms, activations and interpolation are not counted"
)


Models = Annotated[list[str], option("--model", "Networks, comma-separated or repeated; all; globs.")]
_INPUT = "Shape of the input; several are a sweep. [default: 1x4x128x128x128; on a CPU 1x4x64x64x64]"
Inputs = Annotated[list[str] | None, option("--input", _INPUT, metavar="BxCxDxHxW")]
Classes = Annotated[int, option("--classes", "Output channels.", min=1)]
Modes = Annotated[list[str], option("--mode", "infer (forward), train (a whole step).")]
Dtypes = Annotated[list[str], option("--dtype", "fp32, bf16 or fp16 (autocast).")]
Where = Annotated[
    Literal["auto", "cpu", "cuda", "meta"],
    option("--device", "Where to measure; meta counts only, at any size."),
]
MaxPatch = Annotated[bool, option("--max-patch", "Search the largest cube that fits.")]
LimitS = Annotated[float, option("--limit-s", "Seconds until a row is given up.", min=1.0)]
Format = Annotated[Literal["table", "csv", "latex"], option("--format", "How rows are printed.")]
_OUTPUT = "Write to FILE (.json, .csv, .tex), or rows into a folder."
Output = Annotated[Path | None, option("--output", _OUTPUT, metavar="FILE")]

LARGE, SMALL = "1x4x128x128x128", "1x4x64x64x64"
"""The input where none is named: what papers measure at, and what a CPU can finish."""


def profile(
    model: Models,
    input_shape: Inputs = None,
    classes: Classes = 4,
    mode: Modes = ["infer"],  # noqa: B006 - typer copies it
    dtype: Dtypes = ["fp32"],  # noqa: B006
    device: Where = "auto",
    max_patch: MaxPatch = False,
    limit_s: LimitS = 600.0,
    output_format: Format = "table",
    output: Output = None,
) -> int:
    """Profile networks. Each row is measured in a fresh process; running out of memory is a result.

    Example: segbench profile --model segmamba-v2,nnunet --device meta
    """
    from segbench.profiling import ProfileDocument, ProfileRequest, profile_rows
    from segbench.profiling.schema import Dtype, Mode, parse_shape

    names, where = _models(split_list(model)), device
    if device in {"auto", "cuda"}:
        from segbench.engine.device import choose_device

        where = choose_device(device).type
    inputs = split_list(input_shape) or [SMALL if where == "cpu" else LARGE]
    if where == "cpu" and not input_shape:
        console.note(f"on a CPU: input {SMALL} in place of {LARGE}; --input or --device meta for another")
    shapes = [parse_shape(text, 5, flag="--input") for text in inputs]
    modes = [_choice("--mode", value, get_args(Mode)) for value in split_list(mode)]
    dtypes = [_choice("--dtype", value, get_args(Dtype)) for value in split_list(dtype)]
    requests = [
        ProfileRequest.model_validate(
            {
                "model": name,
                "input_shape": shape,
                "out_channels": classes,
                "mode": how,
                "dtype": kind,
                "device": where,
                "max_patch": max_patch and where != "meta",
                "limit_s": limit_s,
            }
        )
        for name, shape, how, kind in product(names, shapes, modes, dtypes)
    ]
    if output is not None:
        check_free(output)
    with console.progress("profile", len(requests), unit="rows") as tracker:
        rows = profile_rows(requests, report=lambda row: tracker.advance(note=f"{row.model} {row.status}"))
    document = ProfileDocument(rows=rows)
    if output is not None:
        for path in write(document, output):
            console.note(f"-> {path}")
    _show(document, output_format, as_json=settings().json)
    return 0 if all(row.status in {"ok", "oom"} for row in rows) else 3


def _models(names: list[str]) -> list[str]:
    from segbench.cards import list_model_cards
    from segbench.networks import list_networks
    from segbench.networks.registry import network_card
    from segbench.runs.plan import expand_names

    networks = list_networks()
    for name in set(names) & set(list_model_cards()):
        network_card(name)  # a floor is a model with nothing to profile: SB104 says so, it is not unknown
    return expand_names(names, networks, what="model", everything=networks)


def _choice(flag: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise SegbenchError(
            "SB104",
            f"{flag} {value!r} is none of {', '.join(allowed)}",
            expected=list(allowed),
            found=value,
            mend=f"choose one of {', '.join(allowed)}",
        )
    return value


def _show(document: ProfileDocument, output_format: str, *, as_json: bool) -> None:
    """Print the result on stdout, and what people should know beside it on stderr."""
    if as_json:
        console.emit_json(document.as_json())
        return
    if output_format == "csv":
        console.emit_raw(as_csv(document.rows))
    elif output_format == "latex":
        console.emit_raw(as_latex(document.rows))
    else:
        header, lines = _table(document.rows)
        console.emit(CONVENTION)
        for line in console.table_lines(header, lines, right=range(3, len(header) - 1)):
            console.emit(line)
    for row in document.rows:
        if row.status != "ok":
            console.note(f"{row.model}: {row.status}: {row.reason}")
        for hazard in row.hazards:
            console.warn(f"{row.model}: {hazard}")
        if row.latency is not None and not row.latency.stable:
            console.note(f"{row.model}: times are doubtful (~): {'; '.join(row.latency.unstable_because)}")


def write(document: ProfileDocument, output: Path) -> list[Path]:
    """Write the document by the suffix of the file, or one JSON file per row below a folder.

    Returns:
        The files written.
    """
    if output.suffix == ".csv":
        atomic_write(output, as_csv(document.rows))
    elif output.suffix == ".tex":
        atomic_write(output, as_latex(document.rows))
    elif output.suffix == ".json":
        atomic_write_json(output, document.as_json())
    else:
        return [_write_row(document, row, output) for row in document.rows]
    return [output]


def check_free(output: Path) -> None:
    """SB337 when the file to write is one that no `segbench profile` wrote."""
    if output.suffix in {".csv", ".tex", ".json"}:
        check_targets([output], own=_is_profile)


def _is_profile(path: Path) -> bool:
    """Whether a file holds profiles, in any of the forms that `write` knows."""
    from segbench.profiling import ProfileDocument

    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            ProfileDocument.model_validate(parse_json(text))
            return True
    except (OSError, ValueError):
        return False
    return text.startswith(",".join(_FLAT)) if path.suffix == ".csv" else CONVENTION.partition(";")[0] in text


def _write_row(document: ProfileDocument, row: ProfileRow, folder: Path) -> Path:
    from segbench.profiling.machine import machine_slug

    shape = "x".join(map(str, row.input_shape))
    # What was only counted, or computed otherwise, must not take the place of what was measured there.
    other = "__meta" if row.device == "meta" else ""
    name = f"{row.model}__{shape}__{_how(row, '__')}{other}.json"
    path = folder / machine_slug(row.environment) / name
    check_targets([path], own=_is_profile)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_json(path, document.model_copy(update={"rows": [row]}).as_json())
    return path


def _table(rows: Sequence[ProfileRow]) -> tuple[list[str], list[list[str]]]:
    header = ["model", "input", "how", "params M", "GMAC", "GFLOP", "scan GFLOP"]
    timed = any(row.latency or row.status != "ok" for row in rows)
    patch = any(row.memory and row.memory.max_patch for row in rows)
    header += ["median", "p99", "memory"] if timed else []
    header += ["max cube"] if patch else []
    lines = []
    for row in rows:
        line = [
            row.model,
            "x".join(map(str, row.input_shape)),
            f"{_how(row)} {row.device}",
            *_counts(row),
        ]
        line += _times(row) if timed else []
        line += [_number(row.memory and row.memory.max_patch, "{}^3")] if patch else []
        lines.append([*line, row.status])
    return [*header, "status"], lines


def _how(row: ProfileRow, between: str = " ") -> str:
    """Mode, type, and the ways of `SEGBENCH_FAST` that were on."""
    return between.join(filter(None, (row.mode, row.dtype, row.environment.get("fast"))))


def _counts(row: ProfileRow) -> list[str]:
    params = None if row.params is None else row.params.total / 1e6
    if row.cost is None:
        return [_number(params, "{:.2f}"), "-", "-", "-"]
    numbers = (row.cost.gmacs, row.cost.gflops, row.cost.by_op.get("scan"))
    return [_number(params, "{:.2f}"), *(_number(number, "{:.1f}") for number in numbers)]


def _times(row: ProfileRow) -> list[str]:
    if row.latency is None:
        return ["-", "-", _memory(row)]
    mark = "" if row.latency.stable else " ~"
    return [_seconds(row.latency.median_s) + mark, _seconds(row.latency.p99_s), _memory(row)]


def _memory(row: ProfileRow) -> str:
    if row.memory is None:
        return "-"
    peak = row.memory.reserved_peak_bytes or row.memory.process_peak_bytes
    return "-" if peak is None else bytes_words(peak)


def _seconds(value: float) -> str:
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.2f} s"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


_FLAT = (
    "model", "status", "reason", "input_shape", "out_channels", "mode", "dtype", "device", "scan_backend",
    "params.total", "params.trainable", "params.buffers", "cost.gmacs", "cost.gflops", "cost.by_op.conv",
    "cost.by_op.matmul", "cost.by_op.attention", "cost.by_op.scan", "latency.median_s", "latency.p10_s",
    "latency.p90_s", "latency.p99_s", "latency.ci_low_s", "latency.ci_high_s", "latency.n",
    "latency.first_call_s", "latency.cpu_s", "latency.stable", "memory.weights_bytes",
    "memory.gradients_bytes", "memory.optimizer_bytes", "memory.activations_bytes",
    "memory.allocated_peak_bytes", "memory.reserved_peak_bytes", "memory.process_peak_bytes",
    "memory.max_patch", "throughput.windows_per_s", "throughput.volumes_per_s",
    "throughput.windows_per_volume", "throughput.tta_factor", "energy.joules_per_iteration",
    "energy.joules_per_volume", "environment.cpu", "environment.gpu", "environment.threads",
)  # fmt: skip


def as_csv(rows: Sequence[ProfileRow]) -> str:
    """One line per row, one column per number; what was not measured is empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = [*_FLAT, *(["environment.fast"] if any("fast" in row.environment for row in rows) else [])]
    writer.writerow(names)
    for row in rows:
        values = row.model_dump(mode="json")
        writer.writerow([_flat(_dig(values, name)) for name in names])
    return buffer.getvalue()


def _dig(values: Any, name: str) -> Any:
    for part in name.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _flat(value: Any) -> Any:
    if isinstance(value, list):
        return "x".join(map(str, value))
    return "" if value is None else value


def as_latex(rows: Sequence[ProfileRow]) -> str:
    """A booktabs table of parameters, cost, time and memory; the caption says by which rules."""
    from segbench.report.write.latex import render

    timed = any(row.latency for row in rows)
    heads = ["Params (M)", "GMAC", "GFLOP", *(["Median (ms)", "Memory (GiB)"] if timed else [])]
    lines: list[tuple[str, list[str]]] = []
    for row in rows:
        cells = [
            _number(row.params and row.params.total / 1e6, "{:.2f}"),
            _number(row.cost and row.cost.gmacs, "{:.1f}"),
            _number(row.cost and row.cost.gflops, "{:.1f}"),
        ]
        if timed:
            peak = row.memory and (row.memory.reserved_peak_bytes or row.memory.process_peak_bytes)
            median = _number(row.latency and row.latency.median_s * 1e3, "{:.1f}")
            cells += [
                median if row.status == "ok" else row.status.upper(),
                _number(peak and peak / 2**30, "{:.2f}"),
            ]
        lines.append((row.model, cells))
    return render("profile.tex", caption=_caption(rows, timed=timed), heads=heads, lines=lines)


def _caption(rows: Sequence[ProfileRow], *, timed: bool) -> str:
    def each(values: set[str]) -> str:
        return ", ".join(sorted(values))

    shapes = each({"x".join(map(str, row.input_shape)) for row in rows})
    caption = f"Cost at input {shapes}, {rows[0].out_channels} output channels. {CONVENTION}."
    if not timed:
        return caption
    hardware = each(
        {str(row.environment.get("gpu") or row.environment.get("cpu") or row.device) for row in rows}
    )
    backends = each({row.scan_backend for row in rows if row.scan_backend}) or "none"
    how = each({_how(row) for row in rows})
    return f"{caption} Measured on {hardware}: {how}; selective scan by {backends}."
