"""Where things are and what machine this is: folders, threads, versions, hardware. No torch."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

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


def physical_cores() -> int:
    """Cores this process may use, hyper-threads counted once where the system tells."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return usable
    pairs = set(re.findall(r"physical id\s*:\s*(\d+).*?core id\s*:\s*(\d+)", text, flags=re.DOTALL))
    return max(1, min(usable, len(pairs) or usable))


def thread_count() -> int:
    """Threads for compute (`SEGBENCH_THREADS`, else the physical cores)."""
    named = os.environ.get("SEGBENCH_THREADS", "")
    return max(1, int(named)) if named.isdigit() else physical_cores()


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
    """Commit and dirtiness of the checkout that holds `folder`, or None outside of one."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments],
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
