"""How the files of a dataset lie on disk: the `[layout]` table of a dataset card.

A template such as `{case}/{case}-t1c.nii.gz` is relative to the dataset's root. `{case}` and the other named
groups of `case_pattern` stand for what they match, `{subject}` and `{session}` for any name where the pattern
has no such group; without `{case}` the id is their values, joined by `_`. `{channel}` in `images` is filled
with the name of each channel, `{structure}` in `structures` with the name of each label. An ending `.nii.gz`
in a template also accepts `.nii` (and the reverse): archives of the same data are handed on both ways.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field

from segbench.cards.section import Section
from segbench.core.foreign import as_list, table

SAFE_CASE = r".{1,128}"
"""Any name; what may be a case id is the business of `core.names.is_safe_case` alone."""
ANY_CASE = f"(?P<case>{SAFE_CASE})"
PSEUDO_LABELS = "semi|pseudo"
FREE_FIELDS = ("subject", "session")
"""Fields that a template may name though the case pattern has no such group."""


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


class Form(Section):
    """One way in which the files of a case lie under the root: a template for each.

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


class Layout(Section):
    """How a dataset lies: by templates (`tree`), or as its `dataset.json` says (`msd`, `nnunet`).

    MSD's dataset.json lists the files, several channels in one 4D file; nnU-Net v2 names them
    `imagesTr/{case}_{XXXX}{ending}` and `labelsTr/{case}{ending}`.
    """

    adapter: Literal["tree", "msd", "nnunet"]
    case_pattern: CasePattern = ANY_CASE
    """Matches whole case ids; its groups are fields of the templates, and one of them may be the patient."""
    pseudo_labels: Pattern = PSEUDO_LABELS
    """Folders (root, its parent, folders on the way to the files) whose name matches hold no reference."""
    form: tuple[Form, ...] = ()
    """Of a tree, at least one; the first that fits a case is used."""


def template_fields(template: str) -> frozenset[str]:
    """The placeholders of a template: {"case"} of `"{case}-t1c.nii.gz"`. ValueError on a stray brace."""
    return frozenset(field for _, field, _, _ in string.Formatter().parse(template) if field is not None)


def with_templates(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The document of a card with one template for each channel and structure, whatever was written short.

    The two older adapters are short forms too: `case-folder`, whose templates are relative to the folder of a
    case, and `paired-folders`, which names a folder of images and one of labels. What is malformed stays as
    it is, for the fields to say.
    """
    layout = document.get("layout")
    if not isinstance(layout, Mapping):
        return document
    given = dict(cast("Mapping[str, Any]", layout))
    forms, older = given.get("form"), given.get("adapter")
    if not isinstance(forms, list | tuple):
        return document
    if older in ("case-folder", "paired-folders"):
        given["adapter"] = "tree"
    inner = "{subject}" if older == "case-folder" and given.pop("folder_pattern", None) else "{case}"
    order = [str(name) for name in as_list(table(document.get("channels")).get("order"))]
    ignored = ("0", str(table(document.get("evaluation")).get("ignore_label")))
    labels = {v: str(n) for v, n in table(document.get("labels")).items() if v not in ignored}
    given["form"] = [
        _written_out(_older(dict(table(cast("object", form))), str(older), inner), order, labels)
        if isinstance(form, Mapping)
        else form
        for form in cast("list[object]", forms)
    ]
    return {**document, "layout": given}


def _older(form: dict[str, Any], adapter: str, folder: str) -> dict[str, Any]:
    """The form of an older adapter with templates relative to the root."""
    if adapter == "case-folder":
        return {key: _below(folder, value) if key in _FILES else value for key, value in form.items()}
    if adapter == "paired-folders":
        label = form.pop("label_name", "{case}")
        for key, name in (("images", "{case}"), ("labels", label)):
            if key in form:
                form[key] = _below(form[key], name)
    return form


_FILES = ("images", "labels", "structures", "combined")


def _below(folder: Any, name: Any) -> Any:
    """`folder/name`, where either may be a table of them."""
    if isinstance(folder, Mapping):
        return {key: _below(each, name) for key, each in cast("Mapping[Any, Any]", folder).items()}
    if isinstance(name, Mapping):
        return {key: _below(folder, each) for key, each in cast("Mapping[Any, Any]", name).items()}
    both = isinstance(folder, str) and isinstance(name, str)
    return f"{folder}/{name}".removeprefix("./") if both else name


def _written_out(form: dict[str, Any], order: list[str], labels: dict[str, str]) -> dict[str, Any]:
    images, structures = form.get("images"), form.get("structures")
    if isinstance(images, str) and ("{channel}" in images or len(order) == 1):
        form["images"] = {name: images.replace("{channel}", name) for name in order}
    if isinstance(structures, str) and "{structure}" in structures:
        form["structures"] = {v: structures.replace("{structure}", name) for v, name in labels.items()}
    return form
