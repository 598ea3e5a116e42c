"""Names of models where there is little room: wrapped, then replaced by the slug, and never two the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def fitted(names: Mapping[str, str], *, length: int = 28, lines: int = 2) -> dict[str, str]:
    """A text for every model that fits into so many lines of so many characters; all of them differ.

    A name that fits is wrapped at spaces, commas, hyphens and underscores. One that does not gives way to
    its slug, and a slug that does not fit either is cut in the middle. Equal texts show where their names
    differ, and get a number where that does not help.

    Args:
        names: display name by slug.
        length: characters in a line.
        lines: lines at most.
    """
    found: dict[str, str] = {}
    for slug, name in names.items():
        text = wrapped(name, length=length, lines=lines)
        if text is None:
            text = wrapped(slug, length=length, lines=lines)
        found[slug] = text if text is not None else cut(name, length)
    for text, slugs in _equal(found):
        start = _shared([names[slug] for slug in slugs])
        for slug in slugs:
            found[slug] = _from(names[slug], start, length) if start > length // 2 else text
    for text, slugs in _equal(found):
        for number, slug in enumerate(slugs, start=1):
            found[slug] = f"{cut(text, length - 4)} ({number})"
    return found


def _equal(texts: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Texts that stand for several models, with these."""
    taken: dict[str, list[str]] = {}
    for slug, text in texts.items():
        taken.setdefault(text, []).append(slug)
    return [(text, slugs) for text, slugs in taken.items() if len(slugs) > 1]


def _shared(names: Sequence[str]) -> int:
    """Characters at the beginning that all names have in common."""
    places = zip(*names, strict=False)
    return next((place for place, letters in enumerate(places) if len(set(letters)) > 1), 0)


def _from(name: str, start: int, length: int) -> str:
    """The part of a name from where it differs from its likes, to its end where there is room."""
    start = max(min(start, len(name) - length + 3), 0)
    part = name[start : start + length - 3]
    return f"...{part}" if start + len(part) == len(name) else f"...{part[:-3]}..."


def wrapped(name: str, *, length: int, lines: int) -> str | None:
    """The name in as few lines as it needs, of even length; None when it needs more than there are."""
    if len(name) <= length:
        return name
    words = re.findall(r"[^\s,_/-]*[\s,_/-]+|[^\s,_/-]+", name)
    for count in range(2, lines + 1):
        for width in range(-(-len(name) // count), length + 1):
            found = _filled(words, width)
            if len(found) <= count and all(len(line) <= width for line in found):
                return "\n".join(found)
    return None


def _filled(words: Sequence[str], width: int) -> list[str]:
    """Words put into lines of a width as long as they fit; a word that is longer has a line of its own."""
    found: list[str] = []
    line = ""
    for word in words:
        if line and len((line + word).rstrip()) > width:
            found.append(line.rstrip())
            line = ""
        line += word
    return [*found, line.rstrip()]


def cut(name: str, length: int) -> str:
    """A name cut in the middle when long, so that beginnings and ends stay readable."""
    if len(name) <= length:
        return name
    keep = (length - 3) // 2
    return f"{name[:keep]}...{name[-keep:]}"


def slant(texts: Iterable[str]) -> dict[str, Any]:
    """How names stand under an axis: upright where all are short, else slanted."""
    longest = max((len(line) for text in texts for line in text.split("\n")), default=0)
    return {} if longest <= 6 else {"rotation": 40, "ha": "right"}


def most_lines(texts: Mapping[str, str]) -> int:
    """Lines of the text with the most of them."""
    return max((text.count("\n") + 1 for text in texts.values()), default=1)
