"""How much memory one volume may take on this machine."""

from __future__ import annotations

from pathlib import Path

_SHARE = 0.9
"""Share of the memory that is free now which one volume may fill; the rest is left to everything else."""

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_budget() -> int | None:
    """Bytes that one volume may take now, or None where the system does not say.

    The smaller of what the kernel calls available and the container's limit (whole: page cache counts as used
    there although it gives way).
    """
    candidates: list[int] = []
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                candidates.append(int(line.split()[1]) * 1024)
                break
    except (OSError, ValueError):
        pass
    for limit in _CGROUP_LIMITS:
        try:
            candidates.append(int(Path(limit).read_text(encoding="ascii")))
        except (OSError, ValueError):  # absent, or the word "max"
            continue
    return int(_SHARE * min(candidates)) if candidates else None
