"""Split files and names: lists and rules, their digests, and what is wrong with them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from segbench.core.atomic import atomic_write_json
from segbench.core.errors import SegbenchError, unknown_name
from segbench.core.hashing import digest_json
from segbench.core.text import count, some
from segbench.data.splits.document import (
    EVERY_OTHER_CASE,
    SCHEMA_VERSION,
    check_document,
    load_document,
)
from segbench.data.splits.nnunet_folds import from_nnunet
from segbench.data.splits.walk import (
    PARTS,
    Split,
    folds_digest,
    make_folds,
    patient_safe,
    random_split,
)

if TYPE_CHECKING:
    from segbench.data.dataset import Dataset

STAND_IN = "random-70-10-20"
"""What real cards use on a tree of phantoms, whose ids no shipped list knows."""


@dataclass(frozen=True, slots=True)
class SplitFile:
    """A split as loaded, with what does not fit the dataset at hand.

    Attributes:
        splits: One per fold.
        unknown: Ids that the split names and the dataset does not have, sorted.
        uncovered: Labelled cases of the dataset that no fold names, sorted (left-out ones excepted).
        twice: Ids that stand in two parts of one fold, sorted.
        path: The file it came from, None for a rule by name.
    """

    splits: tuple[Split, ...]
    unknown: tuple[str, ...] = ()
    uncovered: tuple[str, ...] = ()
    twice: tuple[str, ...] = ()
    path: Path | None = None


def load_split(name_or_path: str | Path | None, dataset: Dataset) -> list[Split]:
    """The folds of a split, checked against the dataset.

    Args:
        name_or_path: A file of the card (`official`), a rule (`random-70-10-20`, `folds-5`, `patient-safe`),
            the path of a split file or of a `run.json` (the fold of that run), or None for the card's
            default. On a tree of phantoms a real card's default is replaced by `random-70-10-20`.
        dataset: The opened dataset; rules and `"*"` draw on its labelled cases.

    Returns:
        One split per fold. Leaks are not refused here: whoever trains asks `find_leaks` and
        `Split.acknowledged_leaks`.

    Raises:
        SegbenchError: SB101 unknown name, SB110 malformed file, SB324 unknown ids, an id in two parts or
            another dataset's split, SB335 digest that does not match.
    """
    loaded = read_split(name_or_path, dataset)
    split = loaded.splits[0]
    if loaded.twice:
        raise SegbenchError(
            "SB324",
            f"split {split.name}: {count(len(loaded.twice), 'id')} in two parts of one fold",
            path=loaded.path,
            details=[some(loaded.twice, 10)],
        )
    if loaded.unknown:
        raise SegbenchError(
            "SB324",
            f"split {split.name} names {count(len(loaded.unknown), 'case')} that this copy of "
            f"{dataset.card.slug} does not have",
            path=loaded.path,
            expected=f"every named case among the {len(dataset.case_ids)} labelled ones in {dataset.root}",
            details=[f"absent: {some(loaded.unknown, 10)}"],
            mend=f"complete the copy of the data, or use a split by rule: --split {STAND_IN}",
        )
    return list(loaded.splits)


def read_split(name_or_path: str | Path | None, dataset: Dataset) -> SplitFile:
    """As `load_split`, but ids that do not fit are given back instead of refused (`--check`, verify)."""
    name = default_split(dataset) if name_or_path is None else str(name_or_path)
    if name == dataset.card.splits.default:
        name = default_split(dataset)
    file = dataset.split_files().get(name)
    if file is None and _looks_like_file(name_or_path):
        file = Path(name)
    if file is not None:
        return _read_file(file, dataset)
    by_rule = _by_name(name, dataset)
    if by_rule is None:
        known = sorted({*dataset.split_files(), dataset.card.splits.default, STAND_IN, "folds-5"})
        raise unknown_name("split", name, known, listing=f"segbench show dataset:{dataset.card.slug}")
    return SplitFile(tuple(by_rule), uncovered=_uncovered(by_rule, dataset))


def default_split(dataset: Dataset) -> str:
    """The name of the split that is used when none is named."""
    return STAND_IN if dataset.stands_in else dataset.card.splits.default


def save_split(splits: Split | Sequence[Split], path: Path | str, *, source: str = "") -> Path:
    """Write folds as a split file with its digest; the same folds give the same bytes."""
    folds = [splits] if isinstance(splits, Split) else list(splits)
    first = folds[0]
    content = {
        "schema_version": SCHEMA_VERSION,
        "dataset": first.dataset,
        "name": first.name,
        "kind": "list",
        "source": source or f"segbench: {first.method}, seed {first.seed}",
        "acknowledged_leaks": any(split.acknowledged_leaks for split in folds),
        "folds": [{part: list(cases) for part, cases in split.parts().items()} for split in folds],
        "digest": f"sha256:{folds_digest(folds)}",
    }
    return atomic_write_json(path, content)


def _looks_like_file(name: str | Path | None) -> bool:
    return isinstance(name, Path) or (isinstance(name, str) and (name.endswith(".json") or "/" in name))


def _by_name(name: str, dataset: Dataset) -> list[Split] | None:
    """The split of a rule's name, or None when it is no rule."""
    numbers = r"(\d+(?:\.\d+)?)"
    match = re.fullmatch(rf"random-{numbers}-{numbers}-{numbers}", name)
    ids, patient_of, slug = dataset.case_ids, dataset.patient_of, dataset.card.slug
    if match:
        shares = [float(part) / 100 for part in match.groups()]
        fractions = (shares[0], shares[1], shares[2])
        return [random_split(ids, patient_of=patient_of, dataset=slug, fractions=fractions, name=name)]
    match = re.fullmatch(r"folds-(\d+)", name)
    if match:
        return make_folds(ids, patient_of=patient_of, dataset=slug, folds=int(match[1]), name=name)
    if name == "patient-safe" and "official" in dataset.split_files():
        official = read_split("official", dataset).splits
        return [patient_safe(split, patient_of=patient_of) for split in official]
    return None


def _read_file(path: Path, dataset: Dataset) -> SplitFile:
    document = load_document(path)
    if isinstance(document, list):
        folds = from_nnunet(path, dataset.case_ids, dataset=dataset.card.slug)
        return SplitFile(tuple(folds), uncovered=_uncovered(folds, dataset), path=path)
    if "run_id" in document:
        return _of_record(document, path, dataset)
    check_document(document, path, dataset.card.slug)
    if document["kind"] == "rule":
        return _rule(document, path, dataset)
    return _list_file(document, path, dataset)


def _of_record(record: Mapping[str, Any], path: Path, dataset: Dataset) -> SplitFile:
    """The one fold that a run record holds, so that the run can be made again where its split file is not."""
    held = record.get("split")
    part: Mapping[str, Any] = cast("Mapping[str, Any]", held) if isinstance(held, dict) else {}
    about = record.get("dataset")
    fold = record.get("fold", 0)
    document = {
        "schema_version": SCHEMA_VERSION,
        "name": part.get("name"),
        "dataset": about.get("slug") if isinstance(about, dict) else None,
        "kind": "list",
        "acknowledged_leaks": bool(part.get("acknowledged_leaks", False)),
        "folds": [{name: part.get(name, []) for name in PARTS}],
    }
    check_document(document, path, dataset.card.slug)
    loaded = _list_file(document, path, dataset)
    return replace(loaded, splits=(replace(loaded.splits[0], fold=fold if isinstance(fold, int) else 0),))


def _list_file(document: Mapping[str, Any], path: Path, dataset: Dataset) -> SplitFile:
    name = str(document["name"])
    splits = _lists(document, dataset)
    known = set(dataset.case_ids)
    unknown: set[str] = set()
    twice: set[str] = set()
    for split in splits:
        counts = Counter(case for part in PARTS for case in getattr(split, part))
        unknown |= set(counts) - known
        twice |= {case for case, count in counts.items() if count > 1}
    _check_digest(document, path, name, dataset)
    return SplitFile(
        tuple(splits),
        unknown=tuple(sorted(unknown)),
        uncovered=_uncovered(splits, dataset),
        twice=tuple(sorted(twice)),
        path=path,
    )


def _lists(document: Mapping[str, Any], dataset: Dataset) -> list[Split]:
    """The folds of a list file, `"*"` replaced by every labelled case not named elsewhere in the fold."""
    splits: list[Split] = []
    for index, fold in enumerate(document["folds"]):
        named = {case for cases in fold.values() if cases != EVERY_OTHER_CASE for case in cases}
        rest = tuple(case for case in dataset.case_ids if case not in named)
        parts = {
            part: rest if fold.get(part) == EVERY_OTHER_CASE else tuple(fold.get(part, ())) for part in PARTS
        }
        splits.append(
            Split(
                dataset=dataset.card.slug,
                name=str(document["name"]),
                train=parts["train"],
                validation=parts["validation"],
                test=parts["test"],
                acknowledged_leaks=bool(document.get("acknowledged_leaks", False)),
                fold=index,
            )
        )
    return splits


def _rule(document: Mapping[str, Any], path: Path, dataset: Dataset) -> SplitFile:
    rule, name, seed = document["rule"], str(document["name"]), int(document.get("seed", 0))
    ids, patient_of, slug = dataset.case_ids, dataset.patient_of, dataset.card.slug
    shares = [float(share) for share in document.get("fractions", (0.7, 0.1, 0.2))]
    fractions = (shares[0], shares[1], shares[2])
    unknown: tuple[str, ...] = ()
    if rule == "patient-safe":
        of = read_split(str(document["of"]), dataset)
        unknown = of.unknown
        share = fractions[1] / (1 - fractions[2])
        splits = [
            patient_safe(split, patient_of=patient_of, seed=seed, validation_fraction=share)
            for split in of.splits
        ]
    elif rule == "random":
        splits = [random_split(ids, patient_of=patient_of, dataset=slug, fractions=fractions, seed=seed)]
    elif rule == "folds":
        folds = int(document.get("folds", 5))
        splits = make_folds(ids, patient_of=patient_of, dataset=slug, folds=folds, seed=seed)
    else:
        test = _members(document, dataset, "test")
        validation = _members(document, dataset, "validation") - test
        rest = set(ids) - test - validation
        given = Split(slug, name, tuple(rest), tuple(validation), tuple(test), seed=seed)
        share = fractions[1] / (1 - fractions[2])
        splits = [patient_safe(given, patient_of=patient_of, seed=seed, validation_fraction=share)]
    splits = [replace(split, name=name) for split in splits]
    return SplitFile(tuple(splits), unknown=unknown, uncovered=_uncovered(splits, dataset), path=path)


def _members(document: Mapping[str, Any], dataset: Dataset, part: str) -> set[str]:
    """Cases of a part that the tree itself names: by the form they lie in, or by a column of a table."""
    wanted = set(document.get(part, ()))
    if document["rule"] == "forms":
        return {case for case in dataset.case_ids if dataset.case(case).form in wanted}
    case, column = str(document["case"]), str(document["column"])
    named = {
        row[case] for row in dataset.table(str(document["table"]), case, column) if row[column] in wanted
    }
    return named & set(dataset.case_ids)


def _uncovered(splits: Sequence[Split], dataset: Dataset) -> tuple[str, ...]:
    covered = {case for split in splits for part in (*PARTS, "excluded") for case in getattr(split, part)}
    return tuple(case for case in dataset.case_ids if case not in covered)


def _check_digest(document: Mapping[str, Any], path: Path, name: str, dataset: Dataset) -> None:
    """A stored digest must be that of the stored lists, `"*"` as it stands."""
    stored = document.get("digest")
    if stored is None:
        return
    folds = [
        {
            part: cases if (cases := fold.get(part, [])) == EVERY_OTHER_CASE else sorted(cases)
            for part in PARTS
        }
        for fold in document["folds"]
    ]
    expected = f"sha256:{digest_json({'dataset': document.get('dataset', ''), 'folds': folds})}"
    if stored != expected:
        raise SegbenchError(
            "SB335",
            f"split {name} was changed after its digest was written",
            path=path,
            expected=expected,
            found=stored,
            mend="take the file from its source again, or remove the line 'digest' if the change was meant",
        )
