"""How a cell whose ranks ended badly says why: the cause, not the ranks that were left alone by it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from segbench.core.errors import SegbenchError
from segbench.core.interrupt import Interrupted, StopRequest
from segbench.runs.ranks import _left_alone, _outcome

LEFT = {"left_alone": "[gloo/transport/tcp/pair.cc] Connection closed by peer"}


def context() -> Any:
    return SimpleNamespace(warnings=[], stop=StopRequest())


def test_facts_and_warnings_of_rank_0_are_the_cells() -> None:
    own = context()
    facts = _outcome(own, 0, [{"facts": {"a": 1}, "warnings": ["w"]}, {"facts": {}, "warnings": []}])
    assert facts == {"a": 1}
    assert own.warnings == ["w"]


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_rank_is_named_although_the_other_complains(killed: int) -> None:
    endings: list[dict[str, Any] | None] = [LEFT, LEFT]
    endings[killed] = None
    with pytest.raises(SegbenchError) as caught:
        _outcome(context(), 3, endings)
    assert caught.value.code == "SB503"
    assert f"rank {killed} of 2" in caught.value.message


def test_the_error_of_any_rank_is_the_cells() -> None:
    error = SegbenchError("SB504", "out of memory on cuda", details=("peak allocated 23.6",))
    with pytest.raises(SegbenchError) as caught:
        _outcome(context(), 3, [LEFT, {"error": error.as_dict()}])
    assert caught.value.code == "SB504"
    assert caught.value.details == error.details


def test_a_stop_is_a_stop_whatever_the_others_met() -> None:
    with pytest.raises(Interrupted) as caught:
        _outcome(context(), 3, [{"interrupted": 143}, {"bug": "ValueError: x"}])
    assert caught.value.exit_code == 143


def test_a_defect_stays_one() -> None:
    with pytest.raises(RuntimeError, match="rank 1: ValueError"):
        _outcome(context(), 3, [LEFT, {"bug": "ValueError: x"}])
    assert _left_alone(RuntimeError("[../gloo/transport/tcp/pair.cc:525] Read error"))
    assert not _left_alone(RuntimeError("shapes differ"))
