"""Which of two models is better: one test a pair gives p, interval, sign and verdict."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from segbench.stats.arrays import FloatArray, noise_floor, open_unit, paired_differences
from segbench.stats.errors import StatsError
from segbench.stats.family import FEWEST_SEEDS, Pairs, PairTests, decide, larger, pair_tests, too_few_seeds
from segbench.stats.hodges_lehmann import hodges_lehmann
from segbench.stats.multiple import holm, shaffer
from segbench.stats.paired import WilcoxonResult, wilcoxon_signed_rank
from segbench.stats.scores import Bounds, checked_bounds, checked_scores

FEWEST_PATIENTS = 6  # of a verdict: of fewer the spread over patients is a guess, with any number of seeds
POWER = 0.8
BELOW_FLOOR = "The difference is below what the grid of the images resolves."


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the data say about two models; differences are a less b, in the unit of the scores.

    Attributes:
        a, b: the models.
        difference: mean over patients of a less b.
        low, high: its interval at `confidence`, by the test that decided, not adjusted for the family. Beside
            `equivalent` it is the interval that decided so: it lies within the margin.
        confidence: level of the interval.
        p: two-sided, of no difference; nan for a single patient.
        p_adjusted: over the family, by Shaffer's steps for all pairs and Holm's with a reference; nan where
            no verdict may be given, and `note` says why.
        verdict: of a against b: `better`, `worse`, `equivalent` or `inconclusive`.
        claim: `method` (seeds and patients are random) or `weights` (one seed on a side: patients only).
        n: patients, or cases where no patients were given.
        seeds_a, seeds_b: training runs behind the two.
        detectable_difference: the true difference that would be found in 80 % of repeats at the first step of
            the correction, estimated from these data.
        p_equivalence, p_equivalence_adjusted: of a difference beyond the margin (TOST; Holm); nan without
            one.
        wilcoxon_p: signed-rank test of the patients' differences; stands beside and decides nothing.
        shift: Hodges-Lehmann estimate of the same differences.
        wins: share of patients on which a is better than b, ties counted half.
        degenerate: nothing varies, over patients or seeds.
        note: sentences that a reader needs to know, "" when none.
    """

    a: str
    b: str
    difference: float
    low: float
    high: float
    confidence: float
    p: float
    p_adjusted: float
    verdict: str
    claim: str
    n: int
    seeds_a: int
    seeds_b: int
    detectable_difference: float
    p_equivalence: float
    p_equivalence_adjusted: float
    wilcoxon_p: float
    shift: float
    wins: float
    degenerate: bool
    note: str


@dataclass(frozen=True, slots=True)
class _Rules:
    """What the caller asked for."""

    higher_is_better: bool
    alpha: float
    confidence: float
    margin: float | None
    bounds: Bounds
    unit: str
    resolution: float


def compare_models(
    scores: Mapping[str, ArrayLike],
    *,
    higher_is_better: bool = True,
    alpha: float = 0.05,
    confidence: float = 0.95,
    margin: float | None = None,
    reference: str | None = None,
    patients: ArrayLike | None = None,
    bounds: Bounds | None = None,
    resolution: float = 0.0,
) -> tuple[Comparison, ...]:
    """The verdict on every pair of models, or on every model against a reference.

    With two or more seeds on both sides, seeds and patients are random: two tests are made, one with each
    model's own seed variance, one with the variances shrunk towards the family's, and the one with the larger
    p decides. With one seed on a side it is a paired t-test over patients, about these trained weights. Three
    models or more with two seeds on a side get an interval and no verdict; so do fewer than 6 patients. The
    family is all pairs of the call.

    Args:
        scores: per model (seeds, cases), the same cases in the same order; seeds have no order.
        higher_is_better: turns verdicts and wins; never a p-value or a difference.
        alpha: family-wise level of the verdicts.
        confidence: level of the intervals.
        margin: the largest difference that is practically nothing; None asks for no equivalence.
        reference: a model to which all others are compared; None compares all pairs.
        patients: (cases,) labels; the images of a patient are averaged first. None: a case is a patient.
        bounds: lowest and highest value of the metric; no interval of a difference leaves their distance.
        resolution: differences below this are never called better: the measurement does not resolve them.

    Returns:
        One Comparison a pair, in the order of the models; with a reference, it is always `b`.

    Raises:
        StatsError: fewer than 2 models, unequal cases, NaN or inf, an unknown reference, a value out of
            bounds, a margin that is not positive, a resolution that is negative.

    **Source:** `docs/explanation/seeds-and-cases.md` (simulated error and power); Smyth 2004 (moderation);
    Shaffer 1986; Schuirmann 1987 (equivalence).
    """
    open_unit(alpha, "alpha")
    open_unit(confidence, "confidence")
    if margin is not None and not (np.isfinite(margin) and margin > 0):
        raise StatsError(f"margin: expected a positive number, found {margin!r}")
    if not (np.isfinite(resolution) and resolution >= 0):
        raise StatsError(f"resolution: expected a number of 0 or more, found {resolution!r}")
    checked = checked_scores(scores, patients=patients)
    if reference is not None and reference not in checked:
        raise StatsError(f"reference: expected one of {', '.join(checked)}, found {reference!r}")
    values = list(checked.values())
    limits = checked_bounds(bounds, values)
    unit = "cases" if patients is None else "patients"
    rules = _Rules(higher_is_better, alpha, confidence, margin, limits, unit, resolution)
    names = list(checked)
    if reference is None:
        pairs = list(combinations(range(len(names)), 2))
    else:
        against = names.index(reference)
        pairs = [(place, against) for place in range(len(names)) if place != against]
    return _compared(names, values, pairs, rules, all_pairs=reference is None)


@dataclass(frozen=True, slots=True, eq=False)
class _Decisions:
    """What was decided of each pair; arrays over the pairs."""

    test: PairTests
    p: FloatArray
    adjusted: FloatArray  # nan where withheld
    reasons: list[str]  # why withheld
    equivalence: PairTests
    p_equivalence: FloatArray
    equivalence_adjusted: FloatArray
    detectable: FloatArray


def _compared(
    names: list[str], values: list[FloatArray], pairs: Pairs, rules: _Rules, *, all_pairs: bool
) -> tuple[Comparison, ...]:
    """The comparisons of `pairs`, which are one family."""
    tests = _tests(values, pairs, noise_floor(*values))
    test, p = decide(*tests)
    degenerate = (test.parts == 0).all(axis=-1)
    reasons = [
        _withheld(names, values, pair, rules, certain=bool(still) and d != 0)
        for pair, still, d in zip(pairs, degenerate, test.difference, strict=True)
    ]
    allowed = np.array([not reason for reason in reasons])
    resolved = np.abs(test.difference) >= rules.resolution
    reasons = [
        reason or ("" if seen else BELOW_FLOOR) for reason, seen in zip(reasons, resolved, strict=True)
    ]
    adjusted = adjusted_pvalues(np.where(allowed & resolved, p, 1.0), pairs, len(names), all_pairs=all_pairs)
    decisions = _Decisions(
        test,
        p,
        np.where(allowed & resolved, adjusted, np.nan),
        reasons,
        *_equivalence(tests, rules.margin, allowed),
        detectable=test.reach(rules.alpha / len(pairs) / 2) + test.reach(1 - POWER),
    )
    return tuple(
        _comparison(names, values, pair, place, decisions, rules) for place, pair in enumerate(pairs)
    )


def _comparison(
    names: list[str],
    values: list[FloatArray],
    pair: tuple[int, int],
    place: int,
    decisions: _Decisions,
    rules: _Rules,
) -> Comparison:
    """The comparison at `place` of the family."""
    (name, other), (first, second) = (names[i] for i in pair), (values[i] for i in pair)
    a, b = first.mean(axis=0), second.mean(axis=0)
    differences = paired_differences(a, b)  # rounding noise is taken out once; doing it again changes nothing
    won = differences * (1 if rules.higher_is_better else -1)
    signed = wilcoxon_signed_rank(differences)
    difference = float(decisions.test.difference[place])
    verdict, low, high, confidence = _verdict(place, decisions, rules)
    notes = [decisions.reasons[place], _contrast(name, other, won, difference, signed, rules)]
    if verdict in ("better", "worse") and decisions.equivalence_adjusted[place] < rules.alpha:
        notes.append("The difference lies within the margin.")
    return Comparison(
        a=name,
        b=other,
        difference=difference,
        low=low,
        high=high,
        confidence=confidence,
        p=float(decisions.p[place]),
        p_adjusted=float(decisions.adjusted[place]),
        verdict=verdict,
        claim="method" if _fewest(values, pair) >= 2 else "weights",
        n=a.size,
        seeds_a=first.shape[0],
        seeds_b=second.shape[0],
        detectable_difference=float(decisions.detectable[place]),
        p_equivalence=float(decisions.p_equivalence[place]),
        p_equivalence_adjusted=float(decisions.equivalence_adjusted[place]),
        wilcoxon_p=signed.pvalue,
        shift=hodges_lehmann(differences).estimate,
        wins=float(((won > 0) + 0.5 * (won == 0)).mean()),
        degenerate=bool((decisions.test.parts[place] == 0).all()),
        note=" ".join(note for note in notes if note),
    )


def _verdict(place: int, decisions: _Decisions, rules: _Rules) -> tuple[str, float, float, float]:
    """The verdict on a pair with the interval of the test that decided: verdict, low, high, confidence."""
    difference = float(decisions.test.difference[place])
    verdict, test, confidence = "inconclusive", decisions.test, rules.confidence
    if decisions.adjusted[place] < rules.alpha:
        verdict = "better" if (difference > 0) == rules.higher_is_better else "worse"
    elif decisions.equivalence_adjusted[place] < rules.alpha:
        verdict, test = "equivalent", decisions.equivalence
        adjusted = float(decisions.equivalence_adjusted[place])
        step = float(decisions.p_equivalence[place]) / adjusted if adjusted else 1.0
        confidence = 1 - 2 * rules.alpha * step  # of the interval that lies within the margin exactly then
    half = float(test.reach((1 - confidence) / 2)[place])
    span = rules.bounds[1] - rules.bounds[0]
    return verdict, max(difference - half, -span), min(difference + half, span), confidence


def _fewest(values: list[FloatArray], pair: tuple[int, int]) -> int:
    """Seeds of the side with fewer."""
    return min(values[place].shape[0] for place in pair)


def _tests(values: list[FloatArray], pairs: Pairs, floor: float) -> tuple[PairTests, PairTests]:
    """The two tests of each pair; all nan for a single patient."""
    if values[0].shape[1] > 1:
        return pair_tests(values, pairs, floor=floor)
    difference = np.array([values[a].mean() - values[b].mean() for a, b in pairs])
    unknown = PairTests(difference, np.full((len(pairs), 1), np.nan), np.ones((len(pairs), 1)))
    return unknown, unknown


def _withheld(
    names: list[str], values: list[FloatArray], pair: tuple[int, int], rules: _Rules, *, certain: bool
) -> str:
    """Why there may be no verdict on a pair, "" when there may."""
    fewest, n = _fewest(values, pair), values[0].shape[1]
    unit = rules.unit if n != 1 else rules.unit[:-1]
    if n < 2:
        return f"{n} {unit}: no test is possible."
    if n < FEWEST_PATIENTS:
        return f"{n} {unit}: no verdict below {FEWEST_PATIENTS} {rules.unit}."
    if too_few_seeds([model.shape[0] for model in values], pair):
        few = " and ".join(names[place] for place in pair if values[place].shape[0] == fewest)
        return (
            f"Two seeds of {few}: among three models or more there is no verdict below {FEWEST_SEEDS} seeds, "
            "because it would be wrong too often."
        )
    if certain:
        same = f"The difference is the same on every {rules.unit[:-1]} and seed"
        return f"{same}, so no error can be estimated: no verdict."
    return ""


def adjusted_pvalues(p: FloatArray, pairs: Pairs, models: int, *, all_pairs: bool) -> FloatArray:
    """Adjusted p of each pair: Shaffer's steps over all pairs, Holm's over the pairs of a reference."""
    if not all_pairs:
        return holm(p)
    matrix = np.ones((models, models))
    for (a, b), value in zip(pairs, p, strict=True):
        matrix[a, b] = matrix[b, a] = value
    adjusted = shaffer(matrix)
    return np.array([adjusted[a, b] for a, b in pairs])


def _equivalence(
    tests: tuple[PairTests, PairTests], margin: float | None, allowed: NDArray[np.bool_]
) -> tuple[PairTests, FloatArray, FloatArray]:
    """The test that decides about equivalence, its p and the adjusted p; nan without a margin."""
    if margin is None:
        nothing = np.full(tests[0].difference.shape, np.nan)
        return tests[0], nothing, nothing
    first, second = (test.tail(margin - np.abs(test.difference)) for test in tests)
    p = np.maximum(first, second)
    adjusted = np.where(allowed, holm(np.where(allowed, p, 1.0)), np.nan)
    return larger(*tests, first, second), p, adjusted


def _contrast(
    name: str, other: str, won: FloatArray, difference: float, signed: WilcoxonResult, rules: _Rules
) -> str:
    """The sentence for a mean and ranks that point to different models, "" where they agree."""
    direction = 1 if rules.higher_is_better else -1
    by_mean = float(np.sign(difference)) * direction
    ahead, behind = (name, other) if by_mean > 0 else (other, name)
    more, fewer = int((won > 0).sum()), int((won < 0).sum())
    if by_mean * (more - fewer) < 0:
        most, least = max(more, fewer), min(more, fewer)
        where = f"{most} of {won.size} {rules.unit}"
        if 2 * most <= won.size:  # many ties
            where = f"more {rules.unit} ({most} against {least} of {won.size})"
        return f"By the mean {ahead} is ahead, on {where} {behind} is."
    if by_mean * direction * (signed.statistic - signed.n * (signed.n + 1) / 4) < 0:  # W+ against its middle
        return f"By the mean {ahead} is ahead, by the signed ranks {behind} is."
    return ""
