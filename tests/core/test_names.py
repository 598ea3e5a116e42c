"""Case ids: any text is refused or stays inside its folder."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.core.names import is_safe_case

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
    "case 000",
    "case(001)",
    "case+002",
    "case,004",
    "f\u00e4ll_003",
    "fa\u0308ll_003",
    "\u75c5\u4f8b005",
    "\u0441\u043b\u0443\u0447\u0430\u0439_1",
    "\u092e\u0930\u0940\u091c\u093c 7",
    "\u062d\u0627\u0644\u0629-9",
    "\u75c5" * 66,
]
BAD = [
    "", ".", "..", "a..b", "../a", "a/b", "a\\b", "/a", "C:a", "-a", "_a", ".a", " a", "a ", "a\0b", "a\n",
    "a\tb", "a\u00a0b", "\u0308a", "a:b", "a|b", "a<b", 'a"b', "a?b", "a%b", "a'b", "a;b", "a\u2044b",
    "\u75c5" * 67, "a*", "a\ud800", "x" * 129,
    "con", "NUL", "com1", "Lpt9", "aux.nii", "prn.a.b", "a.", "a. ", "\u202ea", "a\u202eb", "a\u200bb",
]  # fmt: skip


@pytest.mark.parametrize("case", GOOD)
def test_good(case):
    assert is_safe_case(case)


@pytest.mark.parametrize("case", BAD)
def test_bad(case):
    assert not is_safe_case(case)


@pytest.mark.ci
@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=140), st.from_regex(r"[A-Za-z0-9._/\\:-]{0,20}", fullmatch=True)))
def test_any_text_is_refused_or_stays_inside(case):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not is_safe_case(case):
            return
        path = folder / f"{case}.nii.gz"
        assert path.resolve().parent == folder.resolve()
        assert not re.search(r"[\x00-\x1f\x7f/\\:*?\"<>|%';$`]", path.name)
        assert len(path.name.encode()) <= 255
        path.write_bytes(b"")
        assert [p.name for p in folder.iterdir()] == [path.name]
