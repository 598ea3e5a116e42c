"""Checks across cases: classes, duplicates, the split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from segbench.core.errors import SegbenchError
from segbench.data.adapters.base import inside
from segbench.data.dataset import Dataset
from segbench.data.finding import Finding, finding, finding_of
from segbench.data.splits import Split, find_leaks
from segbench.data.splits.files import read_split
from segbench.data.verify.facts import LabelFacts
from segbench.data.verify.gather import DatasetFacts
from segbench.data.verify.report import LabelCount
from segbench.data.verify.view import CaseView, channels_of


def labels_of(dataset: Dataset, facts: DatasetFacts) -> dict[str, LabelFacts]:
    """What each reference that could be read holds, by case."""
    found: dict[str, LabelFacts] = {}
    for case in dataset.discovery.cases:
        label = CaseView(dataset, case, facts).label()
        if label is not None:
            found[case] = label
    return found


def count_labels(labels: Mapping[str, LabelFacts]) -> dict[int, LabelCount]:
    """Voxels and cases of each value that occurs, in ascending order."""
    voxels: dict[int, int] = defaultdict(int)
    cases: dict[int, int] = defaultdict(int)
    for label in labels.values():
        for value, count in label.voxels.items():
            voxels[value] += count
            cases[value] += 1
    return {value: LabelCount(voxels[value], cases[value]) for value in sorted(voxels)}


def check_classes(
    dataset: Dataset, labels: Mapping[str, LabelFacts], splits: Sequence[Split]
) -> Iterator[Finding]:
    """A declared class that no case holds, or none that trains."""
    if not labels:
        return
    present = {value for label in labels.values() for value in label.voxels}
    for value in dataset.card.foreground:
        name = dataset.card.labels[value]
        if value not in present:
            mend = "check the copy of the data and its label convention"
            yield finding("SB319", "warning", f"no case holds label {value} ({name})", mend=mend)
            continue
        for split in splits:
            training = [labels[case] for case in split.train if case in labels]
            if training and not any(value in label.voxels for label in training):
                message = f"no training case of split {_name(split, splits)} holds label {value} ({name})"
                yield finding("SB319", "warning", message)


def check_duplicates(
    dataset: Dataset, facts: DatasetFacts, labels: Mapping[str, LabelFacts], splits: Sequence[Split]
) -> Iterator[Finding]:
    """The same voxels under two names: images, and labels of images that differ."""
    voxels = {case: channels_of(dataset.case(case), facts) for case in dataset.discovery.cases}
    where: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for case, channels in voxels.items():
        for channel, found in channels.items():
            if found.low != found.high:
                where[found.digest].append((case, channel))
    pairs: dict[tuple[str, str], list[str]] = defaultdict(list)
    for places in where.values():
        (first, channel), *others = places
        for case, other in others:
            pairs[first, case].append(channel if channel == other else f"{channel} and {other}")
    for (first, case), channels in pairs.items():
        yield _same_image(dataset, first, case, channels, splits)
    digests = {case: {found.digest for found in channels.values()} for case, channels in voxels.items()}
    yield from _same_labels(dataset, digests, labels)


def check_split(
    dataset: Dataset, split: str | Path | Split | Sequence[Split]
) -> tuple[list[Split], list[Finding]]:
    """The folds of a split and what is wrong with them: unknown ids, ids twice, cases left over, leaks."""
    if isinstance(split, str | Path):
        try:
            splits = list(read_split(split, dataset).splits)
        except SegbenchError as error:
            if error.code not in {"SB324", "SB335"}:
                raise
            return [], [finding_of(error, message=" ".join((error.message, *error.details)))]
    else:
        splits = [split] if isinstance(split, Split) else list(split)
    findings: list[Finding] = []
    for fold in splits:
        findings += _ids(dataset, fold, _name(fold, splits))
        findings += _leaks(dataset, fold, _name(fold, splits))
    findings += _uncovered(dataset, splits)
    return splits, findings


def _ids(dataset: Dataset, split: Split, name: str) -> Iterator[Finding]:
    known = set(dataset.case_ids)
    parts: dict[str, list[str]] = defaultdict(list)
    for part, cases in split.parts().items():
        for case in cases:
            parts[case].append(part)
    for case, places in sorted(parts.items()):
        if len(places) > 1:
            message = f"split {name} has the case twice"
            yield finding("SB324", "error", message, case=case, expected="one part", found=", ".join(places))
        if case not in known:
            message = f"split {name} names a case that is not here"
            yield finding("SB324", "error", message, case=case, found=", ".join(places))


def _uncovered(dataset: Dataset, splits: Sequence[Split]) -> Iterator[Finding]:
    if not splits or any(split.limit is not None for split in splits):
        return
    covered = {case for split in splits for cases in split.parts().values() for case in cases}
    covered |= {case for split in splits for case in split.excluded}
    for case in dataset.case_ids:
        if case not in covered:
            yield finding("SB324", "warning", f"split {splits[0].name} does not use the case", case=case)


def _leaks(dataset: Dataset, split: Split, name: str) -> Iterator[Finding]:
    known = set(dataset.discovery.cases)

    def patient_of(case: str) -> str:
        return dataset.patient_of(case) if case in known else case

    for patient, cases in find_leaks(split, patient_of=patient_of).items():
        if len(cases) < 2:
            continue  # one id in two parts is SB324
        tested = [case for case, part in cases.items() if part == "test"] or list(cases)
        listed = ", ".join(f"{case} ({part})" for case, part in cases.items())
        yield finding(
            "SB323",
            "warning" if split.acknowledged_leaks else "error",
            f"patient {patient} is in two parts of split {name}"
            + (" (acknowledged)" if split.acknowledged_leaks else ""),
            case=tested[0],
            found=listed,
        )


def _same_image(
    dataset: Dataset, first: str, case: str, channels: list[str], splits: Sequence[Split]
) -> Finding:
    files = dataset.case(case)
    channel = channels[0].split(" and ")[-1]
    file = inside(files.images[channel], dataset.root)
    what = f"channel{'s' if len(channels) > 1 else ''} {', '.join(channels)}"
    if first == case:
        return finding("SB321", "warning", f"{what}: the same image twice in one case", case=case, file=file)
    for split in splits:
        parts = {member: part for part, cases in split.parts().items() for member in cases}
        if first in parts and case in parts and parts[first] != parts[case]:
            message = (
                f"{what}: the same image as case {first}, in another part of split {_name(split, splits)}"
            )
            found = f"{first} ({parts[first]}), {case} ({parts[case]})"
            return finding("SB321", "error", message, case=case, file=file, found=found)
    return finding("SB321", "warning", f"{what}: the same image as case {first}", case=case, file=file)


def _same_labels(
    dataset: Dataset, digests: Mapping[str, set[str]], labels: Mapping[str, LabelFacts]
) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for case, label in labels.items():
        if not any(value for value in label.voxels):
            continue
        first = seen.setdefault(label.digest, case)
        if first != case and not digests[first] & digests[case]:
            references = dataset.case(case).reference_files
            file = inside(references[0], dataset.root) if len(references) == 1 else None
            message = f"the reference is that of case {first}, but the images differ"
            yield finding("SB322", "warning", message, case=case, file=file)


def _name(split: Split, splits: Sequence[Split]) -> str:
    return f"{split.name} fold {split.fold}" if len(splits) > 1 else split.name
