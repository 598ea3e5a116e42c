"""Runs cells in forked processes, each with a fault of its own: a whole run in a second instead of five.

A process that has imported everything and computed nothing forks for each request; the child runs
`segbench cell` as the command does, with the fault set as if SEGBENCH_FAULT had been read at its start.
One JSON line in ({folder, cache, fault, limit}), one JSON line out ({code, said}).
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

from segbench.cli.common import guarded
from segbench.cli.run import cell
from segbench.core import console, faults

ROOMS = ("runs", "data", "engine", "networks", "metrics", "volumes", "stats", "profiling", "records")
PIPE_BYTES = 2**20  # more than any cell says


def import_all() -> None:
    """Import what a cell would import, once; nothing is computed, so that forking stays safe."""
    import segbench

    for room in ROOMS:
        for found in walk_packages([f"{segbench.__path__[0]}/{room}"], f"segbench.{room}."):
            with suppress(ImportError):  # extras that are not installed
                import_module(found.name)
    for name in (
        "torch._dynamo",
        "torch.utils.flop_counter",
        "torch.testing",
        "monai.networks.nets",
        "scipy.stats",
    ):
        import_module(name)


def child(request: dict[str, object], said: int) -> None:
    """Never returns: runs the cell and ends this process with the command's exit status."""
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.environ["SEGBENCH_CACHE"] = str(request["cache"])
    fault = str(request.get("fault") or "")
    os.environ["SEGBENCH_FAULT"] = fault
    faults._plan = faults._parse(fault)
    if request.get("limit"):  # a file may not grow beyond this: the system's own "disk full"
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(str(request["limit"])),) * 2)
    console.output.progress = False
    code = guarded(lambda: cell(Path(str(request["folder"]))))
    if fault.startswith("count:"):
        faults._write_totals()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    import_all()
    for line in sys.stdin:
        # A pipe, because a limit on the size of files would cut what is said into one.
        reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        pid = os.fork()
        if pid == 0:
            child(json.loads(line), writer)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.close(writer)
        os.set_blocking(reader, False)  # what the child left running may still hold the other end
        with open(reader, "rb") as said:
            text = (said.read() or b"").decode(errors="replace")
        print(json.dumps({"code": code, "said": text}), flush=True)


if __name__ == "__main__":
    main()
