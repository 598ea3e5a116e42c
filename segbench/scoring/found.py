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
from segbench.scoring.sources import no_volume, volumes_by_case
from segbench.volumes import count_labels, read_label_map


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
        kinds = ("one mask per structure", "label maps")
        one, other = kinds if files else reversed(kinds)
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
    paths = [each[0] for each in files.values()]
    paths += [predictions[case][0] for case in files if case in predictions]
    with ThreadPoolExecutor(thread_count()) as pool:
        labels = set[int]().union(*pool.map(lambda path: _labels_in(path, max_bytes), paths)) - {0}
    unknown = sorted(set(label_names) - labels)
    if unknown:
        raise SegbenchError(
            "SB104",
            f"--labels names {unknown[0]}, which is in no file",
            expected=", ".join(str(label) for label in sorted(labels)) or "a label in the files",
        )
    if not labels:
        return None
    regions = {label_names.get(label, str(label)): (label,) for label in sorted(labels)}
    console.warn(f"no region is named: scored are all labels found, {some(list(regions), 10)}")
    return Labelling("", regions, tuple(sorted(labels)))


def _labels_in(path: Path, max_bytes: int) -> set[int]:
    """The labels of a file; none of one that cannot be read, which is told when it is scored."""
    try:
        return set(count_labels(read_label_map(path, max_bytes=max_bytes).array))
    except SegbenchError:
        return set()
