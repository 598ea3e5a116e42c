"""The threat table: each row has its tests, and what concerns a whole command is shown here."""

from __future__ import annotations

import ast
import base64
import gzip
import os
import re
import socket
import struct
import subprocess
import zlib
from pathlib import Path

import preloaded
import pytest

from segbench.records import find_runs, read_run

TESTS = Path(__file__).resolve().parents[1]

# Row of the threat table -> tests that show it. A row without a test, or a test that is gone, fails below.
ROWS: dict[str, tuple[str, ...]] = {
    "R1 kill during any write": (
        "e2e/test_faults.py::test_a_kill_at_some_writes",
        "e2e/test_faults.py::test_a_kill_at_every_write",
        "core/test_atomic.py::test_a_kill_at_any_step_of_a_write_leaves_old_or_new",
    ),
    "R2 resume differs": (
        "e2e/test_resume.py::test_killed_and_started_again",
        "e2e/test_faults.py::test_a_kill_at_the_other_points",
        "e2e/test_faults.py::test_killed_twice_in_a_row",
        "e2e/test_many_drivers.py::test_random_kills_of_driver_and_cell",
    ),
    "R3 torn or rotten checkpoint": ("engine/test_rotten_checkpoints.py::test_fifty_places_of_every_file",),
    "R4 disk full": (
        "e2e/test_faults.py::test_a_full_disk_at_some_writes",
        "e2e/test_faults.py::test_a_limit_on_the_size_of_files_is_a_full_disk",
        "core/test_atomic.py::test_a_full_disk_is_sb505",
    ),
    "R5 truncated or rotten volume": (
        "volumes/test_read_refusals.py::test_gzip_cut",
        "volumes/test_read_refusals.py::test_one_flipped_bit_never_passes",
        "volumes/test_read_refusals.py::test_second_member_with_payload",
        "scoring/test_external_damage.py::test_unusable_predictions_score_worst",
    ),
    "R6 header bombs": (
        "volumes/test_read_refusals.py::test_claim_of_terabytes",
        "volumes/test_read_refusals.py::test_header_nonsense",
        "volumes/test_read_refusals.py::test_refusals_take_little_memory",
        "volumes/test_read_properties.py::test_any_header_is_refused_or_sane",
    ),
    "R7 nonsense geometry": (
        "volumes/test_read_refusals.py::test_unusable_geometry",
        "volumes/test_read_refusals.py::test_scaling_that_is_no_number",
    ),
    "S1 pickle in weights": (
        "networks/test_weights_files.py::test_a_file_that_would_run_something_is_refused_and_does_not",
        "networks/test_weights_files.py::test_pickles_under_any_name_are_refused_and_do_nothing",
        "architecture/test_habits.py::test_nothing_executes_or_unpickles",
    ),
    "S2 archive traversal": (
        "core/test_archive.py::test_names_that_are_refused",
        "core/test_archive.py::test_link_then_write_through_it",
        "core/test_archive.py::test_members_and_bytes_are_bounded",
        "core/test_archive.py::test_zip_bomb",
    ),
    "S3 cards as code": (
        "cards/test_model_cards.py::test_all_faults_come_at_once_one_line_each",
        "cards/test_hostile_cards.py::test_any_card_is_read_or_refused",
        "cards/test_hostile_cards.py::test_an_implementation_outside_of_requires_is_never_imported",
    ),
    "S4 path by case id": ("core/test_names.py::test_any_text_is_refused_or_stays_inside",),
    "S5 formulas and markup": (
        "records/test_store.py::test_no_cell_is_a_formula",
        "report/test_report_hostile.py::test_any_names_and_values_give_a_report_or_an_error",
        "core/test_errors.py::test_terminals_are_safe_from_names",
    ),
    "S6 patient data": (
        "e2e/test_threats.py::test_a_name_in_the_headers_leaves_in_no_byte",
        "volumes/test_write_label_maps.py::test_nothing_personal_travels",
    ),
    "C1 two drivers": ("e2e/test_many_drivers.py::test_two_drivers_run_each_cell_once",),
    "C2 killed worker": (
        "e2e/test_many_drivers.py::test_a_killed_data_worker_is_named_or_made_up_for",
        "data/test_workers.py::test_errors_and_deaths_stay_with_their_task",
    ),
    "C3 one bad case of many": ("scoring/test_external_damage.py::test_each_failure_is_counted_and_named",),
    "N1 network": (
        "e2e/test_threats.py::test_no_command_opens_a_connection",
        "e2e/test_threats.py::test_the_suite_refuses_connections",
    ),
}


@pytest.mark.parametrize("row", sorted(ROWS))
def test_each_row_has_its_tests(row: str) -> None:
    for place in ROWS[row]:
        file, _, name = place.partition("::")
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, place


def test_the_table_is_whole() -> None:
    marks = [row.split()[0] for row in ROWS]
    assert marks == [
        "R1",
        "R2",
        "R3",
        "R4",
        "R5",
        "R6",
        "R7",
        *(f"S{n}" for n in range(1, 7)),
        "C1",
        "C2",
        "C3",
        "N1",
    ]


# A process in which every name look-up and every connection is an error that the command would report; that
# no import connects is seen where `preloaded` imports all.
ALONE = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        print("CONNECTION", event, arguments[1:], file=sys.stderr, flush=True)
        raise OSError("no network in this test")
sys.addaudithook(refuse)
sys.argv = ["segbench", *sys.argv[1:]]
if sys.argv[1:3] == ["data", "fetch"]:
    import time
    time.sleep = lambda seconds: None  # fifteen seconds between its tries
from segbench.cli.main import entry_point
entry_point()
"""


def alone(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SEGBENCH_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return preloaded.run("-c", ALONE, *arguments, cwd=cwd, env=environment)


@pytest.mark.ci
def test_no_command_opens_a_connection(tmp_path: Path) -> None:
    """The whole way from generated scans to a report, and every light command; only `data fetch` connects."""
    floors = ("run", "--model", "mean-atlas", "--dataset", "phantom-msd", "--seed", "0")
    for command in (
        ("data", "verify", "phantom-msd"),
        (*floors, "--print-jobs"),
        ("list", "datasets"), ("list", "models"), ("show", "model:nnunet"), ("status",), ("doctor",),
        ("data", "split", "phantom-msd", "--folds", "3", "--write", "folds.json"),
    ):  # fmt: skip
        done = alone(*command, cwd=tmp_path)
        assert "CONNECTION" not in done.stderr, done.stderr
        assert done.returncode in {0, 3}, (command, done.stderr)
    for folder in find_runs(tmp_path / "results" / "runs"):
        done = alone("cell", str(folder), cwd=tmp_path)
        assert "CONNECTION" not in done.stderr, done.stderr
        assert done.returncode == 0, done.stderr
    done = alone("report", cwd=tmp_path)
    assert "CONNECTION" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr
    fetched = alone("data", "fetch", "msd-hippocampus", cwd=tmp_path)
    assert "CONNECTION" in fetched.stderr  # the one command that may; and the hook does see it
    assert fetched.returncode == 5
    assert "SB506" in fetched.stderr


def test_the_suite_refuses_connections() -> None:
    with pytest.raises(RuntimeError, match=r"192\.0\.2\.1"), socket.socket() as probe:
        probe.settimeout(0.2)
        probe.connect(("192.0.2.1", 9))
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())  # this machine itself is allowed


PLANTED = b"DOE^JANE"


def plant(path: Path) -> None:
    """Write a name into every free field of a NIfTI header, and into an extension."""
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[14 : 14 + 8] = PLANTED  # db_name
    data[148 : 148 + 13] = PLANTED + b" 1970"  # descrip
    data[228 : 228 + 8] = PLANTED  # aux_file
    data[328 : 328 + 8] = PLANTED  # intent_name
    offset = int(struct.unpack_from("<f", data, 108)[0])
    note = struct.pack("<ii", 32, 6) + PLANTED.ljust(24, b"\0")
    struct.pack_into("<f", data, 108, offset + 32)
    data[348] = 1
    path.write_bytes(gzip.compress(bytes(data[:offset]) + note + bytes(data[offset:])))


def every_form(path: Path) -> bytes:
    """The file as it is, inflated where it is compressed, and decoded where it holds base64."""
    data = path.read_bytes()
    forms = [data]
    if data[:2] == b"\x1f\x8b":
        forms.append(gzip.decompress(data))
    for found in re.finditer(rb"[A-Za-z0-9+/]{24,}={0,2}", data):
        word = found.group()
        inner = base64.b64decode(word[: len(word) // 4 * 4])
        forms.append(inner)
        if inner[:2] == b"\x1f\x8b":
            forms.append(zlib.decompress(inner, 31))
    return b"\n".join(forms)


@pytest.mark.ci
def test_a_name_in_the_headers_leaves_in_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted in scans and labels before training; searched in all that is written and said."""
    command = (
        "run",
        "--model",
        "mean-atlas,intensity",
        "--dataset",
        "phantom-msd",
        "--seed",
        "0",
        "--max-parallel",
        "2",
    )
    assert alone(*command, "--dry-run", cwd=tmp_path).returncode == 0  # generates the scans
    scans = sorted((tmp_path / "data").rglob("*.nii.gz"))
    assert len(scans) > 10
    for scan in scans:
        plant(scan)
    cache = tmp_path / "cache"
    monkeypatch.setenv("SEGBENCH_CACHE", str(cache))
    ran = alone(*command, cwd=tmp_path)
    assert ran.returncode in {0, 3}, ran.stderr
    runs = find_runs(tmp_path / "results" / "runs")
    assert [read_run(folder).status for folder in runs] == ["complete"] * 2
    labels = next((tmp_path / "data").rglob("labelsTr"))
    scored = alone(
        "evaluate", str(labels), str(labels), "--region", "a=1,2",
        "--name", "copy",
        cwd=tmp_path,
    )  # fmt: skip
    assert scored.returncode in {0, 3}, scored.stderr
    verified = alone("data", "verify", "phantom-msd", cwd=tmp_path)
    assert (
        "SB328" in verified.stdout + verified.stderr
    )  # it is said that there is such text, never what it is
    reported = alone("report", "--viewer", "worst:1", cwd=tmp_path)
    assert reported.returncode in {0, 3}, reported.stderr
    for done in (ran, scored, verified, reported):
        assert PLANTED.decode() not in done.stdout + done.stderr
    outputs = [p for p in tmp_path.rglob("*") if p.is_file() and tmp_path / "data" not in p.parents]
    assert any(p.suffix == ".html" for p in outputs) and any(p.name.endswith(".nii.gz") for p in outputs)
    assert [str(p) for p in outputs if PLANTED in every_form(p) or b"JANE" in every_form(p)] == []
    assert PLANTED in every_form(scans[0])  # the search does find it where it is
