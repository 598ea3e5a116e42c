"""`segbench predict`: label maps for any images with any run's weights."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer

from segbench.cli.common import settings, show, split_list
from segbench.cli.options import Device, option
from segbench.core.catalogue import ExitCode
from segbench.core.environment import results_dir
from segbench.core.errors import SegbenchError

_RUN = "The run whose weights are used; several (A,B, globs): their mean probability."


def predict(
    images: Annotated[
        list[Path],
        typer.Argument(help="Files (one channel), folders with nnU-Net names, or a dataset's root."),
    ],
    output: Annotated[Path, option("--output", "Folder of the label maps.")],
    run: Annotated[list[str] | None, option("--run", _RUN, metavar="ID")] = None,
    model: Annotated[str | None, option("--model", "The model that --weights belongs to.")] = None,
    weights: Annotated[Path | None, option("--weights", "A .safetensors file.", metavar="FILE")] = None,
    dataset: Annotated[str | None, option("--dataset", "How a dataset's root is read.")] = None,
    device: Device = "auto",
    save_probabilities: Annotated[
        bool, option("--save-probabilities", "Also write class probabilities.")
    ] = False,
) -> int:
    """Predict images with the weights of a run, or of a file; writes OUTPUT/<case>.nii.gz.

    Example: segbench predict scans --run RUN_ID --output labels
    """
    from segbench.predict.images import predict_images

    runs = split_list(run)
    if (not runs) == (weights is None):
        raise SegbenchError("SB104", "name either --run or --weights", mend="segbench predict --run ID ...")
    report = predict_images(
        [weights] if weights is not None else _weights_of(runs, results_dir(settings().results)),
        images,
        output,
        model=model,
        dataset=dataset,
        device=device,
        save_probabilities=save_probabilities,
        max_bytes=settings().max_volume,
    )
    failures = [{"case": case, **error.as_dict()} for case, error in report.failures.items()]
    document = {"written": [str(path) for path in report.written], "failures": failures}
    show(document, [f"{len(report.written)} label maps -> {output}"])
    return ExitCode.PARTIAL if report.failures else ExitCode.DONE


def _weights_of(names: Sequence[str], results: Path) -> list[Path]:
    """The final weights of runs named by id, beginning, glob or path.

    Raises:
        SegbenchError: SB101 unknown run, SB104 a run without weights.
    """
    from segbench.records.store import find_runs
    from segbench.runs.build import FINAL_WEIGHTS
    from segbench.runs.rerun import find_run

    folders: list[Path] = []
    for name in names:
        matching = [folder for folder in find_runs(results) if fnmatchcase(folder.name, name)]
        folders += matching if matching and any(sign in name for sign in "*?[") else [find_run(name, results)]
    weights = [folder / FINAL_WEIGHTS for folder in dict.fromkeys(folders)]
    for path in weights:
        if not path.is_file():
            raise SegbenchError(
                "SB104", "this run has no final weights", path=path, mend="finish it, or name another run"
            )
    return weights
