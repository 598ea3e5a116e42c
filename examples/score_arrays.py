"""Score one prediction that is already in memory: two arrays and a voxel size, no file, no torch.

Run it: `python examples/score_arrays.py`. Arrays are z, y, x; sizes are millimetres in the same order.
"""

from __future__ import annotations

import sys

import numpy as np

from segbench.metrics import evaluate_case


def main() -> int:
    """Print the scores of a cube that is one slice off."""
    reference = np.zeros((24, 64, 64), dtype=np.uint8)
    reference[6:18, 16:48, 16:48] = 1  # the structure
    reference[9:15, 24:40, 24:40] = 2  # its core
    prediction = np.roll(reference, 1, axis=0)  # one thick slice off

    scores = evaluate_case(
        reference,
        prediction,
        spacing_mm=(3.0, 1.0, 1.0),
        regions={"whole": (1, 2), "core": (2,)},
        metrics=["dice", "hd95", "nsd"],
        nsd_tolerance_mm=2.0,
    )
    for region, row in scores.items():
        sys.stdout.write(
            f"{region:6} Dice {row['dice']:.3f}  HD95 {row['hd95']:.1f} mm  NSD {row['nsd']:.3f}\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
