"""`segbench predict`: label maps for any images with any run's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segbench.cli.common import settings
from segbench.core import console
from segbench.core.catalogue import ExitCode
from segbench.core.environment import results_dir
from segbench.core.errors import SegbenchError


def predict(
    images: Annotated[
        list[Path],
        typer.Argument(help="Files (one channel), folders with nnU-Net names, or a dataset's root."),
    ],
    output: Annotated[Path, typer.Option(help="Folder of the label maps.")],
    run: Annotated[str | None, typer.Option(metavar="ID", help="The run whose weights are used.")] = None,
    model: Annotated[str | None, typer.Option(help="The model that --weights belongs to.")] = None,
    weights: Annotated[Path | None, typer.Option(metavar="FILE", help="A .safetensors file.")] = None,
    dataset: Annotated[str | None, typer.Option(help="How a dataset's root is read.")] = None,
    results: Annotated[Path | None, typer.Option(help="Folder of runs.", envvar="SEGBENCH_RESULTS")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    save_probabilities: Annotated[
        bool, typer.Option("--save-probabilities", help="Also write class probabilities.")
    ] = False,
) -> int:
    """Predict images with the weights of a run, or of a file; writes OUTPUT/<case>.nii.gz."""
    from segbench.pipeline.images import predict_images

    if (run is None) == (weights is None):
        raise SegbenchError("SB104", "name either --run or --weights", mend="segbench predict --run ID ...")
    if run is not None:
        from segbench.pipeline.rerun import find_run
        from segbench.pipeline.training import FINAL_WEIGHTS

        weights = find_run(run, results_dir(results)) / FINAL_WEIGHTS
    assert weights is not None
    report = predict_images(
        weights,
        images,
        output,
        model=model,
        dataset=dataset,
        device=device,
        save_probabilities=save_probabilities,
        max_bytes=settings().max_volume,
    )
    if settings().json:
        failures = [{"case": case, **error.as_dict()} for case, error in report.failures.items()]
        written = [str(path) for path in report.written]
        console.emit_json({"schema_version": 1, "written": written, "failures": failures})
    else:
        console.emit(f"{len(report.written)} label maps -> {output}")
    return ExitCode.PARTIAL if report.failures else ExitCode.DONE
