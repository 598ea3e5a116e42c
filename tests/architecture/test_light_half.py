"""The light commands work with torch uninstalled, and `--help` starts fast."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

BLOCKED = textwrap.dedent(
    """
    import sys
    class Block:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in {blocked}:
                raise ModuleNotFoundError(name)
    sys.meta_path.insert(0, Block())
    sys.argv = {argv}
    from segbench.cli.main import entry_point
    entry_point()
    """
)


def run_blocked(argv: list[str], blocked: set[str]) -> subprocess.CompletedProcess[str]:
    code = BLOCKED.format(blocked=repr(blocked), argv=repr(["segbench", *argv]))
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.ci
@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["list", "models"],
        ["list", "datasets"],
        ["list", "metrics"],
        ["list", "protocols"],
        ["show", "model:segmamba-v2"],
        ["show", "dataset:brats2023-gli"],
        ["show", "protocol:standard"],
        ["show", "error:SB204"],
        ["show", "config"],
        ["evaluate", "--help"],
        ["compare", "--help"],
        ["report", "--help"],
        ["status", "--help"],
    ],
    ids=" ".join,
)
def test_light_commands_never_need_torch(argv: list[str]) -> None:
    done = run_blocked(argv, {"torch", "monai"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_help_needs_neither_pandas_nor_numpy() -> None:
    done = run_blocked(
        ["run", "--help"], {"torch", "monai", "pandas", "numpy", "scipy", "numba", "matplotlib"}
    )
    assert done.returncode == 0, done.stderr
    assert "--model" in done.stdout
