"""Where things are and what machine this is: folders, threads, versions, hardware. No torch."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

THREADS = "SEGBENCH_THREADS"
MOST_THREADS = 4
"""Threads of a cell when `SEGBENCH_THREADS` does not say: a worker may be smaller than this machine."""
BLAS_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""What the libraries below numpy and torch read when a process begins."""
PACKAGES = (
    "torch", "monai", "numpy", "scipy", "pandas", "matplotlib", "nibabel", "numba", "blosc2", "safetensors",
    "mamba-ssm", "triton", "medpy",
)  # fmt: skip


def cache_dir() -> Path:
    """The folder for everything derived that can be made again (`SEGBENCH_CACHE`, else the user's cache)."""
    named = os.environ.get("SEGBENCH_CACHE")
    if named:
        return Path(named).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "segbench"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", str(Path.home()))) / "segbench" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))) / "segbench"


def data_dir(flag: Path | str | None = None) -> Path:
    """The folder that holds the datasets (flag, else `SEGBENCH_DATA`, else ./data)."""
    return Path(flag or os.environ.get("SEGBENCH_DATA") or "data").expanduser()


def results_dir(flag: Path | str | None = None) -> Path:
    """The folder of runs (flag, else `SEGBENCH_RESULTS`, else ./results/runs)."""
    return Path(flag or os.environ.get("SEGBENCH_RESULTS") or Path("results") / "runs").expanduser()


def usable_cores() -> int:
    """Cores this process may use, hyper-threads counted each."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def physical_cores() -> int:
    """Cores this process may use, hyper-threads counted once where the system tells."""
    usable = usable_cores()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return usable
    pairs = set(re.findall(r"physical id\s*:\s*(\d+).*?core id\s*:\s*(\d+)", text, flags=re.DOTALL))
    return max(1, min(usable, len(pairs) or usable))


def named_threads() -> int | None:
    """What `SEGBENCH_THREADS` says; None where it says no number."""
    named = os.environ.get(THREADS, "")
    return max(1, int(named)) if named.isdigit() else None


def thread_count() -> int:
    """Threads for compute (`SEGBENCH_THREADS`, else the physical cores)."""
    return named_threads() or physical_cores()


def planned_threads() -> int:
    """Threads of a cell that is planned now, the same whatever launcher starts it and wherever it runs."""
    return named_threads() or min(physical_cores(), MOST_THREADS)


@contextmanager
def with_threads(count: int) -> Generator[None]:
    """Let `thread_count` say this number inside the block, here and in the processes begun there."""
    before = os.environ.get(THREADS)
    os.environ[THREADS] = str(count)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(THREADS, None)
        else:
            os.environ[THREADS] = before


def threads_note(count: int) -> str | None:
    """What to say where `count` planned threads cannot run as planned; None where they can."""
    limit = os.environ.get("OMP_THREAD_LIMIT", "").strip()
    if limit.isdigit() and int(limit) < count:
        return (
            f"planned with {count} threads, OMP_THREAD_LIMIT={limit} lowers them here: sums round otherwise"
        )
    if os.environ.get("OMP_DYNAMIC", "").strip().lower() == "true" and count > usable_cores():
        return f"planned with {count} threads, OMP_DYNAMIC=true lowers them here: sums round otherwise"
    if count > usable_cores():
        here = f"{usable_cores()} core{'s' * (usable_cores() > 1)}"
        return f"planned with {count} threads, {here} here: kept, so that sums round alike, but slower"
    return None


def versions() -> dict[str, str]:
    """Versions of segbench, Python and the packages that can change a number; absent ones are left out."""
    found = {"python": platform.python_version()}
    for package in ("segbench", *PACKAGES):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, object]:
    """Processor, cores, memory and system, without the host's or the user's name."""
    return {
        "cpu": _cpu_name(),
        "cores": physical_cores(),
        "memory_bytes": memory_bytes(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def memory_bytes() -> int | None:
    """Physical memory in bytes, or None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def git_state(folder: Path) -> dict[str, object] | None:
    """Commit and dirtiness of the checkout that holds `folder`, or None outside of one.

    Git takes no lock for it: a look at the state must not block the user's own `git commit`.
    """

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "--no-optional-locks", "-C", str(folder), *arguments],
                capture_output=True,
                text=True,
                timeout=10,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return None
    changes = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": bool(changes)}


def now() -> str:
    """The time in UTC to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def tilde(path: Path | str) -> str:
    """A path for records and messages, the home folder replaced by `~`."""
    text, home = str(path), str(Path.home())
    return "~" + text[len(home) :] if text == home or text.startswith(home + os.sep) else text


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or "unknown"
    match = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return match.group(1).strip() if match else (platform.processor() or "unknown")
