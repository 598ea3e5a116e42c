"""Splits: which cases train, validate and test. Patients stay whole, and no random generator is used.

A patient's place in the order is the sha256 of its name, the dataset's and the seed, so a split depends on
the set of ids, the seed and the dataset alone: not on file order, platform, Python or numpy.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from segbench.core.errors import SegbenchError
from segbench.core.hashing import digest_json

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
PatientOf = Callable[[str], str] | Mapping[str, str]
"""The patient of a case: a function or a mapping."""


@dataclass(frozen=True)
class Split:
    """One fold: who trains, who validates, who is tested.

    Attributes:
        dataset: Slug of the dataset it was made for ("" for any).
        name: Its name, such as "random-70-10-20" or "folds-5".
        train, validation, test: Sorted case ids.
        method: How it was made: "random", "folds", "patient-safe" or "list".
        seed: Seed of the order; 0 for lists.
        acknowledged_leaks: The maker knows that patients stand in two parts, so it may be trained on.
        excluded: Cases of the dataset left out on purpose (patients of the test set).
        fold: Which fold of a cross-validation this is.
        limit: The number of cases per part it was cut to, None for whole.
    """

    dataset: str
    name: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    method: str = "list"
    seed: int = 0
    acknowledged_leaks: bool = False
    excluded: tuple[str, ...] = ()
    fold: int = 0
    limit: int | None = None

    def __post_init__(self) -> None:
        for part in (*PARTS, "excluded"):
            object.__setattr__(self, part, tuple(sorted(getattr(self, part))))

    @cached_property
    def digest(self) -> str:
        """Sha256 of the canonical JSON of the dataset's slug and the sorted lists, 64 hex digits."""
        return folds_digest([self])

    @property
    def counts(self) -> dict[str, int]:
        """Number of cases per part, and of those left out."""
        return {part: len(getattr(self, part)) for part in (*PARTS, "excluded")}

    def parts(self) -> dict[Part, tuple[str, ...]]:
        """The three lists by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def folds_digest(splits: Sequence[Split]) -> str:
    """Digest of all folds together: what `digest` of a split file holds after "sha256:"."""
    folds = [{part: list(cases) for part, cases in split.parts().items()} for split in splits]
    return digest_json({"dataset": splits[0].dataset if splits else "", "folds": folds})


def hash_key(patient: str, *, dataset: str = "", seed: int = 0) -> str:
    """A patient's key: hex sha256 of `segbench-split/1|{dataset}|{seed}|{patient}`."""
    return hashlib.sha256(f"segbench-split/1|{dataset}|{seed}|{patient}".encode()).hexdigest()


def _patients_in_order(
    case_ids: Iterable[str], patient_of: PatientOf, dataset: str, seed: int
) -> list[list[str]]:
    """The cases of each patient, patients in the order of (key, patient)."""
    patient = _function(patient_of)
    by_patient: dict[str, list[str]] = defaultdict(list)
    for case in sorted(set(case_ids)):
        by_patient[patient(case)].append(case)
    names = sorted(by_patient, key=lambda name: (hash_key(name, dataset=dataset, seed=seed), name))
    return [by_patient[name] for name in names]


def _function(given: PatientOf) -> Callable[[str], str]:
    return given.__getitem__ if isinstance(given, Mapping) else given


def _walk(patients: Sequence[Sequence[str]], *, test: int, validation: int) -> dict[Part, list[str]]:
    """Whole patients in order: to the test until it holds `test` cases, then validation, the rest trains."""
    parts: dict[Part, list[str]] = {"train": [], "validation": [], "test": []}
    for cases in patients:
        if len(parts["test"]) < test:
            parts["test"].extend(cases)
        elif len(parts["validation"]) < validation:
            parts["validation"].extend(cases)
        else:
            parts["train"].extend(cases)
    return parts


def _share(count: int, fraction: float) -> int:
    return math.floor(count * fraction + 0.5)


def random_split(
    case_ids: Iterable[str],
    *,
    patient_of: PatientOf,
    dataset: str = "",
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 0,
    name: str | None = None,
) -> Split:
    """A split by fractions (train, validation, test), patients whole.

    Args:
        case_ids: All cases; order and repetition do not matter.
        patient_of: The patient of a case.
        dataset: Slug; part of the order, so two datasets with equal ids are cut differently.
        fractions: Shares that sum to 1.
        seed: Any whole number.
        name: Name of the split; `random-70-10-20` and the like by default.

    Raises:
        SegbenchError: SB104 if the fractions do not sum to 1 or one is negative.
    """
    if not (min(fractions) >= 0 and abs(sum(fractions) - 1) <= 1e-6):  # so that NaN is refused too
        raise SegbenchError(
            "SB104",
            "the fractions of a split must be 0 or more and sum to 1",
            expected="such as 0.7,0.1,0.2 for train, validation, test",
            found=", ".join(f"{f:g}" for f in fractions),
        )
    patients = _patients_in_order(case_ids, patient_of, dataset, seed)
    count = sum(map(len, patients))
    parts = _walk(patients, test=_share(count, fractions[2]), validation=_share(count, fractions[1]))
    name = name or "random-" + "-".join(f"{100 * f:g}" for f in fractions)
    return Split(dataset, name, **_listed(parts), method="random", seed=seed)


def make_folds(
    case_ids: Iterable[str],
    *,
    patient_of: PatientOf,
    dataset: str = "",
    folds: int = 5,
    seed: int = 0,
    test: Iterable[str] = (),
    name: str | None = None,
) -> list[Split]:
    """Cross-validation: fold f validates, the others train; `test` is the same in each and never trains.

    Each patient, in the order of the keys, goes to the fold with the fewest cases so far; the lowest index on
    ties.

    Raises:
        SegbenchError: SB104 for fewer than 2 folds or fewer patients than folds.
    """
    tested = set(test)
    rest = [case for case in set(case_ids) if case not in tested]
    patients = _patients_in_order(rest, patient_of, dataset, seed)
    count = len(patients)
    if not 2 <= folds <= count:
        few = f"a cross-validation needs two patients or more, and {dataset or 'the list'} has {count}"
        raise SegbenchError(
            "SB104",
            few if count < 2 else f"{folds} is not a number of folds for {count} patients",
            expected=None if count < 2 else f"2 to {count} folds" if count > 2 else "2 folds",
            found=None if count < 2 else folds,
            mend="with one patient nothing can be held out: add patients" if count < 2 else None,
        )
    members: list[list[str]] = [[] for _ in range(folds)]
    for cases in patients:
        min(members, key=len).extend(cases)
    splits: list[Split] = []
    for fold in range(folds):
        train = [case for other in range(folds) if other != fold for case in members[other]]
        parts: dict[Part, list[str]] = {"train": train, "validation": members[fold], "test": sorted(tested)}
        of_fold = name or f"folds-{folds}"
        splits.append(Split(dataset, of_fold, **_listed(parts), method="folds", seed=seed, fold=fold))
    return splits


def _listed(parts: Mapping[Part, Sequence[str]]) -> dict[Part, tuple[str, ...]]:
    return {part: tuple(cases) for part, cases in parts.items()}


def patient_safe(
    split: Split, *, patient_of: PatientOf, validation_fraction: float = 0.1, seed: int = 0
) -> Split:
    """The same test set without leaks: every other case of a test patient is left out (`.excluded`).

    A validation set that is empty is cut from training by the walk of `random_split`, whole patients.
    """
    patient = _function(patient_of)
    tested = {patient(case) for case in split.test}
    train = [case for case in split.train if patient(case) not in tested]
    validation = [case for case in split.validation if patient(case) not in tested]
    # A patient of validation does not train either: find_leaks of the result is empty by construction.
    validating = {patient(case) for case in validation}
    train = [case for case in train if patient(case) not in validating]
    kept = {*train, *validation}
    excluded = [case for case in (*split.train, *split.validation) if case not in kept]
    if not validation:
        patients = _patients_in_order(train, patient_of, split.dataset, seed)
        walked = _walk(patients, test=0, validation=_share(len(train), validation_fraction))
        train, validation = walked["train"], walked["validation"]
    return replace(
        split,
        name="patient-safe",
        method="patient-safe",
        seed=seed,
        train=tuple(train),
        validation=tuple(validation),
        excluded=(*split.excluded, *excluded),
        acknowledged_leaks=False,
    )


def find_leaks(split: Split, *, patient_of: PatientOf) -> dict[str, dict[str, Part]]:
    """Patients that stand in more than one part, each with its cases and their parts; empty is good."""
    patient_name = _function(patient_of)
    members: dict[str, dict[str, Part]] = defaultdict(dict)
    for part, cases in split.parts().items():
        for case in cases:
            members[patient_name(case)][case] = part
    return {
        patient: dict(sorted(cases.items()))
        for patient, cases in sorted(members.items())
        if len(set(cases.values())) > 1
    }


@dataclass(frozen=True, slots=True)
class LeakCount:
    """How far a test set is seen in training: patients, test cases, and which case goes with which."""

    patients: int
    test_cases: int
    pairs: tuple[tuple[str, str], ...] = field(default=())


def count_leaks(split: Split, *, patient_of: PatientOf) -> LeakCount:
    """The leaks into the test set: test cases with a patient in train or validation.

    Patients count whichever parts they stand in; pairs are (test case, other case outside the test).
    """
    leaks = find_leaks(split, patient_of=patient_of)
    pairs = [
        (case, other)
        for cases in leaks.values()
        for case, part in cases.items()
        if part == "test"
        for other, elsewhere in cases.items()
        if elsewhere != "test"
    ]
    return LeakCount(len(leaks), len({case for case, _ in pairs}), tuple(sorted(pairs)))


def limit_split(split: Split, limit: int, *, patient_of: PatientOf) -> Split:
    """The first `limit` cases of every part in split-hash order (`--limit N`); the digest holds the lists.

    Raises:
        SegbenchError: SB104 if the limit is below 1.
    """
    if limit < 1:
        raise SegbenchError("SB104", f"--limit {limit} leaves no case", expected="1 or more")

    def first(cases: Sequence[str]) -> tuple[str, ...]:
        def key(case: str) -> tuple[str, str, str]:
            patient = _function(patient_of)(case)
            return hash_key(patient, dataset=split.dataset, seed=split.seed), patient, case

        return tuple(sorted(cases, key=key)[:limit])

    return replace(
        split,
        train=first(split.train),
        validation=first(split.validation),
        test=first(split.test),
        limit=limit,
    )
