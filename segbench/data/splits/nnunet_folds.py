"""nnU-Net's `splits_final.json` both ways: a list of {train, val}, over cases and without a test set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from segbench.core.atomic import atomic_write_json
from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_json
from segbench.core.text import count
from segbench.data.splits.walk import Split


def from_nnunet(path: Path | str, case_ids: Iterable[str], *, dataset: str = "") -> list[Split]:
    """The folds of a `splits_final.json`: `val` validates, nobody tests.

    nnU-Net's own folds are over cases, not patients (nnunetv2/utilities/crossval_split.py): count their
    leaks.

    Raises:
        SegbenchError: SB110 when the file is no list of {train, val}; SB324 for unknown ids or an id in two
            parts.
    """
    path = Path(path)
    try:
        document = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SegbenchError("SB110", f"{path.name} cannot be read: {error}", path=path) from error
    faults = _faults(document)
    if faults:
        raise SegbenchError("SB110", f"{path.name} is not a splits_final.json", path=path, details=faults)
    known = set(case_ids)
    unknown = sorted({case for fold in document for key in ("train", "val") for case in fold[key]} - known)
    if unknown:
        raise SegbenchError(
            "SB324",
            f"{path.name} names {count(len(unknown), 'case')} that the dataset does not have",
            path=path,
            details=[", ".join(unknown[:10]) + (" ..." if len(unknown) > 10 else "")],
        )
    splits = [
        Split(
            dataset=dataset,
            name=f"nnunet-{len(document)}",
            train=tuple(fold["train"]),
            validation=tuple(fold["val"]),
            test=(),
            method="folds",
            fold=index,
        )
        for index, fold in enumerate(document)
    ]
    for split in splits:
        counts = Counter((*split.train, *split.validation))
        twice = sorted(case for case, count in counts.items() if count > 1)
        if twice:
            both = set(split.train) & set(split.validation)
            what = "trains and validates on the same cases" if both else "names a case twice"
            message = f"fold {split.fold} {what}"
            raise SegbenchError("SB324", message, path=path, found=", ".join(twice[:10]))
    return splits


def to_nnunet(splits: Split | Sequence[Split], path: Path | str) -> Path:
    """Write folds as nnU-Net's `splits_final.json`; test cases are left out (there they are in imagesTs)."""
    folds = [splits] if isinstance(splits, Split) else list(splits)
    content = [{"train": list(split.train), "val": list(split.validation)} for split in folds]
    return atomic_write_json(path, content)


def _faults(document: object) -> list[str]:
    if not isinstance(document, list) or not document:
        return ["(file): allowed: a list of folds, each {train: [...], val: [...]}"]
    return [
        f"[{index}].{key}: allowed: a list of case ids"
        for index, fold in enumerate(document)
        for key in ("train", "val")
        if not isinstance(fold, dict)
        or not isinstance(fold.get(key), list)
        or not all(isinstance(case, str) for case in fold[key])
    ]
