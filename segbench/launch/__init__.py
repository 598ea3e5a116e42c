"""Ways to start cells: on this machine, under Slurm, on a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segbench.core.errors import SegbenchError
from segbench.launch.base import Job, Launcher, Need

__all__ = ["LAUNCHERS", "Job", "Launcher", "LauncherChoice", "Need", "open_launcher"]

LAUNCHERS = ("local", "slurm", "ray")


@dataclass(frozen=True, slots=True)
class LauncherChoice:
    """What the command's launcher flags say.

    Attributes:
        name: local, slurm or ray.
        max_parallel: Cells at a time, None for the launcher's own word.
        retries: Starts in a row without progress after which a lost cell is given up.
        wait: Wait for cells that other processes hold.
        slurm: `KEY=VALUE` lines for sbatch.
        ray_address: Address of the Ray cluster.
    """

    name: str = "local"
    max_parallel: int | None = None
    retries: int = 3
    wait: bool = False
    slurm: tuple[str, ...] = ()
    ray_address: str | None = None

    def check(self) -> None:
        """Raise SB104 for flags that do not go together."""
        if self.name not in LAUNCHERS:
            raise SegbenchError(
                "SB104",
                f"--launcher {self.name}: no such launcher",
                expected=", ".join(LAUNCHERS),
                found=self.name,
            )
        for flag, given, owner in (
            ("--slurm", bool(self.slurm), "slurm"),
            ("--ray-address", self.ray_address is not None, "ray"),
        ):
            if given and self.name != owner:
                raise SegbenchError(
                    "SB104", f"{flag} belongs to --launcher {owner}", found=f"--launcher {self.name}"
                )


def open_launcher(
    choice: LauncherChoice, results: Path, *, gpus: int = 0, arguments: Sequence[str] = ()
) -> Launcher:
    """The launcher that was asked for.

    Args:
        choice: The flags.
        results: Folder of runs.
        gpus: GPUs that one cell wants (the local launcher shares out the ones there are).
        arguments: Further arguments of `segbench cell`.

    Raises:
        SegbenchError: SB104 for flags that do not go together; SB502 when an extra or a cluster is absent.
    """
    choice.check()
    if choice.name == "slurm":
        from segbench.launch.slurm import SlurmLauncher

        return SlurmLauncher(
            results,
            slots=choice.max_parallel,
            retries=choice.retries,
            options=choice.slurm,
            arguments=arguments,
        )
    if choice.name == "ray":
        from segbench.launch.ray import RayLauncher

        return RayLauncher(
            results, address=choice.ray_address, slots=choice.max_parallel, arguments=arguments
        )
    from segbench.launch.local import LocalLauncher

    return LocalLauncher(slots=choice.max_parallel, gpus=gpus, arguments=arguments)
