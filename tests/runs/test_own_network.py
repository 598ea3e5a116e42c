"""A network of one's own is tried at the cell's patch where that is small, and its fault has a class."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from segbench.core.errors import SegbenchError
from segbench.runs import build
from segbench.runs.runner import failure_class


@pytest.mark.parametrize(("patch", "tried"), [((32, 48, 32), (32, 48, 32)), ((128, 128, 128), None)])
def test_it_is_tried_at_the_patch_of_the_cell(
    patch: tuple[int, int, int], tried: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    asked: list[object] = []

    def check(model: str, *, patch: object, **_: object) -> Any:
        asked.append(patch)
        return SimpleNamespace(raise_faults=lambda: None)

    monkeypatch.setattr("segbench.networks.check.check_network", check)
    cell: Any = SimpleNamespace(
        trains=True, code=SimpleNamespace(digest="x"), folder=tmp_path, code_loaded=True,
        network_arguments={"in_channels": 1, "out_channels": 2}, model=SimpleNamespace(slug="mine"),
        protocol=SimpleNamespace(patch=SimpleNamespace(size=patch)),
    )  # fmt: skip
    build.check_own_network(cell)
    assert asked == [tried]


def test_the_fault_of_a_network_is_no_defect_of_segbench() -> None:
    assert failure_class(SegbenchError("SB110", "gives probabilities")) == "network"
