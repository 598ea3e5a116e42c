"""The protocol: everything that changes numbers, in one frozen object that is hashed into the run id.

Shipped ones stand in `segbench/protocols/*.toml`; a path to a TOML file of one's own works as well. Where
something runs (device, workers, paths, launcher) is execution, not protocol, and never stands here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, ValidationError, field_validator, model_validator

from segbench.cards.fault_lines import fault_lines
from segbench.cards.section import Section, checked, read_table
from segbench.core.errors import SegbenchError, nearest_names, unknown_name
from segbench.core.foreign import parse_toml
from segbench.core.hashing import digest_json

# Numbers are strict: `true` is no batch size, and what is no number (nan, inf) has no digest.
Positive = Annotated[int, Field(gt=0, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1, strict=True)]
NonNegative = Annotated[float, Field(ge=0, strict=True)]
PositiveNumber = Annotated[float, Field(gt=0, strict=True)]
Switch = Annotated[bool, Field(strict=True)]
Triple = tuple[Positive, Positive, Positive]


class DataSection(Section):
    """What the scans are turned into before a patch is drawn."""

    spacing: Literal["card", "median", "native"] | tuple[PositiveNumber, PositiveNumber, PositiveNumber] = (
        "card"
    )
    """Training grid in mm (z, y, x): the card's, the median of training, the stored one, or a triple."""
    normalisation: Literal["card", "ct", "zscore", "zscore-nonzero", "rescale01", "none"] = "card"
    cache_dtype: Literal["float16", "float32"] = "float16"


class PatchSection(Section):
    """What the network sees at once."""

    size: Triple
    """Voxels z, y, x. A dataset card's `[geometry] patch` lowers it, for every model alike."""
    card_up_to: Count = 0
    """Above 0: the card's patch is taken in place of `size`, at most this many voxels an axis. What a run
    used stands in its `size`."""
    divisible_by: Literal["model"] | Positive = "model"
    """Lengths must be multiples of this; "model": of the divisor of every model's card."""

    @field_validator("size", mode="before")
    @classmethod
    def _cube(cls, value: object) -> object:
        return (value, value, value) if isinstance(value, int) and not isinstance(value, bool) else value


class SamplingSection(Section):
    """Which patches are drawn."""

    batch_size: Positive = 2
    """Global batch: the sum over devices."""
    foreground_fraction: Share = 0.33
    order: Literal["permutation", "uniform"] = "permutation"


class AugmentSection(Section):
    """Random transforms of the training patches."""

    name: Literal["none", "mirror-brightness", "nnunet"] = "nnunet"
    mirror_axes: Literal["card"] | tuple[Literal["z", "y", "x"], ...] = "card"
    """Axes that patches are mirrored along; "card": those of the dataset's card."""
    overrides: dict[str, float | tuple[float, float]] = Field(default_factory=dict)


class BudgetSection(Section):
    """How much is trained, in samples seen: steps and epochs follow from it."""

    samples: Positive
    warmup_samples: Count = 0


class OptimiserSection(Section):
    """The update rule."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: PositiveNumber = 1e-2
    weight_decay: NonNegative = 3e-5
    momentum: Share = 0.99
    nesterov: Switch = True
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.999)

    @model_validator(mode="after")
    def _nesterov_looks_ahead_along_something(self) -> Self:
        if self.name == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("without momentum there is no nesterov: set nesterov = false too")
        return self


class ScheduleSection(Section):
    """Learning rate over the fraction of samples seen."""

    name: Literal["poly", "cosine", "constant"] = "poly"
    power: NonNegative = 0.9
    min_lr: NonNegative = 0.0
    warmup_fraction: Share = 0.0


class LossSection(Section):
    """The training objective."""

    terms: dict[Literal["ce", "dice"], NonNegative] = Field(default_factory=lambda: {"ce": 1.0, "dice": 1.0})
    dice_smooth: NonNegative = 1e-5
    dice_batch: Switch = True
    output: Literal["softmax", "regions"] = "softmax"
    deep_supervision: Switch = False

    @field_validator("terms")
    @classmethod
    def _something_to_learn_from(cls, terms: dict[str, float]) -> dict[str, float]:
        if not any(weight > 0 for weight in terms.values()):
            raise ValueError("one term at least must have a weight above 0")
        return terms


class TrainSection(Section):
    """Numerics of the training loop."""

    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    """On a CPU every precision runs as fp32, and the record says so."""
    tf32: Switch = True
    clip_norm: NonNegative = 12.0
    ema_decay: ShareBelowOne = 0.0
    accumulate: Positive = 1
    checkpointing: Switch = False
    """Recompute the activations of each block in the backward pass: less memory, the same gradients."""


class ValidationSection(Section):
    """Whole validation cases; never the test split."""

    every_samples: Count = 0
    """0: no validation."""
    cases: Literal["validation", "none"] = "none"
    selection: Literal["last", "ema", "best_validation"] = "last"


class InferenceSection(Section):
    """How a whole case is predicted."""

    overlap: ShareBelowOne = 0.5
    importance: Literal["gaussian", "constant"] = "gaussian"
    sigma_scale: PositiveNumber = 0.125
    mirror_axes: Literal["card", "none"] | tuple[Literal["z", "y", "x"], ...] = "card"
    window_batch: Positive = 1
    ensemble: Literal["none", "folds", "seeds"] = "none"


class DeterminismSection(Section):
    """The promise about repeated runs; on a CPU it is always bitwise."""

    level: Literal["bitwise", "seeded", "none"] = "none"


class SplitSection(Section):
    """Which cases train, validate and test."""

    name: str = "card"
    """A name, a file, or "card" for the dataset card's default."""
    limit: Count = 0
    """Only the first N cases of each part in split-hash order; 0: all."""


class MetricsSection(Section):
    """How predictions are scored."""

    profile: str = "honest"


class SeedsSection(Section):
    """Seeds used when the command names none."""

    default: Annotated[tuple[Count, ...], Field(min_length=1)] = (0,)


class NotesSection(Section):
    """Printed verbatim in every report."""

    purpose: str = ""
    fairness: tuple[str, ...] = ()
    leakage: tuple[str, ...] = ()


class FamilySection(Section):
    """What differs for one family of models, as written in the protocol."""

    optimiser: OptimiserSection | None = None
    schedule: ScheduleSection | None = None


class Protocol(Section):
    """One protocol, resolved and whole."""

    schema_version: Literal[1] = 1
    name: str
    version: Positive = 1
    """Raised whenever a field of the shipped file changes."""
    data: DataSection = DataSection()
    patch: PatchSection
    sampling: SamplingSection = SamplingSection()
    augment: AugmentSection = AugmentSection()
    budget: BudgetSection
    optimiser: OptimiserSection = OptimiserSection()
    schedule: ScheduleSection = ScheduleSection()
    loss: LossSection = LossSection()
    train: TrainSection = TrainSection()
    validation: ValidationSection = ValidationSection()
    inference: InferenceSection = InferenceSection()
    determinism: DeterminismSection = DeterminismSection()
    split: SplitSection = SplitSection()
    metrics: MetricsSection = MetricsSection()
    seeds: SeedsSection = SeedsSection()
    notes: NotesSection = NotesSection()
    family: dict[Literal["convolution", "mamba", "transformer", "floor"], FamilySection] = Field(
        default_factory=dict
    )
    published: Switch = False
    """Take each model's own `[published_recipe]` over the fields above."""

    @model_validator(mode="after")
    def _selection_has_what_it_selects(self) -> Self:
        validation = self.validation
        if validation.selection == "ema" and self.train.ema_decay == 0:
            raise ValueError("validation.selection = ema needs averaged weights: set train.ema_decay")
        idle = validation.cases == "none" or validation.every_samples == 0
        if validation.selection == "best_validation" and idle:
            raise ValueError(
                "validation.selection = best_validation needs validation.cases and validation.every_samples"
            )
        return self

    def for_family(self, family: str) -> Protocol:
        """The protocol as it applies to one family of models (`[family.<name>]` folded in)."""
        own = self.family.get(family)  # type: ignore[call-overload]
        updates = {} if own is None else {k: v for k, v in own if v is not None}
        return self.model_copy(update={**updates, "family": {}})

    def resolved(self) -> dict[str, Any]:
        """The protocol as plain values, for the record and the digest.

        A field that came later than the first runs stands in it only where it is used, so that every
        protocol keeps its digest.
        """
        content = self.model_dump(mode="json")
        if not self.train.checkpointing:
            del content["train"]["checkpointing"]
        if self.augment.mirror_axes == "card":
            del content["augment"]["mirror_axes"]
        if not self.patch.card_up_to:
            del content["patch"]["card_up_to"]
        return content

    def digest(self) -> str:
        """Sha256 over everything that changes numbers (not the notes, the default seeds or the name)."""
        content = self.resolved()
        for part in ("notes", "seeds", "name", "schema_version"):
            content.pop(part)
        return digest_json(content)


def list_protocols() -> tuple[str, ...]:
    """Names of the shipped protocols, sorted."""
    folder = files("segbench").joinpath("protocols")
    return tuple(sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml")))


def load_protocol(name: str | Path, overrides: Mapping[str, object] | None = None) -> Protocol:
    """A shipped protocol by name, or one's own by path, with `--set` overrides applied.

    Args:
        name: A shipped name, or a path ending in `.toml`.
        overrides: Dotted field to value, e.g. {"budget.samples": 64}. Any override renames the protocol to
            `<name>+custom`.

    Raises:
        SegbenchError: SB101 unknown name or field, SB104 value that is not valid, SB110 invalid file.
    """
    path = Path(name)
    if not str(name).endswith(".toml"):
        known = list_protocols()
        if str(name) not in known:
            raise unknown_name("protocol", str(name), known, listing="segbench list protocols")
        path = Path(str(files("segbench").joinpath("protocols", f"{name}.toml")))
    protocol = checked(Protocol, read_table(path), what="protocol", path=path)
    return with_overrides(protocol, overrides or {})


def with_overrides(protocol: Protocol, overrides: Mapping[str, object]) -> Protocol:
    """The protocol with dotted fields replaced and the name `<name>+custom`.

    Raises:
        SegbenchError: SB101 unknown field, SB104 value that is not valid; all faults at once.
    """
    if not overrides:
        return protocol
    content = protocol.model_dump(mode="python")
    for key, value in overrides.items():
        _set(content, key, value)
    content["name"] = protocol.name if protocol.name.endswith("+custom") else f"{protocol.name}+custom"
    try:
        return Protocol.model_validate(content)
    except ValidationError as error:
        raise SegbenchError(
            "SB104",
            "--set gives a value that is not valid",
            details=fault_lines(error),
            mend="see segbench show protocol:NAME",
        ) from error


def parse_setting(text: str) -> tuple[str, object]:
    """`KEY=VALUE` of `--set`; the value is read as TOML (`64`, `1e-3`, `true`, `[64, 64, 32]`), else as text.

    Raises:
        SegbenchError: SB104 when there is no `=`.
    """
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise SegbenchError(
            "SB104", f"--set {text!r} is not KEY=VALUE", mend="for example --set budget.samples=64"
        )
    value = value.strip()
    for candidate in (value, f"[{value}]") if "," in value else (value,):
        try:
            return key.strip(), parse_toml(f"value = {candidate}")["value"]
        except tomllib.TOMLDecodeError:
            continue
    return key.strip(), value


def _fields(content: Mapping[str, Any]) -> list[str]:
    sections = {name: part for name, part in content.items() if name not in {"family", "notes", "seeds"}}
    return [
        f"{name}.{field}"
        for name, part in sections.items()
        if isinstance(part, dict)
        for field in cast("dict[str, Any]", part)
    ]


def _set(content: dict[str, Any], key: str, value: object) -> None:
    parts = key.split(".")
    if parts[:2] == ["augment", "overrides"] and len(parts) > 2:
        parts = ["augment", "overrides", ".".join(parts[2:])]  # names of transforms have dots themselves
    known = _fields(content)
    if len(parts) == 1:
        matches = [name for name in known if name.endswith(f".{key}")]
        if len(matches) == 1:
            parts = matches[0].split(".")
    at: Any = content
    for part in parts[:-1]:
        at = cast("dict[str, Any]", at).get(part) if isinstance(at, dict) else None
    open_table = len(parts) > 2 and isinstance(at, dict)
    if not isinstance(at, dict) or (parts[-1] not in at and not open_table) or len(parts) < 2:
        near = nearest_names(key, known)
        hint = f"did you mean {' or '.join(near)}?" if near else "see segbench show protocol:NAME"
        raise SegbenchError("SB101", f"no protocol field called '{key}'", found=key, mend=hint)
    at[parts[-1]] = value
    if parts == ["patch", "size"]:
        at["card_up_to"] = 0  # what was set by hand holds, whatever the card says
    # What a family has of its own gives way too: what was set by hand holds for every model.
    for own in cast("dict[str, Any]", content["family"]).values():
        section = own.get(parts[0])
        if len(parts) == 2 and section is not None:
            section[parts[1]] = value
