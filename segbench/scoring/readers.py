"""Second readers: where a case has two references, how well people agree is the ceiling of any model.

A further folder of references, named beside the first or in the dataset's card (`evaluation.readers`), is
scored against the first one by the rules of the predictions, as a run of its own whose record says so
(`external.reader`). The report shows it above the models, compared with none.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from segbench.core.errors import SegbenchError
from segbench.core.text import some
from segbench.scoring.evaluate import Evaluation, evaluate_predictions
from segbench.scoring.request import Request, prepare
from segbench.scoring.sources import DatasetReferences


def evaluate_with_readers(
    request: Request, readers: Sequence[Path]
) -> tuple[Evaluation, tuple[Evaluation, ...]]:
    """Score predictions, and before them every further reader on the same cases.

    Args:
        request: what to score and how; its reference is the first reader. Where that is the dataset's own,
            the readers that its card names take part too.
        readers: folders of the others' references.

    Raises:
        SegbenchError: as `evaluate_predictions`; SB104 for a reader who lacks a case.
    """
    if not readers and (request.reference is not None or request.dataset is None):
        return evaluate_predictions(request), ()
    job = prepare(request)
    if isinstance(job.references, DatasetReferences):
        dataset = job.references.dataset
        readers = [*readers, *(dataset.root / folder for folder in dataset.card.evaluation.readers)]
    if not readers:
        return evaluate_predictions(request), ()
    request = replace(request, rules=job.rules)
    asked = [
        replace(
            request,
            prediction=folder,
            name=f"reader {folder.resolve().name}",
            origin={"reader": True},
            gated=(),
        )
        for folder in readers
    ]
    for reader in asked:
        paths = prepare(reader).predictions.paths
        _refuse(reader, [case for case in job.cases if paths.get(case) is None], len(job.cases))
    ceilings = tuple(map(evaluate_predictions, asked))
    for reader, scored in zip(asked, ceilings, strict=True):
        if scored.failures:
            shutil.rmtree(scored.folder)  # a report would take its zeros for disagreement
        _refuse(reader, [failure["case"] for failure in scored.failures], len(job.cases))
    return evaluate_predictions(request), ceilings


def _refuse(reader: Request, lost: Sequence[str], cases: int) -> None:
    """Refuse a reader some of whose segmentations are absent or cannot be scored."""
    if lost:
        raise SegbenchError(
            "SB104",
            f"a second reader lacks {len(lost)} of {cases} cases, so it is not their ceiling",
            path=reader.prediction,
            found=f"no usable segmentation of {some(lost, 10)}",
            mend="name the cases that every reader has in a file: --cases FILE",
        )
