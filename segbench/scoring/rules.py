"""How every case of a run is scored: what a card, a profile and the flags decide, in one frozen object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from segbench.core.errors import SegbenchError
from segbench.core.hashing import digest_json
from segbench.metrics.profiles import LESION_RULES, MetricProfile
from segbench.metrics.registry import METRICS
from segbench.metrics.summary import regions_in_mean
from segbench.volumes import DEFAULT_MAX_BYTES

if TYPE_CHECKING:
    from segbench.cards.dataset_card import DatasetCard

Geometry = Literal["strict", "shape"]


@dataclass(frozen=True, kw_only=True)
class ScoringRules:
    """How every case of a run is scored; picklable, JSON-able and hashed.

    Attributes:
        profile: the metric profile, with the empty policy and geometry in force.
        metrics: region metrics computed, `cldice` included for trees.
        regions: name -> labels, in table order.
        tolerances_mm: NSD tolerance of each region.
        labels: values a prediction may hold; None allows any.
        ignore_label: voxels with this value in the reference are background in both maps.
        lesionwise: name of the lesion-wise rules, None without them.
        airway: True when the airway set is computed.
        max_bytes: largest volume that is read.
        label_mend: what to do about an undeclared label, where the regions are all that was declared.
        averaged: regions that the mean over regions averages, where the card names them.
    """

    profile: MetricProfile
    metrics: tuple[str, ...]
    regions: Mapping[str, tuple[int, ...]]
    tolerances_mm: Mapping[str, float]
    labels: tuple[int, ...] | None = None
    ignore_label: int | None = None
    lesionwise: str | None = None
    airway: bool = False
    max_bytes: int = field(default=DEFAULT_MAX_BYTES, compare=False)
    label_mend: str | None = field(default=None, compare=False)
    averaged: tuple[str, ...] = field(default=(), compare=False)

    @property
    def columns(self) -> tuple[str, ...]:
        """Metric columns of the rows, in order."""
        groups = {*self.profile.sets, *(["airway"] if self.airway else [])}
        return self.metrics + tuple(info.name for info in METRICS.values() if info.group in groups)

    @property
    def mean_regions(self) -> tuple[str, ...]:
        """The regions that a mean over regions averages."""
        return self.averaged or regions_in_mean(self.regions)

    @property
    def headline(self) -> tuple[str, ...]:
        """The columns that a table shows first."""
        return tuple(name for name in self.profile.headline if name in self.columns)

    def digest(self) -> str:
        """Return 64 hex digits over everything that moves a number."""
        return digest_json(
            {
                "profile": self.profile.digest(),
                "versions": {name: METRICS[name].version for name in self.columns},
                "regions": {name: list(labels) for name, labels in self.regions.items()},
                "tolerances_mm": dict(self.tolerances_mm),
                "labels": None if self.labels is None else sorted(self.labels),
                "ignore_label": self.ignore_label,
                "lesionwise": self.lesionwise,
                "backend": "native",
            }
        )

    def as_dict(self) -> dict[str, Any]:
        """The rules as plain values, for `run.json`: the profile, and all that it leaves to the card."""
        return {
            **asdict(self.profile),
            "metrics": list(self.columns),
            "headline": list(self.headline),
            "nsd_tolerance": dict(self.tolerances_mm),
            "regions": {name: list(labels) for name, labels in self.regions.items()},
            "labels": None if self.labels is None else list(self.labels),
            "ignore_label": self.ignore_label,
            "lesionwise": self.lesionwise,
            "airway": self.airway,
            "backend": "native",
            "digest": self.profile.digest(),
        }

    def scoring_spacing(self, spacing_mm: tuple[float, float, float]) -> tuple[float, float, float]:
        """Return the spacing distances are measured with: the file's, or 1, 1, 1 where the profile says
        so.
        """
        return spacing_mm if self.profile.spacing == "header" else (1.0, 1.0, 1.0)


def rules_for(
    card: DatasetCard | None,
    profile: MetricProfile,
    *,
    regions: Mapping[str, Sequence[int]] | None = None,
    labels: Sequence[int] | None = None,
    ignore_label: int | None = None,
    tolerance_mm: float | Mapping[str, float] | None = None,
    empty_policy: str | None = None,
    geometry: Geometry | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
    any_label: bool = False,
    label_mend: str | None = None,
) -> ScoringRules:
    """Return the rules of a run.

    Args:
        profile: the metric profile.
        card: dataset card: regions, labels, tolerances, ignore label, lesion-wise parameters, trees.
        regions: name -> labels instead of the card's; a profile with fixed regions wins over both.
        labels: values a prediction may hold; None takes the card's, or allows any without a card.
        ignore_label: instead of the card's.
        tolerance_mm: NSD tolerance: one number, or region -> number; else the profile's, the card's, 1 mm.
        empty_policy: instead of the profile's.
        geometry: instead of the profile's.
        max_bytes: largest volume that is read.
        any_label: allow labels that nobody declared; they are background.
        label_mend: what to tell about an undeclared label instead of the catalogue's own words.

    Raises:
        SegbenchError: SB104 when there are no regions, or a tolerance names none of them.
    """
    named = profile.regions if isinstance(profile.regions, Mapping) else regions
    if named is None and card is not None:
        named = card.regions
    if not named:
        raise SegbenchError(
            "SB104", "no region is named", mend="name a dataset, or regions such as --region tumour=1,2"
        )
    if card is not None:
        labels = labels if labels is not None else tuple(card.labels)
        ignore_label = ignore_label if ignore_label is not None else card.evaluation.ignore_label
    if empty_policy is not None or geometry is not None:
        profile = replace(
            profile,
            empty_policy=empty_policy or profile.empty_policy,  # type: ignore[arg-type]
            geometry=geometry or profile.geometry,
        )
    tree = card is not None and card.evaluation.tree and profile.name == "honest"
    lesionwise = None
    if "lesionwise" in profile.sets:
        stated = card.evaluation.lesionwise if card is not None else None
        lesionwise = profile.lesionwise or stated or "brats2023-gli"
        if lesionwise not in LESION_RULES:
            what = f"evaluation.lesionwise = {lesionwise!r} names no lesion-wise rules"
            raise SegbenchError("SB110", what, expected=", ".join(LESION_RULES))
    return ScoringRules(
        profile=profile,
        metrics=(*profile.metrics, "cldice") if tree and "cldice" not in profile.metrics else profile.metrics,
        regions={name: tuple(int(label) for label in members) for name, members in named.items()},
        tolerances_mm=_tolerances(named, tolerance_mm, profile, card),
        labels=None if labels is None or any_label else tuple(sorted({0, *labels})),
        ignore_label=ignore_label,
        lesionwise=lesionwise,
        airway="airway" in profile.sets or tree,
        max_bytes=max_bytes,
        label_mend=label_mend,
        averaged=tuple(name for name in card.evaluation.mean_regions if name in named)
        if card is not None
        else (),
    )


def _tolerances(
    regions: Mapping[str, Sequence[int]],
    asked: float | Mapping[str, float] | None,
    profile: MetricProfile,
    card: DatasetCard | None,
) -> dict[str, float]:
    """Return the NSD tolerance of each region: asked for, else the profile's, else the card's, else 1 mm."""
    base = {
        name: card.nsd_tolerance(name) if card is not None and name in card.regions else 1.0
        for name in regions
    }
    if profile.nsd_tolerance != "card":
        base = dict.fromkeys(regions, float(profile.nsd_tolerance))
    if asked is None:
        return base
    if not isinstance(asked, Mapping):
        return dict.fromkeys(regions, float(asked))
    for name in asked:
        if name not in regions and name != "default":
            raise SegbenchError(
                "SB104",
                f"the NSD tolerance names {name!r}, which is not a region",
                expected=", ".join(regions),
            )
    return {name: float(asked.get(name, asked.get("default", base[name]))) for name in regions}
