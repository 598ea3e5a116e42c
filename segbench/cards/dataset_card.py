"""The card of a dataset: `datasets/<slug>/card.toml`, frozen, checked, all faults reported at once (SB110).

A phantom card names a real card with `like` and takes layout, channels, labels, regions, geometry, patient
key and evaluation from it, so the stand-in can never drift from what it stands in for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.functional_validators import ModelWrapValidatorHandler
from pydantic_core import InitErrorDetails, PydanticCustomError

from segbench.cards.dataset_faults import faults_between, pattern_groups
from segbench.cards.layout import Layout, Template, with_templates
from segbench.cards.section import Section, checked, read_table

SLUG = r"[a-z0-9][a-z0-9.-]{0,63}"
SPLIT_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
MAX_LABEL = 255

Normalisation = Literal["ct", "zscore", "zscore-nonzero", "rescale01", "none"]
Axis = Literal["z", "y", "x"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
LabelValue = Annotated[int, Field(ge=0, le=MAX_LABEL)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Md5 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Slug = Annotated[str, Field(pattern=f"^{SLUG}$")]
SplitName = Annotated[str, Field(pattern=f"^{SPLIT_NAME}$")]
ChannelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")]

# What a phantom card takes from the card it is like, and may not say again.
INHERITED = (
    "modality", "layout", "channels", "labels", "labels_note", "regions", "geometry", "patient", "evaluation",
)  # fmt: skip


class Download(Section):
    """One file that `segbench data fetch` may take from the network."""

    url: Annotated[str, Field(pattern=r"^https://")]
    sha256: Sha256 | None = None
    md5: Md5 | None = None
    bytes: Count | None = None
    unpacks_to: Template | None = None


class Availability(Section):
    """How one comes by the data, and under which terms."""

    kind: Literal["public", "registration", "on-request", "private", "phantom"]
    how: str = ""
    homepage: str = ""
    licence: str = ""
    licence_verified: bool = False
    citation: str = ""
    download: tuple[Download, ...] = ()


def _folder(text: str) -> str:
    if not text or ".." in Path(text).parts:
        raise ValueError("a folder name under the data directory, or a whole path, without '..'")
    return text


class Location(Section):
    """Folder names looked for under the data directory; the first that exists wins.

    A whole path is allowed in cards of one's own (`segbench data import dataset` writes it).
    """

    folders: tuple[Annotated[str, AfterValidator(_folder)], ...] = Field(min_length=1)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Channels(Section):
    """Channels by name. A weights file stores the names and is matched by them, never by place."""

    order: tuple[ChannelName, ...] = Field(min_length=1)
    normalisation: Annotated[tuple[Normalisation, ...], BeforeValidator(_as_list), Field(min_length=1)]
    """One for all channels, or one each in channel order; see `DatasetCard.channel_normalisation`."""


class LabelsNote(Section):
    """Values of other editions of the data: refused (SB327), never remapped, but explained."""

    legacy: dict[int, str] = Field(default_factory=dict)


class Geometry(Section):
    """What training sees. Scoring is always in the stored grid of the case."""

    spacing_mm: tuple[Positive, Positive, Positive] | None = None
    """Training grid, z y x. Absent (a folder that describes itself): the median of the training split."""
    expected_shape_zyx: tuple[Count, Count, Count] | None = None
    orientation: Literal["canonical", "stored"] = "canonical"
    mirror_axes: tuple[Axis, ...] = ("z", "y", "x")
    patch: tuple[Count, Count, Count] | None = None
    """Lowers the protocol's patch for this dataset, for every model alike. z y x."""


class Expected(Section):
    """Counts to compare a copy of the data with."""

    cases: Count | None = None
    note: str = ""


class PatientTable(Section):
    """A table in the dataset's root that says which patient a case belongs to."""

    table: Template
    case: str
    patient: str


def _group(value: object) -> object:
    return PatientTable.model_validate(value) if isinstance(value, Mapping) else value


class Patient(Section):
    """Which cases are of the same person: a named group of `case_pattern`, a table, or "case" for unknown.

    A card that says nothing groups by the group `patient` of its patterns, where they have one.
    """

    group: Annotated[Any, BeforeValidator(_group)] = "case"

    @model_validator(mode="after")
    def _known(self) -> Patient:
        if not isinstance(self.group, str | PatientTable):
            raise ValueError('group must be a name or { table = "...", case = "...", patient = "..." }')
        return self


class Evaluation(Section):
    """How predictions on this dataset are scored by default."""

    profile: str = "honest"
    nsd_tolerance_mm: dict[str, Positive] = Field(default_factory=lambda: {"default": 1.0})
    lesionwise: str | None = None
    tree: bool = False
    size_bins_ml: dict[str, tuple[Positive, ...]] = Field(default_factory=dict)
    ignore_label: Annotated[int, Field(ge=1, le=MAX_LABEL)] | None = None
    mean_regions: tuple[str, ...] = ()
    """Regions that the mean over regions averages; empty: all but unions of other regions."""
    margin: dict[str, Positive] = Field(default_factory=dict)
    """Equivalence margin by metric, in stored units (dice = 0.01 is one point)."""
    margin_source: str = ""
    """Why these margins: a paper, or two readers of the dataset."""
    readers: tuple[Annotated[str, AfterValidator(_folder)], ...] = ()
    """Folders, below the dataset's own, of other people's label maps of the same cases: the ceiling."""


class SplitsSection(Section):
    """The split that is used when none is named, and the lists shipped beside the card."""

    default: SplitName = "random-70-10-20"
    files: tuple[SplitName, ...] = ()


class PhantomArguments(Section):
    """Arguments of `segbench.data.phantoms.generate`."""

    kind: Literal["crc", "brats", "aiib", "abdomenatlas", "msd"]
    size: Literal["tiny", "small", "full"] = "tiny"
    cases: Count = 12
    seed: Annotated[int, Field(ge=0)] = 0
    traps: bool = False


def _regions(regions: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    for name, values in regions.items():
        if not name.isidentifier() or name.startswith("_") or len(name) > 32:
            raise ValueError(
                f"region name {name!r}: allowed are at most 32 letters of any script, digits and _, "
                "beginning with a letter"
            )
        if len(set(values)) != len(values):
            raise ValueError(f"region {name!r} names a label twice")
    return regions


class DatasetCard(Section):
    """All that is known about a dataset before one file is opened."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1]
    slug: Slug
    title: str
    summary: str = ""
    modality: Literal["CT", "MR", "other"]
    like: Slug | None = None
    availability: Availability
    location: Location
    layout: Layout
    channels: Channels
    labels: dict[LabelValue, str]
    labels_note: LabelsNote = LabelsNote()
    regions: Annotated[
        dict[str, Annotated[tuple[LabelValue, ...], Field(min_length=1)]],
        Field(min_length=1),
        AfterValidator(_regions),
    ]
    geometry: Geometry = Geometry()
    expected: Expected = Expected()
    patient: Patient = Patient()
    evaluation: Evaluation = Evaluation()
    splits: SplitsSection = SplitsSection()
    phantom: PhantomArguments | None = None
    notes: tuple[str, ...] = ()
    """What is unverified or worth knowing, one sentence each; printed by `segbench show dataset:NAME`."""

    @model_validator(mode="wrap")
    @classmethod
    def _all_at_once(cls, data: Any, handler: ModelWrapValidatorHandler[DatasetCard]) -> DatasetCard:
        """Faults between tables are reported beside the faults inside them, not after they are mended."""
        raw: object = data.model_dump() if isinstance(data, DatasetCard) else data
        raw = with_templates(cast("Mapping[str, Any]", raw)) if isinstance(raw, Mapping) else raw
        between = list(faults_between(raw))
        data = with_named_patients(raw)
        card: DatasetCard | None = None
        details: list[InitErrorDetails] = []
        try:
            card = handler(data)
        except ValidationError as error:
            details = [
                InitErrorDetails(type=_custom(fault["msg"]), loc=fault["loc"], input=fault["input"])
                for fault in error.errors(include_url=False)
            ]
        details += [
            InitErrorDetails(type=_custom(message), loc=where, input=found)
            for where, found, message in between
        ]
        if details or card is None:
            raise ValidationError.from_exception_data(cls.__name__, details)
        return card

    @property
    def foreground(self) -> tuple[int, ...]:
        """The label values that are scored or trained: all but 0 and the ignore label, ascending."""
        return tuple(v for v in sorted(self.labels) if v not in (0, self.evaluation.ignore_label))

    @property
    def channel_normalisation(self) -> tuple[Normalisation, ...]:
        """The normalisation of each channel, in channel order."""
        rules = self.channels.normalisation
        return rules * len(self.channels.order) if len(rules) == 1 else rules

    def nsd_tolerance(self, region: str) -> float:
        """Tolerance of the normalised surface distance for a region, in mm (1 mm when the card is silent)."""
        tolerances = self.evaluation.nsd_tolerance_mm
        return tolerances.get(region, tolerances.get("default", 1.0))

    @property
    def is_phantom(self) -> bool:
        """Whether the data is generated, so nothing measured on it may stand beside real results."""
        return self.availability.kind == "phantom"


def with_named_patients(data: Any) -> Any:
    """The document, grouped by the patients that its patterns name where it says nothing itself."""
    if not isinstance(data, Mapping):
        return data
    raw = cast("Mapping[str, Any]", data)
    layout, patient = raw.get("layout"), raw.get("patient", {})
    if not isinstance(layout, Mapping) or not isinstance(patient, Mapping) or "group" in patient:
        return raw
    named = "patient" in pattern_groups(cast("Mapping[str, Any]", layout))
    return {**raw, "patient": {"group": "patient"}} if named else raw


def _custom(message: str) -> PydanticCustomError:
    # A message with braces would be taken for a template.
    return PydanticCustomError("card", "{text}", {"text": message})


def parse_dataset_card(
    document: Mapping[str, Any],
    *,
    path: Path | str | None = None,
    load_like: Callable[[str], DatasetCard] | None = None,
) -> DatasetCard:
    """The card of a parsed TOML document.

    Args:
        document: The document as `tomllib` gives it.
        path: Its file, for the error.
        load_like: Gives the card that `like` names; without it a card with `like` is refused.

    Raises:
        SegbenchError: SB110 with one line per fault: key path, found, allowed. SB101 if `like` names nobody.
    """
    faults: list[str] = []
    merged = dict(document)
    like = document.get("like")
    if isinstance(like, str):
        faults += [
            f"{key}: found a value of its own; allowed: that of {like} (this card is like it)"
            for key in INHERITED
            if key in document
        ]
        if load_like is None:
            faults.append(f"like: found {like!r}; allowed: nothing, other cards are out of reach here")
        else:
            model = load_like(like).model_dump(mode="python", exclude_unset=True)
            merged.update({key: model[key] for key in INHERITED if key in model})
    return checked(DatasetCard, merged, what="dataset card", path=path, faults=faults)


def read_dataset_card(
    path: Path | str, *, load_like: Callable[[str], DatasetCard] | None = None
) -> DatasetCard:
    """The card in a file. Raises SB110 as `parse_dataset_card`, also when the file is no TOML."""
    return parse_dataset_card(read_table(path), path=path, load_like=load_like)
