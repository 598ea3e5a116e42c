"""Pictures inside the page: inline SVG without any outside name in it, PNG as data, and the scatter
of worst cases.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Sequence

from segbench.report.markup import escape_html

INLINE_UP_TO = 150_000  # bytes; a larger SVG is embedded as PNG


def embedded(svg: bytes, screen: bytes, *, name: str, alt: str) -> str:
    """A figure as HTML with its words: inline SVG, or the PNG for screens where there is one."""
    if not screen:
        return inline_svg(svg.decode("utf-8"), name=name, alt=alt)
    data = base64.b64encode(screen).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{escape_html(alt)}">'


def inline_svg(text: str, *, name: str, alt: str) -> str:
    """The `svg` element alone: no prologue, no name spaces, no metadata; ids made unique by the
    figure's name.
    """
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", body)
    body = body.replace("xlink:href=", "href=")
    body = re.sub(r'\b(?:d|x|y|width|height|points)="[^"]*"', _rounded, body)
    body = re.sub(r">\s+<", "><", body)
    body = re.sub(r"\s*\n\s*", " ", body)
    body = re.sub(r'<g id="[^"]*">', "<g>", body)  # nothing refers to a group
    prefix = re.sub(r"[^a-z0-9]+", "-", name.lower())
    body = re.sub(r'\bid="([^"]+)"', _numbered(prefix), body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', body)
    return body.replace("<svg", f'<svg role="img" aria-label="{escape_html(alt)}"', 1).strip()


_GLYPH = re.compile(r'<path id="([^"]*DejaVu[^"]*)" ((?:d="[^"]*" )?transform="[^"]*")/>')


def shared_glyphs(page: str) -> str:
    """The page with the outline of each letter once, in its first figure, for all of them to refer to.

    Every figure file brings its own letters along; in one page they are a fifth of all bytes.
    """
    numbers: dict[str, int] = {}
    of_id: dict[str, str] = {}
    for match in _GLYPH.finditer(page):
        of_id[match.group(1)] = f"glyph{numbers.setdefault(match.group(2), len(numbers))}"
    if not numbers:
        return page
    page = _GLYPH.sub("", page).replace("<defs></defs>", "")
    page = re.sub(r'href="#([^"]+)"', lambda match: f'href="#{of_id.get(match[1], match[1])}"', page)
    letters = "".join(f'<path id="glyph{number}" {outline}/>' for outline, number in numbers.items())
    first = page.index(">", page.index("<svg")) + 1
    return f"{page[:first]}<defs>{letters}</defs>{page[first:]}"


def _rounded(match: re.Match[str]) -> str:
    """Coordinates to a hundredth of a point, enough on a screen; scales of glyphs are not coordinates."""
    return re.sub(r"(\d\.\d{2})\d+", r"\1", match.group())


def _numbered(prefix: str) -> Callable[[re.Match[str]], str]:
    """Replaces ids by prefixed ones; one that comes again (equal pictures share an id) gets a number."""
    seen: dict[str, int] = {}

    def replace(match: re.Match[str]) -> str:
        name = f"{prefix}-{match.group(1)}"
        seen[name] = seen.get(name, 0) + 1
        return f'id="{name}"' if seen[name] == 1 else f'id="{name}-{seen[name]}"'

    return replace


def scatter(
    points: Sequence[tuple[float, float]],
    marked: Sequence[tuple[int, float, float, str]],
    *,
    x_label: str,
    y_label: str,
    target: str,
) -> str:
    """A scatter of score against volume (log x) in which every marked point links to its case.

    Args:
        points: (volume ml, printed score) of all cases; those without a volume above 0 are left out.
        marked: (number of the case on the page, volume, score, words).
        x_label: of the volume axis.
        y_label: of the score axis.
        target: what a link begins with, `#viewer=` or `#case-`.
    """
    usable = [(x, y) for x, y in points if x > 0 and math.isfinite(x) and math.isfinite(y)]
    shown = [item for item in marked if item[1] > 0 and math.isfinite(item[1]) and math.isfinite(item[2])]
    if len(usable) < 2 or not shown:
        return ""
    xs, ys = [math.log10(x) for x, _ in usable], [y for _, y in usable]
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    width, height, margin = 640.0, 300.0, 46.0

    def at(volume: float, score: float) -> tuple[float, float]:
        x = margin + (width - 2 * margin) * ((math.log10(volume) - left) / ((right - left) or 1.0))
        y = height - margin - (height - 1.6 * margin) * ((score - low) / ((high - low) or 1.0))
        return x, y

    words = f"Scatter of {y_label} against {x_label}; circles link to the worst cases"
    parts = [
        f'<svg role="img" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" '
        f'aria-label="{escape_html(words)}">'
    ]
    for x, y in usable:
        cx, cy = at(x, y)
        parts.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="1.6" fill="#888"/>')
    for number, x, y, words in shown:
        cx, cy = at(x, y)
        parts.append(
            f'<a href="{target}{number}"><circle cx="{cx:.1f}" cy="{cy:.1f}" r="6" fill="#D55E00" '
            f'fill-opacity="0.75"><title>{escape_html(words)}</title></circle></a>'
        )
    bottom = height - margin + 10
    parts.append(
        f'<path d="M{margin:g} {0.5 * margin:g}V{bottom:g}H{width - margin / 2:g}" fill="none" '
        f'stroke="#555"/><text x="{width / 2:g}" y="{height - 8:g}" text-anchor="middle" font-size="12">'
        f"{escape_html(x_label)}, {10**left:.3g} to {10**right:.3g}, log</text>"
        f'<text transform="translate(14 {height / 2:g}) rotate(-90)" text-anchor="middle" font-size="12">'
        f"{escape_html(y_label)}, {low:.3g} to {high:.3g}</text></svg>"
    )
    return "".join(parts)
