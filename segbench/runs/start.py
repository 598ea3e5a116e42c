"""Starting a training from weights (`--init`): what they were trained on, and whether a test case is in it.

Beside a weights file lies its card, `<file>.card.json`: the cases it was trained on, by id and by the digests
of their images. A run writes the card of its final weights; `segbench weights card` writes one for a file
from elsewhere. The run keeps the file it starts from, so its folder is all that it needs to go on.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from segbench.core.atomic import atomic_write_json, temporary_name
from segbench.core.errors import SegbenchError
from segbench.core.hashing import sha256_file
from segbench.data.digest import image_digests
from segbench.records import run_in
from segbench.records.schema import StartRecord, TrainedOn

if TYPE_CHECKING:
    from segbench.data import Dataset

START_WEIGHTS = "init.safetensors"
"""The weights that a run starts from, in its folder."""
CARD_SCHEMA = "segbench.weights-card/1"
_CASES = TypeAdapter(tuple[TrainedOn, ...])
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


def start_of(file: Path) -> StartRecord:
    """What a run records of the weights it starts from, as their card says it.

    Raises:
        SegbenchError: SB406 no such safetensors file, or a card that cannot be read or is of another file.
    """
    if file.suffix != ".safetensors" or not file.is_file():
        raise SegbenchError(
            "SB406",
            f"{file} is not a .safetensors file, or is not there",
            path=file,
            expected="an existing .safetensors file",
            mend="segbench weights import turns .pt and .pth into safetensors",
        )
    digest = sha256_file(file)
    return StartRecord(name=file.name, sha256=digest, trained_on=read_card(file, digest))


def card_path(file: Path) -> Path:
    """Where the card of a weights file lies."""
    return file.with_name(f"{file.name}.card.json")


def read_card(file: Path, sha256: str) -> tuple[TrainedOn, ...] | None:
    """The cases that a weights file was trained on; None where neither a card nor a run says so.

    Raises:
        SegbenchError: SB406 for a card that is damaged, or that belongs to other weights.
    """
    path = card_path(file)
    if not path.is_file():
        return _cases_of_run(file)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known = content["schema"] == CARD_SCHEMA and content["weights_sha256"]
        cases = _CASES.validate_python(content["trained_on"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise SegbenchError("SB406", f"the weights card cannot be read: {reason}", path=path) from None
    if known != sha256:
        raise SegbenchError(
            "SB406",
            "the card beside the weights belongs to another file, or is of another version",
            path=path,
            expected=sha256,
            found=known,
            mend=f"remove it, then segbench weights card {file.name} --trained-on LIST",
        )
    return cases


def _cases_of_run(file: Path) -> tuple[TrainedOn, ...] | None:
    """What the record says of weights that lie in a run's folder, from before runs wrote cards."""
    folder = file.parent.parent
    record = run_in(folder)
    if record is None or record.split is None or record.init is not None:
        return None
    dataset = str((record.dataset or {}).get("slug") or "")
    cases = sorted({*(record.split.train or ()), *(record.split.validation or ())})
    return tuple(TrainedOn(case=case, dataset=dataset) for case in cases) or None


def write_card(file: Path, cases: Sequence[TrainedOn]) -> Path:
    """Write the card of a weights file beside it; gives its path."""
    listed = [case.model_dump(mode="json", exclude_defaults=True) for case in cases]
    content = {"schema": CARD_SCHEMA, "weights_sha256": sha256_file(file), "trained_on": listed}
    atomic_write_json(card_path(file), content)
    return card_path(file)


def read_list(path: Path) -> list[TrainedOn]:
    """Cases from a text file: a line is a case id or `sha256:` and the digest of an image; # is a comment.

    Raises:
        SegbenchError: SB104 for a file that cannot be read, or that lists nothing.
    """
    try:
        lines = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SegbenchError("SB104", f"--trained-on cannot be read: {error}", path=path) from None
    cases: list[TrainedOn] = []
    for line in filter(None, lines):
        digest = _DIGEST.fullmatch(line)
        cases.append(TrainedOn(case=line) if digest is None else TrainedOn(images=(digest[1],)))
    if not cases:
        raise SegbenchError("SB104", "--trained-on lists no case", path=path, mend="one case id per line")
    return cases


def cases_of(dataset: Dataset, cases: Sequence[str]) -> list[TrainedOn]:
    """Cases of an open dataset with the digests of their images."""
    digests = image_digests(dataset, cases)
    return [TrainedOn(case=case, dataset=dataset.card.slug, images=digests[case]) for case in cases]


def overlap(start: StartRecord, dataset: Dataset, test: Sequence[str]) -> tuple[str, ...]:
    """The test cases that the weights have seen: the same image, the same patient, or the same id.

    Equal ids of two named datasets do not count where the images are known to differ.
    """
    seen = start.trained_on or ()
    images = {image for case in seen for image in case.images}
    own = dataset.card.slug
    patients = {dataset.patient_of(case.case) for case in seen if case.dataset == own}
    by_id: dict[str, list[TrainedOn]] = {}
    for case in seen:
        by_id.setdefault(case.case, []).append(case)
    digests = image_digests(dataset, test) if images else {}
    return tuple(
        case
        for case in test
        if images & {*digests.get(case, ())}
        or dataset.patient_of(case) in patients
        or any(not other.images or other.dataset in ("", own) for other in by_id.get(case, ()))
    )


def check_start(start: StartRecord, dataset: Dataset, test: Sequence[str]) -> SegbenchError | None:
    """Why a run may not start from these weights without `--acknowledge`; None where it may."""
    if start.trained_on is None:
        return SegbenchError(
            "SB407",
            f"it is not known what {start.name} was trained on, so test cases may be among it",
            expected=f"{start.name}.card.json beside it",
            mend=f"segbench weights card {start.name} --trained-on LIST, or --acknowledge",
        )
    found = overlap(start, dataset, test)
    if not found:
        return None
    return SegbenchError(
        "SB407",
        f"{len(found)} of {len(test)} test cases of {dataset.card.slug} are among those that {start.name} "
        "was trained on",
        found=", ".join(found[:3]) + (", ..." if len(found) > 3 else ""),
        mend="start from other weights, take another split, or mark the run with --acknowledge",
        details=found[3:],
    )


def keep_start(file: Path, folder: Path) -> None:
    """Keep the weights that a run starts from in its folder: a link on the same disk, else a copy."""
    target = folder / START_WEIGHTS
    if target.is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    beside = temporary_name(target)
    try:
        os.link(file, beside)
    except OSError:
        shutil.copyfile(file, beside)
    beside.replace(target)
