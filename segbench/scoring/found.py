"""What is scored where nobody named a region: the labels in the files, or the masks that lie there."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from segbench.core import console
from segbench.core.environment import thread_count
from segbench.core.errors import SegbenchError
from segbench.core.text import some
from segbench.metrics.profiles import load_profile
from segbench.scoring.masks import mask_folders, structures_of
from segbench.scoring.named import Labelling
from segbench.scoring.sources import misplaced, no_volume, none_found, volumes_by_case
from segbench.volumes import count_labels, read_label_map

MOST_LABELS = 255
"""More labels than this, most of them on one side alone, are intensities of images."""


def found_labelling(
    reference: Path | None,
    prediction: Path,
    *,
    profile: str | None,
    label_names: Mapping[int, str],
    max_bytes: int,
) -> Labelling | None:
    """Return a region for each label or mask that the folders hold; None where the profile names its own.

    Args:
        reference: folder of references; without one nothing is looked for.
        prediction: folder of predictions.
        profile: metric profile by name or file.
        label_names: names of labels; others are called by their number, and masks as their files.
        max_bytes: largest volume that is read.

    Raises:
        SegbenchError: SB104 for names of labels that are nowhere, or masks against label maps without names.
    """
    if reference is None or load_profile(profile or "honest").regions != "card":
        return None
    files = volumes_by_case(reference, role="reference")
    masks = {} if files else mask_folders(reference)
    if not files and not masks:
        raise no_volume(reference)
    predictions = volumes_by_case(prediction, role="prediction", known=files)
    if (masks and predictions) or (files and not predictions and mask_folders(prediction)):
        if misplaced(prediction, cases := sorted(files or masks)):
            raise none_found(prediction, cases)
        sides = [(prediction, predictions), (reference, files)]
        one, other = (_kind_of(folder, maps) for folder, maps in sides)
        raise SegbenchError(
            "SB104",
            f"the predictions are {one}, the references {other}: which label is which structure?",
            path=prediction,
            mend="name the label of each structure, for example --region liver=1, or --dataset FILE.json",
        )
    if masks:
        names = structures_of(masks)
        console.warn(f"no region is named: scored are the {len(names)} masks found, {some(names, 10)}")
        regions = {name: (value,) for value, name in enumerate(names, start=1)}
        return Labelling("", regions, tuple(range(1, len(names) + 1)))
    read = {case: predictions[case][0] for case in files if case in predictions}
    both = [(each[0] for each in files.values()), read.values()]
    truth, guess = (_labels_of(list(paths), max_bytes) for paths in both)
    labels = truth | guess
    unknown = sorted(set(label_names) - labels)
    images = len(labels) > MOST_LABELS and 2 * len(truth & guess) < len(labels)
    if unknown or not labels or images:
        what = (
            f"--labels names {unknown[0]}, which is in no file"
            if unknown
            else "no file holds a label above 0"
        )
        many = f"labels in the references: {len(truth)}, in the predictions: {len(guess)}; are these images?"
        raise SegbenchError(
            "SB104",
            many if images else what,
            path=prediction if len(guess) > len(truth) else reference,
            expected=", ".join(str(label) for label in sorted(labels)[:20]) if unknown else "labels",
            mend="name the folders of the label maps, or what is scored: --region tumour=1,2",
        )
    regions = {label_names.get(label, str(label)): (label,) for label in sorted(labels)}
    called = {label: name for name, (label,) in regions.items()}
    sides = ((truth - guess, "predictions"), (guess - truth, "references")) if truth and guess else ()
    alone = [(some([called[label] for label in sorted(only)], 10), side) for only, side in sides if only]
    unseen = "".join(f"; not seen in the {side}: {names}" for names, side in alone)
    console.warn(f"no region is named: scored are all labels found, {some(list(regions), 10)}{unseen}")
    return Labelling("", regions, tuple(sorted(labels)))


def _kind_of(folder: Path, maps: Mapping[str, list[Path]]) -> str:
    """What lies in a folder, with its first file."""
    kind = "label maps" if maps else "one mask per structure"
    first = next(iter((maps or mask_folders(folder)).values()))[0]
    return f"{kind} ({first.relative_to(folder)})"


def _labels_of(paths: list[Path], max_bytes: int) -> set[int]:
    """The labels above 0 of all files."""
    with (
        ThreadPoolExecutor(thread_count()) as pool,
        console.progress("labels", len(paths), unit="files") as bar,
    ):
        labels = set[int]()
        for found in pool.map(lambda path: _labels_in(path, max_bytes), paths):
            labels |= found
            bar.advance()
    return labels - {0}


def _labels_in(path: Path, max_bytes: int) -> set[int]:
    """The labels of a file; none of one that cannot be read, which is told when it is scored."""
    try:
        return set(count_labels(read_label_map(path, max_bytes=max_bytes).array))
    except SegbenchError:
        return set()
