"""Foreign text in one harmless line: names from files and flags before they reach a table or a terminal."""

from __future__ import annotations

import unicodedata


def one_line(text: str) -> str:
    """The text without control characters, line breaks and direction marks: it cannot leave its cell."""
    kept = (
        " " if unicodedata.category(character) in {"Cc", "Zl", "Zp"} else character
        for character in text
        if unicodedata.category(character) not in {"Cf", "Cs"}
    )
    return "".join(kept)
