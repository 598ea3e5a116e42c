"""report.html: one offline file, a first screen and folded parts, safe against names, opened in a browser."""

from __future__ import annotations

import base64
import gzip
import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segbench.report import build_report
from segbench.report.analysis.analysis import Analysis, analyse
from segbench.report.analysis.findings import gathered
from segbench.report.analysis.options import make_options
from segbench.report.analysis.published_beside import beside_sentence, published_beside
from segbench.report.analysis.sentences import context, verdicts
from segbench.report.write import page as page_module
from segbench.report.write.viewer import nifti_bytes, viewer_code

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CSP = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src data: blob:; worker-src blob:"
)
QUICK = {"resamples": 100, "published": False, "format": "html", "metrics": "dice,hd95"}


class Reader(html.parser.HTMLParser):
    """Elements with their attributes, the text of scripts, and the rows of every table by its figure's id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._open: list[str] = []
        self._table = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements.append((tag, found))
        if tag == "figure" and found.get("class") == "table":
            self._table = str(found["id"])
            self.tables[self._table] = []
        if tag in {"script", "th", "td"}:
            self._open.append(tag)
        if tag == "tr" and self._table:
            self.tables[self._table].append([])
        if tag in {"th", "td"}:
            self.tables[self._table][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts.append(data)
        elif self._open:
            self.tables[self._table][-1][-1] += data


def write_nifti(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(nifti_bytes(array, (2.0, 1.0, 1.0)), mtime=0))


def with_volumes(runs: Any, root: Path, *, cases: int = 5) -> None:
    """Runs whose volumes lie on disk: a ball, predicted with a shift that grows by the case."""
    grid = np.indices((12, 28, 28))
    for number in range(cases):
        name = f"case-0{number:03d}.nii.gz"
        ball = sum((axis - centre) ** 2 for axis, centre in zip(grid, (6, 14, 14), strict=True)) < 30
        write_nifti(root / "ref" / name, (ball * (1 + (grid[2] > 14))).astype(np.uint8))
        for shift, model in ((1, "alpha"), (3, "beta")):
            moved = np.roll(ball, shift + number % 3, axis=2)
            write_nifti(root / model / name, (moved * (1 + (grid[2] > 14))).astype(np.uint8))
    for model, skill in (("alpha", 0.9), ("beta", 0.7)):
        external = {"prediction": str(root / model), "reference": str(root / "ref")}
        how = {"cases": cases, "skill": skill, "regions": ("A", "B"), "dataset": "balls"}
        runs.run(model, record={"external": external}, **how)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, factory_at: Any) -> Path:
    root = tmp_path_factory.mktemp("page")
    runs = factory_at(root / "runs")
    with_volumes(runs, root)
    build_report(runs.root, root / "out", **QUICK)
    return root / "out" / "report.html"


@pytest.fixture
def no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the figure out of pages that are not about it: drawing takes most of the time."""
    monkeypatch.setattr(page_module, "figure_files", lambda _: (None, {}))


def written(analysis: Analysis) -> tuple[str, Reader]:
    text = str(page_module.files(analysis)["report.html"])
    return text, Reader(text)


def analysed(runs: Any, **options: Any) -> Analysis:
    chosen = {"resamples": 100, "metrics": "dice,hd95", **options}
    return analyse([runs.root], make_options(**chosen))


@pytest.mark.ci
def test_no_outside_address(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    reader = Reader(text)
    assert f'content="{CSP}"' in text
    for tag, attributes in reader.elements:
        for name in ("src", "href", "data", "action", "srcset", "poster", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert tag not in {"link", "iframe", "object", "embed", "base", "form"}
    assert not re.search(r"https?://|//cdn|url\((?!#)|@import", text)
    own = [script for script in reader.scripts if "use strict" in script]
    assert len(own) == 2
    forbidden = r"\beval\(|new Function|fetch\(|XMLHttpRequest|WebSocket"
    assert not any(re.search(forbidden, script) for script in own)
    assert len(next(script for script in own if "aria-sort" in script)) < 3000


def test_the_first_screen_comes_before_what_is_folded(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    reader = Reader(text)
    ids = [str(found["id"]) for _, found in reader.elements if found.get("id")]
    assert len(ids) == len(set(ids))
    order = ["verdict", "figure-1", "scores", "table-scores-1", "findings", "pairs", "secondary", "worst"]
    assert [name for name in ids if name in order] == order
    folded = [found for tag, found in reader.elements if tag == "details" and found.get("id")]
    assert not any("open" in found for found in folded)
    printed = {str(found["id"]) for found in folded if found.get("class") == "printed"}
    assert {"pairs", "method"} <= printed
    assert not printed & {"worst", "licences", "provenance"}
    assert text.index("<h1>") < text.index("<h2") < text.index("<h3>")
    for tag, found in reader.elements:
        assert tag != "img" or found.get("alt")
        assert tag != "svg" or (found.get("role") == "img" and found.get("aria-label"))
    assert 'lang="en"' in text


def test_dark_print_and_narrow_screens_are_cared_for(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert 'name="viewport"' in text
    picture = text[text.index("<svg") : text.index("</svg>")]
    assert "var(--ink)" in picture
    assert "var(--model)" in picture
    assert "#1b1b1b" not in picture
    for figure in re.findall(r'<figure class="table".*?</figure>', text, re.DOTALL):
        assert figure.index("<figcaption") < figure.index('class="scroll"')  # the caption does not scroll
        assert "<caption" not in figure


def contrast(one: str, two: str) -> float:
    """Ratio of the luminances of two colours.

    **Source:** WCAG 2.2, relative luminance and contrast ratio.
    """

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((luminance(one), luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_every_text_colour_can_be_read_on_its_ground(page: Path) -> None:
    css = page.read_text(encoding="utf-8")
    themes = [
        dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", part)) for part in re.findall(r":root \{.*?\}", css)
    ]
    assert len(themes) == 2
    for theme in themes:
        for name in ("ink", "soft", "link", "model", "reference", "error", "warn", "info"):
            for ground in ("paper", "tint"):
                assert contrast(theme[name], theme[ground]) >= 4.5, (name, ground, theme[name])


def test_what_is_called_better_is_what_the_columns_call_better(runs: Any, no_figure: None) -> None:
    for place, model in enumerate(("alpha", "beta", "gamma", "delta")):
        for seed in range(3):
            runs.run(model, seed=seed, cases=12, skill=0.6 + 0.05 * place, run_noise=0.004)
    for reference in ("beta", "none"):
        analysis = analysed(runs, reference=reference)
        text, reader = written(analysis)
        for number, metric in enumerate(analysis.metrics):
            column = analysis.main_columns(metric)[0]
            name = "table-pairs" if number == 0 else f"table-pairs-{number}"
            rows = reader.tables[name][1:]
            shown = {
                row[0] if reference == "beta" else (row[0], row[1]) for row in rows if row[-1] == "better"
            }
            better = [pair for pair in column.comparisons if pair.verdict == "better"]
            assert shown == {pair.a if reference == "beta" else (pair.a, pair.b) for pair in better}
            assert better or reference == "none"
            starred = {
                row[0]
                for row in reader.tables["table-scores-1"]
                if len(row) > 5 and "*" in row[column_place(reader, number)]
            }
            assert starred == ({pair.a for pair in better} if reference == "beta" else set())
        verdict = text[text.index('id="verdict"') : text.index('id="scores"')]
        claimed = "ignificantly better" in verdict
        assert claimed == any(pair.verdict == "better" for pair in analysis.main_columns()[0].comparisons)


def column_place(reader: Reader, metric: int) -> int:
    """Where the mean of a metric stands in Table 1."""
    heads = reader.tables["table-scores-1"][1]
    return [place for place, head in enumerate(heads) if head == "mean"][metric]


def test_each_finding_stands_once(runs: Any, no_figure: None) -> None:
    for number in range(5):
        rows = runs.rows("alpha", dataset=f"set{number}", cases=4, regions=("A",))
        lost = {"status": "missing", "dice": "", "hd95": "", "nsd": ""}
        runs.write([row | (lost if row is rows[number % 4] else {}) for row in rows])
    analysis = analysed(runs)
    text, _ = written(analysis)
    for item in gathered(analysis.findings):
        assert text.count(item.message) == 1, item.code
    assert "1 more of missing-cases" in text
    assert 'id="table-failed"' in text


def test_ranks_and_seeds_only_where_seeds_are(runs: Any, no_figure: None) -> None:
    runs.run("alpha", cases=8)
    runs.run("beta", cases=8, skill=0.7)
    _, one = written(analysed(runs))
    assert not any(name.startswith(("table-ranks", "table-seeds")) for name in one.tables)
    runs.run("alpha", cases=8, seed=1)
    runs.run("beta", cases=8, skill=0.7, seed=1)
    analysis = analysed(runs)
    _, two = written(analysis)
    column = analysis.main_columns()[0]
    seeds = {row[0]: row[1:3] for row in two.tables["table-seeds-0"][1:]}
    for label, mean in column.means.items():
        assert seeds[label] == [f"{100 * (value or 0):.2f}" for _, value in mean.per_seed]
    assert column.ranks is not None
    best = {row[0]: float(row[3]) for row in two.tables["table-ranks-0"][1:]}
    expected = dict(zip(column.order, column.ranks.probability_best.tolist(), strict=True))
    assert best == {label: round(value, 2) for label, value in expected.items()}


def test_several_datasets_show_verdicts_first_and_fold_what_stands_behind_them(
    runs: Any, no_figure: None
) -> None:
    for dataset in ("one", "two"):
        for place, model in enumerate(("alpha", "beta", "gamma")):
            for seed in range(3):
                skill = 0.7 + 0.05 * place
                runs.run(model, dataset=dataset, seed=seed, cases=12, skill=skill, run_noise=0.004)
    analysis = analysed(runs)
    text, _ = written(analysis)
    first, folded = text[: text.index('id="scores"')], text[text.index('id="regions"') :]
    for column in analysis.main_columns():
        assert verdicts(column)[0].split(" points")[0].replace("-", "\N{MINUS SIGN}") in first
        for sentence in context(column):
            words = re.split(r" \(p|difference of", sentence)[0]
            assert words in folded
            assert words not in first


def test_published_numbers_are_one_folded_list(runs: Any, no_figure: None) -> None:
    runs.run("segmamba-v2", dataset="brats2023-gli", cases=6)
    analysis = analysed(runs)
    text, _ = written(analysis)
    folded = text[text.index('<details id="published">') :]
    folded = folded[: folded.index("</details>")]
    said = [beside_sentence(row) for row in published_beside(analysis)]
    assert said
    for sentence in said:
        assert re.sub(r"(?<![\w.])-(?=\d)", "\N{MINUS SIGN}", sentence) in html.unescape(folded)


def test_hostile_names_stay_text(runs: Any, no_figure: None) -> None:
    names = [
        "<script>alert(1)</script>",
        "</script><img src=x onerror=alert(1)>",
        '"><b>',
        "a&amp;b",
        "{{ 7 * 7 }}",
        "\N{RIGHT-TO-LEFT OVERRIDE}x",
    ]
    for place, name in enumerate(names):
        runs.run(name, cases=6, skill=0.6 + 0.05 * place, dataset="<i>&data", regions=("A&B", "C<D"))
    analysis = analysed(runs)
    assert len(analysis.entries) == len(names)
    text, reader = written(analysis)
    assert "<script>alert" not in text
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in text
    assert "{{ 7 * 7 }}" in text
    assert not [found for tag, found in reader.elements if tag == "img" or found.get("src") == "x"]
    assert not {tag for tag, _ in reader.elements} & {"i", "iframe"}
    assert all(not script.startswith("alert") for script in reader.scripts)


def test_without_volumes_the_page_says_so(runs: Any, no_figure: None) -> None:
    runs.run("alpha", cases=4)
    text, reader = written(analysed(runs))
    assert "not stored with them" in text
    assert not any(len(script) > 100_000 for script in reader.scripts)
    assert 'data-viewer="fallback"' in text
    assert 'id="licences"' not in text


def test_the_viewer_data_can_be_read_back(page: Path) -> None:
    reader = Reader(page.read_text(encoding="utf-8"))
    data = json.loads(next(script for script in reader.scripts if script.lstrip().startswith("{")))
    assert 1 <= len(data["items"]) <= 6
    models = [item["title"].split(",")[0] for item in data["items"]]
    assert max(models.count(name) for name in models) <= 3
    volume = gzip.decompress(base64.b64decode(data["items"][0]["mask"]))
    assert volume[344:347] == b"n+1"
    assert set(np.frombuffer(volume[352:], dtype=np.uint8).tolist()) == {0, 1, 2, 3}
    code = next(script for script in reader.scripts if len(script) > 500_000)
    assert b"niivue" in gzip.decompress(base64.b64decode(code))[:500]


def test_nifti_bytes_are_read_by_nibabel() -> None:
    import nibabel as nib

    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    image = nib.Nifti1Image.from_bytes(nifti_bytes(array, (5.0, 2.0, 1.0)))
    assert np.array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), array)
    assert image.header.get_zooms() == (1.0, 2.0, 5.0)


@pytest.mark.ci
def test_cases_are_dropped_before_the_page_grows_too_large(page: Path, no_figure: None) -> None:
    runs = page.parent.parent / "runs"
    options = {"resamples": 100, "metrics": "dice,hd95"}
    whole, _ = written(analyse([runs], make_options(**options)))
    small, _ = written(analyse([runs], make_options(max_size=len(whole.encode()) - 3000, **options)))
    assert len(small.encode()) <= len(whole.encode()) - 3000
    assert "worst cases left out" in small
    assert 'id="case-0"' in small


def test_a_changed_viewer_asset_gives_pictures(
    monkeypatch: pytest.MonkeyPatch, no_figure: None, page: Path
) -> None:
    code, problem = viewer_code()
    assert (bool(code), problem) == (True, "")
    changed = type("Changed", (), {"hexdigest": lambda self: "0" * 64})
    monkeypatch.setattr("hashlib.sha256", lambda data: changed())
    found = viewer_code()
    monkeypatch.undo()
    assert found[0] == ""
    monkeypatch.setattr(page_module, "figure_files", lambda _: (None, {}))
    monkeypatch.setattr(page_module, "viewer_code", lambda: found)
    runs = page.parent.parent / "runs"
    text, reader = written(analyse([runs], make_options(resamples=100, metrics="dice")))
    assert "SB706" in text
    assert 'id="viewer-code"' not in text
    images = [found for tag, found in reader.elements if tag == "img"]
    assert len(images) == 6
    links = [found["href"] for tag, found in reader.elements if tag == "a"]
    assert links == [f"#case-{place}" for place in range(6)]


def test_the_same_records_give_the_same_bytes(page: Path) -> None:
    again = page.parent.parent / "again"
    result = build_report(page.parent.parent / "runs", again, **QUICK)
    for path in result.files:
        assert path.read_bytes() == (page.parent / path.relative_to(again)).read_bytes()
    assert (again / "figures" / "models.pdf") in result.files


@pytest.mark.ci
def test_ten_models_on_four_datasets_stay_below_three_megabytes(runs: Any) -> None:
    for dataset in ("one", "two", "three", "four"):
        for place in range(10):
            runs.run(
                f"model-{place}", dataset=dataset, cases=12, skill=0.5 + 0.04 * place, regions=("A", "B")
            )
    text, _ = written(analysed(runs, viewer="none"))
    assert len(text.encode()) < 3_000_000


def browse(address: str, profile: Path, *, budget: int = 20_000) -> tuple[str, str]:
    """The page's markup after its scripts have run, and what went to the console."""
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--use-angle=swiftshader",
            "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist", "--enable-logging=stderr",
            f"--user-data-dir={profile}", f"--virtual-time-budget={budget}", "--dump-dom", address,
        ],
        capture_output=True, text=True, errors="replace", check=False, timeout=180,
    )  # fmt: skip
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.ci
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_opens_it_without_a_word_on_the_console(page: Path, tmp_path: Path) -> None:
    markup, console = browse(page.as_uri(), tmp_path)
    assert 'data-ready="1"' in markup[:300]
    assert 'data-viewer="idle"' in markup[:300]
    assert console == ""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.slow
def test_the_browser_draws_the_case_named_in_the_address(page: Path, tmp_path: Path) -> None:
    markup, console = browse(page.as_uri() + "#viewer=1", tmp_path, budget=60_000)
    assert 'data-viewer="ready"' in markup[:300], console
    assert 'data-viewer-case="1"' in markup[:300]
    assert re.search(r'<details id="worst"[^>]* open', markup)
    assert console == ""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.slow
def test_a_click_sorts_a_table(page: Path, tmp_path: Path) -> None:
    """The page with one line added that clicks twice on a head: rows change order."""
    text = page.read_text(encoding="utf-8")
    click = "document.querySelector('#table-scores-1 tr.leaf th').click();"
    changed = tmp_path / "clicked.html"
    changed.write_text(text.replace("</body>", f"<script>{click}{click}</script></body>"), encoding="utf-8")
    markup, console = browse(changed.as_uri(), tmp_path / "profile")
    rows = [row[0] for row in Reader(markup).tables["table-scores-1"] if len(row) > 5]
    assert rows[-2:] == ["beta", "alpha"]
    assert 'aria-sort="descending"' in markup
    assert console == ""
