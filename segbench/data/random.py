"""The only source of randomness of the package: generators that are functions of names and counters.

`rng(seed, stream, *counters)` gives the same generator for the same words on every machine, in any
process and in any order of calls, so that a batch depends on (seed, step, index) and on nothing else:
not on the number of workers, not on the world size, not on where a run was interrupted.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox), as numpy ships it.
"""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["counter_seed", "rng"]


def rng(seed: int, stream: str, *counters: int | str) -> np.random.Generator:
    """A fresh generator for these words; equal words give equal numbers.

    Args:
        seed: The experiment's seed.
        stream: What the numbers are for: "sample", "order", "augment", "locations", "init", "split", ...
        counters: Whatever tells one draw from another, such as step and index.
    """
    return np.random.Generator(np.random.Philox(key=_digest(seed, stream, counters)))


def counter_seed(seed: int, stream: str, *counters: int | str) -> int:
    """A whole number in [0, 2^63) for generators that take a seed (`torch.Generator.manual_seed`)."""
    return _digest(seed, stream, counters) >> 65


def _digest(seed: int, stream: str, counters: tuple[int | str, ...]) -> int:
    """The first 128 bits of sha256("segbench|stream|seed|counters"), big-endian."""
    words = "|".join(["segbench", stream, str(int(seed)), *(str(counter) for counter in counters)])
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:16], "big")
