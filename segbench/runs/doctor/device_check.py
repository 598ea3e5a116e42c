"""The proofs of `segbench doctor --device`: what a device must show before anyone trains on it.

Each row says what was found and what was expected; a CPU has those rows that it can fail too.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch

from segbench.core.text import bytes_words
from segbench.engine.device import choose_device, prepare_device
from segbench.engine.memory import is_out_of_memory
from segbench.runs.doctor.arithmetic import (
    TF32_LIMIT,
    Finding,
    bf16,
    convolution,
    cudnn_pays,
    fast_scan,
    networks_step,
    scan_agrees,
    without_tf32,
)
from segbench.runs.doctor.training import idle_share, input_path, lost_rank, repeats, training_memory

__all__ = ["check_device"]


def check_device(name: str) -> list[Finding]:
    """Everything that is looked at on a device, in order.

    Raises:
        BackendUnavailable: SB502 when the device is not there.
    """
    device = choose_device(name)
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else "processor"
    prepare_device(device, level="none", tf32=True)  # as a training by the default protocol
    checks = cuda_checks(device) if device.type == "cuda" else _cpu_checks(device)
    return [Finding("device", device.type, named), *(_tried(what, check) for what, check in checks.items())]


def cuda_checks(device: torch.device) -> dict[str, Callable[[], Finding]]:
    """The rows of an accelerator, in order."""
    return {
        "build": lambda: _build(device),
        "memory": lambda: _memory(device),
        "conv3d": lambda: convolution(device, "conv3d", TF32_LIMIT),
        "float32": lambda: without_tf32(device),
        "dilated conv3d": lambda: convolution(device, "dilated conv3d", TF32_LIMIT, dilation=2, bias=True),
        "wide conv3d": lambda: convolution(device, "wide conv3d", TF32_LIMIT, channels=48, edge=40),
        "fp16": lambda: convolution(device, "fp16", 1e-2, precision="fp16"),
        "bf16": lambda: bf16(device),
        "cuDNN": lambda: cudnn_pays(device, "cuDNN", enabled=False),
        "cudnn.benchmark": lambda: cudnn_pays(device, "cudnn.benchmark", benchmark=False),
        "scan": lambda: fast_scan(device),
        "scan float32": lambda: scan_agrees(device, torch.float32, 1e-5),
        "scan fp16": lambda: scan_agrees(device, torch.float16, 4e-3),
        "scan bf16": lambda: scan_agrees(device, torch.bfloat16, 2e-2),
        "networks": lambda: networks_step(device),
        "input path": lambda: input_path(device),
        "idle": lambda: idle_share(device),
        "training memory": lambda: training_memory(device),
        "out of memory": lambda: _out_of_memory(device),
        "energy": _energy,
        "several GPUs": _nccl,
        "lost rank": lambda: lost_rank(device),
        "determinism": lambda: repeats(device),
    }


def _cpu_checks(device: torch.device) -> dict[str, Callable[[], Finding]]:
    """Those that a CPU can fail too, at sizes for it."""
    small = {"length": 200, "channels": 32}
    return {
        "conv3d": lambda: convolution(device, "conv3d", TF32_LIMIT),
        "dilated conv3d": lambda: convolution(device, "dilated conv3d", TF32_LIMIT, dilation=2, bias=True),
        "scan float32": lambda: scan_agrees(device, torch.float32, 1e-5, **small),
        "input path": lambda: input_path(device),
        "out of memory": lambda: _out_of_memory(device),
        "determinism": lambda: repeats(device),
    }


def _tried(what: str, check: Callable[[], Finding]) -> Finding:
    """What a check found; one that fails to run is a finding too."""
    try:
        return check()
    except Exception as error:  # whatever a driver or a library raises: it is what the user must see
        return Finding(what, "FAILS", f"{type(error).__name__}: {error}".splitlines()[0], ok=False)


def _build(device: torch.device) -> Finding:
    major, minor = torch.cuda.get_device_capability(device)
    made_for = torch.cuda.get_arch_list()
    fits = [kind for kind in made_for if kind.startswith(f"sm_{major}") or kind == f"compute_{major}{minor}"]
    told = (
        f"compute capability {major}.{minor}; torch {torch.__version__} with CUDA {torch.version.cuda} and "
        f"cuDNN {torch.backends.cudnn.version()} was built for {', '.join(made_for)}"
    )
    advice = "" if fits else "; install a torch build for an older CUDA (for a V100: cu126)"
    return Finding("build", "fits" if fits else "DOES NOT FIT", told + advice, bool(fits))


def _memory(device: torch.device) -> Finding:
    free, total = torch.cuda.mem_get_info(device)
    share = free / total
    mig = ", a MIG slice" if "MIG" in torch.cuda.get_device_name(device) else ""
    told = f"{bytes_words(free)} of {bytes_words(total)} free{mig}, expected at least 80 %"
    return Finding("memory", "free" if share >= 0.8 else "SHARED", told, share >= 0.8)


def _out_of_memory(device: torch.device) -> Finding:
    """Asking for more than there is must end as SB504, not as an unknown error."""
    try:
        torch.empty(2**50, dtype=torch.uint8, device=device)
    except Exception as error:
        known = is_out_of_memory(error)
        state = "known" if known else "UNKNOWN"
        return Finding("out of memory", state, f"{type(error).__name__}, expected to be SB504", known)
    return Finding("out of memory", "NOT RAISED", "a petabyte was allocated", ok=False)


def _energy() -> Finding:
    there = find_spec("pynvml") is not None
    told = "read from the driver's counter" if there else "not recorded: pip install nvidia-ml-py"
    return Finding("energy", "recorded" if there else "absent", told)


def _nccl() -> Finding:
    count = torch.cuda.device_count()
    if not torch.distributed.is_available() or not torch.distributed.is_nccl_available():
        return Finding("several GPUs", "no NCCL", "--gpus-per-cell 1 only", ok=count < 2)
    from torch.cuda import nccl

    version = ".".join(map(str, nccl.version()))
    return Finding("several GPUs", "NCCL", f"version {version}, {count} GPUs here")
