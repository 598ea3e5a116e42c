"""The public names, light to import, each where the documentation says."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.ci
def test_names_resolve_and_the_package_is_light() -> None:
    code = (
        "import sys, segbench; assert 'torch' not in sys.modules and 'numpy' not in sys.modules;"
        "[getattr(segbench, name) for name in segbench.__all__ if name != 'build_network'];"
        "assert callable(segbench.report) and callable(segbench.run) and segbench.report.build_report;"
        "assert 'torch' not in sys.modules, 'only build_network may need torch'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
