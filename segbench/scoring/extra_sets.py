"""The lesion-wise and airway columns of a case, where the profile or the card asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from segbench.core.environment import cache_dir
from segbench.metrics.profiles import LESION_RULES
from segbench.scoring.rules import ScoringRules

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segbench.metrics.scores import CaseScores

    Labels = NDArray[np.unsignedinteger[Any]]


def extra_sets(
    reference: Labels, prediction: Labels, spacing_mm: tuple[float, float, float], rules: ScoringRules
) -> dict[str, tuple[dict[str, float], frozenset[str]]]:
    """Return the lesion-wise and airway columns of each region, and which of them are not measured."""
    found: dict[str, tuple[dict[str, float], frozenset[str]]] = {
        name: ({}, frozenset()) for name in rules.regions
    }
    if rules.lesionwise is not None:
        for region, scores in _lesion_scores(reference, prediction, spacing_mm, rules).items():
            found[region][0].update({name: scores[name] for name in rules.columns if name in scores})
            found[region] = found[region][0], found[region][1] | scores.penalised
    if rules.airway:
        from segbench.metrics.airways.scores import evaluate_airway

        for region, labels in rules.regions.items():
            scores = evaluate_airway(
                np.isin(reference, labels),
                np.isin(prediction, labels),
                spacing_mm=spacing_mm,
                cache=cache_dir() / "airway",
            )
            values, from_policy = found[region]
            values.update({f"airway_{name}": float(value) for name, value in scores.items()})
            found[region] = values, from_policy | {f"airway_{name}" for name in scores.penalised}
    return found


def _lesion_scores(
    reference: Labels, prediction: Labels, spacing_mm: tuple[float, float, float], rules: ScoringRules
) -> dict[str, CaseScores]:
    assert rules.lesionwise is not None
    if rules.lesionwise.startswith("brats2026"):
        from segbench.metrics.lesions.matched import evaluate_matched_lesions as evaluate
    else:
        from segbench.metrics.lesions.dilated import evaluate_lesions as evaluate
    options: Mapping[str, Any] = LESION_RULES[rules.lesionwise]
    return evaluate(reference, prediction, spacing_mm=spacing_mm, regions=rules.regions, **options)
