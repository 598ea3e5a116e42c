"""Faults of a dataset card that need two tables: regions against labels, templates against patterns.

They are found in the unchecked document, whatever its shape, so that they are reported beside the faults
inside the tables and not one mending later. What is malformed in itself is the business of the fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from segbench.cards.layout import FREE_FIELDS, template_fields
from segbench.core.foreign import as_list, table

Where = tuple[str | int, ...]
Fault = tuple[Where, object, str]
"""Key path, what was found, what is allowed."""
Table = Mapping[str, Any]


def faults_between(document: object) -> Iterator[Fault]:
    """All faults between the tables of an unchecked document."""
    raw = table(document)
    labels = table(raw.get("labels"))
    values = {int(key) for key in labels if key.isdecimal()}
    evaluation, regions = table(raw.get("evaluation")), table(raw.get("regions"))
    ignored = evaluation.get("ignore_label")
    foreground = values - {0} - ({ignored} if isinstance(ignored, int) else set())
    if 0 not in values:
        yield ("labels",), sorted(values), "label 0 must be declared: it is the background"
    for name, members in regions.items():
        unknown = sorted({m for m in as_list(members) if isinstance(m, int)} - foreground)
        if unknown:
            known = ", ".join(map(str, sorted(foreground)))
            yield ("regions", name), unknown, f"a region is a union of declared foreground labels ({known})"
    if isinstance(ignored, int) and ignored not in values:
        yield ("evaluation", "ignore_label"), ignored, "must be a declared label"
    yield from _faults_of_evaluation(evaluation, set(regions))
    yield from _faults_of_channels(table(raw.get("channels")))
    yield from _faults_of_layout(raw, values)
    yield from _faults_of_availability(raw)


def _faults_of_evaluation(evaluation: Table, regions: set[str]) -> Iterator[Fault]:
    for key, allowed in (("nsd_tolerance_mm", regions | {"default"}), ("size_bins_ml", regions)):
        for name in table(evaluation.get(key)):
            if name not in allowed:
                yield ("evaluation", key, name), name, f"allowed: {', '.join(sorted(allowed))}"
    unknown = sorted(set(map(str, as_list(evaluation.get("mean_regions")))) - regions)
    if unknown:
        yield ("evaluation", "mean_regions"), unknown, f"allowed: {', '.join(sorted(regions))}"
    if table(evaluation.get("margin")) and not evaluation.get("margin_source"):
        yield ("evaluation", "margin"), "a margin without source", "say where it comes from in margin_source"
    for name, bounds in table(evaluation.get("size_bins_ml")).items():
        listed = [bound for bound in as_list(bounds) if isinstance(bound, int | float)]
        if listed != sorted(set(listed)):
            yield ("evaluation", "size_bins_ml", name), bounds, "bounds must ascend"


def _faults_of_channels(channels: Table) -> Iterator[Fault]:
    order, rules = as_list(channels.get("order")), as_list(channels.get("normalisation"))
    if len(set(map(str, order))) != len(order):
        yield ("channels", "order"), order, "each channel once"
    if order and len(rules) > 1 and len(rules) != len(order):
        yield ("channels", "normalisation"), rules, f"one for all channels, or a list of {len(order)}"


def pattern_groups(layout: Table) -> set[str]:
    """The named groups of a layout's pattern; `case` is always one."""
    try:
        return {"case", *re.compile(str(layout.get("case_pattern") or "")).groupindex}
    except re.error:
        return {"case"}


def _faults_of_layout(raw: Table, values: set[int]) -> Iterator[Fault]:
    layout = table(raw.get("layout"))
    channels = set(map(str, as_list(table(raw.get("channels")).get("order"))))
    groups = pattern_groups(layout)
    if (layout.get("adapter") == "tree") != bool(layout.get("form")):
        message = "a tree has at least one form, and only a tree has forms"
        yield ("layout", "form"), layout.get("form"), message
    pattern = str(layout.get("case_pattern") or "(?P<case>)")
    if layout.get("adapter") == "tree" and not (pattern.startswith("(?P<case>") and pattern.endswith(")")):
        message = "the group case spans the pattern; what surrounds an id belongs in the templates"
        yield ("layout", "case_pattern"), pattern, message
    for index, form in enumerate(as_list(layout.get("form"))):
        for where, found, message in _faults_of_form(table(form), channels, groups, values):
            yield ("layout", "form", index, *where), found, message
    group = table(raw.get("patient")).get("group")
    if isinstance(group, str) and group != "case" and group not in groups:
        yield ("patient", "group"), group, f"allowed: a group of case_pattern ({', '.join(sorted(groups))})"


def _faults_of_form(form: Table, channels: set[str], groups: set[str], values: set[int]) -> Iterator[Fault]:
    known = groups | set(FREE_FIELDS)
    for where, template in _templates_of(form):
        try:
            fields = template_fields(template)
        except ValueError as error:
            yield where, template, str(error)
            continue
        if fields - known:
            yield where, template, f"placeholders are {', '.join(sorted(known))}; {_SHORT_FORMS}"
        elif where[0] == "images" and not fields & {"case", "subject"}:
            yield where, template, "the template of an image must name {case}, or {subject}"
    images = form.get("images")
    named = set(table(images))
    if named and channels and named != channels:
        message = f"must name each channel of [channels] order ({', '.join(sorted(channels))})"
        yield ("images",), sorted(named), message
    if isinstance(images, str) and len(channels) > 1:
        yield (
            ("images",),
            images,
            "several channels need {channel} in the template, or { channel = template }",
        )
    for value in table(form.get("structures")):
        if not value.isdecimal() or int(value) not in values - {0}:
            yield ("structures", value), value, "a structure is named by a declared foreground label value"
    if form.get("labels") and form.get("structures"):
        yield (), "labels and structures", "either a label map or masks"


_SHORT_FORMS = "{channel} is in one template of images, {structure} in one of structures"


def _templates_of(form: Table) -> Iterator[tuple[Where, str]]:
    """Every template of a form, with the key path where it stands."""
    for key, value in form.items():
        if key != "name" and isinstance(value, str):
            yield (key,), value
        for inner, template in table(value).items():
            if isinstance(template, str):
                yield (key, inner), template


def _faults_of_availability(raw: Table) -> Iterator[Fault]:
    availability = table(raw.get("availability"))
    kind = availability.get("kind")
    if availability.get("download") and kind != "public":
        yield ("availability", "download"), kind, 'only for kind = "public"'
    if (kind == "phantom") != (raw.get("phantom") is not None):
        yield ("phantom",), kind, 'a [phantom] table goes with availability kind "phantom", and only with it'
