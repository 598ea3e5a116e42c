"""Case ids become file names, on any system: what may be one, and the path it gives.

Ids come from foreign folders, tables and JSON files. One that is not plain could leave the folder of results,
hide a file, or name a device on Windows, where results of a cluster are opened later.
"""

from __future__ import annotations

import re
from pathlib import Path

from segbench.core.errors import SegbenchError

CASE_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"

_RESERVED = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
"""Names of devices on Windows, with any ending."""


def is_safe_case(text: str) -> bool:
    """Whether an id may be a file name: letters, digits, `.`, `_`, `-`; no `..`, no device of Windows."""
    return (
        re.fullmatch(CASE_PATTERN, text) is not None
        and ".." not in text
        and not text.endswith(".")
        and _RESERVED.fullmatch(text) is None
    )


def case_path(folder: Path, case: str, ending: str) -> Path:
    """The file of a case in a folder.

    Args:
        folder: where the file lies.
        case: its id.
        ending: what follows the id, such as `.nii.gz`.

    Raises:
        SegbenchError: SB339 for an id that is not safe, or a folder in which a link leads elsewhere.
    """
    if not is_safe_case(case):
        raise SegbenchError(
            "SB339",
            "a case has a name that may not be a file name",
            path=folder,
            expected="letters, digits, '.', '_', '-', at most 128",
            found=repr(case),
        )
    path = folder / f"{case}{ending}"
    if path.resolve().parent != folder.resolve():
        raise SegbenchError(
            "SB339", "the file of the case would lie outside its folder", path=path, case=case
        )
    return path
