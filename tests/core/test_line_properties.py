"""Line files under any damage: a whole prefix of what was written, or SB602; never an invented record."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.core.atomic import append_line, read_lines
from segbench.core.errors import SegbenchError

VALUES = st.one_of(
    st.text(max_size=20), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.none()
)
RECORDS = st.lists(
    st.dictionaries(st.text(min_size=1, max_size=8), VALUES, min_size=1, max_size=3), max_size=6
)


@pytest.mark.ci
@settings(max_examples=80, deadline=None, derandomize=True)
@given(records=RECORDS, cut=st.floats(0, 1))
def test_a_cut_file_gives_a_prefix_and_can_be_written_on(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, object]], cut: float
) -> None:
    path = tmp_path_factory.mktemp("lines") / "x.jsonl"
    for record in records:
        append_line(path, record)
    assert read_lines(path) == records
    if not records:
        return
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data))])
    told: list[str] = []
    kept = read_lines(path, repair=True, warn=told.append)
    assert kept == records[: len(kept)]
    torn = path.read_bytes() != data[: int(cut * len(data))]
    assert bool(told) == torn
    append_line(path, {"next": 1})
    assert read_lines(path) == [*kept, {"next": 1}]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(records=RECORDS, place=st.floats(0, 0.999), new=st.integers(0, 255))
def test_one_changed_byte_never_invents_or_loses_a_middle_line_in_silence(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, object]], place: float, new: int
) -> None:
    path = tmp_path_factory.mktemp("lines") / "x.jsonl"
    for record in records:
        append_line(path, record)
    if not records:
        return
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] = new
    path.write_bytes(bytes(data))
    try:
        found = read_lines(path)
    except SegbenchError as error:
        assert (error.code, error.exit_code, error.path) == ("SB602", 4, path)
        assert "line " in error.message
        return
    assert sum(record not in records for record in found) <= 2
    assert len(found) >= len(records) - 2


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_lines_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("lines") / "x.jsonl"
    path.write_bytes(data)
    try:
        assert all(isinstance(record, dict) for record in read_lines(path))
    except SegbenchError as error:
        assert error.code == "SB602"
