"""What a run record holds: `run.json`, and the columns of `cases.csv`.

We write every field that applies. Readers require only `schema_version`, `run_id`, `kind` and `status`; every
other field may be absent (records of other tools, older versions) and then counts as unknown, never as equal.
Unknown keys are ignored.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1

RunKind = Literal["trained", "external", "floor"]
RunStatus = Literal["planned", "running", "complete", "failed", "interrupted"]
FailureClass = Literal[
    "data",
    "oom",
    "diverged",
    "lost",
    "no_progress",
    "environment",
    "bug",
    "lost_lease",
    "locked",
    "hang",
    "network",
]

CASE_COLUMNS: tuple[str, ...] = (
    "run_id",
    "model",
    "dataset",
    "protocol",
    "fold",
    "seed",
    "case",
    "region",
    "status",
    "reference_voxels",
    "prediction_voxels",
    "reference_volume_ml",
    "prediction_volume_ml",
    "diagonal_mm",
    "penalised",
    "code",
)
"""Columns of `cases.csv` before the metrics; they are found by name, not by place."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Failure(_Part):
    """Why a cell ended without a result."""

    failure_class: FailureClass = Field(
        default="bug",
        validation_alias=AliasChoices("class", "failure_class"),
        serialization_alias="class",
    )
    """Failure class; decides about another try."""
    code: str | None = None
    """SB code, where there is one."""
    message: str = ""
    """What happened, one line."""
    where: str | None = None
    """Stage or file."""


class Leaks(_Part):
    """How many test cases share a patient with training or validation."""

    patients: int = 0
    """Patients in more than one part."""
    test_cases: int = 0
    """Test cases with a patient elsewhere."""


class SplitRecord(_Part):
    """Which cases trained, validated and tested."""

    name: str | None = None
    """Name or file of the split."""
    digest: str | None = None
    """Digest over the lists of ids."""
    train: tuple[str, ...] | None = None
    """Case ids of the training part."""
    validation: tuple[str, ...] | None = None
    """Case ids of the validation part."""
    test: tuple[str, ...] | None = None
    """Case ids of the test part."""
    acknowledged_leaks: bool = False
    """True where the split is known to leak and runs with a banner."""
    leaks: Leaks | None = None
    """Counted on this tree."""


class CodeRecord(_Part):
    """The code of a network that is not segbench's own."""

    package: str = ""
    """Top-level package or module that holds the implementation."""
    version: str | None = None
    """Version of the installed distribution; absent where it is none."""
    digest: str | None = None
    """sha256 over its source files and the modules beside it that these import; part of the run id."""
    fingerprint: str | None = None
    """sha256 over names and shapes of the parameters of the network as built."""
    parameters: int | None = None
    """Parameters of the network as built."""


class TrainedOn(_Part):
    """A case that weights were trained or selected on."""

    case: str = ""
    """Its id; empty where only its image is known."""
    dataset: str = ""
    """Slug of its dataset, where known."""
    images: tuple[str, ...] = ()
    """sha256 over the voxels of its images, where known."""


class StartRecord(_Part):
    """The weights that training started from (`--init`)."""

    name: str = ""
    """Name of the file; a copy lies in the run folder as `init.safetensors`."""
    sha256: str
    """Digest of the file; part of the run id."""
    trained_on: tuple[TrainedOn, ...] | None = None
    """What its card says it was trained on; absent where it has none."""
    overlap: tuple[str, ...] = ()
    """Test cases among these: the run was marked with `--acknowledge`."""


class RunRecord(_Part):
    """`run.json` of one cell."""

    schema_version: int
    """Version of this schema."""
    run_id: str
    """`<model>__<dataset>__<protocol>__f<fold>__s<seed>__<8 hex>`."""
    kind: RunKind
    """trained | external | floor."""
    status: RunStatus
    """planned | running | complete | failed | interrupted."""
    failure: Failure | None = None
    """Cause, when status is failed or interrupted."""
    degraded: bool | None = None
    """True after a roll-back in training."""
    created: str | None = None
    """UTC, ISO 8601."""
    finished: str | None = None
    """UTC, ISO 8601."""
    command: tuple[str, ...] | None = None
    """The command line, home folder as `~`."""
    model: dict[str, Any] | None = None
    """slug, card (whole), arguments as built."""
    code: CodeRecord | None = None
    """Of networks that are not segbench's own: what the code was."""
    init: StartRecord | None = None
    """The weights that training started from; absent where it started from the seed alone."""
    dataset: dict[str, Any] | None = None
    """slug, card (whole), digest of the content."""
    protocol: dict[str, Any] | None = None
    """The resolved protocol, whole."""
    protocol_digest: str | None = None
    """Digest of the fields of the protocol that change numbers."""
    metric_profile: dict[str, Any] | None = None
    """How cases were scored: the metric profile with its digest, regions, tolerances, lesion parameters."""
    rules_digest: str | None = None
    """Digest over everything in the rules of scoring that moves a number, as it was really used."""
    references: dict[str, str] | None = None
    """Case id to sha256 over voxels and grid of the reference label map that was scored."""
    spacing_mm: tuple[float, float, float] | None = None
    """Median voxel size (z, y, x) of the references that were scored, as distances were measured with."""
    split: SplitRecord | None = None
    """The split this cell used."""
    fold: int | None = None
    """Fold index within the split."""
    seed: int | None = None
    """Seed of training."""
    segbench: dict[str, Any] | None = None
    """Version and git state of segbench."""
    versions: dict[str, str] | None = None
    """Versions of Python and packages."""
    machine: dict[str, Any] | None = None
    """Processor, cores, memory and system; on CUDA also the GPU, its memory and the CUDA version."""
    execution: dict[str, Any] | None = None
    """Where it ran: device, data workers, folder of datasets, minutes between checkpoints, scan backend."""
    determinism: str | None = None
    """Level that was in force: bitwise | seeded | none."""
    normalisation_statistics: list[dict[str, float] | None] | None = None
    """Per channel p005, p995, mean, std for CT."""
    durations: dict[str, float] | None = None
    """Seconds per stage."""
    samples_seen: int | None = None
    """Training samples seen."""
    peak_memory_bytes: int | None = None
    """Peak memory of the device, or of the process on a CPU."""
    digests: dict[str, str] | None = None
    """sha256 of the weights, of `cases.csv`, and over the predictions."""
    warnings: tuple[str, ...] | None = None
    """What the user was warned of."""
    external: dict[str, Any] | None = None
    """Of evaluate-only runs: where predictions and references came from, how they were read."""
