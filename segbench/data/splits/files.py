"""Split files and names: lists and rules, their digests, and what is wrong with them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.core.atomic import atomic_write_json
from segbench.core.errors import SegbenchError, unknown_name
from segbench.core.hashing import digest_json
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

SCHEMA_VERSION = 1
EVERY_OTHER_CASE = "*"
STAND_IN = "random-70-10-20"
"""What real cards use on a tree of phantoms, whose ids no shipped list knows."""
RULES = ("patient-safe", "random", "folds", "forms", "table")
_KEYS = {
    "schema_version", "dataset", "name", "kind", "source", "acknowledged_leaks", "folds", "digest",
    "rule", "of", "seed", "fractions", "test", "validation", "table", "case", "column", "known_leaks",
}  # fmt: skip


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
            the path of a split file, or None for the card's default. On a tree of phantoms a real card's
            default is replaced by `random-70-10-20`.
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
            f"split {split.name}: {len(loaded.twice)} ids stand in two parts",
            path=loaded.path,
            details=[_some(loaded.twice)],
        )
    if loaded.unknown:
        named = len({case for s in loaded.splits for cases in s.parts().values() for case in cases})
        raise SegbenchError(
            "SB324",
            f"split {split.name} names {len(loaded.unknown)} cases that are not among the "
            f"{len(dataset.case_ids)} labelled cases of {dataset.card.slug}",
            path=loaded.path,
            expected=f"all of its {named} named cases in {dataset.root}",
            details=[f"absent: {_some(loaded.unknown)}"],
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
    document = _load(path)
    _check_document(document, path, dataset.card.slug)
    if document["kind"] == "rule":
        return _rule(document, path, dataset)
    name = str(document["name"])
    splits = _lists(document, dataset)
    known = set(dataset.case_ids)
    unknown: set[str] = set()
    twice: set[str] = set()
    for split in splits:
        members = [case for part in PARTS for case in getattr(split, part)]
        unknown |= set(members) - known
        twice |= (
            {case for case in members if members.count(case) > 1}
            if len(set(members)) < len(members)
            else set()
        )
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
        count = int(document.get("folds", 5))
        splits = make_folds(ids, patient_of=patient_of, dataset=slug, folds=count, seed=seed)
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
    rows = dataset.table(str(document["table"]))
    named = {row[document["case"]] for row in rows if row.get(document["column"]) in wanted}
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
        {part: cases if cases == EVERY_OTHER_CASE else sorted(cases) for part, cases in _filled(fold).items()}
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


def _filled(fold: Mapping[str, Any]) -> dict[str, Any]:
    return {part: fold.get(part, []) for part in PARTS}


def _load(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"split file {path} cannot be read: {error.strerror}"
        raise SegbenchError("SB110", message, path=path) from error
    except ValueError as error:
        raise SegbenchError("SB110", f"split file {path.name} is no JSON: {error}", path=path) from error
    if not isinstance(document, dict):
        raise SegbenchError("SB110", f"split file {path.name} is no JSON object", path=path)
    return document


def _check_document(document: Mapping[str, Any], path: Path, slug: str) -> None:
    """Refuse a malformed file with all its faults (SB110), and another dataset's file (SB324)."""
    faults = [f"{key}: no such key" for key in sorted(set(document) - _KEYS)]
    if document.get("schema_version") != SCHEMA_VERSION:
        faults.append(f"schema_version: found {document.get('schema_version')!r}; allowed: {SCHEMA_VERSION}")
    for key in ("name", "dataset"):
        if not isinstance(document.get(key), str):
            faults.append(f"{key}: found {document.get(key)!r}; allowed: a text")
    kind = document.get("kind")
    if kind == "list":
        faults += _list_faults(document.get("folds"))
    elif kind == "rule":
        faults += _rule_faults(document)
    else:
        faults.append(f"kind: found {kind!r}; allowed: list, rule")
    if faults:
        count = f"{len(faults)} fault{'s' * (len(faults) > 1)}"
        raise SegbenchError("SB110", f"split file {path.name} has {count}", path=path, details=faults)
    if document["dataset"] not in ("", slug):
        raise SegbenchError(
            "SB324",
            f"split {document['name']} was made for another dataset",
            path=path,
            expected=slug,
            found=document["dataset"],
        )


def _list_faults(folds: object) -> list[str]:
    if not isinstance(folds, list) or not folds:
        return ["folds: allowed: a list of {train, validation, test}"]
    faults: list[str] = []
    for index, fold in enumerate(folds):
        if not isinstance(fold, dict):
            faults.append(f"folds[{index}]: allowed: {{train, validation, test}}")
            continue
        for key, cases in fold.items():
            listed = isinstance(cases, list) and all(isinstance(case, str) for case in cases)
            if key not in PARTS:
                faults.append(f"folds[{index}].{key}: no such part; allowed: {', '.join(PARTS)}")
            elif not listed and cases != EVERY_OTHER_CASE:
                faults.append(f'folds[{index}].{key}: allowed: a list of case ids, or "{EVERY_OTHER_CASE}"')
        if list(fold.values()).count(EVERY_OTHER_CASE) > 1:
            faults.append(f'folds[{index}]: "{EVERY_OTHER_CASE}" may stand in one part only')
    return faults


def _rule_faults(document: Mapping[str, Any]) -> list[str]:
    rule = document.get("rule")
    if rule not in RULES:
        return [f"rule: found {rule!r}; allowed: {', '.join(RULES)}"]
    needs = {
        "patient-safe": ("of",),
        "forms": ("test",),
        "table": ("table", "case", "column", "test"),
    }
    faults = [
        f"{key}: this key is required by the rule {rule}"
        for key in needs.get(rule, ())
        if key not in document
    ]
    shares = document.get("fractions", [0.7, 0.1, 0.2])
    numbers = (
        isinstance(shares, list) and len(shares) == 3 and all(isinstance(s, int | float) for s in shares)
    )
    if not numbers or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6 or shares[2] >= 1:
        faults.append(f"fractions: found {shares!r}; allowed: three shares that sum to 1")
    seed = document.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool):
        faults.append(f"seed: found {seed!r}; allowed: a whole number")
    return faults


def _some(names: Sequence[str], count: int = 10) -> str:
    return ", ".join(names[:count]) + (f" ... ({len(names)} in all)" if len(names) > count else "")


def named_ids(paths: Iterable[Path]) -> set[str]:
    """Every case id that list files name, whatever the part; unreadable files name nobody."""
    ids: set[str] = set()
    for path in paths:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            folds = document.get("folds", [])
            ids |= {
                case
                for fold in folds
                for cases in fold.values()
                if cases != EVERY_OTHER_CASE
                for case in cases
            }
        except (OSError, ValueError, AttributeError, TypeError):
            continue
    return ids
