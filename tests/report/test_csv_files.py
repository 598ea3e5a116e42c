"""tables/*.csv: exact numbers in stored units, safe for a spreadsheet, the same verdicts as everywhere."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest
from latex_lint import floats, layouts, rows

from segbench.records.identity import safe_part
from segbench.report.analysis.analysis import Analysis, analyse
from segbench.report.analysis.options import make_options
from segbench.report.write import csv_files, markdown, paper


def analysed(runs: Any, **options: Any) -> Analysis:
    return analyse([runs.root], make_options(resamples=200, viewer="none", **options))


def read(analysis: Analysis, name: str) -> list[dict[str, str]]:
    text = csv_files.files(analysis)[f"tables/{name}.csv"]
    assert isinstance(text, str)
    return list(csv.DictReader(io.StringIO(text)))


def test_scores_and_seeds_hold_the_numbers_of_the_records_to_the_last_digit(runs: Any) -> None:
    values: dict[int, float] = {}
    for seed in (3, 5):
        written = runs.rows("nnunet", seed=seed, regions=("r",), cases=12)
        runs.write(written)
        values[seed] = float(np.mean([row["dice"] for row in written]))
    analysis = analysed(runs)
    (row,) = (row for row in read(analysis, "scores") if row["metric"] == "dice")
    assert float(row["mean"]) == pytest.approx(np.mean(list(values.values())), rel=1e-15)
    assert (row["dataset"], row["model"], row["region"]) == ("phantom-brats", "nnunet", "r")
    assert (row["n"], row["unit"], row["cases"], row["seeds"]) == ("12", "cases", "12", "2")
    assert (row["failed"], row["expected"]) == ("0", "12")
    assert float(row["sd_seeds"]) == pytest.approx(np.std(list(values.values()), ddof=1), rel=1e-12)
    assert float(row["low"]) < float(row["mean"]) < float(row["high"])
    seeds = {
        int(row["seed"]): float(row["mean"]) for row in read(analysis, "seeds") if row["metric"] == "dice"
    }
    assert seeds == pytest.approx(values, rel=1e-15)
    column = analysis.main_columns()[0]
    assert row["mean"] == format(column.means["nnunet"].value, ".17g")


def test_comparisons_hold_every_pair_of_every_deciding_column_with_raw_and_adjusted_p(runs: Any) -> None:
    for skill, model in ((0.9, "a"), (0.85, "b"), (0.84, "c")):
        for seed in (0, 1, 2):
            runs.run(model, skill=skill, seed=seed, cases=15)
    analysis = analysed(runs, reference="none")
    found = read(analysis, "comparisons")
    assert {(row["model"], row["other"]) for row in found} == {("a", "b"), ("a", "c"), ("b", "c")}
    assert {row["role"] for row in found} == {"primary", "secondary"}
    for row in found:
        column = analysis.columns[0, row["region"], row["metric"]]
        (pair,) = (pair for pair in column.comparisons if (pair.a, pair.b) == (row["model"], row["other"]))
        assert [row[name] for name in ("p", "p_adjusted", "difference", "shift", "wilcoxon_p")] == [
            format(value, ".17g")
            for value in (pair.p, pair.p_adjusted, pair.difference, pair.shift, pair.wilcoxon_p)
        ]
        assert row["verdict"] == pair.verdict
        assert row["family"] == "3"


def test_the_appendix_has_ranks_and_single_regions_without_verdicts(runs: Any) -> None:
    for model, skill in (("a", 0.9), ("b", 0.5)):
        for seed in (0, 1, 2):
            runs.run(model, seed=seed, cases=10, skill=skill)
    assert set(csv_files.files(analysed(runs))) == {
        f"tables/{n}.csv" for n in ("scores", "comparisons", "seeds")
    }
    analysis = analysed(runs, appendix=True)
    regions = read(analysis, "regions")
    assert {row["region"] for row in regions} == {"TC", "WT", "ET"}
    assert {row["verdict"] for row in regions} == {row["p_adjusted"] for row in regions} == {""}
    ranks = [row for row in read(analysis, "ranks") if row["metric"] == "dice"]
    assert sorted(float(row["rank"]) for row in ranks) == [1, 2]
    assert all(0 <= float(row["probability_best"]) <= 1 for row in ranks)


def test_ranks_of_single_runs_are_an_order_and_no_more(runs: Any) -> None:
    for model in ("a", "b"):
        runs.run(model, cases=10)
    ranks = read(analysed(runs, appendix=True), "ranks")
    assert {row["rank_low"] for row in ranks} == {row["probability_best"] for row in ranks} == {""}


def test_no_cell_is_a_formula(runs: Any) -> None:
    for label in ("=cmd", "+one", "@x", "-y"):
        for seed in (0, 1):
            written = runs.rows("m", seed=seed, cases=8, regions=("r",))
            for row in written:
                row.update(model=f"'{label}", run_id=row["run_id"].replace("m__", f"{safe_part(label)}__", 1))
            runs.write(written, record={"external": {"label": label}})
    analysis = analysed(runs)
    assert len(analysis.entries) == 4
    for text in csv_files.files(analysis).values():
        cells = [cell for row in csv.reader(io.StringIO(str(text))) for cell in row]
        assert not [c for c in cells if c[:1] in "=+@-" and c and not c.lstrip("-")[:1].isdigit()]


@pytest.mark.ci
@pytest.mark.parametrize("draw", range(6))
def test_every_file_says_the_same_verdicts_and_stars(runs: Any, draw: int) -> None:
    """Over random records: better, worse and inconclusive of paper, Markdown and CSV are the columns' own."""
    rng = np.random.default_rng(draw)
    models = [f"m{place}" for place in range(int(rng.integers(2, 6)))]
    for dataset in ("phantom-brats", "phantom-crc")[: 1 + draw % 2]:
        for model in models:
            skill = 0.85 + 0.03 * rng.standard_normal()
            for seed in range(int(rng.integers(1, 4))):
                runs.run(
                    model, dataset=dataset, skill=float(np.clip(skill, 0.6, 0.95)), seed=seed,
                    run_noise=0.004, regions=("r", "s"), cases=9,
                )  # fmt: skip
    analysis = analysed(runs, reference=("none", "m0")[draw % 3 > 0])
    own = {
        (column.block.name, pair.a, pair.b): pair.verdict
        for column in analysis.main_columns()
        for pair in column.comparisons
    }
    several = len(analysis.blocks) > 1
    only = analysis.blocks[0].name
    assert _paper_verdicts(analysis, only if not several else "") == own
    assert _markdown_verdicts(analysis, only if not several else "") == own
    assert {
        (row["block"], row["model"], row["other"]): row["verdict"]
        for row in read(analysis, "comparisons")
        if row["role"] == "primary"
    } == own
    stars = [
        (label, bool(column.star(label)))
        for label in analysis.ordered(models)
        for column in _table_columns(analysis)
        if label in column.means
    ]
    assert sorted(_paper_stars(analysis)) == sorted(stars)
    assert sorted(_markdown_stars(analysis)) == sorted(stars)
    decided = {
        (row["block"], row["metric"], row["model"]): row["verdict"] == "better"
        for row in read(analysis, "comparisons")
        if row["reference"] == row["other"]
    }
    for (block, metric, label), better in decided.items():
        (column,) = (
            column
            for column in analysis.columns.values()
            if column.decided and column.metric.name == metric and column.block.name == block
        )
        assert bool(column.star(label)) == better


def _table_columns(analysis: Analysis) -> list[Any]:
    """The columns of Table 1."""
    several = len(analysis.blocks) > 1
    return [
        column
        for block in analysis.blocks
        for metric in analysis.shown_metrics
        for region in ([block.main_region] if several else analysis.regions(block))
        if (column := analysis.column(block, metric, region)) is not None
    ]


def _paper_tables(analysis: Analysis) -> list[list[list[str]]]:
    text = str(paper.files(analysis)["paper.tex"])
    return [rows(layouts(table)[0]) for table in floats(text)]


def _paper_verdicts(analysis: Analysis, dataset: str) -> dict[tuple[str, str, str], str]:
    found: dict[tuple[str, str, str], str] = {}
    reference = analysis.main_columns()[0].reference
    for row in _paper_tables(analysis)[-1]:
        if len(row) == 1:
            dataset = row[0].rpartition("{")[2].rstrip("}")
            continue
        other = reference or row[1]
        found[dataset, row[0], other] = row[-1].partition(" ")[0]
    return found


def _paper_stars(analysis: Analysis) -> list[tuple[str, bool]]:
    return [
        (row[0], "textsuperscript{*}" in cell or "textsuperscript{$\\dagger$}" in cell)
        for row in _paper_tables(analysis)[0]
        if len(row) > 1
        for cell in row
        if cell.startswith("\\segci")
    ]


def _markdown_rows(analysis: Analysis, table: int) -> list[list[str]]:
    blocks = str(markdown.files(analysis)["report.md"]).split("\n\n")
    grids = [block.splitlines() for block in blocks if block.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in grids[table][2:]]


def _markdown_verdicts(analysis: Analysis, dataset: str) -> dict[tuple[str, str, str], str]:
    reference = analysis.main_columns()[0].reference
    found: dict[tuple[str, str, str], str] = {}
    for row in _markdown_rows(analysis, -1):
        if row[0].startswith("_"):
            dataset = row[0].strip("_")
            continue
        found[dataset, row[0], reference or row[1]] = row[-1].partition(" ")[0]
    return found


def _markdown_stars(analysis: Analysis) -> list[tuple[str, bool]]:
    return [
        (row[0], "\\*" in cell or "\N{DAGGER}" in cell)
        for row in _markdown_rows(analysis, 0)
        for cell in row
        if "<sub>" in cell and not row[0].startswith("_")
    ]


def test_the_appendix_has_all_pairs_as_estimates_beside_the_verdicts(runs: Any) -> None:
    for place, model in enumerate(("alpha", "beta", "gamma")):
        for seed in range(3):
            runs.run(model, seed=seed, cases=12, skill=0.7 + 0.05 * place, run_noise=0.002)
    analysis = analysed(runs, appendix=True, reference="alpha", metrics="dice")
    pairs, decided = read(analysis, "pairs"), read(analysis, "comparisons")
    assert [(row["model"], row["other"]) for row in pairs] == [
        ("gamma", "beta"), ("gamma", "alpha"), ("beta", "alpha"),
    ]  # fmt: skip
    assert {row["verdict"] for row in pairs} == {row["p_adjusted"] for row in pairs} == {""}
    told = {(row["model"], row["other"]): row["difference"] for row in decided}
    assert told == {key: value for key, value in {
        (row["model"], row["other"]): row["difference"] for row in pairs
    }.items() if key[1] == "alpha"}  # fmt: skip


def test_the_appendix_ranks_by_medians_and_by_ranks_too(runs: Any) -> None:
    """Three bad failures: the mean and the other schemes name different models."""
    steady = runs.rows("steady", regions=("r",), cases=20)
    for seed in range(2):
        runs.write(
            [{**row, "seed": seed, "run_id": f"s{seed}", "dice": 0.8 + 0.001 * seed} for row in steady]
        )
        risky = [
            {**row, "model": "risky", "seed": seed, "run_id": f"r{seed}", "dice": 0.1 if n < 3 else 0.85}
            for n, row in enumerate(steady)
        ]
        runs.write([{**row, "dice": row["dice"] + 0.001 * seed} for row in risky])
    rows = {row["model"]: row for row in read(analysed(runs, appendix=True, metrics="dice"), "ranks")}
    assert (rows["steady"]["rank"], rows["steady"]["rank_by_median"]) == ("1", "2")
    assert float(rows["risky"]["mean_rank"]) == 1 + 3 / 20
    assert float(rows["steady"]["mean_rank"]) == 1 + 17 / 20


def test_the_appendix_has_scores_by_the_size_of_the_reference(runs: Any) -> None:
    rows = runs.rows("alpha", regions=("r",), cases=15)
    for n, row in enumerate(rows):
        row |= {"reference_volume_ml": float(n), "dice": n / 20}
    runs.write(rows)
    runs.write([{**row, "model": "beta", "run_id": "b", "dice": 0.5} for row in rows])
    found = read(analysed(runs, appendix=True, metrics="dice"), "subgroups")
    for model, means in (("alpha", (0.1, 0.35, 0.6)), ("beta", (0.5, 0.5, 0.5))):
        mine = [row for row in found if row["model"] == model]
        assert [row["group"] for row in mine] == ["small", "middle", "large"]
        assert [float(row["mean"]) for row in mine] == pytest.approx(means)
        assert [(row["least"], row["most"], row["n"]) for row in mine] == [
            ("0", "4", "5"), ("5", "9", "5"), ("10", "14", "5"),
        ]  # fmt: skip
