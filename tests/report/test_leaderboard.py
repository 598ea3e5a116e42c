"""The committed leaderboards: regenerated without a difference, from records that name no machine's paths."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import math
import re
import shutil
import sys
import tomllib
from itertools import combinations, pairwise, product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from segbench.cli.common import split_numbers

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "results/leaderboard/msd-hippocampus/runs/nnunet-tiny__msd-hippocampus__standard+custom__f0__s0__31a10346"
)


@pytest.fixture
def leaderboard(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))  # as for `python scripts/leaderboard.py`
    spec = importlib.util.spec_from_file_location("leaderboard", ROOT / "scripts" / "leaderboard.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["leaderboard"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["leaderboard"]


@pytest.fixture
def copy(leaderboard, tmp_path, monkeypatch):
    """The boards and their pages in a folder of their own, the null board without its runs."""

    def runs_of_null(folder: str, names: list[str]) -> list[str]:
        return ["runs"] if Path(folder).name == "null-hippocampus" else []

    for name, folder in (("BOARDS", "results/leaderboard"), ("PAGES", "docs/leaderboard")):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=runs_of_null)
        monkeypatch.setattr(leaderboard, name, tmp_path / folder)
    monkeypatch.setattr(leaderboard, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.ci
def test_tables_and_pages_are_those_of_the_records(leaderboard, capsys):
    assert leaderboard.main(["--check"]) == 0, capsys.readouterr().out


def test_only_a_digit_that_matters_makes_a_table_stale(leaderboard, tmp_path):
    table = tmp_path / "scores.csv"
    table.write_bytes(b"model,p\nv2,0.30620686180451184\n")
    assert leaderboard._alike(table, b"model,p\nv2,0.30620686180451201\n")
    for other in (b"model,p\nv2,0.3062069\n", b"model,p\nv3,0.30620686180451184\n", b"model,p\n"):
        assert not leaderboard._alike(table, other)
    page = table.rename(tmp_path / "page.md")
    assert not leaderboard._alike(page, b"model,p\nv2,0.30620686180451201\n")


@pytest.mark.ci
def test_a_changed_record_a_changed_page_and_a_surplus_table_are_noticed(leaderboard, copy, capsys):
    leaderboard.regenerate(write=True)
    page = copy / "docs/leaderboard/msd-hippocampus.md"
    right = page.read_text(encoding="utf-8")
    page.write_text(right.replace("inconclusive", "better"), encoding="utf-8")
    surplus = copy / "results/leaderboard/msd-hippocampus/tables/old.md"
    surplus.write_text("old")
    assert leaderboard.main(["--check"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "differs: docs/leaderboard/msd-hippocampus.md",
        "differs: results/leaderboard/msd-hippocampus/tables/old.md",
    ]
    assert leaderboard.main([]) == 0
    assert page.read_text(encoding="utf-8") == right
    assert not surplus.exists()


def test_records_carry_no_path_of_the_machine(leaderboard):
    records = sorted(ROOT.glob("results/leaderboard/*/runs/*/*.json"))
    assert records
    for path in records:
        content = json.loads(path.read_text(encoding="utf-8"))
        assert leaderboard.without_paths(content) == content, path


def test_only_finished_runs_are_taken_in_and_paths_are_left_behind(leaderboard, tmp_path, capsys):
    source = next(ROOT.glob("results/leaderboard/msd-hippocampus/runs/nnunet-tiny*"))
    for name, status in (("done", "complete"), ("half", "running")):
        shutil.copytree(source, tmp_path / "runs" / name)
        record = json.loads((source / "run.json").read_text(encoding="utf-8"))
        record |= {"status": status, "command": ["/opt/bin/segbench", "run", "--data-dir", "/data/scans"]}
        (tmp_path / "runs" / name / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert leaderboard.collect(tmp_path / "runs", tmp_path / "board") == 0
    assert "left out, running: half" in capsys.readouterr().out
    (taken,) = (tmp_path / "board" / "runs").iterdir()
    assert sorted(path.name for path in taken.iterdir()) == ["cases.csv", "profile.json", "run.json"]
    command = json.loads((taken / "run.json").read_text(encoding="utf-8"))["command"]
    assert command == ["segbench", "run", "--data-dir", "scans"]


def test_collecting_again_takes_what_is_new_and_leaves_what_is_there(leaderboard, tmp_path, capsys):
    runs, board = tmp_path / "runs", tmp_path / "board"
    retrainings(runs, 2, spread=0.0)
    first, second = sorted(runs.iterdir())
    whole = second.rename(tmp_path / second.name)
    assert leaderboard.collect(runs, board) == 0
    before = {path: path.read_bytes() for path in board.rglob("*") if path.is_file()}
    whole.rename(second)
    record = json.loads((first / "run.json").read_text())
    (first / "run.json").write_text(json.dumps(record | {"finished": "later"}))
    assert leaderboard.collect(runs, board) == 0
    assert "1 new, 1 taken before, 0 unfinished" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in before} == before
    assert len(list(board.glob("runs/*/cases.csv"))) == 2


def test_a_run_whose_scores_differ_from_the_one_taken_is_refused(leaderboard, tmp_path, capsys):
    runs, board = tmp_path / "runs", tmp_path / "board"
    retrainings(runs, 1, spread=0.0)
    (run,) = runs.iterdir()
    assert leaderboard.collect(runs, board) == 0
    kept = (board / "runs" / run.name / "cases.csv").read_bytes()
    (run / "cases.csv").write_bytes(kept.replace(b"0.9", b"0.8", 1))
    assert leaderboard.collect(runs, board) == 1
    assert f"refused, its cases.csv differs from the one taken before: {run.name}" in capsys.readouterr().out
    assert (board / "runs" / run.name / "cases.csv").read_bytes() == kept


def retrainings(folder: Path, count: int, *, spread: float, first: int = 100) -> None:
    """Run folders that differ from a committed one in their seed, a shift of each run, and noise by case."""
    rng = np.random.default_rng(7)
    record = json.loads((ROOT / SMALL / "run.json").read_text(encoding="utf-8"))
    with (ROOT / SMALL / "cases.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for seed in range(first, first + count):
        name = record["run_id"].replace("__s0__", f"__s{seed}__")
        place, shift = folder / name, spread * rng.standard_normal()
        place.mkdir(parents=True)
        with (place / "cases.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            for row in rows:
                moved = {key: 0.5 + 0.2 * rng.random() + shift for key in ("dice", "nsd")}
                moved["hd95"] = 5 + rng.random() - 10 * shift
                writer.writerow({**row, "run_id": name, "seed": seed, **moved})
        digest = hashlib.sha256((place / "cases.csv").read_bytes()).hexdigest()
        changed = {"run_id": name, "seed": seed, "digests": {**record["digests"], "cases": digest}}
        (place / "run.json").write_text(json.dumps(record | changed), encoding="utf-8")


@pytest.fixture
def null(leaderboard, copy):
    """Makes the null board of so many runs, in place of the committed one, and gives its shares by row."""

    def make(count: int, spread: float, *, alone: bool = True) -> dict[tuple[str, str, str], dict[str, str]]:
        folder = copy / "results/leaderboard/null-hippocampus"
        if alone:
            shutil.rmtree(folder.parent / "msd-hippocampus")
        shutil.rmtree(folder / "runs", ignore_errors=True)
        retrainings(folder / "runs", count, spread=spread)
        assert leaderboard.main([]) == 0
        table = folder / "tables/shares.csv"
        if not table.is_file():
            return {}
        with table.open(encoding="utf-8", newline="") as file:
            return {
                (row["metric"], row["test"], row["runs a side"] + "/" + row["cases"]): row
                for row in csv.DictReader(file)
            }

    return make


@pytest.mark.ci
def test_a_null_board_of_runs_that_differ_in_nothing(leaderboard, null, copy):
    """The truth is known: an honest test, so each interval holds 5 % and the two-level test stays below."""
    shares = null(12, 0.0)
    assert leaderboard.main(["--check"]) == 0
    for metric in ("Dice", "NSD 1 mm", "HD95"):
        for key in (("Wilcoxon", "1/10"), ("Wilcoxon", "1/40"), ("paired t", "1/40")):
            row = shares[metric, *key]
            assert int(row["comparisons"]) == 66
            assert float(row["low"]) <= 0.05 <= float(row["high"])
    text = (copy / "docs/leaderboard/null-hippocampus.md").read_text(encoding="utf-8")
    assert "12 training runs of 24 planned" in text
    assert (copy / "docs/leaderboard/null-hippocampus.png").stat().st_size < 90_000


@pytest.mark.ci
def test_a_null_board_whose_runs_lie_far_apart(null, copy):
    """The usual test errs nearly always, and as often as scipy's, pair by pair; the two-level test does "
    "not."""
    shares = null(8, 0.05)
    folder = copy / "results/leaderboard/null-hippocampus/runs"
    tables = []
    for path in sorted(folder.glob("*/cases.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        cases = sorted({row["case"] for row in rows})
        parts = {(row["case"], row["region"]): float(row["dice"]) for row in rows}
        tables.append([(parts[case, "anterior"] + parts[case, "posterior"]) / 2 for case in cases])
    called = [
        stats.wilcoxon(one, other, mode="exact").pvalue < 0.05 for one, other in combinations(tables, 2)
    ]
    assert float(shares["Dice", "Wilcoxon", "1/40"]["share"]) == pytest.approx(np.mean(called), abs=1e-5)
    assert np.mean(called) > 0.6
    assert float(shares["Dice", "two-level", "3/40"]["share"]) < 0.2
    means = np.array(tables).mean(axis=1)
    text = (copy / "docs/leaderboard/null-hippocampus.md").read_text(encoding="utf-8")
    assert f"the largest difference of two retrainings is {100 * np.ptp(means):.2f} points" in text


def test_a_null_board_with_one_run_has_no_pair_yet(null, copy):
    assert null(1, 0.0) == {}
    text = (copy / "docs/leaderboard/null-hippocampus.md").read_text(encoding="utf-8")
    assert "1 of 24 runs has finished: there is no pair to compare yet." in text
    assert "One run against one run" not in text
    assert not (copy / "docs/leaderboard/null-hippocampus.png").exists()


def test_the_same_seed_made_elsewhere_stands_beside_and_is_no_pair(leaderboard, copy):
    boards = copy / "results/leaderboard"
    shutil.rmtree(boards / "null-hippocampus/runs", ignore_errors=True)
    retrainings(boards / "null-hippocampus/runs", 2, spread=0.0, first=0)
    (boards / "msd-hippocampus/leaderboard.toml").unlink()  # its runs stay
    assert leaderboard.main([]) == 0
    text = (copy / "docs/leaderboard/null-hippocampus.md").read_text(encoding="utf-8")
    section = text.partition("## The same seed, made elsewhere")[2].partition("\n## ")[0]
    (row,) = [line for line in section.splitlines() if line.startswith("| Dice (%) | 0 |")]
    assert row.split(" | ")[3] == "86.74"  # the mean of the committed run
    assert "| Dice (%) | 2 |" not in section
    assert "of 1 pair of retrainings" in text


def test_the_best_of_several_runs_is_their_expected_maximum(leaderboard):
    gains = np.array([3.0, 1.0, 7.0, 4.0, 4.0])
    for number in (2, 3, 5):
        expected = np.mean([max(some) for some in combinations(gains, number)]) - gains.mean()
        assert leaderboard.null_board.best_of(gains, number) == pytest.approx(expected)


@pytest.mark.ci
def test_a_second_board_is_taken_up_as_soon_as_it_is_there(leaderboard, copy):
    """The same records under another name: the same difference twice, its interval narrower by root two."""
    boards = copy / "results/leaderboard"
    for other in {*boards.glob("*/")} - {boards / "msd-hippocampus"}:
        shutil.rmtree(other)
    shutil.copytree(boards / "msd-hippocampus", boards / "second")
    assert leaderboard.main([]) == 0
    text = (copy / "docs/leaderboard/README.md").read_text(encoding="utf-8")
    one = re.search(r"\[second\]\(second.md\) \| Dice \| (\S+) points \[(\S+), (\S+)\]", text)
    over = re.search(r"Mean over the datasets: (\S+) points \[(\S+), (\S+)\]; the interval leaves open", text)
    assert one is not None
    assert over is not None
    difference, low, high = map(float, one.groups())
    mean, narrow, wide = map(float, over.groups())
    assert mean == difference
    assert wide - narrow == pytest.approx((high - low) / np.sqrt(2), abs=0.02)
    assert "is inconclusive on all 2 datasets" in text
    assert "1.00 (msd-hippocampus and second)" in text
    assert "better on one dataset and worse on another, by verdict: none" in text
    cells = [*(boards / "second/runs").iterdir()]
    shutil.rmtree(cells[0])
    assert leaderboard.main([]) == 0
    text = (copy / "docs/leaderboard/README.md").read_text(encoding="utf-8")
    assert f"({len(cells) - 1} of {len(cells)} cells yet)" in text
    assert "is inconclusive on the one dataset so far" in text
    assert not (copy / "docs/leaderboard/second.md").exists()


@pytest.mark.parametrize(
    ("values", "ending"),
    [
        ({"a": 3.0, "b": 2.0, "base": 1.0}, "every network passes the best baseline, base (1)."),
        (
            {"a": 3.0, "b": 1.0, "base": 1.0},
            "not every network passes the best baseline, base (1): b does not.",
        ),
        ({"a": 0.0, "b": 1.0, "base": 1.0, "low": 0.5}, "no network passes the best baseline, base (1)."),
    ],
)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_page_says_whether_every_network_passes_the_best_baseline(leaderboard, values, ending, sign):
    block = SimpleNamespace(baselines=[SimpleNamespace(label=x) for x in ("base", "low", "none")], short=str)
    column = SimpleNamespace(
        block=block,
        means={x: SimpleNamespace(value=sign * value) for x, value in values.items()}
        | {"none": SimpleNamespace(value=None)},
        sign=sign,
        order=("a", "b"),
        number=lambda value: f"{abs(value):g}",
        metric=SimpleNamespace(label="Dice"),
    )
    assert leaderboard.comparison_board._passed(column) == f"Dice: {ending}"


@pytest.mark.parametrize(
    ("verdict", "p", "adjusted", "note", "said"),
    [
        ("better", 0.001, 0.01, "", "better"),
        ("inconclusive", 0.2, 0.9, "", "inconclusive"),
        ("inconclusive", 0.01, 0.3, "", "inconclusive, significant before correction only"),
        ("inconclusive", 0.01, math.nan, "Two cases.", "inconclusive. Two cases."),
    ],
)
def test_the_table_of_a_question_says_what_decided(leaderboard, verdict, p, adjusted, note, said):
    """A pair that may have no verdict is not called significant, whatever its p."""
    pair = SimpleNamespace(a="m1", b="m2", verdict=verdict, p=p, p_adjusted=adjusted, note=note)
    options, block = SimpleNamespace(alpha=0.05), SimpleNamespace(short=str.upper)
    column = SimpleNamespace(options=options, block=block, margin=None, words=str)
    assert leaderboard.answers_page._verdict(SimpleNamespace(pair=pair, column=column)) == said


def test_what_boards_share_is_said_once(leaderboard):
    one, two, three = (SimpleNamespace(name=name) for name in ("one", "two", "three"))
    told = [("few cases", one), ("small", two), ("few cases", three)]
    assert leaderboard.answers_page._by_text(told) == "- one, three: few cases\n- two: small"


def test_each_number_of_the_answers_has_its_seeds_cases_and_profile(leaderboard):
    text = (ROOT / "docs/leaderboard/README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\S+)\]\(\S+\.md\) \|.*$", text, flags=re.M)
    assert rows
    assert len(rows) == len(re.findall(r"\| 3 seeds each, \d+ (?:cases|patients) \|", text))
    for name in set(rows):
        assert re.search(rf"{name}: \d+ \w+, 3 seeds of each network, profile \w+", text), name


def test_a_pair_contradicts_itself_only_with_two_verdicts(leaderboard):
    def board(**verdicts: str):
        analysis = SimpleNamespace(short=str.upper)
        pairs = [SimpleNamespace(a=key[0], b=key[1], verdict=verdict) for key, verdict in verdicts.items()]
        return None, analysis, SimpleNamespace(comparisons=pairs)

    found = leaderboard.answers_page.contradictions
    assert found([board(ab="better", ac="better"), board(ba="better", ac="inconclusive")]) == ["A and B"]
    assert found([board(ab="better"), board(ba="worse")]) == []


def test_a_figure_is_drawn_again_when_its_numbers_change_and_only_then(leaderboard, copy):
    figure = copy / "docs/leaderboard/questions.png"
    drawn, board = leaderboard.answers_page.drawn, leaderboard.answers_page.figure_digest
    same = drawn(lambda: pytest.fail("drawn again"), digest_of(figure), figure)
    assert same == figure.read_bytes()
    assert board({"a": [1.0, 1.0000001]}) == board({"a": [1.0, 1.0]}) != board({"a": [1.0, 1.001]})


def digest_of(figure: Path) -> str:
    from PIL import Image

    with Image.open(figure) as picture:
        return picture.info["Description"]


FAMILIES = r"SegMamba(-V2)?|nnU-Net|3D UX-Net|V2, (matched|no Mamba)"


@pytest.mark.parametrize("name", ["README", "msd-hippocampus", "null-hippocampus"])
def test_a_small_variant_is_named_by_its_size_first(name):
    """Nobody can quote a line of a page as if it spoke of the full-size network of that name."""
    text = (ROOT / f"docs/leaderboard/{name}.md").read_text(encoding="utf-8")
    ours = re.sub(r"## What others have found.*?(?=\n## )", "", text, flags=re.S)
    named = list(re.finditer(FAMILIES, ours))
    assert named
    bare = [
        ours[max(0, m.start() - 30) : m.end()]
        for m in named
        if not ours[: m.start()].endswith((" M: ", " M "))
    ]
    assert bare == []


def test_the_commands_of_a_board_are_those_of_its_records(leaderboard):
    """Models, folds, seeds and settings of REPRODUCE.md give the cells recorded: all, and no other."""
    for folder in sorted(path.parent for path in ROOT.glob("results/leaderboard/*/leaderboard.toml")):
        board = leaderboard.Board.read(folder)
        how = board.reproduce
        seeds, folds = (split_numbers([how.get(key, "0")], what=key) for key in ("seeds", "folds"))
        wanted = {*product(how["models"], folds, seeds), *product(how.get("baselines", ()), folds, [0])}
        assert leaderboard.reproduce.cells(how) == len(wanted)
        cells = {(record["model"]["slug"], record["fold"], record["seed"]) for record in board.records}
        assert cells == wanted, board.name
        for record in board.records:
            settings = [value for option, value in pairwise(record["command"]) if option == "--set"]
            assert settings == how["set"], board.name
        shown = (folder / "REPRODUCE.md").read_text(encoding="utf-8")
        assert all(setting in shown for setting in how["set"])


def test_a_board_of_another_kind_is_refused_by_name(leaderboard, copy):
    settings = copy / "results/leaderboard/null-hippocampus/leaderboard.toml"
    settings.write_text(settings.read_text(encoding="utf-8").replace('"null"', '"nul"'), encoding="utf-8")
    with pytest.raises(SystemExit, match="kind is comparison or null, found 'nul'"):
        leaderboard.main([])
    assert tomllib.loads(settings.read_text(encoding="utf-8"))["kind"] == "nul"
