"""Sliding-window prediction against MONAI's: peak memory and CPU seconds at growing scan length.

    python benchmarks/predict.py [--slices 75,150,300,600] [--plane 192,192] [--patch 64,96,96] [--classes 14]

Same network (a small real U-Net, or one pointwise layer with --pointwise so that everything but windows is
seen), same windows, overlap 0.5, Gaussian weights, one thread, each run in a process of its own. MONAI:
`sliding_window_inference`, then argmax. Ours: `predict_planes`, planes leaving to the exporter. The memory is
the growth of the process over the scan that both are given, taken in a second run in which the allocator
gives freed blocks back at once (else glibc's heap, not the method, decides the number).

Goals (pipeline.md 7): independent of the number of slices but for the label map, <= 0.5 x MONAI at >= 300
slices, time <= 1.15 x.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


def memory_kib(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise SystemExit("this system does not tell a process its memory")


def child(arguments):
    import torch
    from monai.inferers import sliding_window_inference
    from torch import nn

    from segbench.engine.export import PlaneExporter, labels_from_logits
    from segbench.engine.predictor import predict_planes

    torch.set_num_threads(1)
    torch.manual_seed(0)
    if arguments.pointwise:
        network = nn.Conv3d(1, arguments.classes, 1)
    else:
        from monai.networks.nets import UNet

        network = UNet(3, 1, arguments.classes, channels=(8, 16, 32), strides=(2, 2), num_res_units=1)
    network.eval()
    options = {"patch": arguments.patch, "num_outputs": arguments.classes, "overlap": 0.5}

    def ours(image):
        exporter = PlaneExporter(arguments.classes, image.shape[1:], image.shape[1:])
        for part in predict_planes(network, image, **options):
            exporter.push(part)
        return exporter.labels

    def monai(image):
        with torch.inference_mode():
            logits = sliding_window_inference(
                torch.from_numpy(image)[None], arguments.patch, 1, network, overlap=0.5, mode="gaussian"
            )
            return logits[0].argmax(dim=0).to(torch.uint8).numpy()

    run = {"segbench": ours, "monai": monai}[arguments.side]
    # The compiler's memory and seconds are the process's, not the method's: a small case alone compiles nothing.
    labels_from_logits(np.zeros((arguments.classes, 4, 4, 4), dtype=np.float32), (5, 5, 5))
    run(np.zeros((1, *arguments.patch), dtype=np.float32))
    image = np.random.default_rng(0).standard_normal(
        (1, arguments.slices[0], *arguments.plane), dtype=np.float32
    )
    before = memory_kib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    begin = time.process_time()
    labels = run(image)
    seconds = time.process_time() - begin
    growth = memory_kib("VmHWM") - before
    if arguments.out:
        np.save(arguments.out, labels)
    print(json.dumps({"seconds": seconds, "growth": growth * 1024, "labels": labels.nbytes}))


def run(side, slices, arguments, **environment):
    command = [
        sys.executable, __file__, "--side", side, "--slices", str(slices),
        "--plane", ",".join(map(str, arguments.plane)), "--patch", ",".join(map(str, arguments.patch)),
        "--classes", str(arguments.classes), *(["--pointwise"] if arguments.pointwise else []),
    ]  # fmt: skip
    done = subprocess.run(
        command, stdout=subprocess.PIPE, env={**os.environ, **THREADS, **environment}, check=True
    )
    return json.loads(done.stdout)


def main() -> int:
    numbers = lambda text: tuple(int(v) for v in text.split(","))  # noqa: E731
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slices", type=numbers, default=(75, 150, 300, 600))
    parser.add_argument("--plane", type=numbers, default=(192, 192))
    parser.add_argument("--patch", type=numbers, default=(64, 96, 96))
    parser.add_argument("--classes", type=int, default=14)
    parser.add_argument("--pointwise", action="store_true")
    parser.add_argument("--side", choices=("segbench", "monai"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        child(arguments)
        return 0
    print(f"{arguments.classes} classes, plane {arguments.plane}, window {arguments.patch}")
    print("slices    segbench              monai                 memory   time     (ours / MONAI)")
    met, grown = True, {}
    for slices in arguments.slices:
        mine, theirs = (run(side, slices, arguments) for side in ("segbench", "monai"))
        seconds = mine["seconds"] / theirs["seconds"]
        for side, result in (("segbench", mine), ("monai", theirs)):
            result["growth"] = run(side, slices, arguments, MALLOC_MMAP_THRESHOLD_="1048576")["growth"]
        memory = mine["growth"] / theirs["growth"]
        grown[slices] = mine["growth"] - mine["labels"]
        print(
            f"{slices:6d}    {mine['growth'] / 2**20:7.0f} MiB {mine['seconds']:6.1f} s"
            f"   {theirs['growth'] / 2**20:7.0f} MiB {theirs['seconds']:6.1f} s"
            f"   {memory:6.2f}   {seconds:5.2f}",
            flush=True,
        )
        met = met and (slices < 300 or memory <= 0.5) and seconds <= 1.15
    first, last = grown[arguments.slices[0]], grown[arguments.slices[-1]]
    print(f"ours without the label map: {first / 2**20:.0f} -> {last / 2**20:.0f} MiB   (goal: no growth)")
    print("goals at >= 300 slices: memory <= 0.5, time <= 1.15")
    return 0 if met and last <= 1.1 * first + 2**23 else 1


if __name__ == "__main__":
    sys.exit(main())
