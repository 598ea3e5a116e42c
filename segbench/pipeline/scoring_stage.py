"""The evaluate stage: every test case to rows, by the same path as `segbench evaluate`."""

from __future__ import annotations

from segbench.core.hashing import sha256_file
from segbench.metrics.profiles import load_profile
from segbench.pipeline.context import Context
from segbench.pipeline.predicting import prediction_file, predictions_made
from segbench.pipeline.stages import StageResult
from segbench.records import write_cases_csv
from segbench.scoring.case import CaseResult
from segbench.scoring.cases import notes_told_once, score_cases
from segbench.scoring.rules import rules_for
from segbench.scoring.sources import DatasetReferences, Predictions


def evaluate_stage(context: Context) -> StageResult:
    """Score each case of the test split once; finished cases are skipped when their files are unchanged.

    An unusable prediction is scored worst.

    Raises:
        SegbenchError: References are unusable: that is a fault of the data, not of the model.
    """
    rules = rules_for(context.card, load_profile(context.protocol.metrics.profile))
    cases = context.split.test

    def tell(result: CaseResult) -> None:
        if result.failure is not None:
            what = f"{result.failure['code']}: case {result.case}: {result.failure['message']}"
            context.warn(f"{what}; scored worst, not left out")

    results = score_cases(
        cases,
        DatasetReferences(context.dataset),
        _predictions(context),
        rules,
        context.folder,
        keys={
            "run_id": context.run_id,
            "model": context.model.slug,
            "dataset": context.card.slug,
            "protocol": context.protocol.name,
            "fold": context.fold,
            "seed": context.seed,
        },
        stop=context.stop,
        tell=tell,
        title=f"evaluate {context.run_id}",
    )
    for text in notes_told_once(results):
        context.warn(text)
    table = write_cases_csv(context.folder, rules.columns, cases=cases)
    failed = sum(result.failure is not None for result in results)
    return StageResult(
        artefact=sha256_file(table),
        outputs=[table],
        facts={
            "n_expected": len(cases),
            "n_failed": failed,
            "n_scored": len(cases) - failed,
            "references": {result.case: result.reference for result in results},
        },
    )


def _predictions(context: Context) -> Predictions:
    """Return the label map of each test case, or why the model made none."""
    made = predictions_made(context.folder)
    absent = {
        case: "the model made none" if case not in made else str(made[case]["error"])
        for case in context.split.test
        if case not in made or made[case].get("error")
    }
    return Predictions(
        {
            case: None if case in absent else prediction_file(context.folder, case)
            for case in context.split.test
        },
        absent=absent,
    )
