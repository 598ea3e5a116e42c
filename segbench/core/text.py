"""Foreign text made harmless: names from files and flags before they reach a table, a file or a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def printable(text: str) -> str:
    """Text with control characters and marks of direction shown escaped; line breaks and tabs stay."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else f"\\x{ord(character):02x}"
        for character in text
    )


def one_line(text: str) -> str:
    """A name of others for a table or amid other words: no line of it passes for one of ours."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def count(number: int, noun: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def some(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def bytes_words(number: int) -> str:
    """`5.2 MiB`: a number of bytes in the unit that fits."""
    for unit, scale in (("TiB", 1024**4), ("GiB", 1024**3), ("MiB", 1024**2)):
        if number >= scale:
            return f"{number / scale:,.1f} {unit}"
    return f"{number:,} bytes"
