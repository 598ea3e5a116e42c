"""`segbench predict`: label maps for any images, with the weights of any run.

Channel names, normalisation and spacing come from the run or from the weights file's own metadata, else from
a dataset's card; nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from segbench.core import console
from segbench.core.environment import named_threads, thread_count, with_threads
from segbench.core.errors import SegbenchError
from segbench.core.interrupt import StopRequest
from segbench.core.outputs import OutputFolder
from segbench.data import open_dataset
from segbench.engine.device import choose_device, prepare_device
from segbench.engine.memory import oom_as_error
from segbench.networks.blocks.fast import named_ways
from segbench.networks.scan import named_scans, scans_used
from segbench.predict.case import predict_case
from segbench.predict.members import Member, load_members, member_notes, prepared_images, run_of
from segbench.volumes import Volume, read_volume, stem_and_ending, write_label_map

if TYPE_CHECKING:
    from segbench.data import Dataset
    from segbench.records import RunRecord

RECORD = "predicted-by.json"

_NNUNET_NAME = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


@dataclass(frozen=True, slots=True)
class ImageCase:
    """The images of one case in the network's channel order (paths, or how to read them), and its files."""

    case: str
    images: Sequence[Path] | Callable[[], Volume]
    files: Sequence[Path] = ()

    def read(self, max_bytes: int) -> list[Volume]:
        """The channels; a single volume may hold several, channels first."""
        if callable(self.images):
            return [self.images()]
        return [read_volume(path, max_bytes=max_bytes) for path in self.images]


@dataclass(frozen=True, slots=True)
class PredictionReport:
    """What was written, and which cases failed with which error."""

    written: tuple[Path, ...]
    failures: Mapping[str, SegbenchError] = field(default_factory=dict[str, SegbenchError])


def predict_images(
    weights: Path | Sequence[Path],
    images: Sequence[Path],
    output: Path,
    *,
    dataset: str | None = None,
    device: str = "auto",
    save_probabilities: bool = False,
    max_bytes: int = 8 * 2**30,
) -> PredictionReport:
    """Write `output/<case>.nii.gz` for every case among the images, and `output/predicted-by.json`.

    Args:
        weights: A `.safetensors` file of segbench, or several: the mean of their probabilities then decides.
        images: Files (one channel), folders with nnU-Net names, or a dataset's root together with `dataset`.
        output: Folder of the label maps; those that an earlier prediction wrote there are replaced.
        dataset: Whose card says what the files do not, and how a dataset's root is read.
        device: "auto", "cpu" or "cuda".
        save_probabilities: Also write float16 class scores as `<case>.b2nd`.
        max_bytes: Largest volume read.

    Raises:
        SegbenchError: SB103 channels unknown or not matching, SB104 weights that cannot be averaged, SB311 no
            image, SB337 a result would be written over an input or a foreign file, SB406 weights unusable.
    """
    where = choose_device(device)
    files = [weights] if isinstance(weights, Path) else list(weights)
    record = run_of(files[0])
    recorded = {} if record is None else record.execution or {}
    with _as_the_run(record, where), scans_used(recorded.get("predict_scan_backend")) as scans:
        members = load_members(files, where, dataset=dataset)
        report = _predict_all(
            members, images, output, where, dataset, save_probabilities, max_bytes, read=files
        )
    if record is not None:
        _warn_of_other_rounding(recorded, scans)
    return report


@contextmanager
def _as_the_run(record: RunRecord | None, device: torch.device) -> Generator[None]:
    """Threads, determinism and rounding of the run; `SEGBENCH_THREADS` goes before its threads.

    Weights from elsewhere: the machine's threads, and kernels that are not chosen by a race.
    """
    protocol = {} if record is None else record.protocol or {}
    recorded = {} if record is None else record.execution or {}
    with with_threads(named_threads() or recorded.get("threads") or thread_count()):
        prepare_device(
            device,
            level=protocol.get("determinism", {}).get("level", "seeded"),
            tf32=protocol.get("train", {}).get("tf32", True),
        )
        yield


def _warn_of_other_rounding(recorded: Mapping[str, Any], scans: set[str]) -> None:
    """Say it when sums round otherwise than the run's own, by another scan or another `SEGBENCH_FAST`."""
    scan, fast = recorded.get("predict_scan_backend"), recorded.get("fast")
    if scan is not None and named_scans(scans) not in (None, scan):
        console.warn(
            f"the run predicted with the scan backend {scan}, this command with {named_scans(scans)}: "
            "sums round otherwise"
        )
    if fast != named_ways():
        console.warn(
            f"trained with SEGBENCH_FAST={fast}, predicted with {named_ways()}: sums round otherwise"
        )


def _predict_all(
    members: Sequence[Member],
    images: Sequence[Path],
    output: Path,
    where: torch.device,
    dataset: str | None,
    save_probabilities: bool,
    max_bytes: int,
    *,
    read: Sequence[Path],
) -> PredictionReport:
    """Predict every case; `read` are the files of the weights, which no result may replace."""
    cases = list(find_images(images, members[0].channels, dataset))
    if not cases:
        raise SegbenchError("SB311", "no image was found", details=[str(path) for path in images])
    _check_names(cases)
    endings = (".nii.gz", ".b2nd", ".json") if save_probabilities else (".nii.gz",)
    results = OutputFolder(
        output,
        [f"{case.case}{ending}" for case in cases for ending in endings],
        inputs=[*images, *read, *(path for case in cases for path in case.files)],
        record=RECORD,
        about={"members": member_notes(members), **({"fast": fast} if (fast := named_ways()) else {})},
    )
    _warn_of_training_cases(members, cases)
    written: list[Path] = []
    failures: dict[str, SegbenchError] = {}
    with results, StopRequest() as stop, console.progress("predict", len(cases)) as bar:
        for case in cases:
            scores = output / f"{case.case}.b2nd" if save_probabilities else None
            try:
                channels = case.read(max_bytes)
                labels = _predicted(members, case.case, channels, where, scores, stop)
                target = output / f"{case.case}.nii.gz"
                write_label_map(target, labels, channels[0])
                written.append(target)
                results.wrote(*(output / f"{case.case}{ending}" for ending in endings))
            except SegbenchError as error:
                if error.code == "SB505":
                    raise
                failures[case.case] = error
                console.fail(error)
            bar.advance(note=case.case)
            stop.check()
    return PredictionReport(tuple(written), failures)


def _predicted(
    members: Sequence[Member],
    case: str,
    channels: Sequence[Volume],
    where: torch.device,
    scores: Path | None,
    stop: StopRequest,
) -> NDArray[Any]:
    """The label map of a case on the stored grid of its first channel."""
    with oom_as_error(where):
        images, properties = prepared_images(members, case, channels)
    return predict_case(
        [member.network for member in members],
        images,
        members[0].settings,
        where,
        properties=properties,
        probabilities=scores,
        between=stop.check,
    )


def _warn_of_training_cases(members: Sequence[Member], cases: Sequence[ImageCase]) -> None:
    """Say it when a network had seen the case: its prediction there says nothing about unseen ones."""
    names = {case.case for case in cases}
    for member in members:
        seen = sorted(names & member.training)
        if seen:
            console.warn(
                f"{len(seen)} of {len(names)} cases were training or validation cases of {member.run}, "
                f"such as {seen[0]}"
            )


def _check_names(cases: Sequence[ImageCase]) -> None:
    """Two images of one name would share an output file, and one prediction would be lost."""
    seen: set[str] = set()
    twice = sorted({case.case for case in cases if case.case in seen or seen.add(case.case)})
    if twice:
        raise SegbenchError(
            "SB104",
            f"{len(twice)} names belong to more than one image, such as {twice[0]}",
            expected="one image per name",
            found=", ".join(twice[:20]),
            mend="predict them into folders of their own",
        )


def find_images(images: Sequence[Path], channels: Sequence[str], dataset: str | None) -> Iterable[ImageCase]:
    """The cases among files and folders, sorted by id.

    A case of a folder that lacks a channel, or has one too many, fails when it is read, the others go on.

    Raises:
        SegbenchError: SB103 for single files of a network with several channels and for a dataset with other
            channels, SB201 for a path that does not exist.
    """
    for path in images:
        opened = None if dataset is None or not path.is_dir() else _opened(dataset, path)
        if opened is not None:
            order = tuple(opened.card.channels.order)
            if channels and order != tuple(channels):
                raise SegbenchError(
                    "SB103", "the channels of the weights and of the dataset differ", path=path,
                    expected=", ".join(channels), found=", ".join(order),
                )  # fmt: skip
            everything = sorted({*opened.case_ids, *opened.cases_without_reference})
            for case in everything:
                yield ImageCase(case, partial(opened.read_image, case), opened.case(case).files)
        elif path.is_dir():
            yield from _folder(path, len(channels))
        elif path.exists():
            if len(channels) != 1:
                raise SegbenchError(
                    "SB103", f"a single file is one channel; the network takes {len(channels)}", path=path,
                    expected=", ".join(channels), mend="give a folder with names such as case_0000.nii.gz",
                )  # fmt: skip
            yield ImageCase(_stem(path), [path])
        else:
            raise SegbenchError("SB201", "no such file or folder", path=path)


def _opened(dataset: str, folder: Path) -> Dataset | None:
    """The dataset whose root this is; None for a folder that holds images itself.

    Raises:
        SegbenchError: SB302 for neither.
    """
    try:
        return open_dataset(dataset, path=folder)
    except SegbenchError as error:
        holds_images = any(stem_and_ending(path.name) for path in folder.iterdir())
        if error.code != "SB302" or not holds_images:
            raise
        return None


def _folder(folder: Path, count: int) -> list[ImageCase]:
    """Cases of a folder with nnU-Net names; plain names when the network takes one channel."""
    groups: dict[str, dict[int, Path]] = {}
    plain: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        parts = stem_and_ending(path.name)
        if path.name.startswith(".") or parts is None:
            continue
        stem = parts[0]
        match = _NNUNET_NAME.fullmatch(stem)
        if match is not None:
            groups.setdefault(match["case"], {})[int(match["channel"])] = path
        else:
            plain[stem] = path
    if not groups and count == 1:
        return [ImageCase(case, [path], [path]) for case, path in plain.items()]
    if plain and not groups:
        raise SegbenchError(
            "SB103", f"the network takes {count} channels, and no file says which one it is", path=folder,
            expected="names such as case_0000.nii.gz", found=", ".join(sorted(plain)[:5]),
        )  # fmt: skip
    if plain:
        console.warn(
            f"{len(plain)} files of {folder} are left out, their names end in no channel number: "
            f"such as {min(plain)}"
        )
    return [
        ImageCase(case, [found[i] for i in range(count)], list(found.values()))
        if sorted(found) == list(range(count))
        else ImageCase(case, partial(_refuse, folder, case, sorted(found), count), list(found.values()))
        for case, found in groups.items()
    ]


def _refuse(folder: Path, case: str, found: list[int], count: int) -> Volume:
    """What reading a case with other channels than the network's comes to (SB103)."""
    raise SegbenchError(
        "SB103",
        f"case {case} has channels {', '.join(map(str, found))}",
        path=folder,
        case=case,
        expected="channel 0" if count == 1 else f"channels 0 to {count - 1}",
        found=found,
        mend="one file per channel, numbered in the network's order: case_0000, case_0001, ...",
    )


def _stem(path: Path) -> str:
    parts = stem_and_ending(path.name)
    return path.stem if parts is None else parts[0]
