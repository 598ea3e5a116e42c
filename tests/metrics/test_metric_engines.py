"""Which engine answers, and what happens without a compiler, without numba, without a place for its cache."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

MAP = """
import numpy as np
maps = np.random.default_rng(0).integers(0, 2, (2, 70, 70, 70)).astype("u1")
"""
SCORE = """
import json, sys
from segbench.metrics import evaluate_case
score = evaluate_case(*maps, spacing_mm=(1, 2, 3), regions={"a": (1,)})["a"]
compiled = [name in sys.modules for name in ("segbench.metrics.engine._kernels", "numba")]
print(json.dumps([dict(score), *compiled]))
"""


def run(before="", maps=MAP, **environment):
    done = subprocess.run(
        [sys.executable, "-c", before + maps + SCORE],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def expected():
    from segbench.metrics import evaluate_case

    maps = np.random.default_rng(0).integers(0, 2, (2, 70, 70, 70)).astype("u1")
    return dict(evaluate_case(*maps, spacing_mm=(1, 2, 3), regions={"a": (1,)})["a"])


def test_without_numba_the_plain_engine_gives_the_same_bits():
    score, kernels, _ = run("import sys\nsys.modules['numba'] = None\n")
    assert not kernels
    assert score == expected()


@pytest.mark.ci
def test_numba_can_be_switched_off():
    score, kernels, numba = run(SEGBENCH_NO_NUMBA="1")
    assert (kernels, numba) == (False, False)
    assert score == expected()


@pytest.mark.ci
def test_large_maps_use_the_kernels_and_small_ones_never_wait():
    score, kernels, _ = run()
    assert kernels
    assert score == expected()
    small = MAP + "maps = maps[:, :20, :20, :20].copy()\n"
    assert run(maps=small)[1:] == [False, False]
    hollow = MAP + "maps[:, 40:] = 0\nmaps[:, :, 40:] = 0\n"
    assert run(maps=hollow)[1:] == [False, False], "the box of the labels decides, not the array"


@pytest.mark.ci
def test_metrics_need_neither_torch_nor_pandas():
    blocked = "import sys\nfor name in ('torch', 'monai', 'pandas'): sys.modules[name] = None\n"
    assert run(blocked)[0] == expected()


THREADS = """
import faulthandler, os, signal
from concurrent.futures import ThreadPoolExecutor
faulthandler.dump_traceback_later(120, exit=True)
from segbench.metrics.engine import _native
_native.PARALLEL_VOXELS = _native.PARALLEL_QUERIES = 1
"""
TOGETHER = """
from segbench.metrics import evaluate_case
def score(_=None):
    return dict(evaluate_case(*maps, spacing_mm=(1, 2, 3), regions={"a": (1,)})["a"])
with ThreadPoolExecutor(6) as callers:
    assert len({tuple(sorted(found.items())) for found in callers.map(score, range(12))}) == 1
child = os.fork()
if child == 0:
    signal.alarm(60)  # a child that waits for threads it does not have ends here, and not with 7
    score()
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""


@pytest.mark.ci
def test_callers_in_threads_and_forked_children_wait_for_nobody():
    """The engine's threads stay between cases: six callers at once, and a child that has none of them."""
    score, *_ = run(before=THREADS, maps=MAP + TOGETHER, SEGBENCH_THREADS="3")
    assert score == expected()
