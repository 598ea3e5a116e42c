"""What is wrong with a dataset: one thing said, with code, severity, place and mend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from segbench.core.catalogue import CATALOGUE
from segbench.core.errors import SegbenchError

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")

CHECKS: Mapping[str, str] = {
    "SB211": "non-finite image",
    "SB212": "label not integer",
    "SB302": "layout",
    "SB303": "missing file",
    "SB304": "orphan file",
    "SB305": "case count",
    "SB306": "id collision",
    "SB307": "shape differs",
    "SB308": "spacing differs",
    "SB309": "origin or direction differs",
    "SB310": "position in the header",
    "SB311": "no case at all",
    "SB313": "constant image",
    "SB314": "CT not in HU",
    "SB315": "label value outside the card",
    "SB317": "label stored as float, or scaled",
    "SB318": "label empty",
    "SB319": "class absent",
    "SB321": "same image content twice",
    "SB322": "same label content for two images",
    "SB323": "patient in two parts of the split",
    "SB324": "split ids",
    "SB325": "combined labels against masks",
    "SB326": "masks overlap",
    "SB327": "BraTS value 4",
    "SB328": "text that may identify a person",
    "SB329": "extreme geometry",
    "SB330": "pseudo-labels as reference",
    "SB331": "dataset.json invalid",
    "SB335": "split digest",
    "SB336": "unit not mm",
    "SB339": "unsafe id",
    "SB340": "mixed forms",
    "SB503": "worker killed",
}
"""Name of the check behind each code; the codes of files (SB201 to SB210) are all "file faults"."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that verification has to say.

    Attributes:
        code: a code of the catalogue.
        check: name of the check that found it.
        severity: `error`, `warning` or `info`.
        case: the case concerned, or None.
        file: the file concerned, relative to the dataset's root with forward slashes, or None.
        message: one line.
        expected: what was expected, or None.
        found: what was found, or None.
        mend: how to mend it.
    """

    code: str
    check: str
    severity: Severity
    case: str | None
    file: str | None
    message: str
    expected: str | None = None
    found: str | None = None
    mend: str | None = None

    @property
    def order(self) -> tuple[int, str, str, str, str]:
        """Place among the findings of a report: severity, code, case, file."""
        rank = SEVERITIES.index(self.severity)
        return rank, self.code, self.case or "", self.file or "", self.message


def finding(
    code: str,
    severity: Severity,
    message: str,
    *,
    case: str | None = None,
    file: str | None = None,
    expected: object = None,
    found: object = None,
    mend: str | None = None,
) -> Finding:
    """A finding; the name of the check and the usual mend come from the code."""
    return Finding(
        code=code,
        check=CHECKS.get(code, "file faults"),
        severity=severity,
        case=case,
        file=file,
        message=message,
        expected=None if expected is None else str(expected),
        found=None if found is None else str(found),
        mend=mend or CATALOGUE[code].mend,
    )


def finding_of(error: SegbenchError, *, message: str | None = None, file: str | None = None) -> Finding:
    """The finding that an error tells of, under another message where one is given."""
    return finding(
        error.code,
        "error",
        error.message if message is None else message,
        file=file,
        expected=error.expected,
        found=error.found,
        mend=error.mend,
    )
