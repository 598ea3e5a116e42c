"""A tree of files that templates of names describe, relative to the dataset's root.

A folder for each case (BraTS, TotalSegmentator), images in one folder and labels in another (CRC-2000, LiTS),
subjects and sessions with masks among the derivatives (BIDS): all are templates, read by one walk.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segbench.cards.dataset_card import DatasetCard
from segbench.cards.layout import ANY_CASE, Form, Layout, template_fields
from segbench.core.names import is_safe_case
from segbench.data.adapters.base import (
    CaseFiles,
    Discovery,
    Listing,
    inside,
    missing_references,
    named,
    stem_of,
    whose,
)

LEVELS_DOWN = 2
"""Archives unpack one or two levels too deep."""
BIDS_ROOT = "dataset_description.json"
Fields = dict[str, str]


def discover(card: DatasetCard, layout: Layout, root: Path, listing: Listing | None = None) -> Discovery:
    """The cases of a tree that the card's templates describe, found at most two levels below the root.

    The first form of the card that fits a case whole is used; a case whose images are whole but whose
    reference is absent has none; any other is taken with its missing files named (SB303). A `listing` serves
    several cards that are tried on one folder.
    """
    discovery = Discovery(root, listing=listing or Listing())
    tree = Tree(card, layout, discovery)
    places = [(root, 0)]
    for place, level in places:
        taken = tree.read(place)
        if level < LEVELS_DOWN and not (place / BIDS_ROOT).is_file():
            names = (name for name in discovery.listing.folders(place) if name not in taken)
            places += [(place / name, level + 1) for name in names]
    return discovery


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What one form finds of a case; filled templates that stand for no file are absent."""

    form: Form
    images: dict[str, Path]
    references: Path | dict[str, Path] | None
    combined: Path | None
    absent_images: tuple[str, ...]
    absent_labels: tuple[str, ...]
    ambiguous: tuple[list[Path], ...]

    @property
    def present(self) -> int:
        masks = self.references if isinstance(self.references, dict) else {}
        return len(self.images) + len(masks) + isinstance(self.references, Path)


class Tree:
    """Reads the cases of one place after another; a place is a folder that templates are relative to.

    Args:
        card: The dataset.
        layout: Its templates.
        discovery: Receives cases and findings.
        ending: The only ending that is read, where the format says so (nnU-Net's file_ending).
    """

    def __init__(self, card: DatasetCard, layout: Layout, discovery: Discovery, ending: str = "") -> None:
        self.card, self.layout, self.discovery, self.ending = card, layout, discovery, ending
        self.listing, self.pattern = discovery.listing, re.compile(layout.case_pattern)
        self.images = list(dict.fromkeys(t for form in layout.form for t in form.images.values()))
        self.labels = list(dict.fromkeys(form.labels for form in layout.form if form.labels is not None))
        others = [t for form in layout.form for t in (form.combined, *form.structures.values())]
        self.templates = list(dict.fromkeys([*self.images, *self.labels, *filter(None, others)]))

    def read(self, place: Path) -> set[str]:
        """Take the cases of a place, and say what of it fits nothing.

        Returns:
            Names of the folders of the place that the templates lead into.
        """
        found, unread = self._cases(place)
        attempts = [(fields, self._best(place, fields)) for fields in found]
        if self.layout.case_pattern == ANY_CASE and not any(best.present for _, best in attempts):
            attempts = []  # folders of any name that hold nothing are folders on the way
        groups: dict[str, list[CaseFiles]] = {}
        refused: set[Path] = set()
        told: set[str] = set()
        for fields, best in attempts:
            files = self._case(place, fields, best, refused, told)
            if files is not None:
                folder = place / _fixed(next(iter(best.form.images.values())))
                groups.setdefault(inside(folder, self.discovery.root), []).append(files)
        self.discovery.tell_other_formats(unread)
        known = [fields for fields, _ in attempts]
        for folder in {place / _fixed(template) for template in self.labels if _is_flat(template)}:
            told |= self.discovery.tell_masks(folder, {fields["case"] for fields in known})
        missing_references(
            self.discovery,
            [
                (name, [f for f in files if not f.missing and f.case not in told])
                for name, files in groups.items()
            ],
            {
                fields["case"]: inside(place / best.absent_labels[0], self.discovery.root)
                for fields, best in attempts
                if best.absent_labels
            },
        )
        self._strangers(place, known, unread)
        self._mislaid(place, [files for group in groups.values() for files in group])
        return self._taken(place, known)

    # ---- which cases there are

    def _cases(self, place: Path) -> tuple[list[Fields], dict[Path, set[str]]]:
        """The fields of each case, by where its images lie; and images in a format that is not read."""
        found: dict[str, list[Fields]] = {}
        unread: dict[Path, set[str]] = {}
        for parts, is_file in dict.fromkeys(_head(template) for template in self.images):
            for fields, folder, stem, read in self._walk(place, parts, {}, is_file=is_file):
                case = _case_of(fields)
                match = self.pattern.fullmatch(case)
                if match is None or not is_safe_case(case):
                    continue
                if not read:
                    unread.setdefault(folder, set()).add(stem)
                    continue
                fields = {**named(match), **fields, "case": case}
                same = next((known for known in found.get(case, ()) if _agree(known, fields)), None)
                if same is None:
                    found.setdefault(case, []).append(fields)
                else:
                    same.update(fields)
        return [fields for case in sorted(found) for fields in found[case]], unread

    def _walk(
        self, folder: Path, parts: tuple[str, ...], fields: Fields, *, is_file: bool = True
    ) -> Iterator[tuple[Fields, Path, str, bool]]:
        """(fields, folder, stem, whether it is read) of what lies there under these components' names."""
        part, rest = parts[0], parts[1:]
        if not rest and is_file:
            names = dict.fromkeys(self._volumes(folder), True)
            others = (stem for stem, _, _ in self.listing.other_formats(folder).values())
            names |= {stem: False for stem in others if stem not in names}
        else:
            names = dict.fromkeys(self.listing.folders(folder), True)
        regex = re.compile(self._regex(part, fields))
        for name, read in names.items():
            match = regex.fullmatch(name)
            more = {} if match is None else {**named(match), **fields}
            if match is None or not _agree(named(match), fields) or _filled(part, more) != name:
                continue
            if rest:
                yield from self._walk(folder / name, rest, more, is_file=is_file)
            else:
                yield more, folder, name, read

    def _regex(self, part: str, fields: Fields) -> str:
        """A component of a template as a regular expression, the known fields filled in."""
        text, seen = "", set[str]()
        told = set(self.pattern.groupindex) if "case" in template_fields(part) - fields.keys() else set[str]()
        for literal, field, _, _ in string.Formatter().parse(part):
            text += re.escape(literal)
            if field is None:
                continue
            if field in fields:
                text += re.escape(fields[field])
            elif field in seen:
                text += f"(?P={field})"
            elif field == "case":
                text += f"(?:{self.layout.case_pattern})"
                seen |= told
            elif field in told:
                text += ".+?"  # a group of the case that follows, which tells it
            else:
                text += f"(?P<{field}>.+?)"
                seen.add(field)
        return text

    def _volumes(self, folder: Path) -> dict[str, list[str]]:
        """Volumes by stem, those of another ending than the only one left out."""
        found = self.listing.volumes(folder)
        kept = {stem: [name for name in names if self._has_ending(name)] for stem, names in found.items()}
        return {stem: names for stem, names in kept.items() if names} if self.ending else found

    def _has_ending(self, name: str) -> bool:
        return name.lower().endswith(self.ending)

    # ---- the files of a case

    def _best(self, place: Path, fields: Fields) -> _Attempt:
        attempts = [self._attempt(place, form, fields) for form in self.layout.form]
        whole = [each for each in attempts if not each.absent_images]
        best = next((each for each in whole if not each.absent_labels), None)
        if best is None and all(each.references is None for each in attempts):
            best = next(iter(whole), None)
        best = best or max(attempts, key=lambda each: each.present)
        twins = [each for each in whole if not {*each.images.values()} & {*best.images.values()}]
        if twins and best in whole:
            message = f"the id {fields['case']} appears twice: form {best.form.name} and {twins[0].form.name}"
            self.discovery.tell("SB306", message, next(iter(twins[0].images.values())), case=fields["case"])
        return best

    def _attempt(self, place: Path, form: Form, fields: Fields) -> _Attempt:
        ambiguous: list[list[Path]] = []
        absent: list[str] = []

        def find(template: str) -> Path | None:
            name = _filled(template, fields)
            files = [] if name is None else self.listing.with_any_ending(place, name)
            files = [path for path in files if self._has_ending(path.name)]
            if len(files) > 1:
                ambiguous.append(files)
            if not files:
                absent.append(template if name is None else name)
            return files[0] if files else None

        images = {channel: find(template) for channel, template in form.images.items()}
        absent_images, absent = tuple(absent), []
        references: Path | dict[str, Path] | None = None
        if form.labels is not None:
            references = find(form.labels)
        elif form.structures:
            masks = {self.card.labels[value]: find(text) for value, text in form.structures.items()}
            references = {name: path for name, path in masks.items() if path is not None} or None
        absent_labels = tuple(absent)
        combined = None if form.combined is None else find(form.combined)
        present = {channel: path for channel, path in images.items() if path is not None}
        return _Attempt(form, present, references, combined, absent_images, absent_labels, tuple(ambiguous))

    def _case(
        self, place: Path, fields: Fields, best: _Attempt, refused: set[Path], told: set[str]
    ) -> CaseFiles | None:
        """Take a case; places of predictions go to `refused`, cases whose label is not read to `told`."""
        case, discovery = fields["case"], self.discovery
        for files in best.ambiguous:
            discovery.tell_ambiguous(case, files)
        partial = best.references is not None and bool(best.absent_labels)
        needed = best.absent_images + (best.absent_labels if partial or best.absent_images else ())
        wanted: dict[Path, set[str]] = {}
        for name in (*best.absent_images, *best.absent_labels):
            wanted.setdefault((place / name).parent, set()).add(stem_of(Path(name).name))
        unread = discovery.tell_other_formats(wanted)
        if any((place / name).parent / stem_of(Path(name).name) in unread for name in best.absent_labels):
            told.add(case)
        for name in needed:
            kind = "image" if name in best.absent_images else "label"
            if (place / name).parent / stem_of(Path(name).name) not in unread:
                discovery.tell("SB303", f"{kind} {name} is absent", place / name, case=case)
        if best.references is not None and self._predictions(place, best.form, refused):
            return None
        found = CaseFiles(
            case,
            *whose(self.card, case, fields),
            best.images,
            None if partial else best.references,
            best.form.name,
            combined=best.combined,
            missing=tuple(inside(place / name, discovery.root) for name in needed),
        )
        discovery.add(found)
        return found

    def _predictions(self, place: Path, form: Form, refused: set[Path]) -> bool:
        """Whether folders on the way to the labels say that a model made them (SB330, told once)."""
        labels = form.labels or next(iter(form.structures.values()))
        folder, pattern = place / _fixed(labels), self.layout.pseudo_labels
        names = folder.relative_to(self.discovery.root).parts
        if not pattern or not any(re.search(pattern, name, re.IGNORECASE) for name in names):
            return False
        if folder not in refused:
            message = "the folder's name says that its labels are predictions; they are not a reference"
            self.discovery.tell("SB330", message, folder)
        refused.add(folder)
        return True

    # ---- what fits nothing

    def _strangers(self, place: Path, known: list[Fields], unread: dict[Path, set[str]]) -> None:
        """SB304 for labels without an image, and for volumes beside images or labels that fit no template."""
        flat = [template for template in self.templates if _is_flat(template)]
        expected: dict[Path, set[str]] = {place / _fixed(template): set() for template in flat}
        for template in flat:
            names = (_filled(template, fields) for fields in known)
            stems = (stem_of(Path(name).name) for name in names if name is not None)
            expected[place / _fixed(template)].update(stems)
        for template in self.labels:
            fields = sorted(template_fields(template))
            keys = {tuple(each.get(field) for field in fields) for each in known}
            for found, folder, stem, read in self._walk(place, _parts(template), {}):
                if not read or tuple(found[field] for field in fields) in keys:
                    continue
                expected.setdefault(folder, set()).add(stem)
                images = [place / name for t in self.images if (name := _filled(t, found)) is not None]
                if not any(stem_of(path.name) in unread.get(path.parent, ()) for path in images):
                    path, case = folder / self._volumes(folder)[stem][0], _case_of(found) or stem
                    self.discovery.tell("SB304", "a label without its image", path, case=case)
        if any(template_fields(_parts(template)[0]) and "/" in template for template in self.images):
            expected.setdefault(place, set())
        for folder, stems in sorted(expected.items()):
            for stem, names in self.listing.volumes(folder).items():
                for name in names:
                    if stem in stems and self._has_ending(name):
                        continue
                    if is_safe_case(stem):
                        fits = "a file that no template of the card fits"
                        other = f"its ending is not {self.ending}, the file_ending of dataset.json"
                        message = fits if self._has_ending(name) else other
                        self.discovery.tell("SB304", message, folder / name)
                    else:
                        self.discovery.tell_unsafe(stem, folder / name)

    def _mislaid(self, place: Path, cases: list[CaseFiles]) -> None:
        """Point at a folder beside an empty one of labels that holds files of these names."""
        flat = [template for template in self.labels if _is_flat(template)]
        if not flat or any(files.references is not None for files in cases):
            return
        labels, ids = place / _fixed(flat[0]), {files.case for files in cases}
        images = {path.parent for files in cases for path in files.images.values()}
        for folder in (labels.parent / name for name in self.listing.folders(labels.parent)):
            if folder != labels and folder not in images and ids & set(self.listing.volumes(folder)):
                message = f"no reference is read, but {folder.name} holds files of the same names"
                expected = f"labels in {labels.name}"
                self.discovery.tell("SB303", message, folder, severity="warning", expected=expected)

    def _taken(self, place: Path, known: list[Fields]) -> set[str]:
        """Names of the folders of a place that templates lead into; those without any case are told."""
        if not known:
            return set()
        firsts = {_parts(template)[0] for template in self.templates if "/" in template}
        taken = {name for fields in known for part in firsts if (name := _filled(part, fields))}
        for part in sorted(part for part in firsts if template_fields(part) and part[0] != "{"):
            regex = re.compile(self._regex(part, {}))
            for name in self.listing.folders(place):
                if name not in taken and regex.fullmatch(name):
                    message = f"no image of the layout is in {name}"
                    expected = f"a file such as {self.images[0]}"
                    self.discovery.tell("SB303", message, place / name, expected=expected)
        return taken


def _parts(template: str) -> tuple[str, ...]:
    """The components of a template, the file's without its ending."""
    *folders, name = template.split("/")
    return (*folders, stem_of(name))


def _head(template: str) -> tuple[tuple[str, ...], bool]:
    """The components of a template up to where the case is known, and whether that is the file."""
    parts, fields = _parts(template), template_fields(template)
    needed, known = {"case"} & fields or fields, set[str]()
    for count, part in enumerate(parts, start=1):
        known |= template_fields(part)
        if needed <= known:
            return parts[:count], count == len(parts)
    return parts, True


def _fixed(template: str) -> Path:
    """The folders that a template names before its first field."""
    folders = _parts(template)[:-1]
    count = next((i for i, part in enumerate(folders) if template_fields(part)), len(folders))
    return Path(*folders[:count])


def _is_flat(template: str) -> bool:
    """Whether the files of all cases lie in one folder."""
    return len(_fixed(template).parts) == len(_parts(template)) - 1


def _case_of(fields: Fields) -> str:
    """The id that fields give: the case, else subject and session."""
    return fields.get("case") or "_".join(fields[name] for name in ("subject", "session") if name in fields)


def _filled(template: str, fields: Fields) -> str | None:
    """A template filled with the fields of a case; None where it needs one that the case has not."""
    return template.format(**fields) if fields.keys() >= template_fields(template) else None


def _agree(one: Fields, other: Fields) -> bool:
    return all(one[key] == other[key] for key in one.keys() & other.keys())
