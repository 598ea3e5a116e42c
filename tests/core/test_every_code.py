"""Every error code has its test: raised on its real path, with its text, the place it names, its exit.

A code is either raised here, or named with the test that shows it; a new code without either fails.
"""

from __future__ import annotations

import ast
import gzip
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import provoked_codes as provoked
import pytest

from segbench.cli.common import guarded, parse_size
from segbench.core.archive import safe_extract
from segbench.core.atomic import atomic_write, read_lines
from segbench.core.errors import CATALOGUE, SegbenchError

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS / "volumes"))
from nifti_bytes import header, nifti, write  # noqa: E402


@dataclass(frozen=True)
class Raised:
    """How a code is brought about, and what its message must name besides the code and the way to mend it."""

    act: Callable[[Path], object]
    names: tuple[str, ...] = ()


SMALL = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


def volume(data: bytes, name: str = "scan.nii.gz", *, labels: bool = False, **how: Any) -> Raised:
    """Reading a file of these bytes."""

    def act(folder: Path) -> object:
        from segbench.volumes import read_label_map, read_volume

        (folder / name).write_bytes(data)
        return (read_label_map if labels else read_volume)(folder / name, **how)

    return Raised(act, (name,))


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def cut_gzip() -> bytes:
    whole = packed(nifti(SMALL))
    return whole[: len(whole) // 2]


def wrong_crc() -> bytes:
    whole = bytearray(packed(nifti(SMALL)))
    whole[-8] ^= 0xFF
    return bytes(whole)


def twice(folder: Path) -> object:
    """A model slug in two folders of cards."""
    from segbench.cards import load_model_card
    from segbench.cards.registry import card_file

    card = folder / "models" / "nnunet" / "card.toml"
    card.parent.mkdir(parents=True)
    shutil.copy(card_file("models", "nnunet"), card)
    os.environ["SEGBENCH_CARDS"] = str(folder)
    return load_model_card("nnunet")


def bad_card(folder: Path) -> object:
    from segbench.cards.model_card import read_model_card

    path = folder / "mine" / "card.toml"
    path.parent.mkdir()
    path.write_text("slug = 3\ncolour = 'red'\n")
    return read_model_card(path)


def external(
    folder: Path, *, prediction: np.ndarray[Any, Any] | None, reference_values: int = 1, **how: Any
) -> object:
    """`segbench evaluate` of one case that stops at the first unusable prediction."""
    from segbench.runs.api import evaluate

    labels = (np.arange(60).reshape(3, 4, 5) % 2 * reference_values).astype("u1")
    (folder / "refs").mkdir()
    (folder / "preds").mkdir(exist_ok=True)
    write(folder / "refs" / "case7.nii.gz", nifti(labels))
    write(folder / "refs" / "case8.nii.gz", nifti(labels))
    write(folder / "preds" / "case8.nii.gz", nifti(labels))
    if prediction is not None:
        write(folder / "preds" / "case7.nii.gz", nifti(prediction))
    return evaluate(
        folder / "preds",
        folder / "refs",
        regions={"a": (1,)},
        on_error="stop",
        results=folder / "runs",
        workers=0,
        **how,
    )


def two_files(folder: Path) -> object:
    labels = np.ones((3, 4, 5), "u1")
    (folder / "preds").mkdir()
    (folder / "preds" / "case7.nii").write_bytes(nifti(labels))
    return external(folder, prediction=labels)


def listed_but_absent(folder: Path) -> object:
    (folder / "list.txt").write_text("case7\nnobody\n")
    return external(folder, prediction=np.ones((3, 4, 5), "u1"), cases=folder / "list.txt")


def run_folder(folder: Path, content: dict[str, Any] | str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def newer(folder: Path) -> object:
    from segbench.records import read_run

    return read_run(
        run_folder(folder, {"schema_version": 99, "run_id": "x", "kind": "trained", "status": "planned"})
    )


def broken_middle(folder: Path) -> object:
    (folder / "cases.jsonl").write_text('{"a": 1}\nnonsense\n{"a": 2}\n')
    return read_lines(folder / "cases.jsonl")


def full_disk(folder: Path) -> object:
    def writer(stream: Any) -> None:
        raise OSError(28, "No space left on device")

    return atomic_write(folder / "big.bin", writer)


def held(folder: Path) -> object:
    from segbench.records.lease import Lease

    with Lease(folder), Lease(folder):
        raise AssertionError("two holders")


def taken_over(folder: Path) -> object:
    from segbench.records.lease import LEASE, Lease

    with Lease(folder) as lease:
        content = json.loads((folder / LEASE).read_text())
        (folder / LEASE).write_text(json.dumps({**content, "token": "0" * 32}))
        return lease.check()


def other_threads(folder: Path) -> object:
    """The cell resumed with another number of threads than its checkpoint was made with."""
    import torch

    from segbench.engine.trainer import train

    sys.path.insert(0, str(TESTS / "engine"))
    from test_training import job

    before = torch.get_num_threads()
    train(job(folder))
    try:
        torch.set_num_threads(before + 1)
        return train(job(folder))
    finally:
        torch.set_num_threads(before)


def ruined_checkpoints(folder: Path) -> object:
    from segbench.engine.checkpoint import load_last

    (folder / "checkpoints" / "step-000000001").mkdir(parents=True)
    return load_last(folder / "checkpoints", warn=lambda text: None)


def pickled_weights(folder: Path) -> object:
    import torch

    from segbench.networks.released.official import read_weights

    torch.save({"a": Path("x")}, folder / "evil.pt")
    return read_weights(folder / "evil.pt")


def hot_value(folder: Path) -> object:
    from segbench.data.prepared.cache_write import write_case
    from segbench.data.prepared.case import PreparedCase

    image = np.full((1, 4, 4, 4), 70_000, dtype=np.float32)
    return write_case(folder, "hot", PreparedCase(image, None, {}))


def leaving_archive(folder: Path) -> object:
    import zipfile

    with zipfile.ZipFile(folder / "x.zip", "w") as archive:
        archive.writestr("../escaped.txt", "x")
    return safe_extract(folder / "x.zip", folder / "out")


def absent_dataset(folder: Path) -> object:
    from segbench.data import open_dataset

    return open_dataset("crc-2000", data_dir=folder)


def unknown_layout(folder: Path) -> object:
    from segbench.data import open_dataset

    (folder / "mystery").mkdir()
    (folder / "mystery" / "readme.txt").write_text("nothing here")
    return open_dataset(folder / "mystery")


def unsafe_case(folder: Path) -> object:
    from segbench.scoring.sources import reference_folder

    (folder / "a?b.nii.gz").write_bytes(b"")
    return reference_folder(folder, labels=None, regions={}, structures={})


def phantom_over_something(folder: Path) -> object:
    from segbench.data.phantoms import generate

    (folder / "there").mkdir()
    (folder / "there" / "mine.txt").write_text("x")
    return generate("msd", folder / "there", cases=1)


RAISED: dict[str, Raised] = {
    "SB101": Raised(
        lambda f: __import__("segbench.cards", fromlist=["x"]).load_model_card("segmamba2"), ("segmamba-v2",)
    ),
    "SB102": Raised(twice, ("nnunet", "card.toml", "the other one")),
    "SB104": Raised(lambda f: parse_size("many"), ("many", "8GiB")),
    "SB110": Raised(bad_card, ("card.toml", "colour", "slug")),
    "SB201": volume(b""),
    "SB202": volume(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"),
    "SB203": volume(nifti(SMALL)),
    "SB204": volume(cut_gzip()),
    "SB205": volume(wrong_crc()),
    "SB206": volume(packed(nifti(SMALL)) + b"more than it says"),
    "SB207": volume(packed(header((4, -3, 5)) + bytes(400))),
    "SB208": volume(packed(header((30000, 30000, 30000)) + bytes(400))),
    "SB209": volume(
        packed(nifti(SMALL, pixdim=[1.0, float("nan"), 1, 1, 1, 1, 1, 1], srow=[float("nan")] * 12))
    ),
    "SB210": volume(packed(nifti(SMALL, scl_slope=float("inf")))),
    "SB211": volume(packed(nifti(np.full((3, 4, 5), np.nan, "f4")))),
    "SB212": volume(packed(nifti(np.full((3, 4, 5), 0.37, "f4"))), labels=True),
    "SB213": Raised(lambda f: external(f, prediction=np.full((3, 4, 5), 9, "u1")), ("case7",)),
    "SB214": Raised(lambda f: external(f, prediction=np.ones((3, 4, 6), "u1")), ("case7",)),
    "SB216": Raised(two_files, ("case7", "case7.nii.gz", "case7.nii")),
    "SB324": Raised(listed_but_absent, ("list.txt", "nobody")),
    "SB103": Raised(provoked.other_channels, ("2 names of channels",)),
    "SB331": Raised(provoked.other_labels, ("dataset.json", "msd-hippocampus")),
    "SB333": Raised(provoked.wrong_download, ("Task04.tar", "0" * 64)),
    "SB335": Raised(provoked.edited_split, ("mine.json",)),
    "SB338": Raised(provoked.changed_after_verification, ("labelsTr", "case phantom_000")),
    "SB402": Raised(provoked.diverging, ("step",)),
    "SB404": Raised(provoked.hung, ("step 7 (case_3)",)),
    "SB501": Raised(provoked.damaged_cache, ("phantom_000", "image.b2nd")),
    "SB502": Raised(provoked.absent_extra, ("ray", "segbench[ray]")),
    "SB504": Raised(provoked.too_large, ("cpu",)),
    "SB506": Raised(provoked.no_server, ("Task04.tar", "127.0.0.1")),
    "SB702": Raised(provoked.run_twice, ("alpha__acdc", "one", "two")),
    "SB703": Raised(provoked.bad_published, ("theirs.toml",)),
    "SB705": Raised(provoked.nothing_common, ("alpha: acdc", "beta: amos")),
    "SB215": Raised(lambda f: external(f, prediction=None), ("case7",)),
    "SB301": Raised(absent_dataset, ("crc-2000", "show dataset:crc-2000")),
    "SB302": Raised(unknown_layout, ("mystery",)),
    "SB334": Raised(leaving_archive, ("escaped.txt", "x.zip")),
    "SB337": Raised(phantom_over_something, ("there",)),
    "SB339": Raised(unsafe_case, ("a?b",)),
    "SB405": Raised(ruined_checkpoints, ("checkpoints",)),
    "SB406": Raised(pickled_weights, ("evil.pt",)),
    "SB407": Raised(provoked.seen_test_case, ("phantom_000", "w.safetensors")),
    "SB410": Raised(hot_value, ("hot",)),
    "SB505": Raised(full_disk, ("big.bin",)),
    "SB508": Raised(other_threads, ("SEGBENCH_THREADS=",)),
    "SB602": Raised(broken_middle, ("line 2", "cases.jsonl")),
    "SB603": Raised(held, (str(os.getpid()),)),
    "SB604": Raised(newer, ("schema_version 99", "run.json")),
    "SB605": Raised(taken_over),
    "SB701": Raised(
        lambda f: __import__("segbench.runs.status", fromlist=["x"]).read_status(f / "gone"), ("gone",)
    ),
}

# What needs a dataset, a server, a device or a whole run: the test that shows the code, with text and place.
PLANTED = "data/test_verify_planted.py::test_planted"
SHOWN: dict[str, str] = {
    "SB217": "scoring/test_external_nnunet.py",
    "SB403": "core/test_every_code.py",
    "SB503": "data/test_workers.py",
    "SB601": "core/test_atomic.py",
    "SB706": "report/test_page.py",
    **dict.fromkeys(
        (
            "SB303", "SB304", "SB305", "SB306", "SB307", "SB308", "SB309", "SB310", "SB311", "SB313", "SB314",
            "SB315", "SB317", "SB318", "SB319", "SB321", "SB322", "SB323", "SB325", "SB326", "SB327", "SB328",
            "SB329", "SB330", "SB336", "SB340",
        ),
        "data/test_verify_planted.py",
    ),
}  # fmt: skip


@pytest.mark.ci
@pytest.mark.parametrize("code", sorted(RAISED))
def test_a_raised_code_says_what_where_and_how_to_mend(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEGBENCH_CARDS", "")  # put back afterwards, whatever the act sets
    monkeypatch.chdir(tmp_path)
    case = RAISED[code]
    caught: list[SegbenchError] = []

    def command() -> int:
        try:
            case.act(tmp_path)
        except SegbenchError as error:
            caught.append(error)
            raise
        raise AssertionError("nothing was raised")

    status = guarded(command)
    said = capsys.readouterr()
    assert [error.code for error in caught] == [code], said.err
    assert status == CATALOGUE[code].exit_code
    assert said.out == ""
    assert f"error[{code}]: " in said.err
    ways = ("  fix: ", "  did you mean ", "  to try the same layout without it: ")
    assert any(way in said.err for way in ways)
    assert "Traceback" not in said.err
    folded = said.err.replace("\n", "")
    for name in case.names:
        assert name in folded, f"{code} does not name {name}:\n{said.err}"


def test_a_network_that_learns_nothing_is_told_once(tmp_path: Path) -> None:
    """SB403 is a warning: a learning rate of nothing leaves the loss above that of a constant."""
    from segbench.engine.trainer import train

    sys.path.insert(0, str(TESTS / "engine"))
    from test_training import job

    told: list[str] = []
    train(job(tmp_path, warn=told, **{"optimiser.lr": 1e-12, "budget.samples": 240}))
    (warning,) = [text for text in told if "SB403" in text]
    assert warning.startswith("warning[SB403]: loss ")
    assert "a constant " in warning


def test_every_code_is_raised_here_or_shown_elsewhere() -> None:
    assert set(RAISED) | set(SHOWN) == set(CATALOGUE)
    assert not set(RAISED) & set(SHOWN)


@pytest.mark.parametrize("code", sorted(SHOWN))
def test_the_test_elsewhere_asserts_the_code(code: str) -> None:
    """The code stands in a function of that file that asserts something, or plants the fault for one."""
    bodies = asserting_functions(TESTS / SHOWN[code])
    assert any(code in body and ("assert" in body or "return [" in body) for body in bodies), SHOWN[code]


@cache
def asserting_functions(path: Path) -> tuple[str, ...]:
    """The source of the tests of a file, and of what plants a fault for one."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(
        "\n".join(lines[node.lineno - 1 : node.end_lineno])
        for node in ast.parse("\n".join(lines)).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and (node.name[:4].lower() == "test" or any("plant" in ast.dump(d) for d in node.decorator_list))
    )


@pytest.mark.parametrize("code", sorted(CATALOGUE))
def test_every_code_has_its_page(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    entry = CATALOGUE[code]
    page = (TESTS.parent / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    section = page.split(f"### {code}: ")[1].split("\n### ")[0]
    assert section.startswith(entry.title)
    assert f"exit {entry.exit_code}" in section
    assert "- fix: " in section


def test_show_prints_cause_and_mend_of_every_code(capsys: pytest.CaptureFixture[str]) -> None:
    from typer.main import get_command

    from segbench.cli.main import build_app

    command = get_command(build_app())
    for code, entry in CATALOGUE.items():
        assert command.main(["show", f"error:{code}", "--json"], standalone_mode=False) == 0
        shown = json.loads(capsys.readouterr().out)
        assert entry.explanation in json.dumps(shown, ensure_ascii=False)
        assert entry.mend in json.dumps(shown, ensure_ascii=False)


def test_no_code_is_raised_that_the_catalogue_does_not_know() -> None:
    package = TESTS.parent / "segbench"
    import re

    used = {
        code
        for path in package.rglob("*.py")
        for code in re.findall(r"\bSB[1-7]\d\d\b", path.read_text(encoding="utf-8"))
    }
    assert used <= set(CATALOGUE), sorted(used - set(CATALOGUE))
    assert set(CATALOGUE) <= used, f"never raised: {sorted(set(CATALOGUE) - used)}"
