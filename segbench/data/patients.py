"""Which cases are of one patient, read from their ids: as a regular expression says, or as they look."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from segbench.core.errors import SegbenchError

__all__ = ["case_pattern_of", "looks_grouped"]

_REST = r".*"
_FOLLOW_UP = re.compile(r"(?P<patient>.*\d.*?)[-_.][A-Za-z]{0,8}\d+")
"""An id that ends in a number of its own, such as patient001_02 or emb03_t120."""


def case_pattern_of(patient: str, case_ids: Sequence[str]) -> str:
    """The `case_pattern` of a card whose ids begin with what `patient` matches.

    Args:
        patient: A regular expression; its group `patient`, else its first group, else all that it matches.
        case_ids: The ids, each of which it must fit.

    Raises:
        SegbenchError: SB104 for what is no regular expression, or ids that it does not fit.
    """
    try:
        groups = re.compile(patient)
        named = "patient" in groups.groupindex
        if not named and groups.groups:  # the first group that counts gets the name
            patient = re.sub(r"(?<!\\)\((?!\?)", "(?P<patient>", patient, count=1)
        elif not named:
            patient = f"(?P<patient>{patient})"
        pattern = patient if "case" in groups.groupindex else f"(?P<case>{patient}{_REST})"
        found = {case: re.compile(pattern).fullmatch(case) for case in case_ids}
    except re.error as error:
        raise SegbenchError(
            "SB104", f"--patient is not a regular expression: {error}", found=patient
        ) from None
    unfit = [
        case
        for case, match in found.items()
        if match is None or not match["patient"] or match["case"] != case
    ]
    if unfit:
        raise SegbenchError(
            "SB104",
            f"--patient does not fit {len(unfit)} of {len(found)} case ids, such as {unfit[0]}",
            expected="a regular expression for the beginning of every id",
            found=patient,
            mend="for ids such as patient001_02: --patient 'patient[0-9]+'",
        )
    return pattern


def looks_grouped(case_ids: Sequence[str]) -> str | None:
    """A regular expression for patients where the ids look like several scans of several patients, else None.

    Ids such as patient001_01, patient001_02, patient002_01. It is a guess, to be shown and not to be used.
    """
    prefixes: Counter[str] = Counter()
    for case in case_ids:
        match = _FOLLOW_UP.fullmatch(case)
        prefixes[case if match is None else match["patient"]] += 1
    shared = [prefix for prefix, count in prefixes.items() if count > 1]
    if not shared or len(prefixes) < 2:
        return None
    shapes = {re.sub(r"[0-9]+", "[0-9]+", re.escape(prefix).replace(r"\-", "-")) for prefix in shared}
    return "|".join(sorted(shapes)) if len(shapes) <= 3 else None
