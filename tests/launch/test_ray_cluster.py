"""Ray proved on a real cluster of two nodes in one machine, one of which is killed in mid-cell."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from launch_matrix import fingerprint, start_matrix

from segbench.records.progress import last_step

ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'segbench[ray]')")
pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(900)]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without processors and two nodes with one each."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.nodes_by_id = {}
    for _ in range(2):
        node = made.add_node(num_cpus=1)
        made.nodes_by_id[node.node_id[:8]] = node
    made.wait_for_nodes()
    yield made
    made.shutdown()


def nodes_at_work(results: Path) -> dict[str, Path]:
    """The run folders by the first digits of the Ray node that works on them."""
    found: dict[str, Path] = {}
    for path in results.glob("*/run.json"):
        record = json.loads(path.read_text())
        node = (record.get("execution") or {}).get("node") or ""
        if record["status"] == "running" and "/" in node:
            found[node.rpartition("/")[2]] = path.parent
    return found


def test_a_matrix_on_two_nodes_survives_the_loss_of_one(
    tmp_path: Path, cluster: Any, launch_data: Path, reference: dict[str, dict[str, str]]
) -> None:
    results = tmp_path / "runs"
    process = start_matrix(results, launch_data, "--launcher", "ray", "--ray-address", cluster.address)
    killed, seen = "", set[str]()
    while process.poll() is None:
        at_work = nodes_at_work(results)
        seen |= set(at_work)
        if not killed and len(seen) == 2:
            killed = next((node for node, folder in at_work.items() if last_step(folder) > 0), "")
            if killed:
                lost = at_work[killed]
                cluster.remove_node(cluster.nodes_by_id[killed], allow_graceful=False)
        time.sleep(0.02)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert len(seen) == 2, "both nodes were to be used"
    assert killed, "no node was killed in mid-cell"
    assert fingerprint(results) == reference
    record = json.loads((lost / "run.json").read_text())
    assert record["execution"]["launcher"] == "ray"
    assert record["execution"]["node"].rpartition("/")[2] != killed
    lines = (lost / "cases.jsonl").read_text().splitlines()
    assert len(lines) == len({json.loads(line)["case"] for line in lines})  # nothing was scored twice


def test_cells_go_on_when_the_command_dies_and_the_next_one_looks_on(
    tmp_path: Path, cluster: Any, launch_data: Path, reference: dict[str, dict[str, str]]
) -> None:
    results = tmp_path / "runs"
    first = start_matrix(results, launch_data, "--launcher", "ray", "--ray-address", cluster.address)
    while not nodes_at_work(results):
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.02)
    (held, *_) = nodes_at_work(results).values()
    first.kill()
    first.wait()
    began = json.loads((held / "lease.json").read_text())["token"]
    time.sleep(2)
    lease = held / "lease.json"
    assert not lease.exists() or json.loads(lease.read_text())["token"] == began  # nobody took it over
    second = start_matrix(results, launch_data, "--launcher", "ray", "--ray-address", cluster.address)
    output = second.communicate(timeout=600)[0]
    assert second.returncode == 0, output
    assert fingerprint(results) == reference
