"""Names of others on a terminal: they stay in their cell and on their line, and command nothing."""

from __future__ import annotations

import pytest

from segbench.core import console
from segbench.core.errors import SegbenchError


@pytest.mark.parametrize(
    "name", ["a\nerror[SB999]: not ours", "a\r\x1b[2Jb", "a\tb", "a\u2028b\u202ec", "a\x85b"]
)
def test_a_name_stays_in_its_cell_and_on_its_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for line in console.table_lines(["name", "n"], [[name, "1"], ["b", "2"]]):
        console.emit(line)
    error = SegbenchError("SB104", "told", path=name, case=name, found=name, details=[name], mend="see there")
    console.fail(error)
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert len(err.splitlines()) == 5  # message, place, found, detail, mend
    assert all(character.isprintable() for character in (out + err).replace("\n", ""))
    assert "error[SB999]" not in [line[:12] for line in err.splitlines()]
