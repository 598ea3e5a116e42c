"""The predict stage: a label map for every test case, in its own geometry; finished cases are skipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from segbench.core import console
from segbench.core.atomic import append_line, read_lines, sync_lines
from segbench.core.errors import SegbenchError
from segbench.core.faults import fault
from segbench.core.hashing import canonical_json, sha256_bytes, sha256_file
from segbench.pipeline.context import Context
from segbench.pipeline.stages import StageResult
from segbench.volumes import write_label_map

MANIFEST = Path("predictions") / "manifest.jsonl"


def prediction_file(folder: Path, case: str) -> Path:
    """Where the label map of a case is written."""
    return folder / "predictions" / f"{case}.nii.gz"


def predictions_made(folder: Path) -> dict[str, dict[str, Any]]:
    """The last manifest line of every case: {"case", "bytes", "sha256"} or {"case", "error", "code"}."""
    return {str(line["case"]): line for line in read_lines(folder / MANIFEST) if "case" in line}


def predict_stage(context: Context) -> StageResult:
    """Predict every test case with the trained network, or with the floor."""
    folder = context.folder
    (folder / "predictions").mkdir(parents=True, exist_ok=True)
    read_lines(folder / MANIFEST, repair=True, warn=context.warn)
    source = context.artefacts.get("train", context.model.slug)
    made = predictions_made(folder)
    todo = [case for case in context.split.test if not _whole(folder, made.get(case), source)]
    kernels: dict[str, Any] = {}
    if todo and context.model.kind == "floor":
        _predict_all(context, todo, floor_predictor(context), source)
    elif todo:
        kernels = _with_network(context, todo, source)
    sync_lines(folder / MANIFEST)
    made = predictions_made(folder)
    lines = [made[case] for case in sorted(context.split.test)]
    digest = sha256_bytes(
        canonical_json([{k: line.get(k) for k in ("case", "sha256")} for line in lines]).encode()
    )
    failed = [line["case"] for line in lines if "error" in line]
    return StageResult(
        artefact=digest,
        outputs=[prediction_file(folder, line["case"]) for line in lines if "error" not in line],
        facts={
            "manifest_sha256": digest,
            "split": context.split.name,
            "part": "test",
            "failed": failed,
            **kernels,
        },
    )


def _predict_all(
    context: Context, cases: Sequence[str], predict: Callable[[str], NDArray[Any]], source: str
) -> None:
    with console.progress(f"predict {context.run_id}", len(cases)) as bar:
        for case in cases:
            fault("case")
            append_line(context.folder / MANIFEST, {**_one(context, case, predict), "source": source})
            bar.advance(note=case)
            context.stop.check()


def _with_network(context: Context, cases: Sequence[str], source: str) -> dict[str, Any]:
    """Predict with the trained network; gives the kernels and threads it ran on, for the record."""
    import torch

    from segbench.networks.scan import named_scans, scans_used

    predict = network_predictor(context)
    trained = context.facts.get("train", {}).get("scan_backend")
    with scans_used(trained) as scans:
        _predict_all(context, cases, predict, source)
    scan = named_scans(scans)
    if trained not in (None, scan):
        context.warn(f"trained with the scan backend {trained}, predicted with {scan}: sums round otherwise")
    return {"scan_backend": scan, "threads": torch.get_num_threads()}


def _whole(folder: Path, line: dict[str, Any] | None, source: str) -> bool:
    """Whether a case was predicted by these weights and its file is still as it was written."""
    if line is None or "error" in line or line.get("source") != source:
        return False
    path = prediction_file(folder, line["case"])
    return path.is_file() and path.stat().st_size == line["bytes"] and sha256_file(path) == line["sha256"]


def _one(context: Context, case: str, predict: Callable[[str], NDArray[Any]]) -> dict[str, Any]:
    """Predict and write one case; a case that cannot be read is recorded and scored worst later."""
    path = prediction_file(context.folder, case)
    try:
        reference = context.dataset.read_reference(case)
        labels = predict(case)
    except SegbenchError as error:
        if error.code in {"SB504", "SB505", "SB605"}:
            raise
        context.warn(f"{error.code}: case {case} could not be predicted: {error.message}")
        path.unlink(missing_ok=True)
        return {"case": case, "error": error.message, "code": error.code}
    write_label_map(path, labels, reference)
    return {"case": case, "bytes": path.stat().st_size, "sha256": sha256_file(path)}


def floor_predictor(context: Context) -> Callable[[str], NDArray[Any]]:
    """The floor fitted on the training split; gives the label map of a case on its stored grid."""
    from segbench.data.baselines import fit

    fitted = fit(context.model.slug, context.dataset, context.split.train)
    return fitted.predict


def network_predictor(context: Context) -> Callable[[str], NDArray[Any]]:
    """The trained network; gives the label map of a case on its stored grid."""
    from safetensors.torch import load_file

    from segbench.engine.device import choose_device, prepare_device
    from segbench.engine.memory import want_of_memory_is_a_result
    from segbench.engine.trainer import load_network
    from segbench.pipeline.build import FINAL_WEIGHTS, build_seeded
    from segbench.pipeline.preparing import open_prepared
    from segbench.predict import metadata_of, predict_case, settings_of

    device = choose_device(context.execution.device)
    protocol = context.protocol
    prepare_device(device, level=protocol.determinism.level, tf32=protocol.train.tf32)
    cache = open_prepared(context)
    weights = context.folder / FINAL_WEIGHTS
    network = load_network(lambda: build_seeded(context), load_file(weights)).to(device)
    settings = settings_of(metadata_of(weights), weights)

    def predict(case: str) -> NDArray[Any]:
        if case in cache.failures:
            raise cache.failures[case]
        scores = prediction_file(context.folder, case).with_name(f"{case}.b2nd")
        with want_of_memory_is_a_result(device):
            image = cache.image(case)
        return predict_case(
            [network],
            [image],
            settings,
            device,
            properties=cache.properties(case),
            probabilities=scores if context.execution.save_probabilities else None,
            between=context.stop.check,
        )

    return predict
