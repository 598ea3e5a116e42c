"""No page, table, file or line contradicts another: every output is read back and says what was decided."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from latex_lint import floats, layouts, rows

from segbench import compare
from segbench.metrics.grid_floor import grid_floor
from segbench.published.claims import Side, judge
from segbench.report import build_report
from segbench.report.analysis import sentences as wording
from segbench.report.write import page, paper
from segbench.report.write.terminal import compare_lines, finding_lines, report_lines
from segbench.stats import compare_models, holm, slices_differ

MODELS = ("nnunet", "m1", "m2", "m3")
REGIONS = ("A", "B")
DECIDED = ("better", "worse", "equivalent")
PUBLISHED = """
schema_version = 1
[source]
id = "paper2024"
title = "X"
kind = "paper"
[protocol]
[[number]]
model = "Net"
our_model = "nnunet"
dataset = "btcv"
region = "mean"
metric = "dice"
value = 83.1
unit = "%"
n = 40
read_from = "Table 2"
verified = true
"""
Said = set[tuple[str, str, str]]


def told(triples: Any) -> Said:
    """(ahead, verdict, other) of what was decided, whichever of the two was named first."""
    found: Said = set()
    for a, verdict, b in triples:
        if verdict == "worse":
            found.add((b, "better", a))
        elif verdict == "equivalent":
            found.add((min(a, b), verdict, max(a, b)))
        elif verdict not in {"", "inconclusive"}:
            found.add((a, verdict, b))
    return found


def sentences(text: str) -> Said:
    """The claims of sentences."""
    text = " ".join(text.replace("nnU-Net", "nnunet").replace("\\", "").split())
    found = {
        (a, word if word in DECIDED else f"significantly {word}", b)
        for a, word, b in re.findall(r"(\w+) is significantly (\w+) than (\w+):", text)
    }
    found |= {(a, "equivalent", b) for a, b in re.findall(r"(\w+) and (\w+) are equivalent within", text)}
    heads = r"(Significantly better|Significantly worse|Equivalent)(?: (?:than|to) (\w+))?: (.*?\))\."
    for head, other, listed in re.findall(heads, text):
        for a, b in re.findall(r"(\w+)(?: (?:than|to) (\w+))? \([+-]?\d", listed):
            found.add((a, head.split()[-1].lower(), other or b))
    return told(found)


def of_rows(lines: Iterator[list[str]], reference: str | None) -> Said:
    """The claims of a table of pairs: model, perhaps the other, ..., verdict and its sign."""
    found = []
    for cells in lines:
        verdict = next((word for word in DECIDED if word in cells[-1]), "")
        a, b = (name.replace("nnU-Net", "nnunet") for name in cells[:2])
        found.append((a, verdict, reference or b))
    return told(found)


def html_rows(text: str, name: str) -> Iterator[list[str]]:
    body = re.search(rf'<figure class="table" id="{name}">(.*?)</figure>', text, re.DOTALL)
    for row in re.findall(r"<tr[^>]*><th scope=\"row\">(.*?)</tr>", body[1] if body else "", re.DOTALL):
        cells = re.split(r"</t[hd]>", row)
        yield [unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in cells if cell.strip()]


def outputs(folder: Path, analysis: Any, reference: str | None) -> Iterator[tuple[str, Said]]:
    """Every place that states a verdict of the primary metric, and what it states."""
    content = json.loads((folder / "report.json").read_text())
    (column,) = (column for column in content["columns"] if column["role"] == "primary")
    yield "json", told_of(column)
    yield "json, sentences", sentences(" ".join(content["verdicts"][0]["sentences"]))
    with (folder / "tables" / "comparisons.csv").open() as stream:
        lines = [line for line in csv.DictReader(stream) if line["role"] == "primary"]
    yield "csv", told((line["model"], line["verdict"], line["other"]) for line in lines)
    text = (folder / "report.md").read_text()
    pipes = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    start = next(place for place, line in enumerate(pipes) if "Verdict" in line[-1])
    yield "markdown", of_rows(iter(pipes[start + 2 :]), reference)
    yield "markdown, sentences", sentences(text)
    text = (folder / "report.html").read_text()
    yield "page", of_rows(html_rows(text, "table-pairs"), reference)
    verdict = text[text.index('id="verdict"') : text.index('id="scores"')]
    words = unescape(re.sub(r"<[^>]+>", " ", verdict)).replace("\N{MINUS SIGN}", "-")
    yield "page, sentences", sentences(words)
    tex = (folder / "paper.tex").read_text()
    table = rows(layouts(list(floats(tex))[-1])[0])
    plain = ([re.sub(r"~\\cite\{\w+\}", "", cell) for cell in row] for row in table if len(row) > 1)
    yield "paper", of_rows(plain, reference)
    yield "terminal, sentences", sentences(" ".join(report_lines(analysis)))
    if reference:
        stars = {
            "page, stars": {
                cells[0]
                for cells in html_rows(text, "table-scores-1")
                if re.search(r"[*\N{DAGGER}]", cells[-1])
            },
            "markdown, stars": {
                line[0] for line in pipes[2 : start - 1] if re.search(r"\\\*|\N{DAGGER}", line[-1])
            },
            "paper, stars": {
                re.sub(r"~\\cite\{\w+\}", "", row[0])
                for row in rows(layouts(next(iter(floats(tex))))[0])
                if len(row) > 1 and re.search(r"textsuperscript\{(\*|\$.dagger)", row[-1])
            },
            "terminal, stars": {
                line.split()[0]
                for line in report_lines(analysis)
                if re.match(r"  \S+ +[12]?[*+]  ", line)
            },
        }  # fmt: skip
        others = {claim for claim in told_of(column) if claim[1] == "equivalent" or claim[0] == reference}
        for name, found in stars.items():
            models = {model.replace("nnU-Net", "nnunet") for model in found}
            yield name, told((model, "better", reference) for model in models) | others


def told_of(column: Mapping[str, Any]) -> Said:
    """What a column of a JSON document decided."""
    return told((pair["a"], pair["verdict"], pair["b"]) for pair in column["comparisons"])


def by_hand(root: Path, reference: str | None, margin: float | None) -> tuple[Said, Mapping[str, Any]]:
    """What the decision function says of the rows as they stand in the files, and the tables it saw."""
    scores: dict[str, dict[int, dict[str, list[float]]]] = {}
    for path in sorted(root.rglob("cases.csv")):
        with path.open() as stream:
            for row in csv.DictReader(stream):
                seeds = scores.setdefault(row["model"], {}).setdefault(int(row["seed"]), {})
                seeds.setdefault(row["case"], []).append(float(row["dice"]))
    tables = {
        model: np.array(
            [[np.mean(cases[case]) for case in sorted(cases)] for _, cases in sorted(seeds.items())]
        )
        for model, seeds in scores.items()
    }
    ordered = dict(sorted(tables.items(), key=lambda item: -float(item[1].mean())))
    pairs = compare_models(ordered, reference=reference, margin=margin, bounds=(0.0, 1.0))
    return told((pair.a, pair.verdict, pair.b) for pair in pairs), tables


@pytest.mark.ci
@pytest.mark.parametrize("draw", range(8))
def test_every_output_says_what_was_decided(
    runs: Any, tmp_path: Path, draw: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (
        page,
        paper,
    ):  # the figure's stars have a test of their own; drawing takes most of the time
        monkeypatch.setattr(module, "figure_files", lambda _: (None, {}))
    rng = np.random.default_rng(draw)
    reference, margin = (None, "m1")[draw % 2], (None, 0.02)[draw // 2 % 2]
    seeds = int(rng.integers(1, 4))
    for model in MODELS[: int(rng.integers(2, 5))]:
        skill = 0.85 + float(rng.choice([0.0, 0.0, 0.01, 0.05]))
        for seed in range(seeds):
            runs.run(
                model, dataset="btcv", regions=REGIONS, cases=12 + 4 * draw, skill=skill, seed=seed,
                noise=0.015, run_noise=0.002,
            )  # fmt: skip
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "a.toml").write_text(PUBLISHED)
    expected, tables = by_hand(runs.root, reference, margin)
    chosen = {
        "metrics": "dice", "regions": REGIONS, "reference": reference or "none", "resamples": 100,
        "published": True, "published_root": str(tmp_path / "published"),
        "margin": {} if margin is None else {"dice": margin},
    }  # fmt: skip
    out = tmp_path / "out"
    result = build_report(
        runs.root, out, appendix=True, viewer="none", formats="html,markdown,latex,csv,json", **chosen
    )
    assert {place: said for place, said in outputs(out, result.analysis, reference) if said != expected} == {}
    for name in ("regions", "pairs", "subgroups"):  # estimates: nothing there may be quoted as a verdict
        with (out / "tables" / f"{name}.csv").open() as stream:
            assert {line.get("verdict", "") for line in csv.DictReader(stream)} <= {""}
    _compare_says_the_same(runs.root, list(tables), chosen, expected, reference)
    _published_numbers_say_the_same(out, tables["nnunet"])


def _compare_says_the_same(
    root: Path, models: list[str], chosen: Mapping[str, Any], expected: Said, reference: str | None
) -> None:
    compared = compare(*models, runs=root, **chosen)
    lines = compare_lines(compared)
    start = next(place for place, line in enumerate(lines) if re.match(r"  (a|model) .* verdict$", line))
    end = next(place for place, line in enumerate(lines) if place > start and "p adjusted" in line)
    table = (re.sub(r" \+$", "+", line).split() for line in lines[start + 1 : end])
    content = compared.as_json()
    (column,) = (column for column in content["report"]["columns"] if column["role"] == "primary")
    found = {
        "compare, table": of_rows(table, reference),
        "compare, lines": sentences(" ".join(lines)),
        "compare, json": told_of(column),
        "compare, cases": sentences(" ".join(item["sentence"] for item in content["cases"])),
    }
    assert {place: said for place, said in found.items() if said != expected} == {}


def _published_numbers_say_the_same(out: Path, table: np.ndarray) -> None:
    """Beside a published number stands our mean as everywhere, the band of `segbench claim`, no verdict."""
    ours, seeds = float(table.mean()), table.mean(axis=1)
    units = table.mean(axis=0)
    side = Side(
        "nnunet", ours, float(units.std(ddof=1)), units.size, len(seeds),
        float(seeds.std(ddof=1)) if len(seeds) > 1 else None,
    )  # fmt: skip
    claim = judge(side, Side("Net", 0.831, n=40), "dice", dataset="btcv", same_cases=False)
    content = json.loads((out / "report.json").read_text())
    (row,) = (row for row in content["published"] if row["our_value"] is not None)
    assert (row["our_value"], row["difference"]) == (pytest.approx(ours), pytest.approx(ours - 0.831))
    assert row["order_wrong"] == pytest.approx([claim.low, claim.middle, claim.high])
    lines = (out / "report.md").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("- btcv, Dice"))
    (shown,) = re.findall("<p>(btcv, Dice.*)</p>", (out / "report.html").read_text())
    for said in (line.replace("\\", ""), shown.replace("\N{MINUS SIGN}", "-")):
        assert f"{100 * ours:.2f}" in said
        assert not re.search("better|worse|significan|equivalent", said)


# ---- second readers, the floor of the grid, slices


SPACING = (3.75, 0.8, 0.8)
READER, BASELINE = "readerB", "atlas"
CEILING = (
    r"Readers agree at ([\d.]+)(?: \[[\d., ]+\])? \((\w+), (\d+) cases\)"
    r"(?:: (\w+) is (-?\d+) % of the way from (\w+) to (\w+))?\."
)
FLOOR = r"(\w+): the grid alone makes a difference of ([\d.]+) mm"
SLICE = (
    r"over (\w+) \(adjusted p ([<\d.]+)\): (\w+) falls furthest short on (\w+ \w+), "
    r"Dice ([\d.]+) % on (\d+) cases, ([\d.]+) % on the others"
)


def plain_words(text: str) -> str:
    """What a reader reads of HTML, Markdown, LaTeX or a wrapped line, with `-` as minus."""
    text = unescape(
        re.sub(r"<(?:style|script|svg).*?</(?:style|script|svg)>|</?[a-z][^<>]*>", " ", text, flags=re.DOTALL)
    )
    text = text.replace("\\,\\%", " %").replace("$-$", "-").replace("\N{MINUS SIGN}", "-").replace("\\", "")
    return " ".join(text.replace("nnU-Net", "nnunet").split())


def by_case(root: Path, metric: str) -> dict[str, np.ndarray]:
    """(cases,) of each model: mean over regions and seeds of the rows as they stand in the files."""
    scores: dict[str, dict[str, list[float]]] = {}
    for path in sorted(root.rglob("cases.csv")):
        with path.open() as stream:
            for row in csv.DictReader(stream):
                scores.setdefault(row["model"], {}).setdefault(row["case"], []).append(float(row[metric]))
    return {model: np.array([np.mean(of[case]) for case in sorted(of)]) for model, of in scores.items()}


def expected_of(root: Path, models: list[str], sites: list[str]) -> tuple[set[Any], set[Any], set[Any]]:
    """The sentences on the second reader, the grid and the slices, from the files alone."""
    dice = by_case(root, "dice")
    means = {model: float(values.mean()) for model, values in dice.items()}
    best = max(models, key=means.__getitem__)
    way = (means[best] - means[BASELINE]) / (means[READER] - means[BASELINE])
    ceiling = (
        f"{100 * means[READER]:.2f}",
        READER,
        str(len(sites)),
        best,
        f"{100 * way:.0f}",
        BASELINE,
        READER,
    )
    grid = {("HD95", f"{grid_floor(SPACING)['hd95']:.1f}")}
    table = np.array([dice[model] for model in models])
    ages = np.array_split(np.arange(len(sites)), 3)
    age = [next(name for name, part in zip(("small", "middle", "large"), ages, strict=True) if i in part)
           for i in range(len(sites))]  # fmt: skip
    tests = [(name, groups, slices_differ(table, groups)) for name, groups in (("site", sites), ("age", age))]
    adjusted = holm([found[0] for _, _, found in tests])
    slices = set()
    for (name, groups, (_, model, group)), p in zip(tests, adjusted.tolist(), strict=True):
        if p < 0.05:
            inside = np.array(groups) == group
            values = dice[models[model]]
            here, rest = (f"{100 * float(values[part].mean()):.2f}" for part in (inside, ~inside))
            shown = "<0.001" if p < 0.001 else f"{p:.3f}"
            slices.add((name, shown, models[model], f"{name} {group}", here, str(int(inside.sum())), rest))
    return {ceiling}, grid, slices


def disagreements(
    out: Path, terminal: str, compared: str, expected: tuple[set[Any], set[Any], set[Any]]
) -> set[str]:
    """The outputs that say something else of the second reader, the grid or the slices than is expected."""
    ceiling, grid, slices = expected
    content = json.loads((out / "report.json").read_text())
    sentences_of = " ".join(line for verdict in content["verdicts"] for line in verdict["sentences"])
    texts = {
        "json": sentences_of + " ".join(item["message"] for item in content["findings"]),
        "markdown": (out / "report.md").read_text(),
        "page": (out / "report.html").read_text(),
        "terminal": terminal,
        "compare": compared,
        "paper": (out / "paper.tex").read_text(),
    }
    found = set()
    for name, text in texts.items():
        words = plain_words(text)
        if name != "paper" and set(re.findall(CEILING, words)) != ceiling:
            found.add(f"{name}, second reader")
        if name not in {"paper", "compare"} and set(re.findall(SLICE, words)) != slices:
            found.add(f"{name}, slices")
        if name != "json" and set(re.findall(FLOOR, words)) != grid:
            found.add(f"{name}, grid")
    with (out / "tables" / "comparisons.csv").open() as stream:
        lines = [line for line in csv.DictReader(stream) if line["metric"] == "hd95"]
    columns = [column["comparisons"] for column in content["columns"] if column["metric"] == "hd95"]
    floor = grid_floor(SPACING)["hd95"]
    for name, pairs in (("csv", lines), ("json", [pair for column in columns for pair in column])):
        small = [pair for pair in pairs if abs(float(pair["difference"])) < floor]
        if not small or any(pair["verdict"] in {"better", "worse"} for pair in small):
            found.add(f"{name}, differences below the floor")
    return found


@pytest.mark.ci
@pytest.mark.parametrize("draw", range(3))
def test_second_readers_grids_and_slices_are_told_alike(runs: Any, tmp_path: Path, draw: int) -> None:
    """What every output says of them is what follows from the files; a fault put into one is found."""
    rng, cases = np.random.default_rng(draw), 36
    record = {"spacing_mm": SPACING, "digests": "own"}
    sites = ["AB"[i % 2] for i in range(cases)]
    models = ["nnunet", "m1", "m2"][: 2 + draw % 2]
    for place, model in enumerate(models):
        for seed in range(3):
            rows = runs.rows(
                model, dataset="btcv", regions=REGIONS, cases=cases, skill=0.8 + 0.01 * place, seed=seed
            )
            for row in rows:
                hard = sites[int(row["case"][-3:])] == "A" and place == 0 and draw < 2
                row["dice"] -= 0.08 if hard else 0.0
                row["hd95"] = 20 + 0.3 * place + float(rng.normal(0, 0.02))
            runs.write(rows, record=record)
    for name, skill, kind, more in (
        (BASELINE, 0.4, "floor", {}), (READER, 0.93, "external", {"external": {"reader": True}}),
    ):  # fmt: skip
        rows = runs.rows(name, dataset="btcv", regions=REGIONS, cases=cases, skill=skill)
        runs.write(rows, kind=kind, record=record | more)
    table = tmp_path / "table.csv"
    lines = [f"case-0{i:03d},{site},{20 + i}" for i, site in enumerate(sites)]
    table.write_text("case,site,age\n" + "\n".join(lines) + "\n")
    expected = expected_of(
        runs.root, sorted(models, key=lambda m: -float(by_case(runs.root, "dice")[m].mean())), sites
    )
    assert len(expected[2]) == (1 if draw < 2 else 0)
    out = tmp_path / "out"
    result = build_report(
        runs.root, out, viewer="none", formats="html,markdown,latex,csv,json", slices=f"{table}:site,age",
        metrics="dice,hd95", resamples=100, published=False,
    )  # fmt: skip
    terminal = " ".join([*report_lines(result.analysis), *finding_lines(result.findings)])
    sides = [*models, BASELINE, READER]
    compared = " ".join(compare_lines(compare(*sides, runs=runs.root, metrics="dice,hd95", resamples=100)))
    assert disagreements(out, terminal, compared, expected) == set()
    for name, old, new in (
        ("report.md", " % of the way", "1 % of the way"),
        ("report.html", "Readers agree at ", "Readers agree at 1"),
        ("paper.tex", "the grid alone makes a difference of ", "the grid alone makes a difference of 1"),
        ("report.json", "falls furthest short on site", "falls furthest short on age"),
    ):
        text = (out / name).read_text()
        (out / name).write_text(text.replace(old, new))
        changed = old in text
        assert len(disagreements(out, terminal, compared, expected)) == (1 if changed else 0), name
        assert changed or draw == 2
        (out / name).write_text(text)


def test_a_ceiling_that_a_model_passes_or_that_lies_below_the_baseline_has_no_share_beyond_sense(
    runs: Any, tmp_path: Path
) -> None:
    """Above the reader the share is more than 100 %; a reader below the baseline has none."""
    record = {"external": {"reader": True}}
    runs.run("m1", dataset="btcv", regions=REGIONS, skill=0.95, noise=0.001)
    runs.run("m2", dataset="btcv", regions=REGIONS, skill=0.5, noise=0.001)
    runs.write(runs.rows(READER, dataset="btcv", regions=REGIONS, skill=0.9, noise=0.001), record=record)
    runs.write(runs.rows("worse", dataset="btcv", regions=REGIONS, skill=0.3, noise=0.001), record=record)
    runs.write(runs.rows(BASELINE, dataset="btcv", regions=REGIONS, skill=0.4, noise=0.001), kind="floor")
    analysis = build_report(runs.root, tmp_path / "out", formats="json", metrics="dice").analysis
    (column,) = analysis.main_columns()
    found = {line[1]: line[3:] for line in re.findall(CEILING, " ".join(wording.context(column)))}
    means = {label: mean.value for label, mean in column.means.items()}
    share = 100 * (means["m1"] - means[BASELINE]) / (means[READER] - means[BASELINE])
    assert share > 100
    assert found == {READER: ("m1", f"{share:.0f}", BASELINE, READER), "worse": ("", "", "", "")}
