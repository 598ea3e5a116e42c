"""How the files of a dataset lie on disk: one model per adapter, the `[layout]` table of a dataset card.

A template such as `{case}-t1c.nii.gz` is filled with the named groups of `case_pattern`. An ending `.nii.gz`
in a template also accepts `.nii` (and the reverse): archives of the same data are handed on both ways.
"""

import re
import string
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

SAFE_CASE = r".{1,128}"
"""Any name; what may be a case id is the business of `core.names.is_safe_case` alone."""
PSEUDO_LABELS = "semi|pseudo"


class Section(BaseModel):
    """A table of a card: frozen, and a key that nobody knows is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression ({error})") from error
    return text


def _case_pattern(text: str) -> str:
    if "case" not in re.compile(_pattern(text)).groupindex:
        raise ValueError("needs a named group (?P<case>...)")
    return text


def _relative(text: str) -> str:
    path = PurePosixPath(text)
    if not text or path.is_absolute() or ".." in path.parts or "\\" in text:
        raise ValueError("must be a relative path inside the dataset's folder")
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]
CasePattern = Annotated[str, AfterValidator(_case_pattern)]
Template = Annotated[str, AfterValidator(_relative)]
FormName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]


class CaseFolderForm(Section):
    """One way in which the folder of a case is laid out.

    Either `labels` names one label map, or `structures` one mask per label value (nonzero = inside, painted
    in the order of the card, later wins); `combined` is then a label map that is only compared with them.
    """

    name: FormName
    images: dict[str, Template] = Field(min_length=1)
    labels: Template | None = None
    structures: dict[int, Template] = Field(default_factory=dict)
    combined: Template | None = None
    masks_overlap: bool = False
    """The masks overlap by their nature, as airways run in lungs: SB326 is a note then, no warning."""


class PairedFoldersForm(Section):
    """A folder of images beside a folder of labels.

    `images` is the folder of the only channel, or {channel: folder}. The stem of an image's name is matched
    with `case_pattern`; `label_name` makes the stem of its label from the groups. The two folders may be one.
    """

    name: FormName
    images: Template | dict[str, Template]
    labels: Template | None = None
    label_name: Template = "{case}"


class _Layout(Section):
    pseudo_labels: Pattern = PSEUDO_LABELS
    """Folders (root, its parent, folders on the way to the files) whose name matches hold no reference."""


class CaseFolderLayout(_Layout):
    """One folder per case, at most two folders below the root.

    With `folder_pattern` several cases share a folder (ACDC: the frames of a patient): folders match
    `folder_pattern`, cases are then found by matching `case_pattern` with the names of the image files.
    """

    adapter: Literal["case-folder"]
    case_pattern: CasePattern
    folder_pattern: Pattern | None = None
    form: tuple[CaseFolderForm, ...] = Field(min_length=1)


class PairedFoldersLayout(_Layout):
    """Images in one folder, labels in another, same names or names told apart by templates."""

    adapter: Literal["paired-folders"]
    case_pattern: CasePattern = f"(?P<case>{SAFE_CASE})"
    form: tuple[PairedFoldersForm, ...] = Field(min_length=1)


class MsdLayout(_Layout):
    """Medical Segmentation Decathlon: `dataset.json` lists the files; several channels are one 4D file."""

    adapter: Literal["msd"]
    case_pattern: CasePattern = f"(?P<case>{SAFE_CASE})"


class NnunetLayout(_Layout):
    """nnU-Net v2 raw: `imagesTr/{case}_{XXXX}{ending}`, `labelsTr/{case}{ending}`, `dataset.json`."""

    adapter: Literal["nnunet"]
    case_pattern: CasePattern = f"(?P<case>{SAFE_CASE})"


Layout = Annotated[
    CaseFolderLayout | PairedFoldersLayout | MsdLayout | NnunetLayout, Field(discriminator="adapter")
]


def template_fields(template: str) -> frozenset[str]:
    """The placeholders of a template: {"case"} of `"{case}-t1c.nii.gz"`. ValueError on a stray brace."""
    return frozenset(field for _, field, _, _ in string.Formatter().parse(template) if field is not None)
