"""The page over several datasets when hardly any model was run on all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segbench.report.build import build_report


def test_one_model_in_common_makes_a_page_without_mean_ranks(runs: Any, tmp_path: Path) -> None:
    for name, dataset in (("alpha", "one"), ("beta", "one"), ("alpha", "two"), ("gamma", "two")):
        runs.run(name, dataset=dataset, cases=5)
    found = build_report(runs.root, tmp_path / "out", format="html", metrics="dice", resamples=200)
    across = found.document["cross_dataset"]
    assert across["mean_ranks"] == {} and across["reason"] == "no two models share two datasets"
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "no two models share two datasets" in page
