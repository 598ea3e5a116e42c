"""Selective scans of a GPU side by side: error, milliseconds, memory of each backend that runs there.

   python benchmarks/scan_cuda.py [--device cuda] [--repeats 20]

The shapes are those of SegMamba-V2's third and fourth stage, forward and backward, as a Mamba block calls it.
Errors are those of output and gradients against the torch backend in float64, inputs rounded alike. Exit 1 if
one is beyond its limit. With `--device cpu` a small shape, to try the script itself.
"""

from __future__ import annotations

import argparse
import sys
import time
from statistics import median

import torch
from torch import Tensor

from segbench.networks.scan import scan_backends_report, selective_scan

SHAPES = {"cuda": [(6, 384, 4096), (6, 768, 512)], "cpu": [(1, 32, 256)]}
LIMITS = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}


def inputs(batch: int, channels: int, length: int, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """u, delta, A, B, C, D, z and bias; tokens token-major and of `dtype`, the rest float32."""
    draw = torch.Generator().manual_seed(0)

    def tokens(size: int) -> Tensor:
        return torch.randn(batch, length, size, generator=draw).to(device, dtype).transpose(1, 2)

    A = -torch.arange(1.0, 17.0, device=device).repeat(channels, 1)
    D, bias = torch.ones(channels, device=device), torch.zeros(channels, device=device)
    return [tokens(channels), tokens(channels) - 3, A, tokens(16), tokens(16), D, tokens(channels), bias]


def passed(tensors: list[Tensor], backend: str) -> list[Tensor]:
    """The output and the gradients of its sum."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    y = selective_scan(*leaves, True, backend=backend)
    return [y.detach(), *torch.autograd.grad(y.sum(), leaves)]


def measured(tensors: list[Tensor], backend: str, repeats: int) -> tuple[float, float | None]:
    """Median milliseconds of a forward and backward pass, and the memory in MiB that it takes at its peak."""
    on_cuda, times = tensors[0].is_cuda, []
    before = torch.cuda.memory_allocated() if on_cuda else 0
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(repeats):
        begin = time.perf_counter()
        passed(tensors, backend)
        if on_cuda:
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - begin))
    return median(times), (torch.cuda.max_memory_allocated() - before) / 2**20 if on_cuda else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=tuple(SHAPES), default="cuda")
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here")
        return 1
    device, wrong = torch.device(options.device), False
    backends = [entry.backend for entry in scan_backends_report(options.device) if entry.probe]
    print(f"{'shape':>16} {'type':>9} {'backend':>10} {'error':>9} {'limit':>7} {'ms':>8} {'MiB':>8}")
    for shape in SHAPES[options.device]:
        for dtype, limit in LIMITS.items():
            tensors = inputs(*shape, dtype, device)
            exact = passed([tensor.double() for tensor in tensors], "torch")
            for backend in (name for name in backends if name != "reference"):
                pairs = zip(passed(tensors, backend), exact, strict=True)
                error = max(float((a.double() - b).abs().max() / b.abs().max()) for a, b in pairs)
                took, memory = measured(tensors, backend, options.repeats)
                wrong |= error > limit
                print(
                    f"{'x'.join(map(str, shape)):>16} {str(dtype)[6:]:>9} {backend:>10} {error:9.1e} {limit:7.0e} "
                    f"{took:8.2f} {'-' if memory is None else f'{memory:.0f}':>8}"
                )
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
