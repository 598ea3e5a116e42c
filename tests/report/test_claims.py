"""Claims of a table: bands that hold, what is assumed said, contradictions told, published numbers judged."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources import files as resources
from itertools import combinations, product
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from typer.testing import CliRunner

from segbench.cli.main import build_app
from segbench.core.errors import SegbenchError
from segbench.published.claims import (
    CASE_SD,
    CASE_SD_ELSEWHERE,
    CONGRUENCE,
    SEED_SD,
    Side,
    claims_of,
    contradictions,
    judge,
)
from segbench.published.tables import PublishedTable, load_published
from segbench.report.analysis.analysis import analyse
from segbench.report.analysis.options import make_options
from segbench.report.analysis.published_beside import published_beside
from segbench.report.read.runs import read_runs
from segbench.report.write.document import document
from segbench.stats import Reported, false_order

REPORT_SCHEMA = json.loads(
    resources("segbench.report").joinpath("schema", "report.schema.json").read_text(encoding="utf-8")
)

BOARD = Path(__file__).resolve().parents[2] / "results" / "leaderboard" / "msd-hippocampus"
NUMBER = {
    "model": "Net", "dataset": "btcv", "region": "mean", "metric": "dice", "value": 83.0, "unit": "%",
    "n": 40, "read_from": "Table 1", "verified": True,
}  # fmt: skip


def table(source: str, *numbers: Mapping[str, Any]) -> PublishedTable:
    return PublishedTable.model_validate({
        "schema_version": 1,
        "source": {"id": source, "title": source, "kind": "paper"},
        "protocol": {},
        "number": [{**NUMBER, **number} for number in numbers],
    })  # fmt: skip


def test_the_band_holds_every_answer_within_the_ranges() -> None:
    claim = judge(Side("a", 0.845, n=40), Side("b", 0.84, n=40), "dice")
    cases, seeds = CASE_SD_ELSEWHERE["dice"], SEED_SD["dice"]
    for sd, seed_sd, r in product(cases[:3], seeds[:3], CONGRUENCE[:3]):
        chance = false_order(*(Reported(m, sd, 40, seed_sd) for m in (0.845, 0.84)), congruence=r)
        assert claim.low <= chance <= claim.high
    assert claim.low < claim.middle < claim.high
    assert len(claim.assumed) == 4


def test_what_is_given_is_not_assumed() -> None:
    a, b = (Side(name, value, 0.05, 40, 3, 0.002) for name, value in (("a", 0.85), ("b", 0.84)))
    claim = judge(a, b, "dice", congruence=0.8)
    assert claim.assumed == ()
    assert claim.low == claim.middle == claim.high
    sides = [Reported(side.value, 0.05, 40, 0.002, 3) for side in (a, b)]
    assert claim.middle == false_order(*sides, congruence=0.8)


def test_the_better_one_is_a_whatever_the_order_and_the_direction() -> None:
    x, y = Side("x", 3.0, 2.0, 40, 1, 0.1), Side("y", 4.0, 2.0, 40, 1, 0.1)
    assert {judge(*pair, "hd95").a.name for pair in ((x, y), (y, x))} == {"x"}
    assert judge(x, y, "hd95") == judge(y, x, "hd95")


@pytest.mark.parametrize(
    ("value", "verdict"), [(0.8301, "not supported"), (0.84, "open"), (0.95, "supported")]
)
def test_verdicts(value: float, verdict: str) -> None:
    assert judge(Side("a", value, n=250), Side("b", 0.83, n=250), "dice").verdict == verdict


def test_one_known_spread_stands_for_both() -> None:
    one = judge(Side("a", 0.85, 0.1, 40), Side("b", 0.84, None, 40), "dice")
    both = judge(Side("a", 0.85, 0.1, 40), Side("b", 0.84, 0.1, 40), "dice")
    assert (one.low, one.high) == (both.low, both.high)
    assert "that of the other model" in one.assumed[0]


@pytest.mark.parametrize(
    ("sides", "metric", "words"),
    [
        ((Side("a", 0.9), Side("b", 0.8, n=40)), "dice", "number of test cases"),
        ((Side("a", 3.0, n=40), Side("b", 4.0, n=40)), "hd95", "spread of hd95 over cases"),
        ((Side("a", 3.0, 2.0, 40), Side("b", 4.0, 2.0, 40)), "hd95", "spread of hd95 over trainings"),
    ],
)
def test_what_nobody_measured_is_not_judged(sides: tuple[Side, Side], metric: str, words: str) -> None:
    with pytest.raises(SegbenchError, match=words) as caught:
        judge(*sides, metric)
    assert caught.value.mend.startswith("give it with --")


def test_the_ranges_are_what_the_board_says() -> None:
    """Typed numbers go stale: each is computed again from the committed records."""
    with (BOARD / "tables" / "scores.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if (row["region"], row["metric"]) == ("mean", "dice")]
    networks = [row for row in rows if row["sd_seeds"]]
    assert len(networks) == 6
    for band, column, digits in (
        (SEED_SD["dice"], "sd_seeds", 4),
        (CASE_SD["msd-hippocampus", "dice"], "sd_units", 3),
    ):
        values = [float(row[column]) for row in networks]
        found = [round(value, digits) for value in (min(values), float(np.median(values)), max(values))]
        assert found == list(band[:3])
    models: dict[str, list[np.ndarray]] = {}
    for run in read_runs([BOARD / "runs"]):
        if run.rows is not None and run.record.kind == "trained":
            keep = np.array([region in {"anterior", "posterior"} for region in run.rows.region])
            case = np.array(run.rows.case)[keep]
            order = np.argsort(case, kind="stable")
            mean = run.rows.metrics["dice"][keep][order].reshape(-1, 2).mean(axis=1)
            models.setdefault(run.model, []).append(mean)
    pairs = [
        float(np.corrcoef(x, y)[0, 1])
        for a, b in combinations(models, 2)
        for x, y in product(models[a], models[b])
    ]
    median, upper = np.round(np.quantile(pairs, [0.5, 0.75]), 3).tolist()
    assert (CONGRUENCE.middle, CONGRUENCE.high) == (round((0.826 + median) / 2, 2), upper)
    low, middle, high, _ = CASE_SD_ELSEWHERE["dice"]
    assert low == CASE_SD["msd-hippocampus", "dice"].low
    assert middle == round(float(np.sqrt(low * high)), 3)


def test_a_table_is_judged_by_its_columns() -> None:
    claims, refused = claims_of(table(
        "x", {"model": "A", "value": 83.0}, {"model": "B", "value": 83.1}, {"model": "C", "value": 60.0},
        {"model": "D", "value": 59.0, "n": ""}, {"model": "E", "region": "liver"},
    ))  # fmt: skip
    assert [(c.a.name, c.b.name, c.verdict) for c in claims] == [
        ("B", "A", "not supported"), ("B", "C", "supported"),
    ]  # fmt: skip
    assert refused == ["1 not judged: the number of test cases is not known"]


def test_two_sources_that_cannot_both_hold_are_told() -> None:
    far = table("y", {"value": 60.0}), table("x", {})
    (line,) = contradictions(far)
    assert "y says 60 (n 40), x 83 (n 40): 23.0 points" in line
    assert contradictions([table("y", {"value": 82.0}), table("x", {})]) == []
    assert contradictions([table("y", {"value": 60.0, "model": "Other"}), table("x", {})]) == []
    assert contradictions([table("y", {"value": 60.0}, {"value": 83.0})]) == []


def test_the_table_of_segmamba_and_waveformer() -> None:
    tables = {found.source.id: found for found in load_published()}
    waveformer = tables["waveformer"]
    scores = [number for number in waveformer.number if number.metric in {"dice", "hd95"}]
    assert len(scores) == 56
    assert all(number.n == 250 for number in scores)
    for model in {number.model for number in scores}:
        mine = {
            number.region: number.value
            for number in scores
            if (number.model, number.metric) == (model, "dice")
        }
        assert mine["mean"] == pytest.approx(sum(mine[r] for r in ("WT", "TC", "ET")) / 3, abs=0.011)
    (known,) = (n for n in tables["segmamba-v1"].number if (n.region, n.metric) == ("WT", "dice"))
    (again,) = (n for n in scores if (n.model, n.region, n.metric) == ("SegMamba", "WT", "dice"))
    assert known.value == again.value
    claims, _ = claims_of(waveformer)
    verdicts = {(c.region, c.a.name, c.b.name): c.verdict for c in claims}
    assert verdicts["mean", "WaveFormer", "SegMamba"] == "not supported"
    assert verdicts["mean", "WaveFormer", "UX-Net"] == "supported"


def test_the_report_shows_it_beside_published_numbers(runs: Any, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "x.toml").write_text(
        'schema_version = 1\n[source]\nid = "x"\ntitle = "X"\nkind = "paper"\n[protocol]\n'
        + "".join(
            '[[number]]\nmodel = "Net"\nour_model = "nnunet"\ndataset = "btcv"\nregion = "mean"\n'
            f'metric = "{metric}"\nvalue = 83.1\nunit = "%"\nread_from = "T"\nverified = true\n{n}\n'
            for metric, n in (("dice", "n = 40"), ("nsd", ""))
        )
    )
    for seed in range(2):
        runs.run("nnunet", dataset="btcv", seed=seed)
    options = make_options(resamples=100, published_root=str(tmp_path / "p"))
    analysis = analyse([runs.root], options)
    rows = {row.column.metric.name: row for row in published_beside(analysis)}
    low, middle, high = rows["dice"].order_wrong or (1.0, 1.0, 1.0)
    assert 0 <= low <= middle <= high <= 0.5
    assert rows["nsd"].order_wrong is None  # how many cases is not known
    jsonschema.Draft202012Validator(REPORT_SCHEMA).validate(document(analysis))


@pytest.mark.parametrize("form", ["numbers", "file"])
def test_the_command_keeps_to_its_schema(form: str) -> None:
    given = {
        "numbers": ["--a", "91.37", "--b", "91.32", "--n", "250", "--sd-a", "9", "--sd-b", "10"],
        "file": [str(BOARD.parents[1] / "published" / "waveformer.toml")],
    }
    done = CliRunner().invoke(build_app(), ["claim", *given[form], "--json"])
    assert done.exit_code == 0
    content = json.loads(done.stdout)
    validator = jsonschema.Draft202012Validator(
        json.loads((files("segbench.cli") / "schema" / "claim.schema.json").read_text())
    )
    validator.validate(content)
    for key in content:
        assert not validator.is_valid({name: value for name, value in content.items() if name != key})


def test_percent_and_fraction_say_the_same() -> None:
    def band(*arguments: str) -> list[float]:
        done = CliRunner().invoke(build_app(), ["claim", "--n", "40", *arguments, "--json"])
        (claim,) = json.loads(done.stdout)["claims"]
        return [claim[name] for name in ("low", "middle", "high", "difference")]

    per_cent = band("--a", "85", "--b", "84", "--sd-a", "9", "--sd-b", "8", "--seed-sd", "0.3")
    fraction = band("--a", "0.85", "--b", "0.84", "--sd-a", "0.09", "--sd-b", "0.08", "--seed-sd", "0.003")
    assert per_cent == pytest.approx(fraction)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], "SB104"),
        (["--a", "91"], "SB104"),
        (["--a", "91", "--b", "0.9", "--n", "40", "--sd-a", "-1", "--sd-b", "2"], "SB104"),
        (["--a", "191", "--b", "90", "--n", "40"], "SB104"),
        (["--a", "0.9137", "--b", "91.32", "--n", "250"], "SB104"),
        (["--a", "91", "--b", "90", "--n", "0"], "SB104"),
        (["--a", "91", "--b", "90", "--n", "40", "--congruence", "2"], "SB104"),
        (["--a", "91", "--b", "90", "--n", "40", "--metric", "dise"], "SB101"),
        (["--a", "1", "--b", "2", "--n", "40", "--metric", "hd95"], "SB104"),
        (["no-such.toml"], "SB703"),
        ([str(BOARD.parents[1] / "README.md")], "SB703"),
    ],
)
def test_bad_input_is_coded(arguments: list[str], code: str) -> None:
    done = CliRunner().invoke(build_app(), ["claim", *arguments])
    assert f"error[{code}]" in done.stderr
    assert done.exit_code != 0
