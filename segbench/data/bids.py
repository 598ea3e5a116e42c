"""The card of a BIDS dataset that describes itself: images of subjects, masks beside them or in derivatives.

Source: bids-specification, sections on file names (entities, suffixes) and on derivatives of imaging data
(`_mask`, `_dseg` with a table of its labels).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_table
from segbench.core.names import region_name, region_names
from segbench.data.adapters.base import Listing, stem_of
from segbench.data.adapters.dataset_json import load_object
from segbench.volumes import read_header

DESCRIPTION = "dataset_description.json"
_SUBJECT = re.compile(r"sub-([A-Za-z0-9]+)")
_STEM = re.compile(r"(sub-[A-Za-z0-9]+)(_ses-[A-Za-z0-9]+)?(_.+)")
_BINARY, _LABELLED = ("mask", "msk"), ("dseg",)
_SERIES = ("bold", "sbref", "asl", "m0scan", "phasediff", "magnitude1", "magnitude2", "epi", "probseg")
"""Suffixes of series and of maps that are no channel of a segmentation."""
_CASE = "(?P<case>sub-(?P<subject>[A-Za-z0-9]+){session})"


def bids_document(root: Path, slug: str) -> dict[str, Any]:
    """The card's document of a BIDS dataset: its one kind of mask, and the images that each masked scan has.

    Args:
        root: The folder with `dataset_description.json`.
        slug: Slug of the card.

    Raises:
        SegbenchError: SB331 for a description that is not a JSON object; SB302 where no mask is found, or
            more than one kind, or labels without a table: a card must say what is meant.
    """
    about = load_object(root / DESCRIPTION)
    found: dict[str, set[str]] = {}
    for template, scan in _templates(root):
        found.setdefault(template, set()).add(scan)
    masks = {name: scans for name, scans in found.items() if _suffix(name) in (*_BINARY, *_LABELLED)}
    kinds = sorted({_plain(name) for name in masks})
    if len(kinds) != 1:
        raise SegbenchError(
            "SB302",
            f"a BIDS dataset with {f'{len(kinds)} kinds of' if kinds else 'no'} mask",
            path=root,
            expected="one file per scan that ends in _mask, _msk or _dseg, in derivatives or beside images",
            found=", ".join(kinds[:5]) or "none",
            mend="write a card whose labels name the one that is meant: see datasets/isles22/card.toml",
        )
    images = {name: scans for name, scans in found.items() if name not in masks and _is_image(name)}
    forms, order, notes = _forms(root, masks, images)
    labels = _labels(root, kinds[0])
    visits = {"_ses-" in scan for scans in masks.values() for scan in scans}
    session = (
        "(?:_ses-(?P<session>[A-Za-z0-9]+))" + ("?" if False in visits else "") if True in visits else ""
    )
    ct = all(name.rpartition("_")[2].lower() == "ct" for name in order)
    return {
        "schema_version": 1,
        "slug": slug,
        "title": str(about.get("Name") or root.resolve().name),
        "modality": "CT" if ct else "MR",
        "notes": notes,
        "availability": {
            "kind": "private",
            "licence": str(about.get("License", "")),
            "citation": str(about.get("DatasetDOI", about.get("HowToAcknowledge", ""))),
        },
        "location": {"folders": list(dict.fromkeys([root.resolve().name, slug]))},
        "layout": {"adapter": "tree", "case_pattern": _CASE.format(session=session), "form": forms},
        "channels": {"order": order, "normalisation": ["ct" if ct else "zscore"]},
        "labels": {0: "background", **labels},
        "regions": dict(zip(region_names(labels.values()), ([v] for v in labels), strict=True)),
        "patient": {"group": "subject"},
    }


def _templates(root: Path) -> Iterator[tuple[str, str]]:
    """(template, scan) of each volume named by BIDS, below subjects and below derivatives."""
    listing = Listing()
    places = [root]
    while places:
        folder = places.pop()
        places += [
            folder / name
            for name in listing.folders(folder)
            if folder != root or name in ("derivatives", "rawdata") or _SUBJECT.fullmatch(name)
        ]
        inner = folder.relative_to(root)
        for stem, files in listing.volumes(folder).items():
            match = _STEM.fullmatch(stem)
            if match is None or not any(_SUBJECT.fullmatch(part) for part in inner.parts):
                continue
            subject, session = match[1], match[2] or ""
            parts = [
                "sub-{subject}" if part == subject
                else "ses-{session}" if session and part == session[1:]
                else part
                for part in inner.parts
            ]  # fmt: skip
            ending = files[0][len(stem) :]
            yield "/".join([*parts, f"{{case}}{match[3]}{ending}"]), subject + session


def _forms(
    root: Path, masks: Mapping[str, set[str]], images: Mapping[str, set[str]]
) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """A form for each place of the mask, the channels, and what is said of images that are none.

    A channel is an image that every masked scan has, on the grid of its mask as far as the first scan tells.
    """
    chosen: dict[str, dict[str, str]] = {}
    apart: set[str] = set()
    for mask, scans in sorted(masks.items()):
        shape = read_header(_file(root, mask, min(scans))).shape_zyx
        chosen[mask] = {}
        for name in sorted(name for name, having in images.items() if scans <= having):
            entities = stem_of(name.rpartition("/")[2]).removeprefix("{case}_")
            if read_header(_file(root, name, min(scans))).shape_zyx == shape:
                chosen[mask][region_name(entities)] = name
            else:
                apart.add(entities)
    order = sorted(set.intersection(*(set(each) for each in chosen.values())))
    if not order:
        raise SegbenchError(
            "SB302",
            "no image of this BIDS dataset lies on the grid of every mask",
            path=root,
            found=", ".join(sorted(images)[:5]) or "no image",
            mend="complete the dataset, or write a card with the images that count",
        )
    names = ["bids"] if len(chosen) == 1 else [f"bids-{number}" for number in range(1, len(chosen) + 1)]
    forms = [
        {"name": name, "images": {channel: files[channel] for channel in order}, "labels": mask}
        for name, (mask, files) in zip(names, chosen.items(), strict=True)
    ]
    notes = [f"{name} lies on another grid than the mask and is not a channel." for name in sorted(apart)]
    return forms, order, notes


def _file(root: Path, template: str, scan: str) -> Path:
    """The file of a scan such as `sub-01_ses-1`."""
    subject, _, session = scan.partition("_ses-")
    return root / template.format(case=scan, subject=subject.removeprefix("sub-"), session=session)


def _labels(root: Path, kind: str) -> dict[int, str]:
    """Names of the values of a mask; those of a `_dseg` stand in a table of `index` and `name`."""
    suffix = _suffix(kind)
    if suffix in _BINARY:
        told = re.search(r"(?:label|desc)-([A-Za-z][A-Za-z0-9]*)", stem_of(kind.rpartition("/")[2]))
        name = told[1] if told and told[1].lower() not in ("l", "r", "brain") else "lesion"
        return {1: name}
    tables = [*sorted(root.glob("*dseg.tsv")), *sorted(root.glob("derivatives/**/*dseg.tsv"))]
    try:
        head, *lines = parse_table(tables[0].read_text(encoding="utf-8-sig"))
        index, name = head.index("index"), head.index("name")
        labels = {int(line[index]): line[name] for line in lines if line and int(line[index]) != 0}
    except (IndexError, ValueError, OSError) as error:
        raise SegbenchError(
            "SB302",
            "the labels of a _dseg need a table dseg.tsv with the columns index and name",
            path=tables[0] if tables else root,
            mend="add the table, or write a card with the labels",
        ) from error
    return labels


def _is_image(name: str) -> bool:
    return not name.startswith("derivatives/") and _suffix(name) not in _SERIES


def _suffix(name: str) -> str:
    """The last part of a BIDS name: `mask` of `..._label-L_mask.nii.gz`."""
    return stem_of(name.rpartition("/")[2]).rpartition("_")[2]


def _plain(name: str) -> str:
    """A template without what differs between scans with and without sessions."""
    return name.replace("ses-{session}/", "")
