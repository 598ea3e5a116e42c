"""The model card: what `models/<slug>/card.toml` may say.

Nothing in a card is evaluated, but a card from elsewhere is code all the same: `implementation` names a class
or function of an installed package listed in `requires`, and building the network imports and runs that. What
it may name is bounded in `segbench.networks.implementation`. A network that an installed package ships needs
a card only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    model_validator,
)

from segbench.cards.bibtex import parse_bibtex
from segbench.cards.section import Section, checked, read_table

__all__ = [
    "Fidelity",
    "ModelCard",
    "ModelInput",
    "Paper",
    "PublishedRecipe",
    "Source",
    "parse_model_card",
    "read_model_card",
]


def _plain(value: object) -> object:
    if isinstance(value, list | tuple):
        return tuple(_plain(item) for item in cast("list[object] | tuple[object, ...]", value))
    if isinstance(value, bool | int | float | str):
        return value
    raise ValueError("must be a number, a word, or a list of them")


Argument = Annotated[Any, BeforeValidator(_plain)]
"""What a constructor argument may be: plain numbers, words, and (nested) tuples of them."""


def _bibtex(text: str) -> str:
    if text.strip():
        parse_bibtex(text)
    return text.strip()


Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
Line = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Positive = Annotated[int, Field(gt=0)]
DottedName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")]


class ModelInput(Section):
    """Sizes the network takes: each spatial length a multiple of `divisor`, at least `minimum`."""

    divisor: Positive
    """Every spatial length must be a multiple of this many voxels."""
    minimum: Positive
    """The smallest spatial length, in voxels (twice the divisor where instance norm needs two voxels)."""
    fixed_size: bool = False
    """True where the parameters depend on the patch size, so that it must be given when building."""

    @model_validator(mode="after")
    def _minimum_is_allowed(self) -> ModelInput:
        if self.minimum % self.divisor:
            raise ValueError(f"minimum {self.minimum} is not a multiple of divisor {self.divisor}")
        return self


class Paper(Section):
    """Where the network was published."""

    title: Line
    venue: Line
    year: Annotated[int, Field(ge=1900, le=2100)]
    doi: str = ""
    """DOI or arXiv identifier; empty where none is known."""


class Source(Section):
    """Where its authors' code lives, and under which licence."""

    code: Line
    """Address of the repository."""
    commit: str = ""
    """The commit that was read; empty where the source is a paper or a library release."""
    licence: Line
    """Licence of the authors' code; "none" where the repository carries no licence file."""


class Fidelity(Section):
    """What the implementation reproduces, how far, and by which numbers that can be checked."""

    reproduces: Line
    """One sentence: the thing that is reproduced."""
    deviations: tuple[Line, ...] = ()
    """Known differences from the source, and open choices."""
    parameters: Positive | None = None
    """Parameters with 4 input and 4 output channels."""
    parameters_origin: str = ""
    gmacs: Annotated[float, Field(gt=0)] | None = None
    """Giga multiply-accumulates of convolutions and matrix products at 1x4x128x128x128, the scan apart."""
    gmacs_origin: str = ""
    official_keys: bool = False
    """True where `load_official_weights` takes the authors' checkpoint layout."""
    official_tensors: Positive | None = None
    """Entries of the authors' state_dict, aliases included."""


class PublishedRecipe(Section):
    """What the authors trained with. A field left out is not known."""

    source: Line
    """Where the recipe was read."""
    patch: tuple[Positive, Positive, Positive] | None = None
    batch_size: Positive | None = None
    """Global batch."""
    samples: Positive | None = None
    spacing_mm: tuple[float, float, float] | str | None = None
    normalisation: str | None = None
    optimiser: Literal["sgd", "adamw", "adam"] | None = None
    lr: float | None = None
    momentum: float | None = None
    nesterov: bool | None = None
    weight_decay: float | None = None
    schedule: Literal["poly", "cosine", "constant"] | None = None
    warmup_samples: int | None = None
    loss: dict[str, float] | None = None
    deep_supervision: bool | None = None
    precision: Literal["fp32", "fp16", "bf16"] | None = None
    augmentation: str | None = None
    image_order: Literal[1, 3] | None = None
    """Spline order of the images that augmentation rotates, scales and brings back from low resolution."""
    foreground_fraction: float | None = None
    overlap: float | None = None
    mirror: bool | None = None
    notes: tuple[Line, ...] = ()


class ModelCard(Section):
    """One model as its card describes it: identity, implementation, sizes, sources, fidelity, limits."""

    schema_version: Literal[1] = 1
    slug: Slug
    title: Line
    short_name: Annotated[str, StringConstraints(max_length=24, strip_whitespace=True)] = ""
    """The name in tables, at most 24 characters; empty takes the slug."""
    summary: str = ""
    kind: Literal["network", "floor"]
    family: Literal["convolution", "mamba", "transformer", "floor"]
    provenance: Literal["released", "figure", "paper", "control", "library"]
    """Where the structure comes from; a "figure" or "paper" reconstruction is never called a reproduction."""
    implementation: DottedName
    """`module:name` of the class or function that builds it."""
    requires: Annotated[tuple[Line, ...], Field(min_length=1)]
    """Installed packages the implementation may be resolved in."""
    extra: str = ""
    """Name of the extra of segbench that installs `requires`, where there is one."""
    deep_supervision: bool = False
    """True where the network takes `deep_supervision=True` and then returns a list in training."""
    arguments: dict[str, Argument] = Field(default_factory=dict)
    """Constructor arguments of this card, over the class's own defaults."""
    overrides: dict[str, str] = Field(default_factory=dict)
    """Override names of segbench to the constructor's own names, e.g. patch_size = "img_size"."""
    input: ModelInput | None = None
    paper: Paper | None = None
    source: Source | None = None
    fidelity: Fidelity | None = None
    published_recipe: PublishedRecipe | None = None
    fingerprint: dict[str, Argument] = Field(default_factory=dict)
    """Small overrides under which the fingerprint is taken."""
    limits: tuple[Line, ...] = ()
    """What a user must know before trusting it."""
    citation: str = ""
    bibtex: Annotated[str, AfterValidator(_bibtex)] = ""
    """One BibTeX entry of the paper, `@type{key, field = {...}, ...}`; its key is what tables cite."""
    superseded_by: Slug | None = None

    @model_validator(mode="after")
    def _whole(self) -> ModelCard:
        faults: list[str] = []
        package = self.implementation.partition(":")[0].partition(".")[0]
        if package not in self.requires:
            faults.append(
                f"implementation '{self.implementation}' is in package '{package}', "
                f"but `requires` lists only {list(self.requires)}"
            )
        if (self.kind == "floor") != (self.family == "floor"):
            faults.append(f"kind {self.kind} and family {self.family} do not go together")
        if self.kind == "network":
            faults += [
                f"a network needs [{name}]"
                for name in ("input", "source", "fidelity")
                if getattr(self, name) is None
            ]
        if faults:
            raise ValueError("; ".join(faults))
        return self


def parse_model_card(content: Mapping[str, Any], *, path: Path | str | None = None) -> ModelCard:
    """The card that a parsed TOML mapping describes.

    Args:
        content: The mapping, as `tomllib` gives it.
        path: The file it came from, named in the error.

    Raises:
        SegbenchError: SB110 with every fault at once, one line each: key path, what is wrong, what was found.
    """
    return checked(ModelCard, content, what=str(content.get("slug", "the model card")), path=path)


def read_model_card(path: Path | str) -> ModelCard:
    """The card in a TOML file.

    Raises:
        SegbenchError: SB110 where the file cannot be read, is too large, is not TOML, or breaks the schema.
    """
    return parse_model_card(read_table(path), path=path)
