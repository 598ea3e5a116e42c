"""`segbench data split`: make a split by rule, check one, exchange folds with nnU-Net."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from segbench.cli.common import settings, show
from segbench.cli.options import DatasetArgument, Root, option
from segbench.core import console
from segbench.core.errors import SegbenchError

if TYPE_CHECKING:
    from segbench.data import Dataset
    from segbench.data.splits import SplitFile


def split(
    dataset: DatasetArgument,
    path: Root = None,
    check: Annotated[
        str | None,
        option("--check", "Check a split or a splits_final.json.", metavar="NAME|FILE"),
    ] = None,
    folds: Annotated[int | None, option("--folds", "Cross-validation with so many folds.")] = None,
    fractions: Annotated[
        str | None,
        option("--fractions", "Shares of train, validation, test: 0.7,0.1,0.2.", metavar="T,V,E"),
    ] = None,
    seed: Annotated[int, option("--seed", "Seed of the order of patients.")] = 0,
    write: Annotated[Path | None, option("--write", "Write the split to a file.", metavar="FILE")] = None,
    to_nnunet: Annotated[
        Path | None, option("--to-nnunet", "Write the folds as a splits_final.json.", metavar="FILE")
    ] = None,
) -> int:
    """Split by patients, the same on every machine; count how far the test set leaks into training.

    Example: segbench data split msd-hippocampus --folds 5 --write folds.json
    """
    from segbench.data import open_dataset
    from segbench.data.splits import save_split
    from segbench.data.splits import to_nnunet as write_nnunet

    opened = open_dataset(dataset, path=path, max_bytes=settings().max_volume)
    loaded = _make(opened, check, folds, fractions, seed)
    report = _report(opened, loaded)
    several = len(report["folds"]) > 1
    show(report if several else report | report["folds"][0], _lines(report))
    bad = bool(loaded.unknown or loaded.twice)
    acknowledged = loaded.splits[0].acknowledged_leaks
    leaking = report["leaks"]["patients"] > 0
    if leaking and acknowledged:
        console.warn(_leak_text(report) + " (acknowledged by the split)")
    if bad or (leaking and not acknowledged):
        _say_why(loaded, report)
        return 4
    _check_free(opened, loaded, write, to_nnunet, check)
    if write is not None:
        save_split(list(loaded.splits), write)
        console.note(f"-> {write}")
    if to_nnunet is not None:
        write_nnunet(list(loaded.splits), to_nnunet)
        console.note(f"-> {to_nnunet}")
    return 0


def _check_free(
    dataset: Dataset, loaded: SplitFile, write: Path | None, to_nnunet: Path | None, check: str | None
) -> None:
    """SB337 unless the files to write are free, or hold the same folds already."""
    from segbench.core.foreign import parse_json
    from segbench.core.outputs import check_targets
    from segbench.data.splits import folds_digest

    folds = [{"train": list(split.train), "val": list(split.validation)} for split in loaded.splits]

    def same(path: Path) -> bool:
        try:
            content: Any = parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        if path == to_nnunet:
            return bool(content == folds)
        return isinstance(content, dict) and content.get("digest") == f"sha256:{folds_digest(loaded.splits)}"

    inputs = [] if check is None else [Path(check)]
    inputs += [path for files in dataset.discovery.cases.values() for path in files.files]
    check_targets([path for path in (write, to_nnunet) if path is not None], inputs=inputs, own=same)


def _make(
    dataset: Dataset, check: str | None, folds: int | None, fractions: str | None, seed: int
) -> SplitFile:
    from segbench.data import splits

    given = {"--check": check, "--folds": folds, "--fractions": fractions}
    asked = [name for name, value in given.items() if value is not None]
    if len(asked) > 1:
        raise SegbenchError("SB104", f"{' and '.join(asked)} exclude each other", mend="give one of them")
    slug, ids, patient_of = dataset.card.slug, dataset.case_ids, dataset.patient_of
    if folds is not None:
        made = splits.make_folds(ids, patient_of=patient_of, dataset=slug, folds=folds, seed=seed)
        return splits.SplitFile(tuple(made))
    if fractions is not None:
        shares = _shares(fractions)
        one = splits.random_split(ids, patient_of=patient_of, dataset=slug, fractions=shares, seed=seed)
        return splits.SplitFile((one,))
    return splits.read_split(check, dataset)


def _shares(text: str) -> tuple[float, float, float]:
    try:
        train, validation, test = (float(part) for part in text.split(","))
    except ValueError:
        raise SegbenchError(
            "SB104", f"--fractions {text!r} is not three numbers", mend="for example --fractions 0.7,0.1,0.2"
        ) from None
    return train, validation, test


def _report(dataset: Dataset, loaded: SplitFile) -> dict[str, Any]:
    """The split as plain values; `leaks` counts the worst fold."""
    from segbench.data.splits import count_leaks, find_leaks, folds_digest

    folds: list[dict[str, Any]] = []
    for one in loaded.splits:
        leaks = count_leaks(one, patient_of=dataset.patient_of)
        folds.append(
            {
                "counts": one.counts,
                "leaks": {
                    "patients": leaks.patients,
                    "test_cases": leaks.test_cases,
                    "pairs": [list(pair) for pair in leaks.pairs],
                },
                "leaking_patients": sorted(find_leaks(one, patient_of=dataset.patient_of)),
            }
        )
    worst = max(folds, key=lambda fold: (fold["leaks"]["test_cases"], fold["leaks"]["patients"]))
    return {
        "dataset": dataset.card.slug,
        "name": loaded.splits[0].name,
        "digest": f"sha256:{folds_digest(loaded.splits)}",
        "acknowledged_leaks": loaded.splits[0].acknowledged_leaks,
        "folds": folds,
        "leaks": worst["leaks"],
        "unknown": list(loaded.unknown),
        "uncovered": list(loaded.uncovered),
        "twice": list(loaded.twice),
    }


def _lines(report: dict[str, Any]) -> Iterator[str]:
    yield f"split {report['name']} of {report['dataset']}, {report['digest']}"
    rows = [
        [
            str(index),
            *(str(fold["counts"][part]) for part in ("train", "validation", "test", "excluded")),
            f"{fold['leaks']['test_cases']} test cases, {fold['leaks']['patients']} patients",
        ]
        for index, fold in enumerate(report["folds"])
    ]
    header = ["fold", "train", "validation", "test", "left out", "leaks"]
    yield from console.table_lines(header, rows, right=range(5))
    for key, text in (("unknown", "unknown ids"), ("uncovered", "cases in no part"), ("twice", "ids twice")):
        names = report[key]
        if names:
            more = " ..." if len(names) > 10 else ""
            yield f"{text}: {len(names)}: {', '.join(names[:10])}{more}"


def _leak_text(report: dict[str, Any]) -> str:
    tested = max(fold["counts"]["test"] for fold in report["folds"])
    leaks = report["leaks"]
    if not tested:
        return f"{leaks['patients']} patients are in more than one part"
    return f"{leaks['test_cases']} of {tested} test cases share a patient with training or validation"


def _say_why(loaded: SplitFile, report: dict[str, Any]) -> None:
    code, what = "SB323", _leak_text(report)
    if loaded.unknown or loaded.twice:
        code = "SB324"
        what = f"{len(loaded.unknown)} ids are unknown, {len(loaded.twice)} are in two parts"
    console.fail(SegbenchError(code, f"split {report['name']}: {what}", path=loaded.path))
