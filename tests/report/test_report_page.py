"""report.html: no outside address, readable without script, safe against names, and opened in a real
browser.
"""

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
from segbench.report.viewer import nifti_bytes, viewer_code

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CSP = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src data: blob:; worker-src blob:"
)
QUICK = {"resamples": 200, "published": False, "format": "html,json", "metrics": "dice,hd95"}


class Reader(html.parser.HTMLParser):
    """Elements with their attributes, and the text of the scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in_script = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._in_script = self._in_script and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts.append(data)


def read(path: Path) -> tuple[str, Reader]:
    text = path.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    return text, reader


def write_nifti(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(nifti_bytes(array, (2.0, 1.0, 1.0)), mtime=0))


def with_volumes(runs: Any, root: Path, *, cases: int = 5) -> None:
    """Runs whose predictions and references lie on disk: a ball, predicted with a shift that grows by
    the case.
    """
    grid = np.indices((12, 28, 28))
    for number in range(cases):
        ball = sum((axis - centre) ** 2 for axis, centre in zip(grid, (6, 14, 14), strict=True)) < 30
        write_nifti(
            root / "ref" / f"case-0{number:03d}.nii.gz", (ball * (1 + (grid[2] > 14))).astype(np.uint8)
        )
        for shift, model in ((1, "alpha"), (3, "beta")):
            moved = np.roll(ball, shift + number % 3, axis=2)
            write_nifti(
                root / model / f"case-0{number:03d}.nii.gz", (moved * (1 + (grid[2] > 14))).astype(np.uint8)
            )
    for model, skill in (("alpha", 0.9), ("beta", 0.7)):
        external = {"prediction": str(root / model), "reference": str(root / "ref")}
        runs.run(
            model,
            cases=cases,
            skill=skill,
            regions=("A", "B"),
            dataset="balls",
            record={"external": external},
        )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, factory_at: Any) -> Path:
    root = tmp_path_factory.mktemp("page")
    runs = factory_at(root / "runs")
    with_volumes(runs, root)
    build_report(runs.root, root / "out", **QUICK)
    return root / "out" / "report.html"


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the figures out of pages that are not about them: drawing takes most of the time."""
    monkeypatch.setattr("segbench.report.figures.draw_figures", lambda *_: ([], []))


def test_no_outside_address(page: Path) -> None:
    text, reader = read(page)
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
    assert not any(
        re.search(r"\beval\(|new Function|fetch\(|XMLHttpRequest|WebSocket", script) for script in own
    )
    sorting = next(script for script in own if "aria-sort" in script)
    assert len(sorting) < 3000


def test_letters_are_drawn_once_for_all_figures_and_every_reference_has_its_aim(page: Path) -> None:
    text, reader = read(page)
    ids = [found["id"] for _, found in reader.elements if found.get("id")]
    assert len(ids) == len(set(ids))
    aims = {found["href"] for tag, found in reader.elements if tag == "use" and found.get("href")}
    assert {str(aim).removeprefix("#") for aim in aims} <= set(ids)
    assert sum(str(aim).startswith("#glyph") for aim in aims) > 20
    assert "DejaVuSans-" not in text
    outlines = re.findall(r'<path id="glyph\d+" d="([^"]+)"', text)
    assert len(outlines) == len(set(outlines)) > 20


def test_every_table_stands_in_the_markup(page: Path) -> None:
    text, reader = read(page)
    assert 'lang="en"' in text
    ids = [str(attributes["id"]) for _, attributes in reader.elements if attributes.get("id")]
    assert sorted({name for name in ids if ids.count(name) > 1}) == []
    sections = [attributes["id"] for tag, attributes in reader.elements if tag == "section"]
    order = [
        "findings",
        "compared",
        "main",
        "pairwise",
        "stability",
        "subgroups",
        "worst",
        "missing",
        "method",
    ]
    assert sections == order
    for name in (
        "table-main",
        "table-main-hd95",
        "table-tab-pairwise-balls-external-mean-dice",
        "table-missing",
    ):
        assert name in ids
    images = [attributes for tag, attributes in reader.elements if tag == "img"]
    assert images
    assert all(attributes.get("alt") for attributes in images)
    drawings = [attributes for tag, attributes in reader.elements if tag == "svg"]
    assert drawings
    assert all(attributes.get("role") == "img" and attributes.get("aria-label") for attributes in drawings)


def test_the_viewer_data_can_be_read_back(page: Path) -> None:
    _, reader = read(page)
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


def test_hostile_names_stay_text(runs: Any, no_figures: None, tmp_path: Path) -> None:
    names = [
        "<script>alert(1)</script>",
        "</script><img src=x onerror=alert(1)>",
        '"><b>',
        "a&amp;b",
        "\N{RIGHT-TO-LEFT OVERRIDE}x",
    ]
    for place, name in enumerate(names):
        runs.run(name, cases=6, skill=0.6 + 0.05 * place, dataset="<i>&data", regions=("A&B", "C<D"))
    build_report(runs.root, tmp_path / "out", **QUICK)
    text, reader = read(tmp_path / "out" / "report.html")
    assert "<script>alert" not in text
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in text
    tags = {tag for tag, _ in reader.elements}
    assert "img" not in {tag for tag, a in reader.elements if a.get("src") == "x"}
    assert not tags & {"i", "iframe"}
    assert all(not script.startswith("alert") for script in reader.scripts)


def test_without_volumes_the_page_says_so(runs: Any, no_figures: None, tmp_path: Path) -> None:
    runs.run("alpha", cases=4)
    build_report(runs.root, tmp_path / "out", **QUICK)
    text, reader = read(tmp_path / "out" / "report.html")
    assert "not stored with them" in text
    assert not any(len(script) > 100_000 for script in reader.scripts)


def test_cases_are_dropped_before_the_page_grows_too_large(
    page: Path, no_figures: None, tmp_path: Path
) -> None:
    build_report(page.parent.parent / "runs", tmp_path / "whole", **QUICK)
    whole = (tmp_path / "whole" / "report.html").stat().st_size
    small = build_report(page.parent.parent / "runs", tmp_path / "out", max_size=whole - 3000, **QUICK)
    written = tmp_path / "out" / "report.html"
    assert written.stat().st_size <= whole - 3000
    assert any("worst cases left out" in item["reason"] for item in small.document["skipped"])
    assert "worst cases left out" in written.read_text()


def test_all_cases_lie_beside_the_page(page: Path, no_figures: None, tmp_path: Path) -> None:
    build_report(page.parent.parent / "runs", tmp_path / "out", viewer="all", **QUICK)
    text = (tmp_path / "out" / "report.html").read_text()
    assert "not self-contained" in text
    beside = sorted((tmp_path / "out" / "cases").glob("*.html"))
    assert len(beside) == 10
    assert f"cases/{beside[0].name}" in text
    assert "niivue" not in beside[0].name
    assert 'id="viewer-code"' in beside[0].read_text()


def test_a_changed_viewer_asset_gives_pictures(
    monkeypatch: pytest.MonkeyPatch, page: Path, tmp_path: Path
) -> None:
    code, problem = viewer_code()
    assert (bool(code), problem) == (True, "")
    monkeypatch.setattr("hashlib.sha256", lambda data: type("H", (), {"hexdigest": lambda self: "0" * 64})())
    assert viewer_code()[0] == ""
    monkeypatch.undo()
    monkeypatch.setattr("segbench.report.figures.draw_figures", lambda *_: ([], []))
    monkeypatch.setattr(
        "segbench.report.page.viewer_code", lambda: ("", "SB706: the viewer asset was changed")
    )
    result = build_report(page.parent.parent / "runs", tmp_path / "out", **QUICK)
    text = (tmp_path / "out" / "report.html").read_text()
    assert "SB706" in text
    assert 'id="viewer-code"' not in text
    assert text.count("data:image/png") >= 6
    assert result.exit_code == 0


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
    assert console == ""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.slow
def test_a_click_sorts_a_table(page: Path, tmp_path: Path) -> None:
    """The page with one line added that clicks on a head: rows change order, the count line stays."""
    text = page.read_text()
    click = (
        '<script>document.querySelector("#table-main tr.leaf th").click();'
        'document.querySelector("#table-main tr.leaf th").click();</script></body>'
    )
    changed = tmp_path / "clicked.html"
    changed.write_text(text.replace("</body>", click))
    markup, console = browse(changed.as_uri(), tmp_path / "profile")
    table = markup[markup.index('id="table-main"') :]
    rows = re.findall(r'<th scope="row">([^<]*)', table[: table.index("</table>")])
    assert rows == ["n", "beta", "alpha"]
    assert 'aria-sort="descending"' in table
    assert console == ""
