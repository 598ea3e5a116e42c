"""Names of models where there is little room: wrapped, then replaced by the slug, and never two the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence


def fitted(names: Mapping[str, str], *, length: int = 28, lines: int = 2) -> dict[str, str]:
    """A text for every model that fits into so many lines of so many characters; all of them differ.

    A name that fits is wrapped at spaces, commas, hyphens and underscores. One that does not gives way to
    its slug, and a slug that does not fit either is cut in the middle. Equal texts get a number.

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
    taken: dict[str, list[str]] = {}
    for slug, text in found.items():
        taken.setdefault(text, []).append(slug)
    for text, slugs in taken.items():
        for number, slug in enumerate(slugs if len(slugs) > 1 else (), start=1):
            found[slug] = f"{cut(text, length - 4)} ({number})"
    return found


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


def most_lines(texts: Mapping[str, str]) -> int:
    """Lines of the text with the most of them."""
    return max((text.count("\n") + 1 for text in texts.values()), default=1)
