"""Ranks against scipy, and the statistics under a blocked torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import rankdata

from segbench.stats.laws import ranks


@pytest.mark.parametrize("shape", [(1,), (7,), (50,), (20, 6), (5, 3, 4)])
@pytest.mark.parametrize("ties", ["average", "min"])
def test_ranks_equal_scipys(shape: tuple[int, ...], ties: str) -> None:
    values = np.round(np.random.default_rng(3).normal(size=shape), 1)
    for axis in range(len(shape)):
        assert np.array_equal(ranks(values, ties=ties, axis=axis), rankdata(values, method=ties, axis=axis))


def test_a_blocked_torch_does_not_stop_scipy() -> None:
    """A None entry in sys.modules breaks scipy.stats; nothing here imports it, nor a claim scipy.special."""
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from segbench.stats import Reported, false_order\n"
        "false_order(Reported(0.9, 0.1, 50, 0.0), Reported(0.8, 0.1, 50, 0.0), congruence=0.8)\n"
        "print('scipy.special' in sys.modules)\n"
        "from segbench.stats import compare_models, mean_interval, rank_models, wilcoxon_signed_rank\n"
        "scores = {'a': [[0.5, 0.6, 0.7]] * 2, 'b': [[0.5, 0.7, 0.9], [0.4, 0.7, 0.8]]}\n"
        "compare_models(scores), rank_models(scores, resamples=9), mean_interval([0.5, 0.7])\n"
        "print('scipy.stats' in sys.modules, wilcoxon_signed_rank([1.0, 2.0, 3.0]).statistic)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "6.0"]
