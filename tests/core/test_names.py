"""Case ids: any text is refused or stays inside its folder."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.core.errors import SegbenchError
from segbench.core.names import case_path, is_safe_case

GOOD = [
    "BraTS-GLI-00012-000",
    "hippocampus_001",
    "a",
    "AIIB23_96",
    "s0011",
    "1.2.840.10008",
    "x" * 128,
    "con1",
    "auxiliary",
]
BAD = [
    "", ".", "..", "a..b", "../a", "a/b", "a\\b", "/a", "C:a", "-a", "_a", ".a", "a b", "a\0b", "a\n",
    "\u00e4", "a:b", "a*", "x" * 129,
    "con", "NUL", "com1", "Lpt9", "aux.nii", "prn.a.b", "a.", "\u202ea", "a\u0301",
]  # fmt: skip


@pytest.mark.parametrize("case", GOOD)
def test_good(case, tmp_path):
    assert is_safe_case(case)
    assert case_path(tmp_path, case, ".nii.gz") == tmp_path / f"{case}.nii.gz"


@pytest.mark.parametrize("case", BAD)
def test_bad(case, tmp_path):
    assert not is_safe_case(case)
    with pytest.raises(SegbenchError) as caught:
        case_path(tmp_path, case, ".nii.gz")
    assert caught.value.code == "SB339"


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=140), st.from_regex(r"[A-Za-z0-9._/\\:-]{0,20}", fullmatch=True)))
def test_any_text_is_refused_or_stays_inside(case):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            path = case_path(folder, case, ".nii.gz")
        except SegbenchError as error:
            assert error.code == "SB339"
            return
        assert path.resolve().parent == folder.resolve()
        assert re.fullmatch(r"[A-Za-z0-9._-]+", path.name)
        path.write_bytes(b"")
        assert [p.name for p in folder.iterdir()] == [path.name]


def test_a_link_that_leads_elsewhere(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.nii").symlink_to(tmp_path / "elsewhere.nii")
    (tmp_path / "elsewhere.nii").write_bytes(b"")
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "b.nii").symlink_to(tmp_path / "out" / "b.nii")
    with pytest.raises(SegbenchError):
        case_path(tmp_path / "in", "b", ".nii")
