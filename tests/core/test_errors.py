"""The catalogue, the printed form of an error, and errors that cross process borders."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import pytest

from segbench.core.console import emit_json, render_error
from segbench.core.errors import CATALOGUE, BackendUnavailable, SegbenchError, unknown_name
from segbench.core.text import printable

EXITS = {0, 1, 2, 3, 4, 5, 7}


@pytest.mark.parametrize("code", sorted(CATALOGUE))
def test_every_entry_is_complete(code: str) -> None:
    entry = CATALOGUE[code]
    assert re.fullmatch(r"SB[1-7]\d\d", code)
    assert entry.exit_code in EXITS
    assert all(len(text) > 3 for text in (entry.title, entry.explanation, entry.mend, entry.example))
    assert SegbenchError(code, entry.example).exit_code == entry.exit_code


def test_an_error_says_what_where_and_how_to_mend() -> None:
    error = SegbenchError(
        "SB204", "prediction is cut short", path="p/x.nii.gz", case="x", expected="10 bytes", found="4 bytes",
        details=["scored as a failure"],
    )  # fmt: skip
    assert render_error(error).splitlines() == [
        "error[SB204]: prediction is cut short",
        "  --> p/x.nii.gz   (case x)",
        "  expected: 10 bytes",
        "  found: 4 bytes",
        "  scored as a failure",
        "  fix: write the file again, or stop at the first with --on-error stop",
    ]


def test_unknown_names_suggest() -> None:
    error = unknown_name(
        "model", "segmamba2", ["nnunet", "segmamba-v2", "segmamba"], listing="segbench list models"
    )
    text = render_error(error)
    assert text.startswith("error[SB101]: no model called 'segmamba2'\n  did you mean ")
    assert "segmamba-v2" in text
    assert "all: segbench list models" in text
    assert text.endswith("your own cards: --cards DIR or SEGBENCH_CARDS")


@pytest.mark.parametrize(
    "error",
    [
        SegbenchError(
            "SB214", "shape", path=Path("a"), case="c", expected=(1, 2), found=(3, 4), details=["d"]
        ),
        BackendUnavailable("no triton", details=["why"]),
    ],
)
def test_errors_survive_a_worker_pool(error: SegbenchError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert again.as_dict() == error.as_dict()


def test_terminals_are_safe_from_names() -> None:
    assert printable("a\x1b[31mb\u202ec") == "a\\x1b[31mb\\x202ec"


def test_json_holds_nothing_that_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    """Escape sequences, C1 controls, DEL and marks of direction; what is read back is what was said."""
    value = {"name": "a\x1b[31m\x9b31m\x7f\u202egnp\u2066\ufeff ü 中 \U0001f600"}
    emit_json(value)
    shown = capsys.readouterr().out
    assert json.loads(shown) == value
    assert all(character.isprintable() or character == "\n" for character in shown)
    assert "ü 中 \U0001f600" in shown
