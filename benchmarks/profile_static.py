"""Counting parameters and operations of every network at 1x4x128x128x128: CPU seconds, and against the cards.

    python benchmarks/profile_static.py

Floor 60 s, aim 15 s of one core for all networks together (models.md 5.1). Peers such as fvcore and thop
count on real tensors, which at this size take minutes and gigabytes per network: they are left out. Exit 1 if
the floor is missed or a count differs from its card by more than 0.2 %.
"""

from __future__ import annotations

import sys
import time

FLOOR_S, AIM_S = 60.0, 15.0
TOLERANCE = 2e-3


def main() -> int:
    begin = time.process_time()
    from segbench.core.errors import SegbenchError
    from segbench.networks import list_networks, network_card
    from segbench.profiling import ProfileRequest
    from segbench.profiling.measure import static_row

    print(f"imports {time.process_time() - begin:.1f} CPU-s")
    begin, wrong, counted = time.process_time(), [], 0
    for slug in list_networks():
        start = time.process_time()
        try:
            row = static_row(ProfileRequest(model=slug, device="meta"))
        except SegbenchError as error:
            print(f"{slug:28} left out: {error.message}")
            continue
        assert row.params is not None
        assert row.cost is not None
        counted += 1
        facts = network_card(slug).fidelity
        assert facts is not None
        taken = time.process_time() - start
        print(f"{slug:28}{row.params.total:12,}{row.cost.gmacs:10.1f} GMAC {taken:6.2f} CPU-s")
        if facts.parameters is not None and facts.parameters != row.params.total:
            wrong.append(f"{slug}: {row.params.total} parameters, the card says {facts.parameters}")
        if facts.gmacs is not None and abs(row.cost.gmacs / facts.gmacs - 1) > TOLERANCE:
            wrong.append(f"{slug}: {row.cost.gmacs:.2f} GMAC, the card says {facts.gmacs}")
    taken = time.process_time() - begin
    print(f"{counted} networks in {taken:.1f} CPU-s (floor {FLOOR_S:g}, aim {AIM_S:g})")
    for line in wrong:
        print("DIFFERS:", line)
    return 1 if wrong or taken > FLOOR_S else 0


if __name__ == "__main__":
    sys.exit(main())
