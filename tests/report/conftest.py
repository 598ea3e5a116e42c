"""Synthetic run folders: run.json and cases.csv as `architecture.md` describes them, made in code."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segbench.records.identity import safe_part

HEAD = ["run_id", "model", "dataset", "protocol", "fold", "seed", "case", "region", "status"]
FACTS = [
    "reference_voxels",
    "prediction_voxels",
    "reference_volume_ml",
    "prediction_volume_ml",
    "diagonal_mm",
]


class RunFactory:
    """Writes run folders below one directory and remembers nothing else."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def rows(
        self,
        model: str,
        *,
        dataset: str = "phantom-brats",
        protocol: str = "external",
        cases: int = 30,
        regions: Sequence[str] = ("TC", "WT", "ET"),
        skill: float = 0.85,
        seed: int = 0,
        fold: int = 0,
        noise: float = 0.03,
        run_noise: float = 0.0,
        diagonal: float | None = 250.0,
    ) -> list[dict[str, Any]]:
        """Rows of one run: case difficulty is shared by all models, noise is not."""
        digest = hash_text(model + dataset + str(seed))
        name = (
            f"{safe_part(model)}__{safe_part(dataset)}__{safe_part(protocol)}__f{fold}__s{seed}__{digest:08x}"
        )
        rows = []
        shared = np.random.default_rng(hash_text(dataset) + fold)
        own = np.random.default_rng(hash_text(f"{model}|{dataset}|{protocol}|{seed}|{fold}"))
        shift = run_noise * own.standard_normal()
        for number in range(cases):
            for place, region in enumerate(regions):
                hard = 0.10 * shared.random() ** 2
                volume = float(np.exp(shared.normal(2.0, 1.0)))
                dice = float(
                    np.clip(skill - 0.02 * place - hard + shift + noise * own.standard_normal(), 0.02, 0.999)
                )
                rows.append(
                    {
                        "run_id": name,
                        "model": model,
                        "dataset": dataset,
                        "protocol": protocol,
                        "fold": fold,
                        "seed": seed,
                        "case": f"case-{fold}{number:03d}",
                        "region": region,
                        "status": "ok",
                        "reference_voxels": int(volume * 1000),
                        "prediction_voxels": int(volume * 1000 * (0.9 + 0.2 * dice)),
                        "reference_volume_ml": volume,
                        "prediction_volume_ml": volume * (0.9 + 0.1 * dice + 0.05 * own.standard_normal()),
                        "diagonal_mm": "" if diagonal is None else diagonal,
                        "penalised": "",
                        "code": "",
                        "dice": dice,
                        "hd95": float(40 * (1 - dice) + 2 * own.random()),
                        "nsd": float(np.clip(dice + 0.03 + 0.02 * own.standard_normal(), 0, 1)),
                    }
                )
        return rows

    def write(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        folder: str | None = None,
        record: Mapping[str, Any] | None = None,
        kind: str = "external",
        status: str = "complete",
        columns: Sequence[str] | None = None,
    ) -> Path:
        """One run folder; ``record`` adds to or replaces the four required fields of run.json; the digests
        "own" are those of the file.
        """
        first = rows[0]
        place = self.root / (folder or safe_name(str(first["run_id"])))
        place.mkdir(parents=True, exist_ok=True)
        content = {
            "schema_version": 1,
            "run_id": first["run_id"],
            "kind": kind,
            "status": status,
            **(record or {}),
        }
        text = csv_text(rows, columns)
        if content.get("digests") == "own":
            content["digests"] = {"cases": hashlib.sha256(text.encode()).hexdigest()}
        (place / "run.json").write_text(json.dumps(content), encoding="utf-8")
        (place / "cases.csv").write_text(text, encoding="utf-8")
        return place

    def run(
        self, model: str, *, record: Mapping[str, Any] | None = None, kind: str = "external", **how: Any
    ) -> Path:
        """Rows and folder in one step."""
        return self.write(self.rows(model, **how), record=record, kind=kind)


def hash_text(text: str) -> int:
    """A small number that depends on the text alone (the builtin hash is salted)."""
    total = 7
    for character in text:
        total = (total * 131 + ord(character)) % 1_000_003
    return total


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """cases.csv as the suite writes it: 17 significant digits, empty for NaN."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = list(columns or rows[0])
    writer.writerow(names)
    for row in rows:
        writer.writerow([_text(row.get(name, "")) for name in names])
    return stream.getvalue()


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else format(value, ".17g")
    return str(value)


@pytest.fixture
def runs(tmp_path: Path) -> RunFactory:
    return RunFactory(tmp_path / "runs")


@pytest.fixture(scope="session")
def factory_at() -> Callable[[Path], RunFactory]:
    return RunFactory


def safe_name(text: str) -> str:
    """A folder name for any run id, different for different ids."""
    plain = "".join(c if c.isascii() and c.isalnum() else "-" for c in text)
    return f"{plain[:80]}-{hash_text(text):06d}"
