"""The evaluate stage: every test case to rows, streamed, resumable, nothing dropped."""

from __future__ import annotations

from typing import Any

from segbench.core import console
from segbench.core.atomic import sync_lines
from segbench.core.errors import SegbenchError
from segbench.core.faults import fault
from segbench.core.hashing import sha256_file
from segbench.metrics.profiles import load_profile
from segbench.pipeline.context import Context
from segbench.pipeline.predicting import prediction_file, predictions_made
from segbench.pipeline.stages import StageResult
from segbench.records import append_case, read_case_lines, write_cases_csv
from segbench.records.store import CASE_LINES
from segbench.scoring.case import (
    ScoringRules,
    on_reference_grid,
    reference_digest,
    rules_for,
    score_case,
    score_failure,
)
from segbench.volumes import read_label_map


def evaluate_stage(context: Context) -> StageResult:
    """Score each case of the test split once; finished cases are skipped when their inputs are unchanged."""
    profile = load_profile(context.protocol.metrics.profile)
    rules = rules_for(context.card, profile)
    made = predictions_made(context.folder)
    finished = read_case_lines(context.folder, repair=True)
    cases = context.split.test
    failed, references = 0, dict[str, str]()
    with console.progress(f"evaluate {context.run_id}", len(cases)) as bar:
        for case in cases:
            inputs = {
                "prediction": made.get(case, {}).get("sha256", "missing"),
                "profile": profile.digest(),
            }
            before = finished.get(case)
            if before is None or before.get("inputs") != inputs or "reference" not in before:
                fault("case")
                rows, references[case] = score(context, rules, case, made.get(case))
                owned = [_identity(context) | row for row in rows]
                append_case(context.folder, case, owned, inputs=inputs, reference=references[case])
            else:
                rows, references[case] = before["rows"], before["reference"]
            failed += any(row["code"] for row in rows)
            bar.advance(note=case)
            context.stop.check()
    sync_lines(context.folder / CASE_LINES)
    table = write_cases_csv(context.folder, rules.columns, cases=cases)
    return StageResult(
        artefact=sha256_file(table),
        outputs=[table],
        facts={
            "n_expected": len(cases),
            "n_failed": failed,
            "n_scored": len(cases) - failed,
            "references": references,
        },
    )


def score(
    context: Context, rules: ScoringRules, case: str, made: dict[str, Any] | None
) -> tuple[list[dict[str, Any]], str]:
    """The rows of one case and the digest of its reference; an unusable prediction is scored worst.

    Raises:
        SegbenchError: The reference itself is unusable: that is a fault of the data, not of the model.
    """
    reference = context.dataset.read_reference(case)
    path = prediction_file(context.folder, case)
    try:
        if made is None or made.get("error"):
            reason = "the model made none" if made is None else str(made["error"])
            raise SegbenchError("SB215", f"no prediction: {reason}", case=case)
        prediction = read_label_map(path, labels=sorted(context.card.labels))
        prediction, warnings = on_reference_grid(case, reference, prediction, rules.profile.geometry, path)
    except SegbenchError as error:
        context.warn(f"{error.code}: case {case}: {error.message}; scored worst, not left out")
        return score_failure(rules, case, reference, error), reference_digest(reference)
    for warning in warnings:
        context.warn(warning)
    return score_case(rules, case, reference, prediction.array), reference_digest(reference)


def _identity(context: Context) -> dict[str, Any]:
    return {
        "run_id": context.run_id,
        "model": context.model.slug,
        "dataset": context.card.slug,
        "protocol": context.protocol.name,
        "fold": context.fold,
        "seed": context.seed,
    }
