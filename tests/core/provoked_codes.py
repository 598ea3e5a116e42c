"""Ways to bring about the codes that need a dataset, a training, a server or several runs; small ones.

Each function gets an empty folder and does what a user could do until the code is raised.
"""

from __future__ import annotations

import http.server
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parents[1]


def other_channels(folder: Path) -> object:
    """Weights of one input channel, imported with the names of two."""
    import torch

    from segbench.networks import build_network
    from segbench.networks.weights import import_weights

    torch.save(build_network("nnunet-tiny", 1, 2).state_dict(), folder / "their.pt")
    return import_weights(folder / "their.pt", "nnunet-tiny", folder / "o.safetensors", channels=("t1", "t2"))


def seen_test_case(folder: Path) -> object:
    """Weights that were trained on a case that is to be tested on."""
    from safetensors.numpy import save_file

    from segbench.data import open_dataset
    from segbench.records.schema import TrainedOn
    from segbench.runs.start import check_start, start_of, write_card

    dataset = open_dataset(phantom(folder))
    save_file({}, folder / "w.safetensors")
    write_card(folder / "w.safetensors", [TrainedOn(case="phantom_000")])
    found = check_start(start_of(folder / "w.safetensors"), dataset, ["phantom_000", "phantom_001"])
    assert found is not None
    raise found


def phantom(folder: Path) -> Path:
    """Two generated cases in MSD layout, so small that a test may have its own."""
    from segbench.data.phantoms import generate

    return generate("msd", folder / "Task99_Phantom", cases=2, traps=False)


def other_labels(folder: Path) -> object:
    """A dataset.json whose labels are not those of the card."""
    from segbench.data import open_dataset

    root = phantom(folder)
    content = json.loads((root / "dataset.json").read_text())
    content["labels"]["9"] = "what"
    (root / "dataset.json").write_text(json.dumps(content))
    return open_dataset("msd-hippocampus", path=root).case_ids


def changed_after_verification(folder: Path) -> object:
    from segbench.data import open_dataset
    from segbench.data.digest import check_unchanged
    from segbench.data.verify.api import verify

    root = phantom(folder)
    verify(root, workers=1)
    dataset = open_dataset(root)
    label = sorted((root / "labelsTr").glob("*.nii.gz"))[0]
    label.write_bytes(label.read_bytes() + b"x")
    return check_unchanged(dataset, dataset.case_ids)


def edited_split(folder: Path) -> object:
    from segbench.data import open_dataset
    from segbench.data.splits import load_split, random_split, save_split

    dataset = open_dataset(phantom(folder))
    split = random_split(
        dataset.case_ids, patient_of=dataset.patient_of, dataset=dataset.card.slug, fractions=(0.5, 0.0, 0.5)
    )
    path = save_split(split, folder / "mine.json")
    content = json.loads(path.read_text())
    content["folds"][0]["train"], content["folds"][0]["test"] = (
        content["folds"][0]["test"],
        content["folds"][0]["train"],
    )
    path.write_text(json.dumps(content))
    return load_split(path, dataset)


def damaged_cache(folder: Path) -> object:
    """A prepared case that is damaged, prepared again, and damaged once more."""
    from segbench.data import open_dataset
    from segbench.data.prepared.prepare import prepare_dataset
    from segbench.data.prepared.recipe import PreparationRecipe

    dataset = open_dataset(phantom(folder))
    channels = tuple(dataset.card.channels.order)
    recipe = PreparationRecipe(
        channels=channels, normalisation=("zscore",) * len(channels), spacing_mm="native"
    )
    cases = dataset.case_ids
    cache = prepare_dataset(dataset, cases, recipe, folder / "cache", training_ids=cases)
    path = cache.folder / "cases" / cases[0] / "image.b2nd"
    for _ in range(2):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(bytes(content))
        cache.forget(cases[0])
        cache.image(cases[0])
    raise AssertionError("damaged twice, and read")


def training(folder: Path, transform: Any) -> object:
    """A small training whose patches go through `transform`."""
    from segbench.engine.trainer import train

    sys.path.insert(0, str(TESTS / "engine"))
    from test_training import job

    return train(replace(job(folder), transform=transform))


def diverging(folder: Path) -> object:
    return training(folder, lambda image, labels, plans: (image * float("nan"), labels))


def too_large(folder: Path) -> object:
    import torch

    def exhausted(image: Any, labels: Any, plans: object) -> tuple[Any, Any]:
        raise torch.OutOfMemoryError("no more")

    return training(folder, exhausted)


def hung(folder: Path) -> object:
    """A step that takes longer than it may; the error is given to who ends the process."""
    from segbench.engine.watch import StepWatch

    told: list[Exception] = []
    seen = threading.Event()

    def end(error: Exception) -> None:
        told.append(error)
        seen.set()

    with StepWatch(0.05, end) as watch:
        watch.alive("computing step 7 (case_3)")
        assert seen.wait(20)
    raise told[0]


@contextmanager
def server(content: bytes) -> Iterator[str]:
    """The address of a file on a server of this machine."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    running = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/Task04.tar"
    finally:
        running.shutdown()
        running.server_close()
        thread.join(10)


def wrong_download(folder: Path) -> object:
    from segbench.data.fetch import download

    with server(b"something else") as address:
        return download(address, folder / "Task04.tar", sha256="0" * 64, pauses=())


def no_server(folder: Path) -> object:
    from segbench.data.fetch import download

    with server(b"") as address:
        pass  # it has gone
    return download(address, folder / "Task04.tar", pauses=())


def absent_extra(folder: Path) -> object:
    from segbench.launch import LauncherChoice, open_launcher

    patch = pytest.MonkeyPatch()
    patch.setitem(sys.modules, "ray", None)
    try:
        return open_launcher(LauncherChoice("ray"), folder)
    finally:
        patch.undo()


def record_of(folder: Path, name: str, dataset: str, dice: float = 0.5) -> Path:
    """A finished run of one case."""
    from segbench.records.store import cases_csv_text

    place = folder / name
    place.mkdir(parents=True)
    identity = f"{name}__{dataset}__external__f0__s0__00000000"
    head = {"schema_version": 1, "run_id": identity, "kind": "external", "status": "complete"}
    place.joinpath("run.json").write_text(
        json.dumps({**head, "model": {"slug": name}, "dataset": {"slug": dataset}, "fold": 0, "seed": 0})
    )
    row = {
        "run_id": identity, "model": name, "dataset": dataset, "protocol": "external", "fold": 0, "seed": 0,
        "case": "case_1", "region": "a", "status": "ok", "reference_voxels": 5, "prediction_voxels": 5,
        "dice": dice,
    }  # fmt: skip
    place.joinpath("cases.csv").write_text(cases_csv_text([row], ["dice"]))
    return place


def run_twice(folder: Path) -> object:
    from segbench.report import load_results

    record_of(folder / "one", "alpha", "acdc")
    record_of(folder / "two", "alpha", "acdc", dice=0.75)
    return load_results(folder)


def nothing_common(folder: Path) -> object:
    from segbench import compare

    return compare(record_of(folder, "alpha", "acdc"), record_of(folder, "beta", "amos"))


def bad_published(folder: Path) -> object:
    from segbench.published.tables import load_published

    (folder / "theirs.toml").write_text("[source]\nid = 'x'\n")
    return load_published(folder)
