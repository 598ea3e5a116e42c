"""Signed-rank test and Holm's adjustment against R: `wilcox.test`, coin, exactRankTests, `p.adjust`.

    python benchmarks/against_r.py [--all]

Draws paired differences of 5 to 50 pairs (without ties, with ties, with zeros, with both, all equal), has R
test them where `Rscript` is found, and prints one line for each kind of data and test with the largest
relative difference of a p-value over the sizes and the three alternatives; `--all` prints every p-value.
Exit code 1 when one differs by more than 1e-9. Without R, or without one of its packages, that is said and
nothing is compared. On Debian: apt-get install r-base-core r-cran-coin r-cran-exactranktests.
"""

from __future__ import annotations

import argparse
import csv
import io
import shutil
import subprocess
import sys
from collections.abc import Iterator

import numpy as np

from segbench.stats import holm, wilcoxon_signed_rank

SIZES = (5, 9, 20, 35, 50)
ALTERNATIVES = ("two-sided", "greater", "less")
TOLERANCE = 1e-9
ZEROS = {"wilcox.test": "drop", "exactRankTests": "drop", "coin Wilcoxon": "drop", "coin Pratt": "pratt"}
"""Our rule for zeros, by test of R."""
PROGRAM = r"""
need <- c("coin", "exactRankTests")
lack <- need[!sapply(need, requireNamespace, quietly = TRUE)]
if (length(lack)) { cat("lacks", lack, "\n"); quit(status = 3) }
suppressWarnings(suppressPackageStartupMessages({ library(coin); library(exactRankTests) }))
cat("#", R.version.string, "coin", as.character(packageVersion("coin")), "exactRankTests",
    as.character(packageVersion("exactRankTests")), "\n")
put <- function(name, test, alternative, p) cat(sprintf("%s,%s,%s,%.17g\n", name, test, alternative, p))
for (line in readLines(file("stdin"))) {
  part <- strsplit(line, ",")[[1]]
  d <- as.numeric(part[-1])
  if (startsWith(part[1], "p-values")) {
    for (i in seq_along(d)) put(part[1], "p.adjust", i, p.adjust(d, "holm")[i])
    next
  }
  zero <- rep(0, length(d))
  for (a in c("two-sided", "greater", "less")) {
    own <- sub("-", ".", a)
    if (!anyDuplicated(abs(d)) && all(d != 0)) put(part[1], "wilcox.test", a,
        wilcox.test(d, zero, paired = TRUE, exact = TRUE, alternative = own)$p.value)
    put(part[1], "exactRankTests", a,
        suppressWarnings(wilcox.exact(d, zero, paired = TRUE, exact = TRUE, alternative = own)$p.value))
    for (rule in c("Wilcoxon", "Pratt")) put(part[1], paste("coin", rule), a,
        pvalue(wilcoxsign_test(d ~ zero, distribution = "exact", zero.method = rule, alternative = own)))
  }
}
"""


def samples() -> dict[str, np.ndarray]:
    """Differences by kind and size, and families of p-values; whole numbers, exact in both languages."""
    found: dict[str, np.ndarray] = {}
    for n in SIZES:
        rng = np.random.default_rng(n)
        signs = rng.choice((-1, 1), n, p=(0.35, 0.65))
        found[f"no ties {n}"] = signs * (1 + rng.permutation(3 * n)[:n])
        found[f"ties {n}"] = signs * rng.integers(1, max(3, n // 3), n)
        found[f"zeros {n}"] = np.where(np.arange(n) % 4 == 0, 0, found[f"no ties {n}"])
        found[f"ties and zeros {n}"] = np.where(np.arange(n) % 5 == 1, 0, found[f"ties {n}"])
        found[f"all equal {n}"] = signs
        found[f"p-values {n}"] = np.round(rng.random(n) ** 3, 3) + 0.001
    return found


def of_r(data: dict[str, np.ndarray]) -> str | None:
    """What R prints for the samples; None, and why on stderr, where it cannot be asked."""
    program = shutil.which("Rscript")
    if program is None:
        print("Rscript is not installed: nothing was compared", file=sys.stderr)
        return None
    text = "".join(f"{name},{','.join(map(str, values.tolist()))}\n" for name, values in data.items())
    done = subprocess.run([program, "-e", PROGRAM], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        why = done.stdout.strip() or done.stderr.strip()
        print(f"R could not be asked ({why}): nothing was compared", file=sys.stderr)
        return None
    return done.stdout


def compared(text: str, data: dict[str, np.ndarray]) -> Iterator[tuple[str, str, str, float, float]]:
    """(sample, test, alternative, p of R, p of ours) for each line of R."""
    for name, test, which, value in csv.reader(io.StringIO(text)):
        if test == "p.adjust":
            ours = float(holm(data[name])[int(which) - 1])
        else:
            ours = wilcoxon_signed_rank(data[name], alternative=which, zeros=ZEROS[test]).pvalue
        yield name, test, which, float(value), ours


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all", action="store_true", help="every p-value")
    given = parser.parse_args()
    data = samples()
    text = of_r(data)
    if text is None:
        return 0
    head, _, lines = text.partition("\n")
    print(head.removeprefix("# "))
    worst: dict[tuple[str, str], list[float]] = {}
    for name, test, which, theirs, ours in compared(lines, data):
        gap = abs(ours - theirs) / theirs
        worst.setdefault((name.rpartition(" ")[0], test), []).append(gap)
        if given.all:
            print(f"  {name:18} {test:15} {which:10} R {theirs:.12g}  segbench {ours:.12g}  {gap:.1e}")
    print(f"{'data':16} {'test of R':16} {'p-values':>8}  {'largest relative difference':>27}")
    for (kind, test), gaps in sorted(worst.items()):
        print(f"{kind:16} {test:16} {len(gaps):8}  {max(gaps):27.1e}")
    return int(max(map(max, worst.values())) > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
