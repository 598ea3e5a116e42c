"""The closing table of `segbench run` shows the metrics of the protocol's profile, each under its name."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from segbench.runs.drive import summary_table

PROFILE = """metrics = {metrics}
headline = {metrics}
empty_policy = "worst"
spacing = "header"
nsd_tolerance = "card"
regions = "card"
geometry = "strict"
"""
HEAD = ["model", "dataset", "fold", "seed", "state", "region", "cases"]


def a_cell(profile: str) -> tuple[Any, None]:
    """A cell that was never started, with this metric profile."""
    cell = SimpleNamespace(
        model=SimpleNamespace(slug="m"), dataset=SimpleNamespace(slug="d", regions={}), fold=0, seed=1,
        protocol=SimpleNamespace(metrics=SimpleNamespace(profile=profile)),
    )  # fmt: skip
    return SimpleNamespace(cell=cell, state="blocked"), None


@pytest.mark.parametrize(
    ("metrics", "titles"),
    [
        (["dice", "hd95", "nsd"], ["Dice", "HD95 mm", "NSD"]),
        (["dice", "iou"], ["Dice"]),
        (["iou", "precision"], ["IoU", "Precision"]),
    ],
)
def test_columns_are_the_metrics_of_the_profile(
    tmp_path: Path, metrics: list[str], titles: list[str]
) -> None:
    profile = tmp_path / "mine.toml"
    profile.write_text(PROFILE.format(metrics=metrics), encoding="utf-8")
    header, rows = summary_table([a_cell(str(profile))])
    assert header == [*HEAD, *titles]
    assert [len(row) for row in rows] == [len(header)]
