"""`segbench doctor --metrics`: passes here, fails when the engine is wrong, says what it left out."""

import json
import types

import pytest

from segbench.metrics import selfcheck
from segbench.metrics.engine import _native, _plain
from segbench.metrics.engine.measure import Measurement


@pytest.fixture(autouse=True)
def few_pairs(monkeypatch):
    monkeypatch.setattr(selfcheck, "PAIRS", 6)
    monkeypatch.setattr(selfcheck, "TIMED_SHAPE", (10, 12, 12))


def without(monkeypatch, *names):
    def absent():
        raise ImportError("not installed")

    for name in names:
        monkeypatch.setitem(selfcheck.PEERS, name, absent)


def test_it_passes_here(monkeypatch):
    without(monkeypatch, "monai")
    check = selfcheck.run_selfcheck()
    assert check.ok
    document = json.loads(json.dumps(check.as_dict(), allow_nan=False))
    assert document["ok"] is True
    against = {entry["against"] for entry in document["comparisons"]}
    assert {"the plain engine", "medpy"} <= against
    assert document["kernels"] in ("from the cache", "compiled")
    assert "monai" in document["left_out"]
    assert {"ours", "the plain engine", "medpy"} == set(document["timings_s"])
    assert all(len(row) == 3 for row in check.rows)
    assert ("monai", "left out", "cannot be imported: not installed") in check.rows


def test_a_wrong_engine_is_found(monkeypatch):
    without(monkeypatch, "monai", "medpy")

    def off_by_a_bit(*arguments, **options):
        found = _native.measure(*arguments, **options)
        return {
            name: Measurement(m.counts, m.d1 * (1 + 2**-52) if m.d1 is not None else None, m.d2)
            for name, m in found.items()
        }

    wrong = types.SimpleNamespace(measure=off_by_a_bit)
    monkeypatch.setattr(selfcheck, "_native_engine", lambda: (wrong, "compiled"))
    check = selfcheck.run_selfcheck()
    assert not check.ok
    assert any(state == "FAILED" for _, state, _ in check.rows)


def test_without_numba_the_plain_engine_is_checked(monkeypatch):
    without(monkeypatch, "monai")
    monkeypatch.setenv("SEGBENCH_NO_NUMBA", "1")
    check = selfcheck.run_selfcheck()
    assert check.ok
    assert "native engine" in check.left_out
    assert {entry["against"] for entry in check.comparisons} >= {"medpy"}


def test_golden_cases_hold_for_both_engines():
    for engine in (_native, _plain):
        score = selfcheck.engine_scores(engine)
        for _, reference, prediction, spacing, tolerance, expected in selfcheck.golden_cases():
            found = score(reference, prediction, spacing, tolerance)
            for metric, value in expected.items():
                assert found[metric] == pytest.approx(value, abs=1e-12)
