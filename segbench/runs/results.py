"""The stages after training: predict the test cases, evaluate what was predicted, profile the network.

Predict skips cases whose files are whole; evaluate goes the path of `segbench evaluate`. On a CPU the seconds
of a forward pass at full size would often outlast the training they describe, so there the profile counts and
measures nothing; `segbench profile --device cpu` measures when asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from segbench.core import console
from segbench.core.atomic import append_line, atomic_write_json, read_lines, sync_lines
from segbench.core.errors import SegbenchError
from segbench.core.faults import fault
from segbench.core.hashing import canonical_json, sha256_bytes, sha256_file
from segbench.metrics.profiles import load_profile
from segbench.records import write_cases_csv
from segbench.runs.active import ActiveCell
from segbench.runs.build import FINAL_WEIGHTS, build_seeded
from segbench.runs.prepare import open_prepared
from segbench.runs.stages import StageResult
from segbench.scoring.cases import median_spacing, notes_told_once, score_cases
from segbench.scoring.rules import rules_for
from segbench.scoring.sources import DatasetReferences, Predictions
from segbench.volumes import write_label_map

MANIFEST = Path("predictions") / "manifest.jsonl"


def prediction_file(folder: Path, case: str) -> Path:
    """Where the label map of a case is written."""
    return folder / "predictions" / f"{case}.nii.gz"


def predictions_made(folder: Path) -> dict[str, dict[str, Any]]:
    """The last manifest line of every case: {"case", "bytes", "sha256"} or {"case", "error", "code"}."""
    return {str(line["case"]): line for line in read_lines(folder / MANIFEST) if "case" in line}


def predict_stage(cell: ActiveCell) -> StageResult:
    """Predict every test case with the trained network, or with the baseline."""
    folder = cell.folder
    (folder / "predictions").mkdir(parents=True, exist_ok=True)
    read_lines(folder / MANIFEST, repair=True, warn=cell.warn)
    source = cell.artefacts.get("train", cell.model.slug)
    made = predictions_made(folder)
    todo = [case for case in cell.split.test if not _whole(folder, made.get(case), source)]
    kernels: dict[str, Any] = {}
    if todo and not cell.trains:
        _predict_all(cell, todo, baseline_predictor(cell), source)
    elif todo:
        kernels = _with_network(cell, todo, source)
    sync_lines(folder / MANIFEST)
    made = predictions_made(folder)
    lines = [made[case] for case in sorted(cell.split.test)]
    digest = sha256_bytes(
        canonical_json([{k: line.get(k) for k in ("case", "sha256")} for line in lines]).encode()
    )
    failed = [line["case"] for line in lines if "error" in line]
    faults = [(line["code"], line["case"], line["error"]) for line in lines if "error" in line]
    cell.warn_of_cases(faults, "could not be predicted")
    return StageResult(
        artefact=digest,
        outputs=[prediction_file(folder, line["case"]) for line in lines if "error" not in line],
        facts={
            "manifest_sha256": digest,
            "split": cell.split.name,
            "part": "test",
            "failed": failed,
            **kernels,
        },
    )


def _predict_all(
    cell: ActiveCell, cases: Sequence[str], predict: Callable[[str], NDArray[Any]], source: str
) -> None:
    with console.progress(f"predict {cell.run_id}", len(cases)) as bar:
        for case in cases:
            fault("case")
            append_line(cell.folder / MANIFEST, {**_one(cell, case, predict), "source": source})
            bar.advance(note=case)
            cell.stop.check()


def _with_network(cell: ActiveCell, cases: Sequence[str], source: str) -> dict[str, Any]:
    """Predict with the trained network; gives the kernels and threads it ran on, for the record."""
    import torch

    from segbench.networks.blocks.fast import named_ways
    from segbench.networks.scan import named_scans, scans_used

    predict = network_predictor(cell)
    train = cell.facts.get("train", {})
    trained = train.get("scan_backend")
    with scans_used(trained) as scans:
        _predict_all(cell, cases, predict, source)
    scan = named_scans(scans)
    if trained not in (None, scan):
        cell.warn(f"trained with the scan backend {trained}, predicted with {scan}: sums round otherwise")
    if (begun := train.get("fast")) != (fast := named_ways()):
        cell.warn(f"trained with SEGBENCH_FAST={begun}, predicted with {fast}: sums round otherwise")
    return {"scan_backend": scan, "threads": torch.get_num_threads()}


def _whole(folder: Path, line: dict[str, Any] | None, source: str) -> bool:
    """Whether a case was predicted by these weights and its file is still as it was written."""
    if line is None or "error" in line or line.get("source") != source:
        return False
    path = prediction_file(folder, line["case"])
    return path.is_file() and path.stat().st_size == line["bytes"] and sha256_file(path) == line["sha256"]


def _one(cell: ActiveCell, case: str, predict: Callable[[str], NDArray[Any]]) -> dict[str, Any]:
    """Predict and write one case; a case that cannot be read is recorded and scored worst later."""
    path = prediction_file(cell.folder, case)
    try:
        reference = cell.data.read_reference(case)
        labels = predict(case)
    except SegbenchError as error:
        if error.code in {"SB504", "SB505", "SB605"}:
            raise
        path.unlink(missing_ok=True)
        return {"case": case, "error": error.message, "code": error.code}
    write_label_map(path, labels, reference)
    return {"case": case, "bytes": path.stat().st_size, "sha256": sha256_file(path)}


def baseline_predictor(cell: ActiveCell) -> Callable[[str], NDArray[Any]]:
    """The baseline fitted on the training split; gives the label map of a case on its stored grid."""
    from segbench.data.baselines import fit

    fitted = fit(cell.model.slug, cell.data, cell.split.train)
    return fitted.predict


def network_predictor(cell: ActiveCell) -> Callable[[str], NDArray[Any]]:
    """The trained network; gives the label map of a case on its stored grid."""
    from safetensors.torch import load_file

    from segbench.engine.device import choose_device, prepare_device
    from segbench.engine.memory import oom_as_error
    from segbench.predict import metadata_of, predict_case, settings_of

    device = choose_device(cell.execution.device)
    protocol = cell.protocol
    prepare_device(device, level=protocol.determinism.level, tf32=protocol.train.tf32)
    cache = open_prepared(cell)
    weights = cell.folder / FINAL_WEIGHTS
    network = build_seeded(cell)
    network.load_state_dict(load_file(weights))
    network.eval().to(device)
    settings = settings_of(metadata_of(weights), weights)

    def predict(case: str) -> NDArray[Any]:
        if case in cache.failures:
            raise cache.failures[case]
        scores = prediction_file(cell.folder, case).with_name(f"{case}.b2nd")
        with oom_as_error(device):
            image = cache.image(case)
        return predict_case(
            [network],
            [image],
            settings,
            device,
            properties=cache.properties(case),
            probabilities=scores if cell.execution.save_probabilities else None,
            between=cell.stop.check,
        )

    return predict


def evaluate_stage(cell: ActiveCell) -> StageResult:
    """Score each case of the test split once; finished cases are skipped when their files are unchanged.

    An unusable prediction is scored worst.

    Raises:
        SegbenchError: References are unusable: that is a fault of the data, not of the model.
    """
    rules = rules_for(cell.dataset, load_profile(cell.protocol.metrics.profile))
    cases = cell.split.test

    results = score_cases(
        cases,
        DatasetReferences(cell.data),
        _predictions(cell),
        rules,
        cell.folder,
        keys={
            "run_id": cell.run_id,
            "model": cell.model.slug,
            "dataset": cell.dataset.slug,
            "protocol": cell.protocol.name,
            "fold": cell.fold,
            "seed": cell.seed,
        },
        stop=cell.stop,
        title=f"evaluate {cell.run_id}",
    )
    cell.warn_of_cases(
        [(r.failure["code"], r.case, r.failure["message"]) for r in results if r.failure is not None],
        "scored worst, not left out",
    )
    for text in notes_told_once(results):
        cell.warn(text)
    table = write_cases_csv(cell.folder, rules.columns, cases=cases)
    failed = sum(result.failure is not None for result in results)
    return StageResult(
        artefact=sha256_file(table),
        outputs=[table],
        facts={
            "n_expected": len(cases),
            "n_failed": failed,
            "n_scored": len(cases) - failed,
            "references": {result.case: result.reference for result in results},
            "spacing_mm": median_spacing(results),
        },
    )


def _predictions(cell: ActiveCell) -> Predictions:
    """Return the label map of each test case, or why the model made none."""
    made = predictions_made(cell.folder)
    absent = {
        case: "the model made none" if case not in made else str(made[case]["error"])
        for case in cell.split.test
        if case not in made or made[case].get("error")
    }
    return Predictions(
        {case: None if case in absent else prediction_file(cell.folder, case) for case in cell.split.test},
        absent=absent,
    )


def profile_stage(cell: ActiveCell) -> StageResult:
    """Write `profile.json` (`segbench.profile/1`) with one row for this network, patch and device."""
    from segbench.engine.device import choose_device
    from segbench.profiling.measure import static_row
    from segbench.profiling.rows import profile_rows
    from segbench.profiling.schema import ProfileDocument, ProfileRequest

    arguments = cell.network_arguments
    device = choose_device(cell.execution.device)
    request = ProfileRequest(
        model=cell.model.slug,
        input_shape=(1, arguments["in_channels"], *cell.protocol.patch.size),
        out_channels=arguments["out_channels"],
        device="cuda" if device.type == "cuda" else "meta",
        dtype=cell.protocol.train.precision if device.type == "cuda" else "fp32",
    )
    row = profile_rows([request])[0] if device.type == "cuda" else static_row(request)
    target = cell.folder / "profile.json"
    atomic_write_json(target, ProfileDocument(rows=[row]).as_json())
    cost = row.cost.gmacs if row.cost is not None else None
    parameters = row.params.total if row.params is not None else None
    return StageResult(
        artefact=sha256_file(target), outputs=[target], facts={"parameters": parameters, "gmacs": cost}
    )
