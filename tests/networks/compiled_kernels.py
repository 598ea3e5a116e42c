"""Compile Triton kernels for real devices without one, as they are launched, and read what came out.

A launch is recorded in the place of the kernel, with the tensors and numbers of a real call; from these come
the types and the divisibilities that Triton would specialise on.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TYPES = {torch.float64: "*fp64", torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}


@dataclass(frozen=True)
class Launch:
    """One call of a kernel."""

    name: str
    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    constants: dict[str, Any]


@dataclass(frozen=True)
class Compiled:
    """What ptxas says of a kernel, and its PTX."""

    registers: int
    spilled: int
    shared: int
    ptx: str

    def loop_instructions(self) -> list[int]:
        """Instructions in the body of every innermost loop, in the order of the text."""
        labels: dict[str, int] = {}
        jumps: list[tuple[int, str]] = []
        count = 0
        for line in self.ptx.splitlines():
            text = line.strip()
            if label := re.match(r"(\$L__BB\d+_\d+):", text):
                labels[label[1]] = count
            elif re.match(r"(@%?!?%?p\d+ )?[a-z][a-z0-9_.:]* ?.*;", text):
                count += 1
                if jump := re.search(r"bra(?:\.uni)?\s+(\$L__BB\d+_\d+)", text):
                    jumps.append((count, jump[1]))
        loops: dict[int, int] = {}
        for end, label in jumps:
            if labels[label] < end:
                loops[labels[label]] = max(end, loops.get(labels[label], 0))
        return [
            end - start
            for start, end in sorted(loops.items())
            if not any(start < other and stop <= end for other, stop in loops.items())
        ]


def record_launches(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, names: Sequence[str], call: Callable[[], object]
) -> list[Launch]:
    """The launches of a call; nothing is computed, so its results are whatever the memory held."""
    launches: list[Launch] = []

    class Recorder:
        def __init__(self, name: str) -> None:
            self.name, self.kernel = name, getattr(module, name)

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            def launch(*arguments: Any, **constants: Any) -> None:
                launches.append(Launch(self.name, self.kernel, grid, arguments, constants))

            return launch

    with monkeypatch.context() as patch:
        for name in names:
            patch.setattr(module, name, Recorder(name))
        call()
    return launches


def compile_launch(launch: Launch, capability: int, folder: Path) -> Compiled:
    """Compile a recorded launch for a device of that compute capability (90 for 9.0)."""
    options = {name: value for name, value in launch.constants.items() if name not in launch.kernel.arg_names}
    types: dict[str, str] = {}
    places: dict[tuple[int], Any] = {}
    aligned: dict[tuple[int], Any] = {}
    given = dict(zip(launch.kernel.arg_names, launch.arguments, strict=False)) | launch.constants
    for index, name in enumerate(launch.kernel.arg_names):
        value = given[name]
        if isinstance(value, torch.Tensor):
            types[name] = TYPES[value.dtype]
            divisible = value.data_ptr() % 16 == 0
        elif name in launch.constants or value == 1:
            types[name], places[(index,)], divisible = "constexpr", value, False
        elif isinstance(value, float):
            types[name], divisible = "fp32", False
        else:
            types[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            divisible = value % 16 == 0
        if divisible:
            aligned[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=launch.kernel, signature=types, constexprs=places, attrs=aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    said = assemble(compiled.asm["ptx"], capability, folder)
    registers, spills = re.search(r"Used (\d+) registers", said), re.search(r"(\d+) bytes spill stores", said)
    assert registers is not None, said
    return Compiled(
        int(registers[1]), int(spills[1]) if spills else 0, compiled.metadata.shared, compiled.asm["ptx"]
    )


def assemble(ptx: str, capability: int, folder: Path) -> str:
    """What ptxas says of a PTX document."""
    tools = Path(triton.__path__[0]) / "backends" / "nvidia" / "bin"
    ptxas = tools / ("ptxas-blackwell" if capability >= 100 else "ptxas")
    if not ptxas.exists():
        pytest.skip(f"this triton brings no {ptxas.name}")
    source = folder / "kernel.ptx"
    source.write_text(ptx)
    name = f"sm_{capability}{'a' if capability >= 90 else ''}"
    line = [str(ptxas), "-v", f"--gpu-name={name}", str(source), "-o", str(folder / "kernel.cubin")]
    return subprocess.run(line, capture_output=True, text=True, check=True).stderr
