"""Which cases are of one patient, as far as case ids tell: whole patients are drawn when ranks are
bootstrapped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from segbench.core.errors import SegbenchError
from segbench.report.block import Block


def patient_groups(block: Block, case_names: Mapping[str, str]) -> tuple[str, ...] | None:
    """The patient of each case of a block by the card's `case_pattern`, None where each case is a patient.

    Args:
        block: cases of one dataset.
        case_names: real case id by pseudonym, empty without pseudonyms.
    """
    from segbench.cards import load_dataset_card

    try:
        card = load_dataset_card(block.dataset)
    except SegbenchError:
        return None
    pattern, group = getattr(card.layout, "case_pattern", None), card.patient.group
    if not isinstance(pattern, str) or not isinstance(group, str) or group == "case":
        return None
    groups = _groups([case_names.get(case, case) for case in block.cases], pattern, group)
    return groups if groups is not None and len(set(groups)) < len(groups) else None


def _groups(cases: Sequence[str], pattern: str, group: str) -> tuple[str, ...] | None:
    """The named group of every case id, None when one does not match."""
    found: list[str] = []
    for case in cases:
        match = re.fullmatch(pattern, case)
        if match is None or match.groupdict().get(group) is None:
            return None
        found.append(str(match.groupdict()[group]))
    return tuple(found)
