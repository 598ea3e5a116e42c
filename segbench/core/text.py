"""Foreign text made harmless: names from files and flags before they reach a table, a file or a terminal."""

from __future__ import annotations


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
