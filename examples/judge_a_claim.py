"""Is 91.37 better than 91.32 on 250 cases? What a table alone can say, and what it would take to say more."""

import sys

from segbench.published.claims import Side, judge

for name, changes in {
    "as printed": {},
    "with the SD of the paper": {"sd": 0.09},
    "with three trainings each": {"sd": 0.09, "seeds": 3, "seed_sd": 0.003},
}.items():
    ours, theirs = (Side(model, value, n=250, **changes) for model, value in (("A", 0.9137), ("B", 0.9132)))
    claim = judge(ours, theirs, "dice")
    sys.stdout.write(
        f"{name}: the order is wrong with {claim.low:.2f} to {claim.high:.2f}, {claim.verdict}\n"
    )
    for line in claim.assumed:
        sys.stdout.write(f"  assumed: {line}\n")
