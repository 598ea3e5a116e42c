"""`segbench claim`: a claimed win judged from its table alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segbench.cli.common import show
from segbench.cli.options import option
from segbench.core.errors import SegbenchError

if TYPE_CHECKING:
    from segbench.published.claims import Claim

NUMBERS = "A claim in numbers"
_FILE = "Table of published numbers: a TOML as in results/published."
Table = Annotated[Path | None, typer.Argument(metavar="FILE", help=_FILE)]
MeanA = Annotated[float | None, option("--a", "Mean of A.", NUMBERS, "X")]
MeanB = Annotated[float | None, option("--b", "Mean of B.", NUMBERS, "X")]
Number = Annotated[int | None, option("--n", "Test cases, the same of both.", NUMBERS, "N")]
Metric = Annotated[str, option("--metric", "What the means are of.", NUMBERS, "METRIC")]
_SD_A = "SD of A over cases. [default: B's, else measured ranges]"
SpreadA = Annotated[float | None, option("--sd-a", _SD_A, NUMBERS, "X")]
_SD_B = "SD of B over cases. [default: A's, else measured ranges]"
SpreadB = Annotated[float | None, option("--sd-b", _SD_B, NUMBERS, "X")]
_CONGRUENCE = "Correlation of A and B over cases. [default: a measured range]"
Congruence = Annotated[float | None, option("--congruence", _CONGRUENCE, NUMBERS, "R")]
_SEED_SD = "SD of a mean over trainings. [default: a measured range]"
SeedSpread = Annotated[float | None, option("--seed-sd", _SEED_SD, NUMBERS, "X")]
Seeds = Annotated[int | None, option("--seeds", "Trainings of each. [default: 1]", NUMBERS, "N")]


def claim(
    file: Table = None,
    a: MeanA = None,
    b: MeanB = None,
    n: Number = None,
    metric: Metric = "dice",
    sd_a: SpreadA = None,
    sd_b: SpreadB = None,
    congruence: Congruence = None,
    seed_sd: SeedSpread = None,
    seeds: Seeds = None,
) -> int:
    """How likely the order of two published means is wrong, from the table alone, retraining included.

    A band, not one number: what the table does not say runs over measured ranges, which are named.

    Example: segbench claim --a 91.37 --b 91.32 --n 250
    """  # fmt: skip
    from segbench.published.claims import CANNOT_KNOW, claims_of, contradictions

    given = {"--a": a, "--b": b, "--n": n}
    if (file is None) == all(value is None for value in given.values()):
        raise SegbenchError("SB104", "claim needs a FILE, or --a, --b and --n", mend="segbench claim --help")
    refused: list[str] = []
    clashes: list[str] = []
    if file is not None:
        from segbench.published.tables import load_published, load_table

        table = load_table(file)
        claims, refused = claims_of(table)
        others = [other for other in load_published() if other.source.id != table.source.id]
        clashes = [line for line in contradictions([table, *others]) if table.source.id in line]
    else:
        absent = [name for name, value in given.items() if value is None]
        if a is None or b is None or n is None:
            raise SegbenchError("SB104", f"claim lacks {', '.join(absent)}", mend="segbench claim --help")
        claims = [_by_hand(metric, (a, b), (sd_a, sd_b), n, congruence, seed_sd, seeds)]
    document = {
        "claims": [found.as_json() for found in claims],
        "not_judged": refused,
        "contradictions": clashes,
        "cannot_know": CANNOT_KNOW,
    }
    show(document, claim_lines(claims, refused, clashes))
    return 0


def _by_hand(
    metric: str,
    means: tuple[float, float],
    deviations: tuple[float | None, float | None],
    n: int,
    congruence: float | None,
    seed_sd: float | None,
    seeds: int | None,
) -> Claim:
    """The claim of numbers given as flags, in the unit of the means: Dice as 91.37 or as 0.9137.

    Raises:
        SegbenchError: SB101 an unknown metric, SB104 numbers that are not valid.
    """
    from segbench.core.errors import unknown_name
    from segbench.metrics.registry import METRICS
    from segbench.published.claims import Side, judge
    from segbench.stats import StatsError

    if metric not in METRICS:
        raise unknown_name("metric", metric, sorted(METRICS), listing="segbench list metrics")
    fraction = METRICS[metric].unit == "1"
    scale = 100.0 if fraction and max(means) > 1 else 1.0
    mixed = scale > 1 and 0 < min(means) <= 1  # 0.91 beside 91.3 is a fraction, not 0.91 %
    if fraction and (mixed or not all(0 <= value <= scale for value in means)):
        raise SegbenchError(
            "SB104", f"--a {means[0]:g}, --b {means[1]:g}: not two means of {metric}",
            expected="both 0 to 1, or both 0 to 100",
        )  # fmt: skip

    def stored(value: float | None) -> float | None:
        return None if value is None else value / scale

    one, two = (
        Side(name, mean / scale, stored(sd), n, seeds, stored(seed_sd))
        for name, mean, sd in zip("AB", means, deviations, strict=True)
    )
    try:
        return judge(one, two, metric, congruence=congruence)
    except StatsError as error:
        raise SegbenchError("SB104", f"claim: {error}", mend="segbench claim --help") from error


def claim_lines(claims: list[Claim], refused: list[str], clashes: list[str]) -> list[str]:
    """Claims by column of the table, what was assumed, what contradicts, and what cannot be known."""
    import textwrap

    from segbench.published.claims import CANNOT_KNOW, VERDICTS, chance_words, printed

    lines: list[str] = []
    place = None
    for found in claims:
        scale, unit = printed(found.metric)
        where = ", ".join(part for part in (found.dataset, found.region, found.metric) if part)
        if place != where:
            lines += ["", where] if lines else [where]
            place = where
        difference = abs(found.a.value - found.b.value) * scale
        band = " to ".join(dict.fromkeys(map(chance_words, (found.low, found.high))))
        middle = chance_words(found.middle)
        lines += textwrap.wrap(
            f"  {found.a.name} {found.a.value * scale:.2f} over {found.b.name} {found.b.value * scale:.2f} "
            f"(+{difference:.2f} {unit}, n {found.a.n}): wrong with {band} % (middle {middle} %): "
            f"{found.verdict}",
            80, subsequent_indent="    ",
        )  # fmt: skip
    verdicts = dict.fromkeys(found.verdict for found in claims)
    notes = [f"{verdict}: {VERDICTS[verdict]}" for verdict in verdicts]
    notes += [
        f"assumed: {line}" for line in dict.fromkeys(line for found in claims for line in found.assumed)
    ]
    notes += [*refused, *(f"contradiction: {line}" for line in clashes), f"not in any table: {CANNOT_KNOW}"]
    wrapped = [part for note in notes for part in textwrap.wrap(note, 80, subsequent_indent="  ")]
    return [*lines, "", *wrapped] if lines else wrapped
