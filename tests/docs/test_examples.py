"""The examples are true: Python files run, shell and container files are linted, their commands exist."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import preloaded
import pytest
from test_documentation import fault_of

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
SHELL = [*sorted(EXAMPLES.glob("*.sbatch")), ROOT / "tests" / "slurm" / "install.sh"]
INSTRUCTIONS = {"FROM", "ARG", "ENV", "RUN", "COPY", "USER", "WORKDIR", "VOLUME", "ENTRYPOINT", "CMD"}


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SEGBENCH_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return preloaded.run(*arguments, cwd=cwd, env=environment)


@pytest.mark.ci
def test_compare_two_models(tmp_path: Path) -> None:
    done = run(str(EXAMPLES / "compare_two_models.py"), "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("complete") == 2
    assert re.search(r"mean-atlas\s+anterior\s+0\.\d", done.stdout)
    assert (tmp_path / "out" / "report" / "report.html").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_score_arrays(tmp_path: Path) -> None:
    done = run(str(EXAMPLES / "score_arrays.py"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # 12 slices against 12, 11 in common: 2 * 11 / 24
    assert "whole  Dice 0.917  HD95 3.0 mm" in done.stdout


def test_judge_a_claim(tmp_path: Path) -> None:
    done = run(str(EXAMPLES / "judge_a_claim.py"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("not supported") == 3


def test_every_example_is_in_the_index() -> None:
    index = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES.iterdir():
        if path.is_file() and path.name != "README.md":
            assert f"]({path.name})" in index


@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.name)
def test_shell_files_parse_and_lint(path: Path) -> None:
    shell = path.read_text(encoding="utf-8").splitlines()[0].rpartition("/")[2]
    parsed = subprocess.run([shell, "-n", str(path)], capture_output=True, text=True, check=False)
    assert parsed.returncode == 0, parsed.stderr
    if shutil.which("shellcheck"):
        lint = subprocess.run(["shellcheck", str(path)], capture_output=True, text=True, check=False)
        assert lint.returncode == 0, lint.stdout
    assert re.search(r"^set -e", path.read_text(encoding="utf-8"), flags=re.MULTILINE)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.sbatch")), ids=lambda path: path.name)
def test_batch_files_name_options_of_sbatch(path: Path) -> None:
    known = {
        "job-name",
        "time",
        "cpus-per-task",
        "mem",
        "output",
        "gres",
        "signal",
        "requeue",
        "array",
        "partition",
    }
    options = re.findall(r"^#SBATCH --([a-z-]+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert options and set(options) <= known
    assert path.read_text(encoding="utf-8").index("#SBATCH") < path.read_text(encoding="utf-8").index(
        "set -e"
    )


@pytest.mark.parametrize("name", ["slurm_driver.sbatch", "slurm_array.sbatch", "Dockerfile"])
def test_their_commands_can_be_typed(name: str) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [re.sub(r"^\s*#\s*", "", line) for line in text.splitlines()]
    found = [line for line in lines if re.match(r"(segbench|docker run .* segbench) ", line)]
    assert found
    for line in found:
        words = shlex.split(line.partition(">")[0])
        words = words[len(words) - words[::-1].index("segbench") :]
        assert fault_of(words) is None, line


def test_the_dockerfile(tmp_path: Path) -> None:
    path = EXAMPLES / "Dockerfile"
    text = path.read_text(encoding="utf-8")
    if shutil.which("hadolint"):
        lint = subprocess.run(["hadolint", str(path)], capture_output=True, text=True, check=False)
        assert lint.returncode == 0, lint.stdout
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    assert {line.split()[0] for line in lines} <= INSTRUCTIONS
    base = next(line for line in lines if line.startswith("FROM")).split()[1]
    assert ":" in base and not base.endswith(":latest")
    assert lines.index(next(line for line in lines if line.startswith("USER"))) < len(lines) - 1
    assert not any(line.split()[1] in {"root", "0"} for line in lines if line.startswith("USER"))
    for line in lines:
        if line.startswith("COPY"):
            assert (ROOT / line.split()[1]).exists(), line
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {".git", "results/runs", ".venv"} <= set(ignored)  # neither history nor results of a machine go in
