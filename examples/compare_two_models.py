"""From nothing to a verdict in one file: train, score, compare, report. No notebook, no GPU, no data needed.

Run it anywhere: `python examples/compare_two_models.py OUTPUT_FOLDER`. It takes under a minute on a laptop.
With a real dataset, put its name in place of `phantom-msd` and networks in place of the baselines, and leave
out the protocol.
"""

from __future__ import annotations

import sys
from pathlib import Path

import segbench
from segbench.report import build_report

MODELS = ["mean-atlas", "intensity"]
DATASET = "phantom-msd"  # generated scans; `segbench list datasets` names the real ones


def main(output: Path) -> int:
    """Compare two models on one dataset and write the report; the command's exit status."""
    runs = output / "runs"

    # Train and predict, as `segbench run`; the same call again continues where this one stopped.
    outcome = segbench.run(
        MODELS, DATASET, protocol="demo", seed=[0], data_dir=output / "data", results=runs, device="cpu"
    )
    for planned, record in outcome.cells:
        state = "not run" if record is None else record.status
        sys.stdout.write(f"{planned.cell.model.slug:12} {state}\n")

    # Every score as one pandas frame; failed cases are in it, at their worst value.
    scores = segbench.load_results(runs)
    means = scores[scores.metric == "dice"].groupby(["model", "region"]).value.mean()
    sys.stdout.write(f"\nmean Dice\n{means.to_string()}\n\n")

    # The paired comparison, with its interval and in words.
    comparison = segbench.compare(*MODELS, runs=runs, metrics=["dice"])
    for item in comparison.pairs:
        sys.stdout.write(f"{item.sentence}\n")

    # One HTML page that needs no connection, Markdown, LaTeX for a paper, CSV tables.
    written = build_report([runs], output / "report")
    sys.stdout.write(f"\n{len(written.files)} files in {output / 'report'}\n")
    return outcome.exit_code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "segbench-example")))
