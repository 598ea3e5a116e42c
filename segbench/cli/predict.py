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

_RUN = "Run, or .safetensors file, of the weights; several (A,B, globs): their mean probability."


def predict(
    images: Annotated[
        list[Path],
        typer.Argument(help="Files (one channel), folders with nnU-Net names, or a dataset's root."),
    ],
    output: Annotated[Path, option("--output", "Folder of the label maps.")],
    run: Annotated[list[str] | None, option("--run", _RUN, metavar="ID|FILE")] = None,
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
    if not runs:
        raise SegbenchError("SB104", "--run names no weights", mend="segbench predict IMAGES --run RUN_ID")
    report = predict_images(
        _weights_of(runs, results_dir(settings().results)),
        images,
        output,
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
    """Files of weights, and the final weights of runs named by id, beginning, glob or path.

    Raises:
        SegbenchError: SB101 unknown run, SB104 a run without weights, SB201 no such file, SB338 edited code.
    """
    from segbench.cards import load_model_card
    from segbench.predict.members import run_of
    from segbench.records.facts import text
    from segbench.records.store import find_runs
    from segbench.runs.build import FINAL_WEIGHTS
    from segbench.runs.code import check_code
    from segbench.runs.rerun import find_run

    found: list[Path] = []
    for name in names:
        if name.endswith(".safetensors"):
            if not Path(name).is_file():
                raise SegbenchError("SB201", "no such file of weights", path=name)
            found.append(Path(name))
            continue
        matching = [folder for folder in find_runs(results) if fnmatchcase(folder.name, name)]
        globbed = matching and any(sign in name for sign in "*?[")
        found += [folder / FINAL_WEIGHTS for folder in (matching if globbed else [find_run(name, results)])]
    weights = list(dict.fromkeys(found))
    for path in weights:
        record = run_of(path)
        if not path.is_file():
            mend = "name a run that trained to its end (a baseline has no weights): segbench status"
            raise SegbenchError("SB104", "this run has no final weights", path=path, mend=mend)
        if record is not None and record.code is not None:
            check_code(load_model_card(text(record.model, "slug")), record.code, path.parent.parent)
    return weights
