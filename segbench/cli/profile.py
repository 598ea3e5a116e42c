"""`segbench profile`: parameters, cost, latency, memory, throughput and energy of networks."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from segbench.cli.common import settings, split_list
from segbench.core import console
from segbench.core.errors import BackendUnavailable, SegbenchError

if TYPE_CHECKING:
    from segbench.profiling import ProfileRequest, ProfileRow

MODES, DTYPES, DEVICES = ("infer", "train"), ("fp32", "bf16", "fp16"), ("auto", "cpu", "cuda", "meta")
FORMATS = ("table", "csv", "latex")


def profile(
    model: Annotated[list[str], typer.Option(help="Networks, comma-separated or repeated; all; globs.")],
    input_shape: Annotated[
        list[str],
        typer.Option("--input", metavar="BxCxDxHxW", help="Shape of the input; several are a sweep."),
    ] = ["1x4x128x128x128"],  # noqa: B006 - typer copies it
    classes: Annotated[int, typer.Option(min=1, help="Output channels.")] = 4,
    mode: Annotated[list[str], typer.Option(help="infer (forward), train (a whole step).")] = ["infer"],  # noqa: B006
    dtype: Annotated[list[str], typer.Option(help="fp32, bf16 or fp16 (autocast).")] = ["fp32"],  # noqa: B006
    device: Annotated[
        Literal["auto", "cpu", "cuda", "meta"],
        typer.Option(help="auto, cpu, cuda; meta counts only, at any size."),
    ] = "auto",
    sliding: Annotated[
        str | None, typer.Option(metavar="ZxYxX", help="Also predict a synthetic volume of this size.")
    ] = None,
    overlap: Annotated[
        float, typer.Option(min=0.0, max=0.95, help="Overlap of windows for --sliding.")
    ] = 0.5,
    tta: Annotated[str, typer.Option(help="none or flips, for --sliding.")] = "none",
    max_patch: Annotated[
        bool, typer.Option("--max-patch", help="Search the largest cube that fits.")
    ] = False,
    compare: Annotated[
        str | None, typer.Option(metavar="published", help="Print published costs beside ours.")
    ] = None,
    limit_s: Annotated[
        float, typer.Option("--limit-s", min=1.0, help="Seconds until a row is given up.")
    ] = 600.0,
    output_format: Annotated[str, typer.Option("--format", help="table, csv or latex.")] = "table",
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write to FILE (.json, .csv, .tex), or rows into a folder."),
    ] = None,
) -> int:
    """Profile networks. Each row is measured in a fresh process; running out of memory is a result.

    Example: segbench profile --model segmamba-v2,nnunet --device meta
    """
    from segbench.cli.tables import profiles as profile_output
    from segbench.profiling import ProfileDocument, ProfileRequest

    names = _models(split_list(model))
    _choice("--format", output_format, FORMATS)
    _choice("--tta", tta, ("none", "flips"))
    if compare is not None:
        _choice("--compare", compare, ("published",))
    where = _device(device)
    shapes = [_shape(text, 5, "--input") for text in split_list(input_shape)]
    volume = None if sliding is None else _shape(sliding, 3, "--sliding")
    modes = [_choice("--mode", value, MODES) for value in split_list(mode)]
    dtypes = [_choice("--dtype", value, DTYPES) for value in split_list(dtype)]
    if volume is not None and "infer" not in modes:
        raise SegbenchError("SB104", "--sliding predicts, so it needs --mode infer")
    requests = [
        ProfileRequest.model_validate(
            {
                "model": name,
                "input_shape": shape,
                "out_channels": classes,
                "mode": how,
                "dtype": kind,
                "device": where,
                "sliding": volume if how == "infer" else None,
                "overlap": overlap,
                "tta": tta,
                "max_patch": max_patch and where != "meta",
                "limit_s": limit_s,
            }
        )
        for name, shape, how, kind in product(names, shapes, modes, dtypes)
    ]
    if output is not None:
        profile_output.check_free(output)
    rows = _measured(requests)
    document = ProfileDocument(rows=rows)
    comparisons = profile_output.published_beside(rows) if compare else ()
    if output is not None:
        for path in profile_output.write(document, output, comparisons):
            console.note(f"-> {path}")
    profile_output.show(document, output_format, comparisons, as_json=settings().json)
    return 0 if all(row.status in {"ok", "oom"} for row in rows) else 3


def _models(names: list[str]) -> list[str]:
    from segbench.cards import list_model_cards
    from segbench.networks import list_networks
    from segbench.networks.registry import network_card
    from segbench.runs.api import expand_names

    networks = list_networks()
    for name in set(names) & set(list_model_cards()):
        network_card(name)  # a floor is a model with nothing to profile: SB104 says so, it is not unknown
    return expand_names(names, networks, what="model", everything=networks)


def _measured(requests: list[ProfileRequest]) -> list[ProfileRow]:
    from segbench.profiling import profile_rows

    with console.progress("profile", len(requests), unit="rows") as tracker:
        return profile_rows(requests, report=lambda row: tracker.advance(note=f"{row.model} {row.status}"))


def _shape(text: str, axes: int, flag: str) -> tuple[int, ...]:
    from segbench.profiling.request import parse_shape

    return parse_shape(text, axes, flag=flag)


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


def _device(name: str) -> Literal["cpu", "cuda", "meta"]:
    """The device to measure on (SB502 for a GPU that is not here)."""
    _choice("--device", name, DEVICES)
    if name in {"auto", "cuda"}:
        import torch

        there = torch.cuda.is_available()
        if name == "cuda" and not there:
            raise BackendUnavailable("there is no CUDA device here", mend="profile on --device cpu or meta")
        return "cuda" if there else "cpu"
    return cast("Literal['cpu', 'meta']", name)
