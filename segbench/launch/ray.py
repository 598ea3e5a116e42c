"""Ray for several hosts without a scheduler: one task per cell on a shared file system. Ray core only.

A detached actor (the keeper, one per results folder) owns the tasks, so that cells go on when the command
that started them ends; the next command finds the keeper and looks on. Ray starts a task again when its node
is lost (`max_retries=-1`); the cell then takes the lease over and resumes.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from segbench.core.errors import BackendUnavailable
from segbench.launch.base import UNLIMITED, Job, Need
from segbench.launch.command import CellCommand, cell_command, run_when_free

NAMESPACE = "segbench"
_HEAD = "node:__internal_head__"  # the keeper stands where the cluster itself does: lost only with it
_PATIENCE_S = 60.0


def _ray() -> Any:
    """The package `ray`; this module has the same last name, so it is asked for by a function."""
    return import_module("ray")


def run_task(command: CellCommand) -> int:
    """The body of a task: the cell as a child process; its exit status."""
    ray = _ray()
    context = ray.get_runtime_context()
    node = f"{socket.gethostname()}/{context.get_node_id()[:8]}"
    return run_when_free(command, launcher="ray", job=str(context.get_task_id()), node=node)


class Keeper:
    """Owns the tasks of one results folder; runs inside Ray as a detached actor."""

    def __init__(self) -> None:
        self._tasks: dict[str, Any] = {}
        self._ended: dict[str, tuple[str, int | None]] = {}

    def start(self, command: CellCommand, resources: dict[str, Any]) -> str:
        """Start a cell unless it runs already; its name."""
        name = Path(command.folder).name
        if name not in self._tasks:
            self._ended.pop(name, None)
            # max_retries counts lost workers and nodes; a cell that fails by itself returns its exit status
            task = _ray().remote(run_task).options(max_retries=-1, retry_exceptions=False, **resources)
            self._tasks[name] = task.remote(command)
        return name

    def look(self) -> dict[str, tuple[str, int | None]]:
        """Phase (or the reason of a loss) and exit status by name."""
        ray = _ray()
        if self._tasks:
            by_ref = {ref: name for name, ref in self._tasks.items()}
            ready, _ = ray.wait(list(by_ref), num_returns=len(by_ref), timeout=0)
            for ref in ready:
                name = by_ref[ref]
                del self._tasks[name]
                try:
                    self._ended[name] = ("done", int(ray.get(ref)))
                except ray.exceptions.RayError as error:
                    self._ended[name] = (f"lost: {type(error).__name__}", None)
        return {**dict.fromkeys(self._tasks, ("running", None)), **self._ended}

    def stop(self, names: Sequence[str]) -> None:
        """Take the tasks back; a cell notices that its worker is gone, writes a checkpoint and ends."""
        for name in names:
            if name in self._tasks:
                _ray().cancel(self._tasks[name], force=True)


class RayLauncher:
    """Tasks on a Ray cluster.

    Args:
        results: Folder of runs, on a disk that all nodes see.
        address: Of the cluster; None: `RAY_ADDRESS`, else the one of this machine, else one is started here.
        slots: Cells at a time; None: as many as the cluster has room for.
        arguments: Further arguments of `segbench cell`.

    Raises:
        BackendUnavailable: SB502 when ray is not installed or the cluster does not answer.
    """

    name = "ray"
    detached = True
    poll_s = 1.0

    def __init__(
        self,
        results: Path,
        *,
        address: str | None = None,
        slots: int | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        try:
            ray = _ray()
        except ImportError as error:
            raise BackendUnavailable(
                "--launcher ray needs ray, which is not installed",
                mend="pip install 'segbench[ray]', or use --launcher local",
            ) from error
        # Nothing is reported to anyone, and a task without GPUs keeps the GPUs it sees.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self._ray = ray
        self._arguments = tuple(arguments)
        self.slots = slots or UNLIMITED
        try:
            if not ray.is_initialized():
                ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise BackendUnavailable(
                f"no Ray cluster answers at {address or 'the usual place'}",
                mend="start one with ray start --head, or give its --ray-address",
                details=[str(error).splitlines()[0]] if str(error) else [],
            ) from error
        digest = hashlib.sha256(str(results.resolve()).encode()).hexdigest()[:12]
        keeper = ray.remote(Keeper).options(
            name=f"segbench-{digest}", namespace=NAMESPACE, lifetime="detached", get_if_exists=True,
            num_cpus=0, max_restarts=-1, resources={_HEAD: 0.001},
        )  # fmt: skip
        self._keeper = keeper.remote()

    def start(self, cells: Sequence[Path], need: Need) -> list[Job]:
        """Hand the cells to the keeper."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if need.gpus and not any(node.get("GPU", 0) >= need.gpus for node in nodes):
            raise BackendUnavailable(
                f"no node of the Ray cluster has {need.gpus} GPU(s)", mend="--device cpu"
            )
        widest = max((node.get("CPU", 0) for node in nodes), default=0)
        resources: dict[str, Any] = {"num_cpus": min(need.cores, widest or 1), "num_gpus": need.gpus}
        commands = [cell_command(folder, self._arguments, threads=need.threads) for folder in cells]
        names = [self._ask("start", command, resources) for command in commands]
        return [Job(folder, name) for folder, name in zip(cells, names, strict=True)]

    def poll(self, jobs: Sequence[Job]) -> list[Job]:
        """What the keeper knows of each cell."""
        known: dict[str, tuple[str, int | None]] | None = self._ask("look")
        if known is None:
            return [job.now("pending", "the cluster does not answer") for job in jobs]
        unknown = ("lost: the keeper was restarted", None)
        return [_looked_at(job, *known.get(job.name, unknown)) for job in jobs]

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Take the jobs back; running cells write a checkpoint and end."""
        self._ask("stop", [job.name for job in jobs])

    def _ask(self, method: str, *arguments: Any) -> Any:
        """The keeper's answer; None when it gave none for a minute (it is being moved, the network is down).

        A keeper that was restarted knows nothing of its cells; they are then lost, and started again.
        """
        errors = self._ray.exceptions
        end = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return self._ray.get(getattr(self._keeper, method).remote(*arguments), timeout=_PATIENCE_S)
            except (errors.RayActorError, errors.GetTimeoutError) as error:
                if time.monotonic() < end:
                    time.sleep(self.poll_s)
                elif method == "look":
                    return None
                else:
                    raise BackendUnavailable(
                        "the Ray cluster does not answer", details=[str(error).splitlines()[0]]
                    ) from error


def _looked_at(job: Job, word: str, code: int | None) -> Job:
    """The job as the keeper tells of it."""
    if code is not None and code < 0:
        return job.ended(code)
    if word in {"running", "done"}:
        return job.now("running" if word == "running" else "done", exit_code=code)
    return job.now("lost", word.removeprefix("lost: "), code)
