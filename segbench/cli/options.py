"""Options that several commands share, each declared once, and `option` for those of a single command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

EVERYWHERE = "Everywhere"


def option(flags: str, text: str, panel: str | None = None, metavar: str | None = None, **more: Any) -> Any:
    """An option: its flags separated by blanks, its help, the box of the help page it stands in.

    Args:
        flags: such as `--quiet -q`.
        text: one line of help.
        panel: title of the box; "Options" by default.
        metavar: what stands for the value.
        more: what else `typer.Option` takes, such as `min`.
    """
    return typer.Option(*flags.split(), help=text, rich_help_panel=panel, metavar=metavar, **more)


def _switch(flags: str, text: str) -> Any:
    return Annotated[bool, option(flags, text, EVERYWHERE)]


def _path(flags: str, text: str, metavar: str = "DIR") -> Any:
    return Annotated[Path | None, option(flags, text, EVERYWHERE, metavar)]


SHARED: dict[str, Any] = {
    "quiet": _switch("--quiet -q", "Errors only."),
    "verbose": _switch("--verbose -v", "Say more."),
    "json_output": _switch("--json", "The result as one JSON document on stdout."),
    "no_progress": _switch("--no-progress", "No progress on stderr."),
    "no_color": _switch("--no-color", "No colours."),
    "results": _path("--results", "Folder of runs. [env: SEGBENCH_RESULTS; default: results/runs]"),
    "data_dir": _path("--data-dir", "Folder of datasets. [env: SEGBENCH_DATA; default: data]"),
    "cards": _path("--cards", "More cards: DIR/models, DIR/datasets. [env: SEGBENCH_CARDS]"),
    "config": _path("--config", "Settings file (TOML).", "FILE"),
    "max_volume": Annotated[
        str | None,
        option("--max-volume", "Largest volume read into memory. [default: 8GiB]", EVERYWHERE, "SIZE"),
    ],
}
"""What every command takes, before its name or after it; each is False or None by default."""

_CORES = "SEGBENCH_THREADS says how many cores are used"
RENAMED: dict[str, dict[str, str]] = {
    "compare": {"--runs": "results", "--wide": "verbose"},
    "report": {"--cell": "cells", "--wide": "verbose"},
    "demo": dict.fromkeys(("--output", "--seed", "--device"), ""),
    "evaluate": {
        "--backend": "",
        "--prediction": "folders",
        "--dataset-json": "dataset",
    },
    "predict": {"--weights": "run", "--model": "the weights say which model they are of"},
    "run": {"--plan-only": "print_jobs"},
    "verify": {"--workers": _CORES},
    "phantom": {"--workers": _CORES},
    "split": {"--from-nnunet": "check"},
}
"""Old names, by command, and the parameter that holds now; what has none (a sentence, or "") is left out.

They are still taken, not shown, and gone in the version after this one. Left out is only what changes no
result.
"""

Root = Annotated[Path | None, option("--path", "The dataset's root itself.", metavar="DIR")]
Device = Annotated[Literal["auto", "cpu", "cuda"], option("--device", "Where to compute.")]
Stage = Literal["verify", "prepare", "train", "predict", "evaluate", "profile"]
Overrides = Annotated[list[str] | None, option("--set", "Override a protocol field.", metavar="KEY=VALUE")]
Protocol = Annotated[str, option("--protocol", "Protocol, or a TOML file.")]
WeightsOf = Annotated[str, option("--model", "The model that the weights belong to.")]
DatasetArgument = Annotated[str, typer.Argument(metavar="DATASET|FOLDER", help="A dataset, or its folder.")]
ModelLabel = Annotated[
    str | None, option("--name", "The model. Default: the folder's name.", metavar="LABEL")
]
Fold = Annotated[int, option("--fold", "Fold of the training.", min=0)]
Seed = Annotated[int, option("--seed", "Seed of the training.", min=0)]
