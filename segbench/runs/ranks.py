"""Several processes train one network: what the cell starts, and what each of them does.

The cell holds the lease, runs the other stages, and starts torchrun for the train stage; torchrun starts one
rank per GPU (on a CPU: per process). Each rank reads its share of the global batch; rank 0 writes. Every rank
leaves a JSON file that says how it ended. A stop asked of the cell is passed on; ranks whose cell dies write
a checkpoint and end.

`python -m segbench.runs.ranks start N FOLDER EXCHANGE` is torchrun on this machine alone;
`... rank rank FOLDER EXCHANGE` is one rank of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from segbench.core import console
from segbench.core.atomic import atomic_write_json
from segbench.core.catalogue import ExitCode
from segbench.core.environment import BLAS_VARIABLES, THREADS, thread_count
from segbench.core.errors import BackendUnavailable, SegbenchError
from segbench.core.interrupt import Interrupted, StopRequest
from segbench.launch.command import PARENT, stop_with_parent
from segbench.records.lease import read_lease
from segbench.runs.active import ActiveCell, active_cell
from segbench.runs.build import ending_of
from segbench.runs.cell import Execution

__all__ = ["train_on_ranks"]

GRACE_S = 3600
"""Seconds for ranks to finish a step and write a checkpoint after a stop was asked; 30 before torch 2.12."""
_DIST_TIMEOUT = timedelta(days=7)  # for rank 0's validation; a hang is the watch's business


def train_on_ranks(cell: ActiveCell) -> dict[str, Any]:
    """Train the cell's network on several ranks; gives the facts that rank 0 recorded.

    Raises:
        Interrupted: A stop was asked; the checkpoint is written.
        SegbenchError: What a rank ended with; SB503 when one was killed; SB502 too few devices.
    """
    count = cell.execution.gpus_per_cell
    _check_devices(cell.execution.device, count)
    with tempfile.TemporaryDirectory(prefix="segbench-ranks-") as exchange:
        _write_order(Path(exchange), cell)
        code = _supervise(_start(count, cell.folder, exchange), cell.stop)
        endings = [_ending(Path(exchange), rank) for rank in range(count)]
    return _outcome(cell, code, endings)


def _check_devices(device: str, count: int) -> None:
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device == "cuda" or (device == "auto" and found)) and found < count:
        raise BackendUnavailable(
            f"{count} GPUs per cell were asked for, {found} can be used here", mend="--gpus-per-cell"
        )


def _write_order(exchange: Path, cell: ActiveCell) -> None:
    held = read_lease(cell.folder)
    shown = {
        name: getattr(console.output, name) for name in ("quiet", "verbose", "progress", "color", "json")
    }
    atomic_write_json(
        exchange / "order.json",
        {
            "execution": cell.execution.as_dict(),
            "lease": None if held is None else held.token,
            "inputs_digest": cell.inputs_digest,
            "output": shown,
        },
    )


def _start(count: int, folder: Path, exchange: str) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        **dict.fromkeys((THREADS, *BLAS_VARIABLES), str(max(1, thread_count() // count))),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(GRACE_S),
        "LOGLEVEL": "CRITICAL",  # torchrun's own words; what ranks have to say stands in their files
        PARENT: str(os.getpid()),
    }
    line = [sys.executable, "-m", "segbench.runs.ranks", "start", str(count), str(folder), exchange]
    # A session of its own: Ctrl-C reaches the cell alone, which passes one request on.
    return subprocess.Popen(line, env=environment, start_new_session=True)


def _supervise(torchrun: subprocess.Popen[bytes], stop: StopRequest) -> int:
    asked = False
    try:
        while (code := torchrun.poll()) is None:
            if stop.asked and not asked:
                torchrun.send_signal(signal.SIGTERM)
                asked = True
            time.sleep(0.05)
    except BaseException:
        torchrun.kill()  # its ranks are asked to stop by the system
        torchrun.wait()
        raise
    return code


def _ending(exchange: Path, rank: int) -> dict[str, Any] | None:
    """How a rank says it ended; None when it was killed."""
    try:
        return json.loads((exchange / f"rank-{rank}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _outcome(cell: ActiveCell, code: int, endings: list[dict[str, Any] | None]) -> dict[str, Any]:
    first = endings[0] or {}
    cell.warnings.extend(w for w in first.get("warnings", ()) if w not in cell.warnings)
    if code == 0 and "facts" in first:
        return first["facts"]
    for ending in endings:
        if ending is not None and "error" in ending:
            raise SegbenchError(**ending["error"])
    if cell.stop.asked or any(ending is not None and "interrupted" in ending for ending in endings):
        raise Interrupted(cell.stop.number or signal.SIGTERM)
    for rank, ending in enumerate(endings):
        if ending is not None and "bug" in ending:
            raise RuntimeError(f"rank {rank}: {ending['bug']}")
    gone = [str(rank) for rank, ending in enumerate(endings) if ending is None]
    raise SegbenchError(
        "SB503",
        f"rank {', '.join(gone) or '?'} of {len(endings)} was killed (status {code})",
        mend="see whether the system ran out of memory; the same command goes on from the last checkpoint",
    )


def _torchrun(count: str, folder: str, exchange: str) -> int:
    """Start the ranks and wait for them; what they have to say stands in their files."""
    stop_with_parent()
    os.environ[PARENT] = str(os.getpid())
    from torch.distributed.run import main

    arguments = ["--standalone", "--nproc-per-node", count, "--max-restarts", "0"]
    arguments += ["--local-addr", "127.0.0.1", "-m", "segbench.runs.ranks", "rank", folder, exchange]
    try:
        main(arguments)
    except (Exception, SystemExit):  # a failed rank or a signal; the ranks' own files say which
        return ExitCode.PARTIAL
    return ExitCode.DONE


def _rank(folder: Path, exchange: Path) -> int:
    """Train as one rank, and leave a file that says how it ended."""
    stop_with_parent()
    rank = int(os.environ["RANK"])
    order = json.loads((exchange / "order.json").read_text(encoding="utf-8"))
    console.output = console.Output(**order["output"])
    if rank > 0:
        console.output.progress, console.output.quiet = False, True
    ending: dict[str, Any]
    try:
        ending = _train(folder, order, exchange / f"rank-{rank}.json")
        code = ExitCode.DONE
    except Interrupted as request:
        ending, code = {"interrupted": request.exit_code}, ExitCode.PARTIAL
    except Exception as error:
        ending = {"left_alone": str(error)} if _left_alone(error) else ending_of(error, folder)
        code = ExitCode.INTERNAL if "bug" in ending else ExitCode.PARTIAL
    atomic_write_json(exchange / f"rank-{rank}.json", ending)
    return code


def _left_alone(error: Exception) -> bool:
    """Whether the error only says that another rank is gone; that one's own ending tells why."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())


def _train(folder: Path, order: dict[str, Any], ending: Path) -> dict[str, Any]:
    from segbench.engine.device import choose_device
    from segbench.engine.ranks import Ranks, process_group
    from segbench.records import read_run
    from segbench.runs.prepare import open_prepared
    from segbench.runs.train import train_here

    ranks = Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))

    def check_lease() -> None:
        held = read_lease(folder)
        if order["lease"] is not None and (held is None or held.token != order["lease"]):
            raise SegbenchError("SB605", "another process took this run over", path=folder)

    def hung(error: SegbenchError) -> None:
        atomic_write_json(ending, {"error": error.as_dict()})
        os._exit(ExitCode.PARTIAL)

    with StopRequest() as stop:
        cell = active_cell(read_run(folder), folder, Execution(**order["execution"]), stop, check_lease)
        cell.give_up = hung
        cell.inputs_digest = order["inputs_digest"]
        if not ranks.writes:
            cell.quiet = True
        on_cuda = choose_device(cell.execution.device).type == "cuda"
        with process_group(on_cuda=on_cuda, timeout=_DIST_TIMEOUT):
            facts = train_here(cell, open_prepared(cell), ranks=ranks)
    return {"facts": facts, "warnings": cell.warnings}


def main(arguments: list[str]) -> int:
    """Entry of both kinds of process."""
    if arguments[0] == "start":
        return _torchrun(*arguments[1:])
    return _rank(Path(arguments[1]), Path(arguments[2]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
