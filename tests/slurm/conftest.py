"""A real Slurm of one node for the tests: slurmctld and slurmd in a temporary folder, ended by process id.

Needs root and the packages slurmctld, slurmd, slurm-client, slurm-wlm-basic-plugins (Debian: see
tests/slurm/install.sh); no systemd, no munge, no accounting. Skipped with the reason elsewhere.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "launch"))

from launch_matrix import launch_data, reference

__all__ = ["launch_data", "reference", "slurm"]
BINARIES = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "srun", "scontrol", "sinfo")

CONF = """
ClusterName=segbench
SlurmctldHost={host}
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/d.pid
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/d.log
ReturnToService=2
JobRequeue=1
KillWait=30
MinJobAge=10
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=p Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why no Slurm can be started here, or an empty string."""
    absent = [name for name in BINARIES if shutil.which(name) is None]
    if absent:
        return f"Slurm is not installed ({', '.join(absent)} absent; see tests/slurm/install.sh)"
    if os.geteuid() != 0:
        return "a Slurm of one's own needs root"
    return ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a running one-node Slurm; SLURM_CONF points to it."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    conf = folder / "slurm.conf"
    text = CONF.format(
        host=socket.gethostname(),
        folder=folder,
        cpus=os.cpu_count(),
        ctld_port=free_port(),
        slurmd_port=free_port(),
    )
    conf.write_text(text)
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    daemons = [
        subprocess.Popen([name, "-D", "-f", str(conf)], env=environment, stdout=log, stderr=log)
        for name in ("slurmctld", "slurmd")
        for log in [(folder / f"{name}.out").open("w")]
    ]
    os.environ["SLURM_CONF"] = str(conf)
    try:
        end = time.monotonic() + 60
        while "idle" not in _output(["sinfo", "--noheader", "--format=%T"]):
            if time.monotonic() > end or any(daemon.poll() is not None for daemon in daemons):
                logs = "\n".join(log.read_text()[-2000:] for log in sorted(folder.glob("*.log")))
                pytest.fail(f"Slurm did not come up:\n{logs}")
            time.sleep(0.5)
        yield folder
    finally:
        subprocess.run(["scancel", "--user", "root"], check=False, capture_output=True, timeout=30)
        time.sleep(1)
        del os.environ["SLURM_CONF"]
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout
