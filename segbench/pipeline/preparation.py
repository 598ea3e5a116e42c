"""Preparing a dataset ahead of its cells, and keeping the cache within bounds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segbench.cards import load_protocol
from segbench.core import console
from segbench.core.errors import SegbenchError
from segbench.data import open_dataset
from segbench.data.digest import content_digest
from segbench.data.prepared.eviction import evict
from segbench.data.prepared.prepare import prepare_dataset
from segbench.pipeline.plan import usable_splits
from segbench.pipeline.preparing import build_recipe, prepared_root


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was prepared, and where."""

    dataset: str
    cases: int
    folder: Path
    failures: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "dataset": self.dataset,
            "cases": self.cases,
            "folder": str(self.folder),
            "failures": self.failures,
        }


def prepare_ahead(
    dataset: str, *, path: Path | None, data_dir: Path | None, protocol: str, workers: int
) -> Prepared:
    """Prepare every case of the dataset's default split for a protocol.

    Raises:
        SegbenchError: The dataset's or a case's fault; SB505 when the forecast does not fit the disk.
    """
    opened = open_dataset(dataset, path=path, data_dir=data_dir)
    settings = load_protocol(protocol)
    name = None if settings.split.name == "card" else settings.split.name
    split = usable_splits(opened, name, settings.split.limit)[0]
    cases = sorted({*split.train, *split.validation, *split.test})
    card = opened.card
    recipe = build_recipe(card, settings.data, content_digest(opened))
    with console.progress(f"prepare {card.slug}", len(cases)) as bar:
        cache = prepare_dataset(
            opened,
            cases,
            recipe,
            prepared_root(),
            training_ids=split.train,
            workers=workers,
            progress=lambda case: bar.advance(note=case),
            on_error="collect",
        )
    for case, error in cache.failures.items():
        console.warn(f"{error.code}: case {case}: {error.message}")
    failures = {case: error.code for case, error in cache.failures.items()}
    return Prepared(card.slug, len(cases) - len(failures), Path(cache.folder), failures)


def evict_recipes(keep_gb: float) -> list[Path]:
    """Remove the recipes used longest ago until the rest fits; gives the folders removed.

    A recipe that a living process uses stays, whatever its size.

    Args:
        keep_gb: Size that may stay, in units of 10^9 bytes.

    Raises:
        SegbenchError: SB104 for a size that cannot be.
    """
    if not 0 <= keep_gb < float("inf"):
        raise SegbenchError(
            "SB104",
            f"--evict {keep_gb:g}: no size to keep",
            expected="0 or more, in GB",
            found=keep_gb,
            mend="--evict 0 removes every recipe that no running cell uses",
        )
    return evict(prepared_root(), int(keep_gb * 1e9))
